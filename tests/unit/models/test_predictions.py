"""Predictions are checked against the rows of their table, and split by table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.models.predictions import split_predictions, validate_predictions
from numerai_pipeline.storage.manifests import verified_manifest, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "id,prediction\na,0.25\nb,0.5\nc,0.75\n"


@pytest.fixture
def tournament(tmp_path: Path) -> Path:
    pq.write_table(pa.table({"id": ["a", "b", "c"]}), tmp_path / "tournament.parquet")
    return tmp_path / "tournament.parquet"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    return tmp_path / "svm.csv"


def test_validate_predictions_valid_file_gets_a_manifest(predictions: Path, tournament: Path) -> None:
    predictions.write_text(GOOD)
    manifest = validate_predictions(predictions, tournament)
    assert manifest.rows == 3
    assert verified_manifest(predictions) == manifest


def test_validate_predictions_manifest_of_the_container_is_kept(predictions: Path, tournament: Path) -> None:
    predictions.write_text(GOOD)
    written = write_manifest(predictions, rows=3, columns=["id", "prediction"], inputs="abc", about={"own": True})
    assert validate_predictions(predictions, tournament) == written


def test_validate_predictions_form_of_2018_is_rewritten(predictions: Path, tournament: Path) -> None:
    predictions.write_text(GOOD.replace("prediction", "probability"))
    validate_predictions(predictions, tournament)
    assert predictions.read_text() == GOOD
    assert verified_manifest(predictions)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "svm.csv: the container succeeded without writing this file"),
        ("", "not a CSV"),
        ("a,b\n1,2\n", "the header is 'a,b'"),
        ("id,prediction\na,0.2\nb,0.3\n", "1 of 3 ids of the table have no prediction, the first is c"),
        (GOOD + "d,0.5\n", "4 rows for 3 ids of the table"),
        (GOOD + "a,0.5\n", "4 rows for 3 ids of the table"),
        ("id,prediction\nb,0.2\na,0.3\nc,0.4\n", "row 1 has id b where the table has a"),
        ("id,prediction\na,0.2\nb,nan\nc,0.4\n", r"row 2 \(id b\) has no prediction"),
        ("id,prediction\na,0.2\nb,\nc,0.4\n", r"row 2 \(id b\) has no prediction"),
        ("id,prediction\na,0.2\nb,0.3\nc,1\n", r"row 3 \(id c\) has the prediction 1"),
        (
            "id,prediction\na,0.2\nb,0.3\nc,1.0000000000000002\n",
            r"\(id c\) has the prediction 1\.0000000000000002: it m",
        ),
        ("id,prediction\na,-5e-324\nb,0.3\nc,0.4\n", r"row 1 \(id a\) has the prediction -5e-324: it must"),
        ("id,prediction\na,0\nb,0.3\nc,0.4\n", r"row 1 \(id a\) has the prediction 0"),
        ("id,prediction\na,0.2\nb,inf\nc,0.4\n", "row 2"),
        ("id,prediction\na,0.2\nb,x\nc,0.4\n", "not a CSV"),
        ("id,prediction\na,0.5\nb,0.5\nc,0.5\n", r"all predictions are \(almost\) 0.5"),
    ],
)
def test_validate_predictions_invalid_file_names_the_reason(
    predictions: Path, tournament: Path, content: str | None, says: str
) -> None:
    if content is not None:
        predictions.write_text(content)
    with pytest.raises(BadInputError, match=says):
        validate_predictions(predictions, tournament)


def test_validate_predictions_changed_after_manifest_are_rejected(predictions: Path, tournament: Path) -> None:
    predictions.write_text(GOOD)
    write_manifest(predictions, rows=3)
    predictions.write_text(GOOD.replace("0.25", "0.26"))
    with pytest.raises(BadInputError, match="does not match its manifest"):
        validate_predictions(predictions, tournament)


def test_split_predictions_writes_the_rows_of_each_table(predictions: Path, tournament: Path, tmp_path: Path) -> None:
    parts = {"validation": ["a", "b"], "live": ["c"]}
    for name, ids in parts.items():
        pq.write_table(pa.table({"id": ids}), tmp_path / f"{name}.parquet")
    predictions.write_text(GOOD.replace("prediction", "probability"))
    validate_predictions(predictions, tournament)
    targets = {tmp_path / name / "svm.csv": tmp_path / f"{name}.parquet" for name in parts}
    split_predictions(predictions, targets)
    assert [path.read_text() for path in targets] == ["id,prediction\na,0.25\nb,0.5\n", "id,prediction\nc,0.75\n"]
    assert [manifest.rows for path in targets if (manifest := verified_manifest(path))] == [2, 1]
    assert predictions.read_text() == GOOD
