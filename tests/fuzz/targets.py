"""The fuzz targets: the readers of untrusted files in Airflow and in the images, with their allowed outcomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from numerai_contract import outputs
from numerai_contract.embeddings import Embedding, read_embedding, write_embedding
from numerai_contract.exits import Exit, to_contract_error
from numerai_contract.split import Split, read_split, write_split
from numerai_contract.tables import Table
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.dataset.archive import extract
from numerai_pipeline.dataset.benchmarks import METADATA, REFERENCES, write_benchmarks
from numerai_pipeline.dataset.file_checks import check_for
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.dataset.unpack import find_or_make_dataset
from numerai_pipeline.leaderboard.run_view import read_run
from numerai_pipeline.models.predictions import validate_predictions
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.manifests import (
    SUFFIX,
    file_sha256,
    manifest_path,
    read_manifest,
    verified_manifest,
)
from numerai_pipeline.storage.reports import summary_of
from tests.fuzz import corpus
from tests.fuzz.mutations import any_table, damaged
from tests.unit.dataset.raw_files import archive_dataset, classic_dataset, v5_files
from tests.unit.dataset.unpacking import DATASET_FILES, LIVE_FILES, Volume

IDS = [f"n{number:03d}" for number in range(12)]


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes
    ----------
    title : str
        Title in the table of outcomes.
    share : int
        Number of its inputs out of 1,000.
    seeds : callable
        Role → name → content of the seeds, read unchanged and damaged. The role selects one of several files.
    attempt : callable
        Reads the content in this role, in this empty folder; its files are written there before. Returns the names of
        the files that it may leave, relative to the folder.
    drawn : mapping
        Role → further inputs that hypothesis makes from nothing.
    """

    title: str
    share: int
    seeds: Callable[[], Mapping[str, corpus.Corpus]]
    attempt: Callable[[Path, str, bytes, Files], list[str]]
    drawn: Mapping[str, st.SearchStrategy[bytes]] = field(default_factory=dict)


