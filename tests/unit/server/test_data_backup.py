"""The data in a server's backup, and its restoration."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from numerai_pipeline.storage.layout import RunLayout
from server.airflow import data_backup
from server.airflow.data_backup import MANIFEST, is_backed_up, pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

RUN = "rounds/1335/f09bf676d967"
INCLUDED = (
    ".installation",
    f"{RUN}/run.json",
    f"{RUN}/predictions/svm.csv",
    f"{RUN}/predictions/svm.csv{MANIFEST}",
    f"{RUN}/training.parquet{MANIFEST}",
    f"{RUN}/split.parquet",
    f"{RUN}/submissions/my_model.json",
    f"downloads/numerai/train.parquet{MANIFEST}",
)
REPLACEABLE = (f"{RUN}/training.parquet", f"{RUN}/tournament.parquet", "downloads/numerai/train.parquet")
NEVER = (f"{RUN}/.svm.lock", f"{RUN}/predictions/.svm.csv.x1", ".rounds.lock")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    for name in (*INCLUDED, *REPLACEABLE, *NEVER):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return directory


def packed(data: Path, *, everything: bool = False) -> io.BytesIO:
    sink = io.BytesIO()
    pack(data, sink, everything=everything)
    sink.seek(0)
    return sink


def names(packed: io.BytesIO) -> set[str]:
    with tarfile.open(fileobj=packed) as tar:
        return set(tar.getnames())


def test_pack_excludes_replaceable_files_by_default(data: Path) -> None:
    assert names(packed(data)) == set(INCLUDED)
    assert names(packed(data, everything=True)) == {*INCLUDED, *REPLACEABLE}


def test_tables_are_the_tables_of_a_run(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "rounds" / "1335" / "f09bf676d967")
    tables = {layout.training, layout.tournament, layout.training_csv, layout.tournament_csv}
    assert {path.name for path in tables} == set(data_backup.TABLES)
    assert not any(is_backed_up(path.relative_to(tmp_path), everything=False) for path in tables)


def test_unpack_restores_files_but_no_manifest_without_its_file(data: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert unpack(new, packed(data)) == {"restored": 6, "existing": 0, "to be computed": 2}
    assert (new / f"{RUN}/predictions/svm.csv").read_text() == f"content of {RUN}/predictions/svm.csv"
    assert (new / f"{RUN}/predictions/svm.csv{MANIFEST}").exists()
    assert not (new / f"{RUN}/training.parquet{MANIFEST}").exists()
    assert not list(new.rglob("*.part"))


def test_unpack_never_overwrites(data: Path) -> None:
    archive = packed(data)
    (data / f"{RUN}/run.json").write_text("newer")
    (data / f"{RUN}/predictions/svm.csv").unlink()
    assert unpack(data, archive) == {"restored": 1, "existing": len(INCLUDED) - 1, "to be computed": 0}
    assert (data / f"{RUN}/run.json").read_text() == "newer"


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside-of-the-data", "rounds/../../outside"])  # noqa: S108
def test_unpack_ignores_paths_outside_the_data_directory(name: str, tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w|gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    sink.seek(0)
    directory = tmp_path / "inner" / "data"
    directory.mkdir(parents=True)
    assert unpack(directory, sink)["restored"] == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "inner"]
