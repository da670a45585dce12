"""Maps by t-SNE: as good as scikit-learn's exact method, whole for both tables, and taken up where one was killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_contract.embeddings import STANDARD
from numerai_contract.split import Split, write_split
from numerai_contract.tables import Table
from tests.images.conftest import Ended, Runner, inside, write_tables

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
FEW: dict[str, str] = {"ITERATIONS": "20"}

# the divergence and the neighbours kept of two maps, by scikit-learn's own definition: every pair of rows counts
JUDGE = """
import json, sys
import numpy as np
import pyarrow.parquet as pq
from scipy.spatial.distance import squareform
from sklearn.manifold import TSNE
from sklearn.manifold._t_sne import _joint_probabilities
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

tables = [pq.read_table(f"/data/{name}.parquet") for name in ("training", "tournament")]
names = [name for name in tables[0].column_names if name.startswith("feature")]
X = np.vstack([np.column_stack([table[name].to_numpy() for name in names]) for table in tables]).astype(np.float64)
X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
ours = pq.read_table("/data/tsne/perplexity_30.parquet")
ours = np.column_stack([ours[axis].to_numpy() for axis in "xy"])
exact = TSNE(perplexity=30, method="exact", random_state=0, max_iter=500).fit_transform(X)
P = np.maximum(_joint_probabilities(pairwise_distances(X, metric="sqeuclidean"), 30, 0), 1e-12)

def near(matrix):
    return NearestNeighbors(n_neighbors=15).fit(matrix).kneighbors(return_distance=False)

def judged(map_):
    Q = 1 / (1 + squareform(pairwise_distances(map_.astype(np.float64), metric="sqeuclidean"), checks=False))
    divergence = 2 * float(P @ np.log(P / (Q / (2 * Q.sum()))))
    common = [len(set(a) & set(b)) for a, b in zip(near(X), near(map_))]
    return {"divergence": divergence, "kept": float(np.mean(common)) / 15}

