"""Submission files: the live (or validation) rows of predictions as Numerai accepts them, checked before any upload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.models.predictions import COLUMNS, MIN_STD, first_out_of_range
from numerai_pipeline.storage.manifests import atomic_path, verified_manifest, write_manifest
from numerai_pipeline.storage.task_records import require_record
from numerai_pipeline.storage.used_objects import linked_result

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.storage.layout import RunLayout

LIVE, VALIDATION = "live", "validation"
_PLAIN = pa.csv.WriteOptions(quoting_style="none", quoting_header="none")


class MissingPredictionsError(BadInputError):
    """A model has no predictions in this run, so there is nothing of it to submit."""


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of a model or an ensemble in a run: files of results, which never change.

    Attributes
    ----------
    model : str
        Name of the model or ensemble.
    key : str
        Key of the result with the predictions of the live rows.
    dataset : str
        Key of the dataset of the fit, whose validation rows are predicted, too.
    sha256 : str
        Of the file with the predictions of the live rows.
    live, validation : Path
        The two files.
    """

    model: str
    key: str
    dataset: str
    sha256: str
    live: Path
    validation: Path


def find_predictions(layout: RunLayout, model: str) -> RunPredictions:
    """Find the predictions that a run has of a model or an ensemble, by the record of the task that made them.

    Raises
    ------
    MissingPredictionsError
        When the run has none, or they are damaged.
    BadInputError
        When the record of the task is missing or damaged.
    """
    link = layout.predictions(model)
    result = linked_result(link)
    if result is not None:
        task, _ = result
        record = require_record(layout, task)
        if record.prediction is not None:
            live = layout.data.result(task, record.prediction) / "predictions" / link.name
            manifest = verified_manifest(live)
            if manifest is not None:
                validation = layout.validation_predictions(model)
                return RunPredictions(model, record.prediction, record.dataset, manifest.sha256, live, validation)
    msg = f"{model} has no predictions (predictions/{link.name} is missing or damaged): see its task's log"
    raise MissingPredictionsError(msg)


def read_ids(table: Path, data_type: str) -> pa.StringArray:
    """Read the ids of a table's rows of one type (``live`` or ``validation``), in the order of the table."""
    rows = pq.read_table(table, columns=["id", "data_type"])
    ids: pa.ChunkedArray = rows.filter(pc.equal(rows["data_type"], data_type))["id"].cast(pa.string())
    return ids.combine_chunks()


def write_submission(source: Path, destination: Path, ids: pa.StringArray) -> Path:
    """Write rows of predictions in Numerai's format, and check them as Numerai does.

    Parameters
    ----------
    source : Path
        The predictions: CSV with the header ``id,prediction``, with a manifest.
    destination : Path
        CSV with the header ``id,prediction``; written with a manifest. The same predictions give the same bytes.
    ids : pyarrow.StringArray
        The rows to write, from :func:`read_ids`.

    Returns
    -------
    Path
        ``destination``.

    Raises
    ------
    MissingPredictionsError
        When the predictions are missing or damaged.
    BadInputError
        Naming the file and the id, when the ids are not exactly those of the table's rows, each once, a value does not
        lie strictly between 0 and 1, or all are (almost) the same.
    """
    if verified_manifest(source) is None:
        msg = f"{source.parent.name}/{source.name} is missing or damaged: see the task's log"
        raise MissingPredictionsError(msg)
    types = {"id": pa.string(), "prediction": pa.float64()}
    table = pa.csv.read_csv(source, convert_options=pa.csv.ConvertOptions(column_types=types)).select(COLUMNS)
    rows = _rows_of(source.name, table, ids)
    _validate(source.name, rows, ids)
    with atomic_path(destination) as temporary:
        pa.csv.write_csv(rows, temporary, _PLAIN)
    write_manifest(destination, rows=rows.num_rows, columns=COLUMNS)
    return destination


def _rows_of(name: str, table: pa.Table, wanted: pa.StringArray) -> pa.Table:
    """Give the predictions of these ids, in their order; each must be there once."""
    if not len(wanted):
        msg = f"{name}: the run's table has no rows to submit"
        raise BadInputError(msg)
    places = pc.index_in(wanted, value_set=table["id"].combine_chunks())
    missing = pc.filter(wanted, pc.is_null(places))
    if len(missing):
        msg = f"{name}: {len(missing)} of {len(wanted)} ids have no prediction, the first is {missing[0]}"
        raise BadInputError(msg)
    counts = pc.value_counts(pc.filter(table["id"].combine_chunks(), pc.is_in(table["id"], value_set=wanted)))
    for entry in counts:
        if entry["counts"].as_py() > 1:
            msg = f"{name}: id {entry['values']} has {entry['counts']} predictions"
            raise BadInputError(msg)
    return table.take(places)


def _validate(name: str, rows: pa.Table, wanted: pa.StringArray) -> None:
    from numerai_tools.submissions import validate_submission_numerai  # heavy

    values = rows["prediction"].combine_chunks()
    outside = first_out_of_range(values)
    if outside is not None:
        row, found = outside
        msg = f"{name}: id {rows['id'][row]} has {found}: it must lie strictly between 0 and 1"
        raise BadInputError(msg)
    if pc.stddev(values).as_py() < MIN_STD:
        msg = f"{name}: all {len(values)} predictions to submit are (almost) {values[0]}, which Numerai rejects"
        raise BadInputError(msg)
    try:
        validate_submission_numerai(wanted.to_pandas(), rows.to_pandas())
    except AssertionError as error:
        msg = f"{name}: Numerai would refuse it: {error}"
        raise BadInputError(msg) from None
