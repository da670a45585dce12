"""What a run submits: the live rows of predictions, checked, handed in once, and noted in the run's directory.

``submissions/<model at Numerai>.csv`` is the file, ``submissions/<model at Numerai>.json`` what became of it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.errors import BadInputError, RoundClosedError
from numerai_pipeline.manifests import (
    atomic_path,
    discard,
    file_sha256,
    verified_manifest,
    write_manifest,
)
from numerai_pipeline.predictions import COLUMNS, MIN_STD, first_out_of_range

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numerai_pipeline.account import Account
    from numerai_pipeline.run_layout import RunLayout

log = logging.getLogger(__name__)

LIVE, VALIDATION = "live", "validation"
_PLAIN = pa.csv.WriteOptions(quoting_style="none", quoting_header="none")


class MissingPredictionsError(BadInputError):
    """A model left no predictions in this run, so there is nothing of it to submit."""


@dataclass(frozen=True)
class Record:
    """What became of a file that was handed in.

    Attributes
    ----------
    model : str
        Whose predictions: one of our models or ensembles.
    sha256 : str
        Of the file that was handed in.
    asked_for : int
        The round it was handed in for.
    round : int
        The round that Numerai took it for; a later one when it came late.
    account_model : str
        Id of the model at Numerai.
    submission : str
        Numerai's name for it.
    status : str
        Numerai's word for how it is.
    at : str
        When that was known, ISO 8601.
    """

    model: str
    sha256: str
    asked_for: int
    round: int
    account_model: str
    submission: str
    status: str
    at: str

    def is_of(self, sha256: str, round_number: int, account_model: str) -> bool:
        """Whether this very file was handed in for this round and model."""
        return (self.sha256, self.asked_for, self.account_model) == (sha256, round_number, account_model)


def prepare(layout: RunLayout, model: str, destination: Path, data_type: str = LIVE) -> Path:
    """Write the rows of one type of a model's predictions as Numerai wants them, and check them as Numerai does.

    Parameters
    ----------
    layout : RunLayout
    model : str
        Whose predictions.
    destination : Path
        CSV with the header ``id,prediction``; written with a manifest. The same predictions give the same bytes.
    data_type : str
        Which rows of the tournament table.

    Returns
    -------
    Path
        ``destination``.

    Raises
    ------
    MissingPredictionsError
        When the model left none that are whole.
    BadInputError
        Naming the file and the id, when the ids are not exactly those of the table's rows, each once, a value does not
        lie strictly between 0 and 1, or all are (almost) the same.
    """
    source = layout.predictions(model)
    if verified_manifest(source) is None:
        msg = f"{model} left no predictions (predictions/{source.name} is not there, or not whole): did its task fail?"
        raise MissingPredictionsError(msg)
    types = {"id": pa.string(), "prediction": pa.float64()}
    table = pa.csv.read_csv(source, convert_options=pa.csv.ConvertOptions(column_types=types)).select(COLUMNS)
    wanted = pa.array(_ids(layout, data_type), pa.string())
    rows = _rows_of(source.name, table, wanted)
    _check(source.name, rows, wanted)
    with atomic_path(destination) as temporary:
        pa.csv.write_csv(rows, temporary, _PLAIN)
    write_manifest(destination, rows=rows.num_rows, columns=COLUMNS)
    return destination


def submit(
    account: Account, layout: RunLayout, numerai_model: str, model: str, round_number: int, *, force: bool = False
) -> Record:
    """Hand in a model's live rows, unless the same file was accepted for this round already.

    Parameters
    ----------
    account : Account
    layout : RunLayout
    numerai_model : str
        Name of the model at Numerai.
    model : str
        Whose predictions it gets.
    round_number : int
        The run's round.
    force : bool
        Hand in also what was accepted already.

    Raises
    ------
    RoundClosedError
        When a later round is open by now, so that nothing was uploaded; or when the file came too late for the round,
        with the one that it was queued for.
    BadInputError
        As for :func:`prepare`, and when the account has no such model.
    PipelineError
        As for :meth:`numerai_pipeline.account.Account.submit`.
    """
    model_id = account.model_id(numerai_model)
    file = prepare(layout, model, layout.submission(numerai_model))
    path = layout.submission_record(numerai_model)
    sha256 = file_sha256(file)
    record = _read(path)
    if record and not force and record.is_of(sha256, round_number, model_id):
        log.info("%s: the same file was handed in already, at %s: %s", numerai_model, record.at, record.submission)
    else:
        require_open(account, round_number)
        discard(path)
        done = account.submit(model_id, file, round_number)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = Record(model, sha256, round_number, done.round, model_id, done.id, done.status, now)
        _write(path, asdict(record))
    if record.round != round_number:
        msg = (
            f"{numerai_model}: too late for round {round_number}: Numerai queued submission {record.submission} for"
            f" round {record.round}, where it counts instead"
        )
        raise RoundClosedError(msg)
    log.info("%s: %s accepted for round %d (%s)", numerai_model, model, record.round, record.status)
    return record


def diagnose(
    account: Account, layout: RunLayout, numerai_model: str, model: str, *, force: bool = False
) -> dict[str, Any]:
    """Have a model's validation rows scored by Numerai, unless the same file was scored already.

    Returns
    -------
    dict
        ``sha256``, ``model``, and of Numerai's diagnostics what has a value and is a number of all eras.
    """
    model_id = account.model_id(numerai_model)
    file = prepare(layout, model, layout.diagnostics_csv(numerai_model), VALIDATION)
    path = layout.diagnostics_record(numerai_model)
    sha256 = file_sha256(file)
    known = _content(path)
    if known and not force and known.get("sha256") == sha256:
        log.info("%s: the same validation rows were diagnosed already", numerai_model)
        return known
    discard(path)
    answer = account.diagnose(model_id, file)
    found: dict[str, Any] = {"sha256": sha256, "model": model}
    found |= {name: value for name, value in answer.items() if isinstance(value, (int, float, bool))}
    _write(path, found)
    log.info("%s: diagnosed, mean CORR %s", numerai_model, found.get("validationCorrMean"))
    return found


def require_open(account: Account, round_number: int) -> None:
    """Make sure that the rows of a round can still count.

    Between rounds they can be handed in, and Numerai queues them.

    Raises
    ------
    RoundClosedError
        When a later round is open by now, which has other rows.
    """
    current = account.current_round()
    if current is not None and current.number != round_number:
        msg = f"round {round_number} is over, and {current} is open, which has other rows: nothing was uploaded"
        raise RoundClosedError(msg)


def _ids(layout: RunLayout, data_type: str) -> list[str]:
    table = pq.read_table(layout.tournament, columns=["id", "data_type"])
    ids: list[str] = table.filter(pc.equal(table["data_type"], data_type))["id"].cast(pa.string()).to_pylist()
    return ids


def _rows_of(name: str, table: pa.Table, wanted: pa.StringArray) -> pa.Table:
    """Give the predictions of these ids, in their order; each must be there once."""
    if not len(wanted):
        msg = f"{name}: the run's table has no rows to hand in"
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


def _check(name: str, rows: pa.Table, wanted: pa.StringArray) -> None:
    from numerai_tools.submissions import validate_submission_numerai  # heavy

    values = rows["prediction"].combine_chunks()
    outside = first_out_of_range(values)
    if outside is not None:
        row, found = outside
        msg = f"{name}: id {rows['id'][row]} has {found}: it must lie strictly between 0 and 1"
        raise BadInputError(msg)
    if pc.stddev(values).as_py() < MIN_STD:
        msg = f"{name}: all {len(values)} predictions to hand in are (almost) {values[0]}, which Numerai refuses"
        raise BadInputError(msg)
    try:
        validate_submission_numerai(wanted.to_pandas(), rows.to_pandas())
    except AssertionError as error:
        msg = f"{name}: Numerai would refuse it: {error}"
        raise BadInputError(msg) from None


def _content(path: Path) -> dict[str, Any] | None:
    if verified_manifest(path) is None:
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _read(path: Path) -> Record | None:
    try:
        content = _content(path)
        return Record(**content) if content else None
    except (TypeError, ValueError):
        return None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_manifest(path)
