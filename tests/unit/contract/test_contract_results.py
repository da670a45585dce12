"""The outputs of a task: predictions and a report."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_contract import outputs, targets
from numerai_contract.exits import BadParameterError, ContractError, Exit, ModelFailureError
from numerai_contract.parameters import Parameters
from numerai_contract.predictions import validate_probabilities, write_predictions
from numerai_contract.progress import Progress
from numerai_contract.reports import write_report
from numerai_contract.task import Task, TrainingSummary

Columns = dict[str, Any]
Writer = Callable[..., Path]


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([0.1, math.nan, 0.3], "predicted nan for row 2; 1 of 3 rows have no prediction in .0, 1."),
        ([0.1, 0.2, 1.01], "predicted 1.01 for row 3"),
        ([-0.01, 0.2, math.inf], "predicted -0.01 for row 1; 2 of 3"),
        ([0.5, 0.5, 0.5], "0.500000 for every row .* learned nothing"),
        ([0.5, 0.5 + 1e-7, 0.5 - 1e-7], "learned nothing"),
    ],
)
def test_validate_probabilities_worthless_raises_model_failure(probabilities: list[float], message: str) -> None:
    with pytest.raises(ModelFailureError, match=message) as failure:
        validate_probabilities(probabilities, 3)
    assert failure.value.exit is Exit.NO_MODEL


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [([0.1, 0.2], "shape .2,. for 3 rows"), ([[0.1], [0.2], [0.3]], "shape .3, 1. for 3 rows")],
)
def test_validate_probabilities_wrong_shape_is_a_bug(probabilities: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message) as failure:
        validate_probabilities(probabilities, 3)
    assert failure.value.exit is Exit.BUG


def test_validate_probabilities_near_0_and_1_are_clipped() -> None:
    predictions, clipped = validate_probabilities(np.array([0, 1, 1e-7, 0.25, 1e-6], dtype=np.float64), 5)
    assert predictions.tolist() == [1e-6, 1 - 1e-6, 1e-6, 0.25, 1e-6]
    assert clipped == 3


def test_write_predictions_ids_with_commas_are_quoted(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    write_predictions(path, pa.chunked_array([["b"], ['with,"comma']]), np.array([0.25, 0.75]), None)
    with path.open(newline="") as stream:
        assert list(csv.reader(stream)) == [["id", "prediction"], ["b", "0.250000000"], ['with,"comma', "0.750000000"]]


def test_write_predictions_file_and_manifest_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    ids = pa.chunked_array([["b", "a"], ["live row"]])
    predictions = np.array([1e-6, 0.123456789012, 1 - 1e-6])
    write_predictions(path, ids, predictions, None)
    assert path.read_bytes() == b"id,prediction\nb,0.000001000\na,0.123456789\nlive row,0.999999000\n"
    manifest = json.loads(outputs.manifest_path(path).read_text())
    assert (manifest["rows"], manifest["columns"], manifest["inputs"]) == (3, ["id", "prediction"], None)


def test_write_report_infinity_raises_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(tmp_path / "report.json", {"logloss": math.inf}, None)
    assert not list(tmp_path.iterdir())


def _task(write: Writer, columns: Columns, tmp_path: Path, **more: str) -> tuple[Task, io.StringIO]:
    log = io.StringIO()
    tournament = columns | {
        "id": [f"t{row}" for row in range(12)],
        "era": ["era7"] * 4 + ["era8"] * 4 + ["eraX"] * 4,
        "data_type": ["validation"] * 8 + ["test", "test", "live", "live"],
        "target": np.array([0, 1, 0, 1] * 2 + [np.nan] * 4, dtype=np.float32),
    }
    environment = {
        "OPERATION": "svm",
        "TRAINING": str(write(columns)),
        "TESTING": str(write(tournament, "tournament.parquet")),
        "PREDICTING": str(tmp_path / "predictions" / "svm.csv"),
        "REPORTING": str(tmp_path / "reports" / "svm.json"),
        "INPUTS": "0f3a",
    }
    return Task(Parameters(environment | more), Progress(log)), log


def test_task_write_predictions_writes_predictions_and_report(write: Writer, columns: Columns, tmp_path: Path) -> None:
    task, log = _task(write, columns, tmp_path)
    task.check()
    task.note("drew a sample")
    probabilities = np.array([0.3, 0.6, 0.4, 0.7] * 2 + [0.1, 0.2, 0.0, 0.4])
    task.write_predictions(probabilities, TrainingSummary(10, 2, {"C": 0.1}, libraries=("pyarrow", "no-such-library")))

    lines = (tmp_path / "predictions" / "svm.csv").read_text().splitlines()
    assert lines[:2] == ["id,prediction", "t0,0.300000000"]
    assert [line.split(",")[0] for line in lines[1:]] == [f"t{row}" for row in range(12)]
    report = json.loads((tmp_path / "reports" / "svm.json").read_text())
    expected = -(math.log(0.7) + math.log(0.6) + math.log(0.6) + math.log(0.7)) / 4
    assert report["validation"] == {
        "rows": 8,
        "eras": 2,
        "logloss": round(expected, 6),
        "consistency": 1.0,
        "correlation": round(4 / math.sqrt(20), 6),
    }
    assert report["operation"] == "svm"
    assert report["rows"] == {"training": 10, "held_out": 2, "testing": 12}
    assert (report["features"], report["seed"], report["target"]) == (3, 67, "binary")
    assert report["chosen"] == {"C": 0.1}
    assert report["notes"][0] == "drew a sample"
    assert "clipped 1 predictions" in report["notes"][1]
    assert set(report["libraries"]) == {"python", "numpy", "pyarrow"}
    assert report["seconds"] >= 0
    assert 10 < report["peak_memory_mib"] < 100_000
    for path in (tmp_path / "predictions" / "svm.csv", tmp_path / "reports" / "svm.json"):
        assert json.loads(outputs.manifest_path(path).read_text())["inputs"] == "0f3a"
    assert "training.parquet: 12 rows, 3 eras, 3 features (float32)" in log.getvalue()
    assert "validation on 8 rows of 2 eras: logloss" in log.getvalue()


def test_task_without_reporting_writes_no_report(write: Writer, columns: Columns, tmp_path: Path) -> None:
    task, _ = _task(write, columns, tmp_path, REPORTING="")
    task.check()
    task.write_predictions(np.linspace(0.1, 0.9, 12), TrainingSummary(12))
    assert not (tmp_path / "reports").exists()


def test_task_without_known_targets_has_no_score(write: Writer, columns: Columns, tmp_path: Path) -> None:
    task, log = _task(write, columns, tmp_path)
    write(
        pq.read_table(tmp_path / "tournament.parquet").to_pydict() | {"target": [math.nan] * 12}, "tournament.parquet"
    )
    task.write_predictions(np.linspace(0.1, 0.9, 12), TrainingSummary(12))
    assert json.loads((tmp_path / "reports" / "svm.json").read_text())["validation"] is None
    assert "no row has a known target" in log.getvalue()


def test_task_worthless_predictions_write_nothing(write: Writer, columns: Columns, tmp_path: Path) -> None:
    task, _ = _task(write, columns, tmp_path)
    with pytest.raises(ModelFailureError):
        task.write_predictions(np.full(12, 0.5), TrainingSummary(12))
    assert not (tmp_path / "predictions").exists()
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(("row_limit", "rows", "notes"), [(12, 12, []), (8, 8, ["learning from 8 of 12 rows"])])
def test_task_sample_rows_above_the_limit_has_a_note(
    write: Writer, columns: Columns, tmp_path: Path, row_limit: int, rows: int, notes: list[str]
) -> None:
    task, log = _task(write, columns, tmp_path)
    labeled = task.sample_rows(targets.classes(task.training), row_limit)
    assert labeled.rows.sum() == len(labeled.labels) == rows
    assert labeled.labels.tolist() == task.training.targets[labeled.rows].tolist()
    assert labeled.labels.mean() == 0.5
    assert ("learning from" in log.getvalue()) == bool(notes)
    assert all(note in log.getvalue() for note in notes)


def test_task_check_invalid_output_path_raises_bad_parameter(write: Writer, columns: Columns, tmp_path: Path) -> None:
    task, _ = _task(write, columns, tmp_path, PREDICTING=str(tmp_path))
    with pytest.raises(BadParameterError, match="PREDICTING"):
        task.check()
