"""Submission files: the live (or validation) rows of predictions as Numerai accepts them, checked before any upload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.models.predictions import COLUMNS, MIN_STD, first_out_of_range
from numerai_pipeline.storage.manifests import atomic_path, verified_manifest, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.storage.layout import RunLayout

LIVE, VALIDATION = "live", "validation"
_PLAIN = pa.csv.WriteOptions(quoting_style="none", quoting_header="none")


class MissingPredictionsError(BadInputError):
    """A model has no predictions in this run, so there is nothing of it to submit."""


def ids_of(layout: RunLayout, data_type: str) -> pa.StringArray:
    """Read the ids of a run's rows of one type (``live`` or ``validation``), in the order of its table."""
    table = pq.read_table(layout.tournament, columns=["id", "data_type"])
    ids: pa.ChunkedArray = table.filter(pc.equal(table["data_type"], data_type))["id"].cast(pa.string())
    return ids.combine_chunks()


def write_submission(layout: RunLayout, model: str, destination: Path, ids: pa.StringArray) -> Path:
    """Write the rows of one type of a model's predictions in Numerai's format, and check them as Numerai does.

    Parameters
    ----------
    layout : RunLayout
    model : str
        Name of the model or ensemble.
    destination : Path
        CSV with the header ``id,prediction``; written with a manifest. The same predictions give the same bytes.
    ids : pyarrow.StringArray
        The rows to write, from :func:`ids_of`.

    Returns
    -------
    Path
        ``destination``.

    Raises
    ------
    MissingPredictionsError
        When the model has no complete predictions.
    BadInputError
        Naming the file and the id, when the ids are not exactly those of the table's rows, each once, a value does not
        lie strictly between 0 and 1, or all are (almost) the same.
    """
    source = layout.predictions(model)
    if verified_manifest(source) is None:
        msg = f"{model} has no predictions (predictions/{source.name} is missing or incomplete): see its task's log"
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
