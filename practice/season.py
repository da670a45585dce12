"""The files of a season, in the layout of Numerai's v5 data, written once and kept.

:func:`write_season` writes one round's files to a folder, without a server; :class:`Season` keeps the files of the
rounds a server serves. Both write in batches of eras, which bounds memory at any size.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from practice.features import MISSING
from practice.files import PARTS, atomic_write
from practice.model import BENCHMARK_MODELS, META_MODEL, TARGET_WEEKS, EraRows, SeasonModel, SeasonSize
from practice.rounds import FIRST_ROUND, SATURDAY, CalendarName, SeasonRound, StrictRound, era_label, round_open_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    Report: TypeAlias = Callable[[str], Any]

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

VERSION = "v5.3"
FILES = (
    "features.json",
    "train.parquet",
    "validation.parquet",
    "live.parquet",
    "live_example_preds.csv",
    "live_example_preds.parquet",
    "validation_example_preds.csv",
    "validation_example_preds.parquet",
    "validation_benchmark_models.parquet",
    "meta_model.parquet",
)
"""The files of every version."""

FIRST_META_ERA = 1133
"""The meta model covers no earlier era, as on Numerai."""
_FORMAT = 3
"""Raise it when a change alters the files of a season: kept files of an older format are not used."""
_CELLS_AT_ONCE = 128 * 2**20
"""Feature values of a row group, a byte each."""
_ERAS_AT_ONCE = 52
_MAX_THREADS = 4
_PROGRESS_SECONDS = 10.0
_STALE_SECONDS = 24 * 60 * 60.0


def season_eras(size: SeasonSize, round_number: int) -> tuple[range, range]:
    """Return the eras of the training file and of a round's validation file.

    The training file never changes. Validation begins where training ends and grows by an era a week, up to the era
    before the round's own.

    Raises
    ------
    ValueError
        The season has more eras than there were weeks, or the round is older than the validation file.
    """
    first_validation = size.first_validation_era
    first_train = first_validation - size.train_eras
    live = SeasonRound(round_number).era
    if first_train < 1:
        msg = (
            f"{size.train_eras} + {size.validation_eras} eras do not fit: only {live - 1} weeks came before the season"
        )
        raise ValueError(msg)
    if live <= first_validation:
        msg = f"round {round_number} (era {era_label(live)}) is older than the season, which begins to validate in era"
        raise ValueError(f"{msg} {era_label(first_validation)}")
    return range(first_train, first_validation), range(first_validation, live)


class SeasonWriter:
    """Writes single files of a season.

    Parameters
    ----------
    size : SeasonSize
    seed : int
    """

    def __init__(self, size: SeasonSize, seed: int) -> None:
        self.model = SeasonModel(size, seed)

    def write(self, name: str, path: Path, round_number: int, report: Report = lambda _: None) -> None:
        """Write the file ``name`` (one of :data:`FILES`) as the round serves it, whole or not at all.

        ``report`` gets a line about the progress every few seconds.
        """
        season_round = SeasonRound(round_number)
        train, validation = season_eras(self.model.size, round_number)
        live = season_round.era

        def reported(eras: range) -> Iterator[int]:
            return _reported(eras, name, report)

        with atomic_write(path) as temporary:
            match name:
                case "features.json":
                    content = {"feature_sets": self.model.features.sets, "targets": list(TARGET_WEEKS)}
                    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
                case "train.parquet":
                    self._write_table(temporary, ((era, SATURDAY, None) for era in reported(train)), "train")
                case "validation.parquet":
                    self._write_table(temporary, ((era, SATURDAY, live) for era in reported(validation)), "validation")
                case "live.parquet":
                    self._write_table(temporary, [(live, season_round.weekday, live)], "live")
                case "live_example_preds.csv" | "live_example_preds.parquet":
                    rows = self.model.era(live, season_round.weekday, features=False)
                    _write_predictions(temporary, [(rows.ids, rows.example)], Path(name).suffix)
                case "validation_example_preds.csv" | "validation_example_preds.parquet":
                    made = _in_order(self.model.published, reported(validation))
                    predictions = ((ids, published["example"]) for ids, published in made)
                    _write_predictions(temporary, predictions, Path(name).suffix)
                case "validation_benchmark_models.parquet":
                    self._write_published(temporary, reported(validation), BENCHMARK_MODELS)
                case "meta_model.parquet":
                    covered = range(max(validation.start, FIRST_META_ERA), validation.stop)
                    self._write_published(temporary, reported(covered or validation), [META_MODEL])
                case _:
                    msg = f"a season has no file {name!r}"
                    raise ValueError(msg)

    def _write_table(self, path: Path, eras: Iterable[tuple[int, int, int | None]], data_type: str) -> None:
        features = self.model.features.generated
        schema = _table_schema(features)

        def batch(item: tuple[int, int, int | None]) -> pa.RecordBatch:
            era, weekday, live = item
            return _era_batch(self.model.era(era, weekday), era, data_type, live, schema)

        cells = self.model.size.rows_per_era * len(features)
        eras_at_once = min(_ERAS_AT_ONCE, max(1, _CELLS_AT_ONCE // cells))
        with _parquet_writer(path, schema) as writer:
            for group in _in_groups(_in_order(batch, eras), eras_at_once):
                writer.write_table(pa.Table.from_batches(group, schema), row_group_size=2**30)

    def _write_published(self, path: Path, eras: Iterable[int], names: Sequence[str]) -> None:
        """Write published predictions of validation eras, a column for each model."""
        texts = [pa.field("era", pa.string()), pa.field("data_type", pa.string())]
        schema = _indexed_schema([*texts, *(pa.field(name, pa.float64()) for name in names)])

        def batch(era: int) -> pa.RecordBatch:
            ids, published = self.model.published(era)
            columns = [_repeated(era_label(era), ids.size), _repeated("validation", ids.size)]
            columns += [pa.array(published[name]) for name in names]
            return pa.record_batch([*columns, _text(ids)], schema=schema)

        with _parquet_writer(path, schema) as writer:
            for group in _in_groups(_in_order(batch, eras), _ERAS_AT_ONCE):
                writer.write_table(pa.Table.from_batches(group, schema))


def write_season(
    directory: Path, size: SeasonSize | None = None, seed: int = 67, round_number: int = FIRST_ROUND
) -> dict[str, Path]:
    """Write all files of one round of a season to a folder.

    Parameters
    ----------
    directory : Path
        Made when missing; files of these names are replaced.
    size : SeasonSize, optional
        How much data; by default that of :class:`SeasonSize`.
    seed : int
        The same seed and size give the same files.
    round_number : int
        The round whose live file and validation eras are written.

    Returns
    -------
    dict
        Name of the file → its path.
    """
    writer = SeasonWriter(size or SeasonSize(), seed)
    paths = {name: directory / name for name in FILES}
    for name, path in paths.items():
        writer.write(name, path, round_number)
    return paths


class Season:
    """The files of a season's rounds, generated at their first request and kept in a folder.

    Parameters
    ----------
    directory : Path
        Where files are kept. Each combination of size and seed has its own folder in it.
    size : SeasonSize, optional
    seed : int
    today : datetime, optional
        The season's clock stops at this moment (with a time zone). By default it is the real time.
    served_rounds : int
        How many rounds are served, the current one included.
    versions : sequence of str
        The dataset versions that are listed; all have the same content.
    calendar : {"always-open", "strict"}
        When rounds are open (:mod:`practice.rounds`).
    """

    def __init__(
        self,
        directory: Path,
        size: SeasonSize | None = None,
        seed: int = 67,
        *,
        today: datetime | None = None,
        served_rounds: int = 5,
        versions: Sequence[str] = (VERSION,),
        calendar: CalendarName = "always-open",
    ) -> None:
        self.size = size or SeasonSize()
        self.seed = seed
        self.versions = tuple(versions)
        self._today = today
        self._calendar = calendar
        self._served_rounds = served_rounds
        self._writer = SeasonWriter(self.size, seed)
        settings = json.dumps({"format": _FORMAT, "seed": seed, **asdict(self.size)}, sort_keys=True)
        self._directory = directory / f"season-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
        self._live_ids: dict[int, list[str]] = {}
        self._lock = threading.Lock()
        self._etags: dict[tuple[Path, int], str] = {}
        season_eras(self.size, self.current_round().number)  # report an impossible season at once

    @property
    def directory(self) -> Path:
        """Folder of this season, by itself among those of others."""
        return self._directory

    def live_rows(self, round_number: int) -> EraRows:
        """Make the live rows of a round, with the targets, which are not published when it opens; see :meth:`rows`."""
        season_round = SeasonRound(round_number)
        return self.rows(season_round.era, season_round.weekday)

    def rows(self, era: int, weekday: int) -> EraRows:
        """Make the rows of an era as a round of its week sees them (4 is Saturday's): all but their features."""
        return self._writer.model.era(era, weekday, features=False)

    def live_ids(self, round_number: int) -> list[str]:
        """Return the ids of a round's live rows, in the file's order."""
        if round_number not in self._live_ids:
            self._live_ids[round_number] = self.live_rows(round_number).ids.astype(str).tolist()
        return self._live_ids[round_number]

    def knows_target(self, target: str, round_number: int) -> bool:
        """Whether the targets of a round's live rows are known by now: the same rule as in the files."""
        return self.current_round().era - SeasonRound(round_number).era > TARGET_WEEKS[target]

    def now(self) -> datetime:
        """Read the season's clock."""
        return self._today or datetime.now(UTC)

    def current_round(self) -> SeasonRound:
        """Return the last round that opened; it may have closed."""
        latest = self.round(round_open_at(self.now()).number)
        return latest if latest.opens <= self.now() else self.round(latest.number - 1)

    def round(self, number: int) -> SeasonRound:
        """Return a round of the season's calendar."""
        return StrictRound(number, self.seed) if self._calendar == "strict" else SeasonRound(number)

    def rounds(self) -> list[SeasonRound]:
        """Every round up to the current one, the newest first."""
        return [self.round(number) for number in range(self.current_round().number, 0, -1)]

    def is_served(self, round_number: int) -> bool:
        """Whether a round's files are served."""
        current = self.current_round().number
        return current - self._served_rounds < round_number <= current

    def names(self) -> list[str]:
        """Names of all files, with their version."""
        return [f"{version}/{name}" for version in self.versions for name in FILES]

    def file(self, name: str, round_number: int, report: Report = lambda _: None) -> Path:
        """Return the path of a file as a round serves it; writes it when missing.

        Parameters
        ----------
        name : str
            With or without the version, such as ``v5.3/live.parquet``.
        round_number : int
        report : callable, optional
            Gets lines about the progress of writing.
        """
        plain = name.rpartition("/")[2]
        path = self._directory / self._kept_as(plain, round_number)
        with self._lock:
            if not path.exists():
                self._tidy()
                self._writer.write(plain, path, round_number, report)
        return path

    def etag(self, path: Path) -> str:
        """Quoted hash of a file's content, as a server's ``ETag``; read once for every state of the file."""
        key = (path, path.stat().st_mtime_ns)
        if key not in self._etags:
            with path.open("rb") as file:
                self._etags[key] = f'"{hashlib.file_digest(file, "sha256").hexdigest()[:32]}"'
        return self._etags[key]

    def published(self, name: str, round_number: int) -> datetime:
        """Return the publication of a file: the opening of the first round that has it.

        Parameters
        ----------
        name : str
            As for :meth:`file`.
        round_number : int
        """
        plain = name.rpartition("/")[2]
        if plain.startswith("live"):
            return self.round(round_number).opens
        if plain.startswith("validation"):
            return self.round(round_number - SeasonRound(round_number).weekday).opens
        return self.round(FIRST_ROUND).opens

    def prepare(self, report: Report = lambda _: None) -> None:
        """Write all files of the current round that are not there yet."""
        current = self.current_round().number
        for name in FILES:
            if not (self._directory / self._kept_as(name, current)).exists():
                report(f"generating {name} of round {current}")
            self.file(name, current, report)

    def _tidy(self) -> None:
        """Remove the files that no served round needs any more, and old parts that killed processes left."""
        current = self.current_round().number
        served = range(current - self._served_rounds + 1, current + 1)
        needed = {self._directory / self._kept_as(name, number) for name in FILES for number in served}
        for path in self._directory.glob("*/*"):
            if path.is_file() and path not in needed and not path.name.startswith("."):
                path.unlink()
        for part in self._directory.rglob(PARTS):
            if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink(missing_ok=True)

    @staticmethod
    def _kept_as(name: str, round_number: int) -> Path:
        if name.startswith("live"):
            return Path("live", f"{round_number}-{name}")
        if name.startswith(("validation", "meta_model")):
            return Path("validation", f"{era_label(SeasonRound(round_number).era)}-{name}")
        return Path(name)


def _reported(eras: range, name: str, report: Report) -> Iterator[int]:
    """Iterate over eras and report every few seconds how many were taken."""
    last = time.monotonic()
    for number, era in enumerate(eras):
        if time.monotonic() - last >= _PROGRESS_SECONDS:
            report(f"{name}: {number} of {len(eras)} eras")
            last = time.monotonic()
        yield era


def _in_order(make: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """Make something of each item, on all cores and a few items ahead, in the items' order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pending: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(min(cores, _MAX_THREADS), "season") as pool:
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > _MAX_THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _in_groups(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    group: list[_Item] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _era_batch(rows: EraRows, era: int, data_type: str, live: int | None, schema: pa.Schema) -> pa.RecordBatch:
    """Put an era's rows in the layout of the files.

    ``live`` is the era in which the file is read: targets that look beyond it are not known yet. None means that all
    are known.
    """
    count = rows.ids.size
    known = {name: live is None or live - era > weeks for name, weeks in TARGET_WEEKS.items()}
    if data_type == "validation" and not known["target"]:
        data_type = "test"
    return pa.record_batch(
        [
            _repeated(era_label(era), count),
            _repeated(data_type, count),
            *(_feature(column) for column in rows.features),
            *(pa.array(rows.targets[name]) if known[name] else pa.nulls(count, pa.float32()) for name in TARGET_WEEKS),
            _text(rows.ids),
        ],
        schema=schema,
    )


def _feature(column: NDArray[np.int8]) -> pa.Array:
    return pa.array(column, mask=column == MISSING if (column == MISSING).any() else None)


def _text(ids: NDArray[np.bytes_]) -> pa.Array:
    """Make a column of text from ids of 16 bytes each."""
    offsets = np.arange(ids.size + 1, dtype=np.int32) * ids.itemsize
    return pa.StringArray.from_buffers(ids.size, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(ids)))


def _repeated(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)


def _parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # no dictionary for ids, all of which differ
    return pq.ParquetWriter(path, schema, use_dictionary=[name for name in schema.names if name != "id"])


def _write_predictions(
    path: Path, parts: Iterable[tuple[NDArray[np.bytes_], NDArray[np.float64]]], suffix: str
) -> None:
    """Write ids and predictions as CSV or parquet, by the suffix."""
    if suffix == ".csv":
        schema = pa.schema([pa.field("id", pa.string()), pa.field("prediction", pa.float64())])
        options = pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")
        with pyarrow.csv.CSVWriter(path, schema, write_options=options) as writer:
            for ids, predictions in parts:
                writer.write_batch(pa.record_batch([_text(ids), pa.array(predictions)], schema=schema))
        return
    schema = _indexed_schema([pa.field("prediction", pa.float64())])
    batches = (pa.record_batch([pa.array(predictions), _text(ids)], schema=schema) for ids, predictions in parts)
    with _parquet_writer(path, schema) as writer:
        for group in _in_groups(batches, _ERAS_AT_ONCE):
            writer.write_table(pa.Table.from_batches(group, schema))


def _table_schema(features: Sequence[str]) -> pa.Schema:
    return _indexed_schema(
        [
            pa.field("era", pa.string()),
            pa.field("data_type", pa.string()),
            *(pa.field(name, pa.int8()) for name in features),
            *(pa.field(name, pa.float32()) for name in TARGET_WEEKS),
        ]
    )


def _indexed_schema(fields: Sequence[pa.Field]) -> pa.Schema:
    """Add the column ``id``, marked as the index in pandas' metadata, as in Numerai's files."""

    def described(field: pa.Field) -> dict[str, Any]:
        text = pa.types.is_string(field.type)
        numpy_type = "object" if text else np.dtype(field.type.to_pandas_dtype()).name
        return {
            "name": field.name,
            "field_name": field.name,
            "pandas_type": "unicode" if text else numpy_type,
            "numpy_type": numpy_type,
            "metadata": None,
        }

    every = [*fields, pa.field("id", pa.string())]
    pandas = {
        "index_columns": ["id"],
        "column_indexes": [],
        "columns": [described(field) for field in every],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    return pa.schema(every, metadata={"pandas": json.dumps(pandas)})
