"""The inputs of models on a split: the split, the embeddings, and the split tables."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_contract import outputs, self_test, targets
from numerai_contract.embeddings import LIVE, STANDARD, Embedding, read_embedding, write_embedding
from numerai_contract.exits import BadDataError, BadParameterError, MissingInputError
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Plan
from numerai_contract.progress import Progress
from numerai_contract.split import Split, read_split, write_split
from numerai_contract.split_tables import SplitTables
from numerai_contract.tables import Table
from numerai_contract.task import Task, TrainingSummary

Columns = dict[str, Any]
Writer = Callable[..., Path]

SIMILARITY = np.linspace(0.2, 0.8, 12, dtype=np.float32)
VALIDATION = np.arange(12) >= 9
EMBEDDING = Embedding(30)


@pytest.fixture
def training(write: Writer, columns: Columns) -> Table:
    return Table(write(columns))


@pytest.fixture
def live(write: Writer, columns: Columns) -> Table:
    return Table(write(columns | {"id": [f"t{row}" for row in range(12)]}, "live.parquet"))


def _shuffled(table: Table) -> tuple[pa.ChunkedArray, Any]:
    order = np.random.default_rng(3).permutation(len(table))
    return table.ids.take(pa.array(order)), order


def test_read_split_other_row_order_is_aligned(training: Table, tmp_path: Path) -> None:
    ids, order = _shuffled(training)
    path = write_split(tmp_path, ids, Split(SIMILARITY[order], VALIDATION[order]), "0f3a")
    assert pq.read_schema(path).names == ["id", "similarity", "split"]
    assert set(pq.read_table(path)["split"].to_pylist()) == {"train", "validation"}
    assert json.loads(outputs.manifest_path(path).read_text())["inputs"] == "0f3a"
    split = read_split(tmp_path, training)
    assert split.similarity.tolist() == SIMILARITY.tolist()
    assert split.validation.tolist() == VALIDATION.tolist()


def test_read_embedding_either_table_is_aligned(training: Table, live: Table, tmp_path: Path) -> None:
    coordinates = np.random.default_rng(1).normal(size=(24, 2)).astype(np.float32)
    ids = pa.chunked_array([*training.ids.chunks, *live.ids.chunks])
    order = np.random.default_rng(3).permutation(24)
    write_embedding(tmp_path, EMBEDDING, ids.take(pa.array(order)), coordinates[order], None)
    assert read_embedding(tmp_path, EMBEDDING, training).tolist() == coordinates[:12].tolist()
    assert read_embedding(tmp_path, EMBEDDING, live).tolist() == coordinates[12:].tolist()


@pytest.mark.parametrize(
    ("name", "embedding"),
    [
        ("perplexity_05", Embedding(5)),
        ("perplexity_50_polynomial", Embedding(50, polynomial=True)),
        ("perplexity_30_3d", Embedding(30, dimensions=3)),
        ("perplexity_100_polynomial_3d", Embedding(100, polynomial=True, dimensions=3)),
    ],
)
def test_embedding_name_encodes_its_parameters(name: str, embedding: Embedding) -> None:
    assert embedding.name == name
    assert Embedding.parse(name) == embedding
    assert Embedding.parse(f"{name}_more") is None
    assert embedding.path(Path("/data")) == Path(f"/data/tsne/{name}.parquet")


def test_embedding_standard_has_ten_names() -> None:
    assert len({embedding.name for embedding in STANDARD}) == 10


def test_embedding_three_dimensions_has_a_z_column(training: Table, tmp_path: Path) -> None:
    coordinates = np.arange(36, dtype=np.float32).reshape(12, 3)
    embedding = Embedding(30, dimensions=3)
    path = write_embedding(tmp_path, embedding, training.ids, coordinates, None)
    assert pq.read_schema(path).names == ["id", "x", "y", "z"]
    assert read_embedding(tmp_path, embedding, training).tolist() == coordinates.tolist()


def test_read_split_absent_or_incomplete_raises_missing_input(training: Table, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="Clear the task `adversarial_validation`"):
        read_split(tmp_path, training)
    path = write_split(tmp_path, training.ids, Split(SIMILARITY, VALIDATION), None)
    outputs.manifest_path(path).unlink()
    with pytest.raises(MissingInputError, match="is incomplete"):
        read_split(tmp_path, training)


def test_read_embedding_changed_file_raises_bad_data(training: Table, tmp_path: Path) -> None:
    path = write_embedding(tmp_path, EMBEDDING, training.ids, np.zeros((12, 2), dtype=np.float32), None)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadDataError, match=r"perplexity_30\.parquet: its content differs .* Clear the task `tsne`"):
        read_embedding(tmp_path, EMBEDDING, training)


def test_read_embedding_missing_row_is_named(training: Table, live: Table, tmp_path: Path) -> None:
    write_embedding(tmp_path, EMBEDDING, training.ids, np.zeros((12, 2), dtype=np.float32), None)
    with pytest.raises(BadDataError, match=r"12 of the 12 rows of live\.parquet .* row 1 \(id t0\)"):
        read_embedding(tmp_path, EMBEDDING, live)
    partial = write_embedding(tmp_path, EMBEDDING, training.ids.slice(0, 7), np.zeros((7, 2), dtype=np.float32), None)
    with pytest.raises(BadDataError, match=rf"{partial.name}: 5 of the 12 rows .* row 8 \(id n7\)"):
        read_embedding(tmp_path, EMBEDDING, training)


def test_read_embedding_nan_coordinate_raises_bad_data(training: Table, tmp_path: Path) -> None:
    coordinates = np.zeros((12, 2), dtype=np.float32)
    coordinates[4, 1] = np.nan
    write_embedding(tmp_path, EMBEDDING, training.ids, coordinates, None)
    with pytest.raises(BadDataError, match="column 'y' is empty in some rows"):
        read_embedding(tmp_path, EMBEDDING, training)


def test_read_split_rows_of_the_embargo_are_in_neither_part(training: Table, tmp_path: Path) -> None:
    embargo = ~VALIDATION & (np.arange(len(VALIDATION)) % 2 == 0)
    path = write_split(tmp_path, training.ids, Split(SIMILARITY, VALIDATION, embargo), None)
    assert pq.read_table(path)["split"].to_pylist().count("embargo") == embargo.sum() > 0
    split = read_split(tmp_path, training)
    assert split.validation.tolist() == VALIDATION.tolist()
    assert split.training.tolist() == (~VALIDATION & ~embargo).tolist()
    write_split(tmp_path, training.ids, Split(SIMILARITY, VALIDATION, ~VALIDATION), None)
    with pytest.raises(BadDataError, match="is in the part 'train'"):
        read_split(tmp_path, training)


def test_split_tables_leave_out_the_rows_of_the_embargo(write: Writer, columns: Columns, tmp_path: Path) -> None:
    table = Table(write(columns))
    validation, embargo = (np.isin(np.arange(len(table)), rows) for rows in ([0, 1], [2, 3]))
    write_split(tmp_path, table.ids, Split(np.zeros(len(table), dtype=np.float32), validation, embargo), None)
    environment = {"OPERATION": "any", "TRAINING": str(table.path), "STORING": str(tmp_path)}
    tables = SplitTables(Task(Parameters(environment)), targets.classes(table), embeddings=())
    assert np.flatnonzero(tables.validation).tolist() == [0, 1]
    assert np.flatnonzero(tables.training).tolist() == [*range(4, len(table))]


@pytest.mark.parametrize(("validation", "part"), [(VALIDATION | True, "train"), (VALIDATION & False, "validation")])
def test_read_split_empty_part_raises_bad_data(training: Table, tmp_path: Path, validation: Any, part: str) -> None:
    write_split(tmp_path, training.ids, Split(SIMILARITY, validation), None)
    with pytest.raises(BadDataError, match=rf"no row of training\.parquet is in the part '{part}'"):
        read_split(tmp_path, training)


@pytest.mark.parametrize(
    ("inputs", "finished"),
    [("0f3a", True), ("another", False), (None, False)],
)
def test_is_finished_other_inputs_or_changed_file_is_false(
    training: Table, tmp_path: Path, inputs: str | None, finished: bool
) -> None:
    path = write_split(tmp_path, training.ids, Split(SIMILARITY, VALIDATION), "0f3a")
    assert outputs.is_finished(path, inputs) is finished
    path.write_bytes(path.read_bytes()[:-1])
    assert not outputs.is_finished(path, "0f3a")
    outputs.manifest_path(path).write_text("[]")
    assert not outputs.is_finished(path, "0f3a")
    outputs.manifest_path(path).unlink()
    assert not outputs.is_finished(path, "0f3a")


def _task(tmp_path: Path, **more: str) -> tuple[Task, io.StringIO]:
    log = io.StringIO()
    environment = {
        "OPERATION": "logistic_regression",
        "TRAINING": str(tmp_path / "training.parquet"),
        "TESTING": str(tmp_path / "live.parquet"),
        "STORING": str(tmp_path),
        "REPORTING": str(tmp_path / "report.json"),
    }
    return Task(Parameters(environment | more), Progress(log)), log


@pytest.fixture
def validation(write: Writer, columns: Columns) -> Table:
    return Table(write(columns | {"id": [f"v{row}" for row in range(12)]}, "validation.parquet"))


@pytest.fixture
def fixture_inputs(training: Table, validation: Table, live: Table, tmp_path: Path) -> None:
    self_test.write_fixture_inputs(tmp_path)
    write_split(tmp_path, training.ids, Split(SIMILARITY, VALIDATION), None)


def _split_tables(task: Task, row_limit: int = 1_000) -> SplitTables:
    labeled = targets.classes(task.training)
    return SplitTables(task, labeled, embeddings=[Embedding(5), Embedding(50, polynomial=True)], row_limit=row_limit)


@pytest.mark.usefixtures("fixture_inputs")
def test_split_tables_features_include_the_embeddings(training: Table, live: Table, tmp_path: Path) -> None:
    task, log = _task(tmp_path)
    tables = _split_tables(task)
    names = ("perplexity_05_x", "perplexity_05_y", "perplexity_50_polynomial_x", "perplexity_50_polynomial_y")
    assert tables.feature_names == (*training.feature_names, *names)
    assert tables.validation.tolist() == VALIDATION.tolist()
    assert tables.training.tolist() == (~VALIDATION).tolist()
    assert tables.training_labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert tables.validation_labels.tolist() == [1, 0, 1]
    coordinates = [read_embedding(tmp_path, embedding, training) for embedding in tables.source.embeddings]
    whole = np.hstack([training.features(), *coordinates])
    assert tables.training_features().dtype == np.float32
    assert tables.training_features().tolist() == whole[~VALIDATION].tolist()
    assert tables.validation_features().tolist() == whole[VALIDATION].tolist()
    # the rows to predict were placed in the embeddings by another file
    coordinates = [read_embedding(tmp_path / LIVE, embedding, live) for embedding in tables.source.embeddings]
    ((positions, block),) = tables.source.batches(task.testing)
    assert positions.tolist() == list(range(12))
    assert block.tolist() == np.hstack([live.features(), *coordinates]).tolist()
    assert "9 training rows, 3 validation rows; embeddings as features: perplexity_05, perp" in log.getvalue()


@pytest.mark.usefixtures("fixture_inputs")
def test_split_tables_score_uses_the_validation_part(tmp_path: Path) -> None:
    tables = _split_tables(_task(tmp_path)[0])
    scores = tables.score(np.array([0.5, 0.5, 0.5]))
    assert scores is not None
    assert (scores.rows, scores.eras) == (3, 1)
    assert scores.logloss == pytest.approx(np.log(2))


@pytest.mark.usefixtures("fixture_inputs")
def test_split_tables_validation_part_has_the_rows_at_one_half(write: Writer, columns: Columns, tmp_path: Path) -> None:
    """A classifier learns from none of them, and is scored on them as a regressor is."""
    values = np.resize(np.array([0, 0.5, 1, 0.5, 0.25, np.nan], dtype=np.float32), 12)
    table = Table(write(columns | {"target": values}))
    by_kind = [
        SplitTables(_task(tmp_path, EMBEDDINGS="none")[0], labeled, embeddings=())
        for labeled in (targets.classes(table), targets.values(table))
    ]
    for tables in by_kind:
        assert tables.validation.tolist() == (VALIDATION & ~np.isnan(values)).tolist()
        assert tables.validation_labels.tolist() == values[tables.validation].tolist()
        assert 0.5 in tables.validation_labels
    of_classes, of_values = (tables.training for tables in by_kind)
    assert of_classes.tolist() == (of_values & (values != 0.5)).tolist()
    predictions = np.linspace(0.4, 0.6, by_kind[0].validation.sum())
    assert by_kind[0].score(predictions) == by_kind[1].score(predictions)


@pytest.mark.usefixtures("fixture_inputs")
def test_split_tables_validation_part_at_one_half_only_raises_bad_data(
    write: Writer, columns: Columns, tmp_path: Path
) -> None:
    values = np.where(VALIDATION, 0.5, columns["target"]).astype(np.float32)
    table = Table(write(columns | {"target": values}))
    with pytest.raises(BadDataError, match="no target is known among the rows of the split's validation part"):
        SplitTables(_task(tmp_path)[0], targets.classes(table), embeddings=())
    assert SplitTables(_task(tmp_path, EMBEDDINGS="none")[0], targets.values(table), embeddings=()).validation.any()


@pytest.mark.usefixtures("fixture_inputs")
def test_split_tables_embeddings_variable_selects_embeddings(training: Table, tmp_path: Path) -> None:
    assert _split_tables(_task(tmp_path, EMBEDDINGS="none")[0]).feature_names == training.feature_names
    selected = _split_tables(_task(tmp_path, EMBEDDINGS="perplexity_15, perplexity_10")[0])
    assert [embedding.perplexity for embedding in selected.source.embeddings] == [15, 10]
    for invalid in ("perplexity", "perplexity_05,perplexity_05"):
        with pytest.raises(BadParameterError, match=f"EMBEDDINGS is '{invalid}': allowed are none, or different names"):
            _split_tables(_task(tmp_path, EMBEDDINGS=invalid)[0])


@pytest.mark.usefixtures("fixture_inputs")
def test_split_tables_above_the_row_limit_samples(write: Writer, columns: Columns, tmp_path: Path) -> None:
    rows = 1_000
    repeated = {name: np.resize(values, rows) for name, values in columns.items()}
    table = Table(write(repeated | {"id": [f"n{row}" for row in range(rows)]}))
    similarity = np.linspace(0, 1, rows, dtype=np.float32)
    write_split(tmp_path, table.ids, Split(similarity, similarity >= 0.7), None)
    task, log = _task(tmp_path, EMBEDDINGS="none")
    tables = _split_tables(task, row_limit=400)
    assert tables.training.sum() == len(tables.training_labels) == 400
    assert not (tables.training & (similarity >= 0.7)).any()
    assert tables.validation.sum() == 300
    assert tables.training_labels.sum() == 200
    assert table.targets[tables.training].tolist() == tables.training_labels.tolist()
    assert "using 400 of the 700 rows of the split's training part" in log.getvalue()


@pytest.mark.usefixtures("fixture_inputs")
def test_split_tables_one_class_raises_bad_data(training: Table, tmp_path: Path) -> None:
    write_split(tmp_path, training.ids, Split(SIMILARITY, training.targets > 0.5), None)
    with pytest.raises(BadDataError, match="every target is the same among the rows of the split's training part"):
        _split_tables(_task(tmp_path)[0])


@pytest.mark.usefixtures("fixture_inputs")
def test_require_memory_small_limit_names_a_sufficient_value(tmp_path: Path) -> None:
    task, _ = _task(tmp_path, MEMORY_LIMIT="1024")
    task.require_memory(1_024, "12 rows")
    with pytest.raises(BadParameterError, match=r"is 1,024 MiB, and 12 rows need about 1,025\. .* to 1280 "):
        task.require_memory(1_025, "12 rows")
    _task(tmp_path)[0].require_memory(1e9, "12 rows")


@pytest.mark.usefixtures("fixture_inputs")
def test_task_split_scores_are_in_the_report(tmp_path: Path) -> None:
    task, log = _task(tmp_path, PREDICTING=str(tmp_path / "predictions.csv"))
    scores = _split_tables(task).score(np.array([0.9, 0.1, 0.9]))
    task.write_predictions(np.linspace(0.1, 0.9, 12), TrainingSummary(training_rows=9, split=scores))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["split"]["logloss"] == pytest.approx(-np.log(0.9), abs=1e-6)
    assert "split's validation part on 3 rows of 1 eras: logloss 0.10536" in log.getvalue()


@pytest.mark.parametrize("order", [slice(3, 9), [3, 4, 5, 8, 7, 6]], ids=["same order", "other order"])
def test_read_embedding_some_rows_of_the_file(
    training: Table, write: Writer, columns: Columns, order: Any, tmp_path: Path
) -> None:
    coordinates = np.random.default_rng(1).normal(size=(12, 2)).astype(np.float32)
    write_embedding(tmp_path, EMBEDDING, training.ids, coordinates, None)
    part = Table(write({name: np.asarray(values)[order] for name, values in columns.items()}, "part.parquet"))
    assert read_embedding(tmp_path, EMBEDDING, part).tolist() == coordinates[order].tolist()


@pytest.mark.usefixtures("fixture_inputs")
def test_split_tables_plan_selects_features_by_the_training_part(
    write: Writer, columns: Columns, tmp_path: Path
) -> None:
    # feature1 is the target in the training part, feature2 in the validation part
    target = columns["target"]
    values = {"feature1": np.where(VALIDATION, 1 - target, target), "feature2": np.where(VALIDATION, target, 0.5)}
    noise = np.random.default_rng(0).random(12).astype(np.float32)
    Table(write(columns | {name: value.astype(np.float32) for name, value in values.items()} | {"feature3": noise}))
    task, log = _task(tmp_path)
    labeled = targets.classes(task.training)
    tables = SplitTables(task, labeled, embeddings=[Embedding(5)], plan=Plan(rows=100, features=1, memory=1.0))
    assert tables.feature_names == ("feature1", "perplexity_05_x", "perplexity_05_y")
    assert tables.training_features()[:, 0].tolist() == tables.training_labels.tolist()
    assert "learning from 1 of 3 features" in log.getvalue()