class Files:
    """The files of one attempt: those before it, to detect leftovers."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.before: list[str] = []

    def laid(self) -> None:
        """Record the present files as the input."""
        self.before = self.there()

    def there(self) -> list[str]:
        """List all files."""
        return sorted(str(path.relative_to(self._place)) for path in self._place.rglob("*") if not path.is_dir())


def classified_as(error: BaseException) -> str | None:
    """Return the class name of an expected error; None for an unexpected one."""
    if isinstance(error, PipelineError):
        return type(error).__name__
    known = to_contract_error(error)
    return None if known is None or known.exit is Exit.BUG else type(known).__name__


def _extract(place: Path, _role: str, content: bytes, files: Files) -> list[str]:
    archive = place / "numerai_dataset_100.zip"
    archive.write_bytes(content)
    files.laid()
    found = extract(archive, place / "out")
    return [str(path.relative_to(place)) for path in found]


def _check_content(place: Path, role: str, content: bytes, files: Files) -> list[str]:
    path = place / role
    path.write_bytes(content)
    files.laid()
    check_for(role)(path)
    return []


def _unpack(place: Path, role: str, content: bytes, files: Files) -> list[str]:
    raw_dir = place / "raw"
    if role == "training":
        raw = classic_dataset(raw_dir, training=content)
    elif role == "tournament":
        raw = classic_dataset(raw_dir, tournament=content)
    elif role == "archive":
        raw_dir.mkdir()
        (raw_dir / "numerai_dataset_100.zip").write_bytes(content)
        raw = archive_dataset(raw_dir / "numerai_dataset_100.zip")
    else:
        raw_dir.mkdir()
        for name, whole in _whole_v5().items():
            (raw_dir / name).write_bytes(whole)
        ending = ".json" if role == "features" else ".parquet"
        (raw_dir / f"{role}{ending}").write_bytes(content)
        raw = v5_files(raw_dir)
    files.laid()
    volume = Volume(place / "data")
    try:
        unpacked = volume.unpack(raw, every_nth_era=2)
    finally:
        # a dataset is complete where only the live rows are invalid
        assert volume.files() in ([], DATASET_FILES, sorted(DATASET_FILES + LIVE_FILES))
        files.laid()
    dataset = unpacked.dataset
    tables = {volume.training: dataset.training.rows, volume.validation: dataset.validation.rows}
    for path, rows in {**tables, volume.live: unpacked.live.rows}.items():
        table = pq.read_table(path)
        assert table.num_rows == rows
        assert rows
        assert not any(column.null_count for column in table.columns)
    return []


def _compare(place: Path, role: str, content: bytes, files: Files) -> list[str]:
    """Read a file that models are compared with: it is used or reported, and raises nothing."""
    raw_dir, data = place / "raw", DataLayout(place / "data")
    raw_dir.mkdir()
    for name, whole in _whole_v5().items():
        (raw_dir / name).write_bytes(whole)
    dataset = find_or_make_dataset(v5_files(raw_dir), data, feature_set="small", target=None, every_nth_era=1)
    path = raw_dir / f"{role}.parquet"
    path.write_bytes(content)
    files.laid()
    raw = RawDataset("v5", "practice", "100", "v5.3", {role: RawFile(str(path), file_sha256(path))})
    benchmarks = write_benchmarks(raw, dataset, data, data.run("100", "run"))
    assert role in benchmarks.unavailable or benchmarks.available
    for name in benchmarks.available:
        assert pq.read_table(benchmarks.file(name)).num_rows
    names = [METADATA, *(f"{name}.parquet{suffix}" for name in REFERENCES for suffix in ("", SUFFIX))]
    root = benchmarks.directory.relative_to(place)
    return [f"{root.parent}/.{root.name}.lock", *(f"{root}/{name}" for name in names)]


@cache
def _whole_v5() -> dict[str, bytes]:
    tables = {
        f"{kind}.parquet": corpus.parquet_bytes(corpus.table_of(kind)) for kind in ("train", "validation", "live")
    }
    return {**tables, "features.json": corpus.features()["whole"]}


def _read_table(place: Path, role: str, content: bytes, files: Files) -> list[str]:
    path = place / role
    path.write_bytes(content)
    files.laid()
    table = Table(path)
    features = table.features()
    assert features.shape == (len(table), len(table.feature_names))
    assert not np.isinf(features).any()
    assert not np.isinf(table.targets).any()
    assert sum(int(table.of_type(kind).sum()) for kind in ("train", "validation", "test", "live")) == len(table)
    for row in (0, len(table) - 1):
        table.describe_row(row)
    return []


def _read_prepared(place: Path, role: str, content: bytes, files: Files) -> list[str]:
    """Read a malformed split or embedding with a valid manifest, as a faulty writer would produce it."""
    training = place / "training.parquet"
    training.write_bytes(_whole_v5()["train.parquet"])
    path = place / role
    with outputs.output(path, rows=None, columns=[], inputs=None) as part:
        part.write_bytes(content)
    files.laid()
    table = Table(training)
    if role == "split.parquet":
        split = read_split(place, table)
        assert len(split.similarity) == len(split.validation) == len(table)
    else:
        coordinates = read_embedding(place, Embedding(30), table)
        assert coordinates.shape == (len(table), 2)
        assert coordinates.astype(np.float32).dtype == np.float32
    return []


@cache
def _prepared() -> dict[str, corpus.Corpus]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        training = place / "training.parquet"
        training.write_bytes(_whole_v5()["train.parquet"])
        ids = Table(training).ids
        rows = len(ids)
        split = write_split(
            place, ids, Split(np.linspace(0, 1, rows, dtype=np.float32), np.arange(rows) % 3 == 0), None
        )
        maps = write_embedding(place, Embedding(30), ids, np.zeros((rows, 2), np.float32), None)
        found = {}
        for path in (split, maps):
            whole = path.read_bytes()
            table = pq.read_table(path)
            cases = {
                "whole": whole,
                "nothing": b"",
                "cut": whole[:-9],
                "no rows": corpus.parquet_bytes(table.slice(0, 0)),
            }
            cases["half of the rows"] = corpus.parquet_bytes(table.slice(0, rows // 2))
            cases["every row twice"] = corpus.parquet_bytes(pa.concat_tables([table, table]))
            for place_of, column in enumerate(table.column_names):
                cases[f"without {column}"] = corpus.parquet_bytes(table.drop_columns([column]))
                twice = table.append_column(column, table[column])
                cases[f"{column} twice"] = corpus.parquet_bytes(twice)
                for kind_name, make in corpus.KINDS.items():
                    other = table.set_column(place_of, column, make(rows))
                    try:
                        cases[f"{column} as {kind_name}"] = corpus.parquet_bytes(other)
                    except pa.ArrowException:
                        continue
            found[str(path.relative_to(place))] = cases
        return found


def _accept(place: Path, role: str, content: bytes, files: Files) -> list[str]:
    predictions, tournament = place / "svm.csv", place / "tournament.parquet"
    if role == "predictions":
        predictions.write_bytes(content)
        tournament.write_bytes(_tournament())
    else:
        predictions.write_bytes(corpus.predictions(IDS)["whole"])
        tournament.write_bytes(content)
    files.laid()
    validate_predictions(predictions, tournament)
    assert verified_manifest(predictions) is not None
    return [manifest_path(predictions).name]


@cache
def _tournament() -> bytes:
    return corpus.parquet_bytes(pa.table({"id": IDS}))


def _read_manifests(place: Path, role: str, content: bytes, files: Files) -> list[str]:
    path = place / "svm.csv"
    path.write_bytes(_MANIFESTED)
    manifest_path(path).write_bytes(content)
    files.laid()
    if role == "Airflow's side":
        read_manifest(path)
        verified_manifest(path, inputs="abc")
    else:
        outputs.is_finished(path, "abc")
        outputs.verify(path)
    return []


_MANIFESTED = b"id,prediction\na,0.25\nb,0.5\nc,0.75\n"


def _manifests() -> dict[str, corpus.Corpus]:
    made = corpus.manifests("svm.csv", _MANIFESTED, hashlib.sha256(_MANIFESTED).hexdigest())
    return {"Airflow's side": made, "the images' side": made}


def _read_reports(place: Path, role: str, content: bytes, files: Files) -> list[str]:
    """Summarize and display a run with one malformed file, which must not raise an exception."""
    layout = RunLayout(place)
    for file, known in corpus.reports().items():
        path = place / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if file == role else known["whole"])
    files.laid()
    for task in ("svm", "tpot"):
        summary = summary_of(task, layout)
        assert all(value is None or f"{value:.5f}" for value in summary.values())
    json.dumps(read_run(layout), allow_nan=False).encode()
    return []


_KINDS = ("train", "validation", "live")
TARGETS = {
    "zip": Target("`unzip`: the zip itself", 190, lambda: {"archive": corpus.zips()}, _extract),
    "archive": Target(
        "`unzip`: a zip of the classic layout, to the run's tables",
        120,
        lambda: {
            "archive": corpus.zips(),
            "training": corpus.csvs(corpus.TRAINING_CSV),
            "tournament": corpus.csvs(corpus.TOURNAMENT_CSV),
        },
        _unpack,
    ),
    "v5": Target(
        "`unzip`: today's parquet files, to the run's tables",
        160,
        lambda: {**{kind: corpus.parquets(kind) for kind in _KINDS}, "features": corpus.features()},
        _unpack,
        {kind: any_table(kind) for kind in _KINDS},
    ),
    "comparisons": Target(
        "`unzip`: predictions for comparison; an invalid file is ignored",
        50,
        lambda: {"meta_model": corpus.parquets("validation"), "benchmark_validation": corpus.parquets("validation")},
        _compare,
        {"meta_model": any_table("validation")},
    ),
    "downloads": Target(
        "`download`: a file before it gets its name",
        90,
        lambda: {"a.zip": corpus.zips(), "a.parquet": corpus.parquets(), "a.json": corpus.features()},
        _check_content,
    ),
    "image_parquet": Target(
        "an image's table reader: parquet",
        160,
        lambda: {"training.parquet": corpus.parquets()},
        _read_table,
        {"training.parquet": any_table("train")},
    ),
    "image_csv": Target(
        "an image's table reader: CSV",
        100,
        lambda: {"training.csv": corpus.csvs(corpus.TRAINING_CSV)},
        _read_table,
    ),
    "prepared": Target("an image's reader of split and embeddings", 50, _prepared, _read_prepared),
    "predictions": Target(
        "predictions of a container",
        40,
        lambda: {"predictions": corpus.predictions(IDS), "tournament": {"whole": _tournament()}},
        _accept,
    ),
    "reports": Target("reports of tasks, for the leaderboard", 20, corpus.reports, _read_reports),
    "manifests": Target("manifests, on both sides", 20, _manifests, _read_manifests),
}


def inputs_of(target: Target) -> st.SearchStrategy[tuple[str, str, bytes]]:
    """Draw inputs of a target: role, origin and content."""
    seeds = [(role, name, content) for role, known in target.seeds().items() for name, content in known.items()]
    # damage to valid files reaches more code than damage to invalid files
    whole = [seed for seed in seeds if seed[1] == "whole"]

    @st.composite
    def one(draw: st.DrawFn) -> tuple[str, str, bytes]:
        if target.drawn and draw(st.integers(0, 2)) == 0:
            role = draw(st.sampled_from(sorted(target.drawn)))
            return role, "a table of anything", draw(target.drawn[role])
        role, name, content = draw(st.sampled_from(whole if draw(st.booleans()) else seeds))
        if len(content) > 300_000:
            content = content[:300_000]
        return role, f"{name}, damaged", draw(damaged(content, draw(st.sampled_from(seeds))[2]))

    return one()