print(json.dumps({"ours": judged(ours), "exact": judged(exact)}))
"""


def made(ended: Ended) -> Ended:
    assert ended.code == 0, ended.lines
    assert ended.lines[-1].startswith("done in ")
    assert not list(ended.directory.rglob(".*"))
    return ended


def _map(directory: Path, name: str) -> pa.Table:
    return pq.read_table(directory / "tsne" / f"{name}.parquet")


def _ids(directory: Path) -> list[str]:
    tables = [pq.read_table(directory / f"{name}.parquet", columns=["id"]) for name in ("training", "tournament")]
    return [value for table in tables for value in table["id"].to_pylist()]


def _keep(directory: Path, training: int, tournament: int) -> None:
    """Cut the tables to rows spread evenly over them."""
    for name, wanted in (("training", training), ("tournament", tournament)):
        path = directory / f"{name}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.take(np.linspace(0, len(table) - 1, wanted).astype(int)), path)


def _clusters(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """50 features in a dozen overlapping clusters, the same in both tables."""
    centres = 0.12 * np.random.default_rng(3).standard_normal((12, 50))
    return (0.5 + centres[random.integers(0, 12, rows)] + 0.1 * random.standard_normal((rows, 50))).astype(np.float32)


def test_is_as_good_as_the_exact_method(runner: Runner) -> None:
    write_tables(runner.directory, _clusters)
    _keep(runner.directory, 1_500, 500)
    report = made(runner.run("tsne", {}, PERPLEXITIES="30")).report
    said = runner.engine.containers.run(
        runner.image,
        ["-c", JUDGE],
        entrypoint="python",
        environment={"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
        volumes={str(runner.directory): {"bind": "/data", "mode": "ro"}},
        network_mode="none",
        remove=True,
    )
    judged = json.loads(said.decode().splitlines()[-1])
    assert judged["ours"]["divergence"] <= 1.02 * judged["exact"]["divergence"], judged
    assert judged["ours"]["kept"] >= judged["exact"]["kept"] - 0.005, judged
    figures = report["chosen"]["maps"]["perplexity_30"]
    assert figures["kl_divergence"] == pytest.approx(judged["ours"]["divergence"], rel=0.05)
    assert figures["neighbours_kept"] == pytest.approx(judged["ours"]["kept"], abs=0.005)
    assert figures["space_dimensions"] == 50
    # enlarged once it has its form, a map of few iterations is nearly there; left to grow by itself, it is 8 % off
    hurried = made(runner.run("tsne", {}, PERPLEXITIES="30", ITERATIONS="100", INPUTS="hurried")).report
    assert hurried["chosen"]["maps"]["perplexity_30"]["kl_divergence"] < 1.05 * figures["kl_divergence"]


def test_neighbours_are_those_of_the_plainest_search(runner: Runner) -> None:
    found = inside(runner, "neighbours.py")
    for name, k in (("own", 40), ("others", 15)):
        assert found[name]["k"] == k
        # what 32 bits hold of squares, where two rows are one, and where they are a hundred apart
        assert found[name]["far"] < 0.02, found
        assert found[name]["apart"] < 0.02, found
        assert found[name]["once"]
    assert found["rising"]
    assert 0 < found["shares"][0] < 0.3
    assert found["shares"][1] == 1


def test_ten_maps_of_all_rows_the_same_way_twice(runner: Runner) -> None:
    write_tables(runner.directory)
    _keep(runner.directory, 300, 100)
    ended = made(runner.run("tsne", {}, INPUTS="a", **FEW))
    maps = runner.directory / "tsne"
    assert sorted(path.stem for path in maps.glob("*.parquet")) == sorted(map_.name for map_ in STANDARD)
    for embedding in STANDARD:
        table = _map(runner.directory, embedding.name)
        assert table["id"].to_pylist() == _ids(runner.directory)
        assert table.schema.field("x").type == pa.float32()
        assert np.std(table["x"].to_numpy()) > 0.1
        plot = (runner.directory / "plots" / f"tsne_{embedding.name}.png").read_bytes()
        assert plot.startswith(b"\x89PNG")
        assert len(plot) < 2_000_000
    figures = ended.report["chosen"]["maps"]
    assert figures["perplexity_05_polynomial"]["space_dimensions"] == 1_325
    assert {value["iterations"] for value in figures.values()} == {20}
    before = {path.name: path.read_bytes() for path in maps.glob("*.parquet")}
    # other inputs: everything is drawn again, and comes out the same
    again = made(runner.run("tsne", {}, INPUTS="b", **FEW))
    assert not any("taken as it is" in line for line in again.lines)
    assert {path.name: path.read_bytes() for path in maps.glob("*.parquet")} == before
    manifest = json.loads((maps / "perplexity_05.parquet.manifest.json").read_text())
    assert manifest["inputs"] == "b"
    made(runner.run("tsne", {}, INPUTS="c", SEED="1", PERPLEXITIES="5", **FEW))
    assert (maps / "perplexity_05.parquet").read_bytes() != before["perplexity_05.parquet"]


def test_takes_up_where_it_was_killed(runner: Runner) -> None:
    write_tables(runner.directory)
    container = runner.start("tsne", INPUTS="a", PERPLEXITIES="5,10")
    next(line for line in container.logs(stream=True) if line.startswith(b"saved perplexity_05:"))
    container.kill("SIGKILL")
    assert runner.ended(container, "tsne").code == 137
    manifest = runner.directory / "tsne" / "perplexity_05.parquet.manifest.json"
    finished = (manifest.stat().st_ino, manifest.stat().st_mtime_ns)
    assert not (runner.directory / "tsne" / "perplexity_10_polynomial.parquet").exists()
    # the same inputs, so that the finished map holds whatever the iterations of the others
    ended = runner.run("tsne", {}, INPUTS="a", PERPLEXITIES="5,10", **FEW)
    assert ended.code == 0, ended.lines
    assert "perplexity_05: finished before, taken as it is" in ended.lines
    assert not any("drawing perplexity_05 " in line for line in ended.lines)
    assert (manifest.stat().st_ino, manifest.stat().st_mtime_ns) == finished
    for name in ("perplexity_05", "perplexity_10", "perplexity_05_polynomial", "perplexity_10_polynomial"):
        assert _map(runner.directory, name)["id"].to_pylist() == _ids(runner.directory)
        assert (runner.directory / "plots" / f"tsne_{name}.png").is_file()


def test_places_rows_above_the_limit_among_their_nearest(runner: Runner) -> None:
    write_tables(runner.directory)
    path = runner.directory / "tournament.parquet"
    tournament, training = pq.read_table(path), pq.read_table(runner.directory / "training.parquet")
    # the first 1,000 rows once more in the tournament: placed by their distance, they lie on their twins
    for name in [name for name in training.column_names if name.startswith("feature")]:
        place = tournament.schema.get_field_index(name)
        tournament = tournament.set_column(place, name, training[name].slice(0, 1_000).combine_chunks())
    pq.write_table(tournament, path)
    ended = made(runner.run("tsne", {}, ROW_LIMIT="3000", PERPLEXITIES="30", **FEW))
    said = "embedding 3,000 of 4,000 rows, drawn evenly from all eras (ROW_LIMIT); the other 1,000 are placed"
    assert any(line.startswith(said) for line in ended.lines)
    assert any(note.startswith(said) for note in ended.report["notes"])
    assert ended.report["chosen"]["maps"]["perplexity_30"]["embedded_rows"] == 3_000
    table = _map(runner.directory, "perplexity_30")
    assert table["id"].to_pylist() == _ids(runner.directory)
    points = np.column_stack([table[axis].to_numpy() for axis in "xy"])
    assert np.isfinite(points).all()
    apart = np.linalg.norm(points[:1_000] - points[3_000:], axis=1)
    # twins lie on each other: where both are embedded, five pairs of eight, and where one was placed on the other; the
    # two placed in a pair of sixteen have the same neighbours
    assert np.mean(apart < 0.02 * points.std()) > 0.95


def test_takes_missing_and_constant_features_and_three_dimensions(runner: Runner) -> None:
    def spoil(matrix: NDArray[Any]) -> NDArray[Any]:
        spoilt = matrix.copy()
        spoilt[np.random.default_rng(1).random(matrix.shape) < 0.05] = np.nan
        spoilt[:, 10], spoilt[:, 11] = 0.5, np.nan
        return spoilt

    write_tables(runner.directory, spoil=spoil)
    _keep(runner.directory, 400, 100)
    ended = made(runner.run("tsne", {}, PERPLEXITIES="15", THREE_D="true", **FEW))
    for name, axes in (("perplexity_15", "xy"), ("perplexity_15_polynomial", "xy"), ("perplexity_30_3d", "xyz")):
        table = _map(runner.directory, name)
        assert table.column_names == ["id", *axes]
        points = np.column_stack([table[axis].to_numpy() for axis in axes])
        assert np.isfinite(points).all()
        assert (points.std(axis=0) > 0.01).all()
        # features with holes still tell which rows are near
        assert ended.report["chosen"]["maps"][name]["neighbours_kept"] > 0.1


def test_few_or_equal_rows_get_what_they_allow(runner: Runner) -> None:
    write_tables(runner.directory)
    _keep(runner.directory, 5, 2)
    ended = made(runner.run("tsne", {}, **FEW))
    assert "perplexity_50: 7 rows allow a perplexity of 2.0" in ended.lines
    assert ended.report["chosen"]["maps"]["perplexity_50"]["perplexity"] == 2
    write_tables(runner.directory, lambda _, rows: np.full((rows, 4), 0.5, dtype=np.float32))
    _keep(runner.directory, 150, 50)
    made(runner.run("tsne", {}, INPUTS="equal", PERPLEXITIES="5", **FEW))
    for name in ("perplexity_05", "perplexity_05_polynomial"):
        table = _map(runner.directory, name)
        assert len(table) == 200
        assert np.isfinite(table["x"].to_numpy()).all()
        assert np.isfinite(table["y"].to_numpy()).all()


def test_takes_products_of_the_most_informative_features(runner: Runner) -> None:
    write_tables(runner.directory)
    training = Table(runner.directory / "training.parquet")
    write_split(
        runner.directory,
        training.ids,
        Split(np.zeros(3_000, dtype=np.float32), np.arange(3_000) >= 1_500),
        None,
    )
    ended = made(runner.run("tsne", {}, PERPLEXITIES="5", POLYNOMIAL_FEATURES="4", **FEW))
    said = "products of the 4 features, of 50, that correlate most with the target"
    assert any(line.startswith(said) for line in ended.lines)
    assert ended.report["chosen"]["maps"]["perplexity_05_polynomial"]["space_dimensions"] == 14
    # the target leans on these four: what the others hold does not matter to the map, nor what they tell of the
    # validation part, whose targets nobody looks at
    before = _map(runner.directory, "perplexity_05_polynomial")
    path = runner.directory / "training.parquet"
    table = pq.read_table(path)
    for column in range(5, 51):
        noise = np.random.default_rng(column).random(len(table), dtype=np.float32)
        if column in range(11, 15):
            noise[1_500:] = table["target"].to_numpy()[1_500:]
        place = table.schema.get_field_index(f"feature{column}")
        table = table.set_column(place, f"feature{column}", pa.array(noise))
    pq.write_table(table, path)
    made(runner.run("tsne", {}, PERPLEXITIES="5", POLYNOMIAL_FEATURES="4", INPUTS="noise", **FEW))
    assert _map(runner.directory, "perplexity_05_polynomial").equals(before)


@pytest.mark.parametrize(
    ("environment", "last_line"),
    [
        ({"PERPLEXITIES": "5,5"}, "PERPLEXITIES is '5,5': allowed are different whole numbers from 1 to 999"),
        ({"PERPLEXITIES": "5,many"}, "PERPLEXITIES is '5,many': allowed are different whole numbers"),
        ({"THREE_D": "yes"}, "THREE_D is 'yes': allowed are false, true"),
        ({"ITERATIONS": "1"}, "ITERATIONS is '1': allowed is a whole number from 10"),
        ({"MEMORY_LIMIT": "700"}, "MEMORY_LIMIT is 700 MiB, and 4,000 rows in 50 dimensions need about "),
    ],
)
def test_mistakes_end_before_the_work(runner: Runner, environment: dict[str, str], last_line: str) -> None:
    write_tables(runner.directory)
    ended = runner.run("tsne", {}, **environment)
    assert ended.code == 64
    assert last_line in ended.lines[-1]
    assert not (runner.directory / "tsne").exists()
