"""t-SNE embeddings: as good as scikit-learn's exact method, complete for all tables, and resumed after a kill."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from docker.types import Mount

from numerai_contract.embeddings import STANDARD
from numerai_contract.split import Split, write_split
from numerai_contract.tables import Table
from tests.images.conftest import (
    THREE_TABLES,
    FinishedRun,
    Runner,
    change_columns,
    five_bins,
    run_program,
    with_missing_values,
    write_tables,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
FEW: dict[str, str] = {"ITERATIONS": "20"}

# divergence and preserved neighbours of two embeddings, by scikit-learn's definition, with every pair of rows
MEASURE = """
import json, sys
import numpy as np
import pyarrow.parquet as pq
from scipy.spatial.distance import squareform
from sklearn.manifold import TSNE
from sklearn.manifold._t_sne import _joint_probabilities
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

tables = [pq.read_table(f"/data/{name}.parquet") for name in ("training", "validation")]
names = [name for name in tables[0].column_names if name.startswith("feature")]
X = np.vstack([np.column_stack([table[name].to_numpy() for name in names]) for table in tables]).astype(np.float64)
X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
ours = pq.read_table("/data/model/tsne/perplexity_30.parquet")
ours = np.column_stack([ours[axis].to_numpy() for axis in "xy"])
exact = TSNE(perplexity=30, method="exact", random_state=0, max_iter=500).fit_transform(X)
P = np.maximum(_joint_probabilities(pairwise_distances(X, metric="sqeuclidean"), 30, 0), 1e-12)

def near(matrix):
    return NearestNeighbors(n_neighbors=15).fit(matrix).kneighbors(return_distance=False)

def measured(embedding):
    Q = 1 / (1 + squareform(pairwise_distances(embedding.astype(np.float64), metric="sqeuclidean"), checks=False))
    divergence = 2 * float(P @ np.log(P / (Q / (2 * Q.sum()))))
    common = [len(set(a) & set(b)) for a, b in zip(near(X), near(embedding))]
    return {"divergence": divergence, "preserved": float(np.mean(common)) / 15}

print(json.dumps({"ours": measured(ours), "exact": measured(exact)}))
"""

# the plans of several sizes: rows, features and MiB
PLANS = """
import json
from numerai_contract import operations
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Sizes

tsne = operations.load("tsne")
print(json.dumps([
    tsne.plan(Parameters({"MEMORY_LIMIT": memory} | more), Sizes(*sizes))
    for memory, sizes, more in (
        ("6144", (236_000, 118_000, 50), {}),
        ("6144", (2_750_000, 4_110_000, 42), {}),
        ("6144", (2_750_000, 4_110_000, 780), {}),
        ("6144", (2_750_000, 4_110_000, 3_555), {}),
        ("4096", (2_750_000, 4_110_000, 3_555), {}),
        ("6144", (2_750_000, 4_110_000, 42), {"ROW_LIMIT": "2000"}),
    )
]))
"""


def _run(runner: Runner, **environment: str) -> FinishedRun:
    """Run the operation; an unfinished fit is continued."""
    return runner.run("tsne", {}, **THREE_TABLES | environment)


def _run_new(runner: Runner, **environment: str) -> FinishedRun:
    """Run the operation in a new directory of the fit, and check its end."""
    shutil.rmtree(runner.directory / "model", ignore_errors=True)
    return _assert_written(_run(runner, **environment))


def _assert_written(finished: FinishedRun) -> FinishedRun:
    assert finished.code == 0, finished.lines
    assert finished.lines[-1].startswith("done in ")
    assert not list(finished.directory.rglob(".*"))
    return finished


def _read_embedding(directory: Path, name: str) -> pa.Table:
    return pq.read_table(directory / "model" / "tsne" / f"{name}.parquet")


def _read_placed(directory: Path, name: str) -> NDArray[np.float32]:
    """Read the coordinates of the rows to predict, and check their ids."""
    table = pq.read_table(directory / "live" / "tsne" / f"{name}.parquet")
    assert table["id"].to_pylist() == pq.read_table(directory / "live.parquet", columns=["id"])["id"].to_pylist()
    return np.column_stack([table[axis].to_numpy() for axis in table.column_names[1:]])


def _ids(directory: Path) -> list[str]:
    tables = [pq.read_table(directory / f"{name}.parquet", columns=["id"]) for name in ("training", "validation")]
    return [value for table in tables for value in table["id"].to_pylist()]


def _reduce(directory: Path, training: int, validation: int) -> None:
    """Reduce the tables to some of their rows, at equal distances."""
    for name, count in (("training", training), ("validation", validation)):
        path = directory / f"{name}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.take(np.linspace(0, len(table) - 1, count).astype(int)), path)


def _clusters(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """50 features in a dozen overlapping clusters, the same in both tables."""
    centres = 0.12 * np.random.default_rng(3).standard_normal((12, 50))
    return (0.5 + centres[random.integers(0, 12, rows)] + 0.1 * random.standard_normal((rows, 50))).astype(np.float32)


def test_tsne_quality_equals_the_exact_method(runner: Runner) -> None:
    write_tables(runner.directory, _clusters)
    _reduce(runner.directory, 1_500, 500)
    report = _run_new(runner, PERPLEXITIES="30").report
    output = runner.engine.containers.run(
        runner.image,
        ["-c", MEASURE],
        entrypoint="python",
        environment={"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
        volumes={str(runner.directory): {"bind": "/data", "mode": "ro"}},
        network_mode="none",
        remove=True,
    )
    measured = json.loads(output.decode().splitlines()[-1])
    assert measured["ours"]["divergence"] <= 1.02 * measured["exact"]["divergence"], measured
    assert measured["ours"]["preserved"] >= measured["exact"]["preserved"] - 0.005, measured
    figures = report["chosen"]["embeddings"]["perplexity_30"]
    assert figures["kl_divergence"] == pytest.approx(measured["ours"]["divergence"], rel=0.05)
    assert figures["neighbours_preserved"] == pytest.approx(measured["ours"]["preserved"], abs=0.005)
    assert figures["space_dimensions"] == 50
    # with its direct scaling, an embedding of few iterations is nearly as good; without it, it is 8 % worse
    short = _run_new(runner, PERPLEXITIES="30", ITERATIONS="100", INPUTS="short").report
    assert short["chosen"]["embeddings"]["perplexity_30"]["kl_divergence"] < 1.05 * figures["kl_divergence"]


def test_nearest_neighbors_equal_a_full_search(runner: Runner) -> None:
    found = run_program(runner, "neighbours.py")
    for name, k in (("own", 40), ("others", 15)):
        assert found[name]["k"] == k
        # the precision of squares in 32 bits, for equal rows and for rows at a distance of a hundred
        assert found[name]["index_error"] < 0.02, found
        assert found[name]["unique"]
    assert found["own"]["distance_error"] < 0.02, found
    # nearly all of the 15 nearest have a weight
    assert found["others"]["perplexities"] == pytest.approx([14, 14], rel=0.01)
    assert found["increasing"]
    assert 0 < found["shares"][0] < 0.7
    assert found["shares"][1] == 1


def test_tsne_placed_rows_keep_their_neighbours_and_the_spread(runner: Runner) -> None:
    found = run_program(runner, "placement.py")
    assert found["recall"] >= 0.9, found
    assert found["placed"]["kept"] >= 0.8 * found["embedded"]["kept"], found
    assert found["placed"]["spread"] == pytest.approx(1, abs=0.1)
    # the test is not trivial: the mean of the same neighbours has neither
    assert found["mean"]["kept"] < 0.5 * found["embedded"]["kept"], found
    assert found["mean"]["spread"] < 0.9


def test_tsne_plan_embeds_what_time_and_memory_allow(runner: Runner) -> None:
    output = runner.engine.containers.run(
        runner.image, ["-c", PLANS], entrypoint="python", network_mode="none", remove=True
    )
    whole, real, medium, everything, little, limited = json.loads(output.decode().splitlines()[-1])
    # a table of 2018 is embedded whole
    assert whole[:2] == [354_000, 50]
    for rows, features, memory in (real, medium, everything):
        assert 100_000 <= rows < 400_000
        assert features >= 42
        assert memory <= 6_144
    assert medium[1] == 780
    # more features take time, so that fewer rows are embedded
    assert real[0] > medium[0] >= everything[0]
    # too little memory for all features: fewer features rather than fewer rows
    assert little[0] >= 50_000
    assert little[1] < 3_555
    assert little[2] <= 4_096
    assert limited[0] == 2_000


def test_tsne_ten_embeddings_are_complete_and_reproducible(runner: Runner) -> None:
    write_tables(runner.directory)
    _reduce(runner.directory, 300, 100)
    finished = _run_new(runner, INPUTS="a", **FEW)
    folder = runner.directory / "model" / "tsne"
    assert sorted(path.stem for path in folder.glob("*.parquet")) == sorted(embedding.name for embedding in STANDARD)
    for embedding in STANDARD:
        table = _read_embedding(runner.directory, embedding.name)
        assert table["id"].to_pylist() == _ids(runner.directory)
        assert table.schema.field("x").type == pa.float32()
        assert np.std(table["x"].to_numpy()) > 0.1
        plot = (runner.directory / "model" / "plots" / f"tsne_{embedding.name}.png").read_bytes()
        assert plot.startswith(b"\x89PNG")
        assert len(plot) < 2_000_000
    figures = finished.report["chosen"]["embeddings"]
    assert figures["perplexity_05_polynomial"]["space_dimensions"] == 1_325
    assert {value["iterations"] for value in figures.values()} == {20}
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    # other inputs: everything is computed again, with the same result
    again = _run_new(runner, INPUTS="b", **FEW)
    assert not any("reused" in line for line in again.lines)
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == before
    manifest = json.loads((folder / "perplexity_05.parquet.manifest.json").read_text())
    assert manifest["inputs"] == "b"
    _run_new(runner, INPUTS="c", SEED="1", PERPLEXITIES="5", **FEW)
    assert (folder / "perplexity_05.parquet").read_bytes() != before["perplexity_05.parquet"]


def test_tsne_killed_run_is_resumed(runner: Runner) -> None:
    write_tables(runner.directory)
    container = runner.start("tsne", {}, **THREE_TABLES, INPUTS="a", PERPLEXITIES="5,10")
    next(line for line in container.logs(stream=True) if line.startswith(b"saved perplexity_05:"))
    container.kill("SIGKILL")
    assert runner.wait(container, "tsne").code == 137
    manifest = runner.directory / "model" / "tsne" / "perplexity_05.parquet.manifest.json"
    identity = (manifest.stat().st_ino, manifest.stat().st_mtime_ns)
    assert not (runner.directory / "model" / "tsne" / "perplexity_10_polynomial.parquet").exists()
    # the same inputs, so that the finished embedding is valid for any iterations of the others
    finished = _run(runner, INPUTS="a", PERPLEXITIES="5,10", **FEW)
    assert finished.code == 0, finished.lines
    assert "perplexity_05: already finished, reused" in finished.lines
    assert not any("computing perplexity_05 " in line for line in finished.lines)
    assert (manifest.stat().st_ino, manifest.stat().st_mtime_ns) == identity
    for name in ("perplexity_05", "perplexity_10", "perplexity_05_polynomial", "perplexity_10_polynomial"):
        assert _read_embedding(runner.directory, name)["id"].to_pylist() == _ids(runner.directory)
        assert (runner.directory / "model" / "plots" / f"tsne_{name}.png").is_file()
        # the rows to predict are placed in the embedding of the earlier attempt, too
        assert len(_read_placed(runner.directory, name)) == 200


def _write_split(directory: Path) -> None:
    """Write a split with the second half of the training rows as its validation part."""
    training = Table(directory / "training.parquet")
    write_split(directory, training.ids, Split(np.zeros(3_000, dtype=np.float32), np.arange(3_000) >= 1_500), None)


def _repeat_training(path: Path, start: int) -> None:
    """Replace the features of a table by those of training rows."""
    table, training = pq.read_table(path), pq.read_table(path.with_name("training.parquet"))
    names = [name for name in training.column_names if name.startswith("feature")]
    change_columns(path, **{name: training[name].slice(start, len(table)).combine_chunks() for name in names})


def test_tsne_finished_fit_places_the_same_bytes(runner: Runner) -> None:
    write_tables(runner.directory, five_bins)
    _write_split(runner.directory)
    _run_new(runner, ROW_LIMIT="2000", PERPLEXITIES="5,30", POLYNOMIAL_FEATURES="6", **FEW)
    placed = runner.directory / "live" / "tsne"
    before = {path.name: path.read_bytes() for path in placed.iterdir()}
    assert len(before) == 8
    # neither table of the fit, a directory that cannot be written to, other threads
    for name in ("training", "validation"):
        (runner.directory / f"{name}.parquet").unlink()
    shutil.rmtree(placed)
    mounts = [
        Mount("/data", str(runner.directory), type="bind"),
        Mount("/data/model", str(runner.directory / "model"), type="bind", read_only=True),
    ]
    again = runner.run("tsne", {"mounts": mounts}, **THREE_TABLES | {"TRAINING": "", "VALIDATION": "", "THREADS": "2"})
    assert _assert_written(again).report["rows"] == {"testing": 200}
    assert {path.name: path.read_bytes() for path in placed.iterdir()} == before


def test_tsne_rows_above_the_limit_are_placed_among_nearest(runner: Runner) -> None:
    write_tables(runner.directory)
    # the other tables repeat rows of the first: by their distance they get the coordinates of their twins
    _repeat_training(runner.directory / "validation.parquet", 0)
    _repeat_training(runner.directory / "live.parquet", 1_000)
    finished = _run_new(runner, ROW_LIMIT="3000", PERPLEXITIES="30", **FEW)
    note = "embedding 3,000 of 3,800 rows, drawn evenly from all eras (ROW_LIMIT); the other 800 are placed"
    assert any(line.startswith(note) for line in finished.lines)
    assert any(line.startswith(note) for line in finished.report["notes"])
    assert finished.report["chosen"]["embeddings"]["perplexity_30"]["embedded_rows"] == 3_000
    table = _read_embedding(runner.directory, "perplexity_30")
    assert table["id"].to_pylist() == _ids(runner.directory)
    points = np.column_stack([table[axis].to_numpy() for axis in "xy"])
    assert np.isfinite(points).all()
    near = 0.02 * points.std()
    # twins have equal coordinates: both embedded in five pairs of eight, or one placed at the other; both are placed in
    # one pair of sixteen, with the same neighbours
    assert np.mean(np.linalg.norm(points[:800] - points[3_000:], axis=1) < near) > 0.95
    # a row to predict is placed at its twin, whether that is embedded or was placed itself
    placed = _read_placed(runner.directory, "perplexity_30")
    assert (np.linalg.norm(points[1_000:1_200] - placed, axis=1) < near).all()


def test_tsne_missing_features_and_three_dimensions_are_accepted(runner: Runner) -> None:
    write_tables(runner.directory, modify=with_missing_values)
    _reduce(runner.directory, 400, 100)
    finished = _run_new(runner, PERPLEXITIES="15", THREE_D="true", **FEW)
    for name, axes in (("perplexity_15", "xy"), ("perplexity_15_polynomial", "xy"), ("perplexity_30_3d", "xyz")):
        table = _read_embedding(runner.directory, name)
        assert table.column_names == ["id", *axes]
        points = np.column_stack([table[axis].to_numpy() for axis in axes])
        assert np.isfinite(points).all()
        assert (points.std(axis=0) > 0.01).all()
        # neighbours are preserved with missing values as well
        assert finished.report["chosen"]["embeddings"][name]["neighbours_preserved"] > 0.1


def test_tsne_few_or_equal_rows_are_accepted(runner: Runner) -> None:
    write_tables(runner.directory)
    _reduce(runner.directory, 5, 2)
    finished = _run_new(runner, **FEW)
    assert "perplexity_50: 7 rows allow a perplexity of 2.0" in finished.lines
    assert finished.report["chosen"]["embeddings"]["perplexity_50"]["perplexity"] == 2
    write_tables(runner.directory, lambda _, rows: np.full((rows, 4), 0.5, dtype=np.float32))
    _reduce(runner.directory, 150, 50)
    _run_new(runner, INPUTS="equal", PERPLEXITIES="5", **FEW)
    for name in ("perplexity_05", "perplexity_05_polynomial"):
        table = _read_embedding(runner.directory, name)
        assert len(table) == 200
        assert np.isfinite(table["x"].to_numpy()).all()
        assert np.isfinite(table["y"].to_numpy()).all()


def test_tsne_products_use_the_most_informative_features(runner: Runner) -> None:
    write_tables(runner.directory)
    _write_split(runner.directory)
    finished = _run_new(runner, PERPLEXITIES="5", POLYNOMIAL_FEATURES="4", **FEW)
    note = "products of the 4 features, of 50, that correlate most with the target"
    assert any(line.startswith(note) for line in finished.lines)
    assert finished.report["chosen"]["embeddings"]["perplexity_05_polynomial"]["space_dimensions"] == 14
    # the target depends on these four: the values of the others do not affect the embedding, not even a dependence in
    # the validation part, whose targets are not used
    before = _read_embedding(runner.directory, "perplexity_05_polynomial")
    path = runner.directory / "training.parquet"
    table = pq.read_table(path)
    columns: dict[str, Any] = {}
    for column in range(5, 51):
        noise = np.random.default_rng(column).random(len(table), dtype=np.float32)
        if column in range(11, 15):
            noise[1_500:] = table["target"].to_numpy()[1_500:]
        columns[f"feature{column}"] = noise
    change_columns(path, **columns)
    _run_new(runner, PERPLEXITIES="5", POLYNOMIAL_FEATURES="4", INPUTS="noise", **FEW)
    assert _read_embedding(runner.directory, "perplexity_05_polynomial").equals(before)


@pytest.mark.parametrize(
    ("environment", "last_line"),
    [
        ({"PERPLEXITIES": "5,5"}, "PERPLEXITIES is '5,5': allowed are different whole numbers from 1 to 999"),
        ({"PERPLEXITIES": "5,many"}, "PERPLEXITIES is '5,many': allowed are different whole numbers"),
        ({"THREE_D": "yes"}, "THREE_D is 'yes': allowed are false, true"),
        ({"ITERATIONS": "1"}, "ITERATIONS is '1': allowed is a whole number from 10"),
        ({"MEMORY_LIMIT": "700"}, "MEMORY_LIMIT is 700 MiB, and 3,800 rows of 50 features need about "),
    ],
)
def test_tsne_invalid_parameter_fails_before_the_work(
    runner: Runner, environment: dict[str, str], last_line: str
) -> None:
    write_tables(runner.directory)
    finished = _run(runner, **environment)
    assert finished.code == 64
    assert last_line in finished.lines[-1]
    assert not (runner.directory / "model" / "tsne").exists()
