"""What of the data goes into a server's backup, and how it comes back."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from numerai_pipeline.run_layout import RunLayout
from server.airflow import keepsakes
from server.airflow.keepsakes import MANIFEST, is_kept, pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

RUN = "rounds/1335/f09bf676d967"
KEPT = (
    ".installation",
    f"{RUN}/run.json",
    f"{RUN}/predictions/svm.csv",
    f"{RUN}/predictions/svm.csv{MANIFEST}",
    f"{RUN}/training.parquet{MANIFEST}",
    f"{RUN}/split.parquet",
    f"{RUN}/submissions/my_model.json",
    f"downloads/numerai/train.parquet{MANIFEST}",
)
MADE_AGAIN = (f"{RUN}/training.parquet", f"{RUN}/tournament.parquet", "downloads/numerai/train.parquet")
NEVER = (f"{RUN}/.svm.lock", f"{RUN}/predictions/.svm.csv.x1", ".rounds.lock")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    for name in (*KEPT, *MADE_AGAIN, *NEVER):
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


def test_what_can_be_had_again_is_left_out_unless_everything_is_asked_for(data: Path) -> None:
    assert names(packed(data)) == set(KEPT)
    assert names(packed(data, everything=True)) == {*KEPT, *MADE_AGAIN}


def test_the_tables_are_those_of_a_run(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "rounds" / "1335" / "f09bf676d967")
    tables = {layout.training, layout.tournament, layout.training_csv, layout.tournament_csv}
    assert {path.name for path in tables} == set(keepsakes.TABLES)
    assert not any(is_kept(path.relative_to(tmp_path), everything=False) for path in tables)


def test_what_is_lost_comes_back_and_no_manifest_without_its_file(data: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert unpack(new, packed(data)) == {"put back": 6, "there": 0, "to be made again": 2}
    assert (new / f"{RUN}/predictions/svm.csv").read_text() == f"content of {RUN}/predictions/svm.csv"
    assert (new / f"{RUN}/predictions/svm.csv{MANIFEST}").exists()
    assert not (new / f"{RUN}/training.parquet{MANIFEST}").exists()
    assert not list(new.rglob("*.part"))


def test_what_is_there_is_never_written_over(data: Path) -> None:
    archive = packed(data)
    (data / f"{RUN}/run.json").write_text("newer")
    (data / f"{RUN}/predictions/svm.csv").unlink()
    assert unpack(data, archive) == {"put back": 1, "there": len(KEPT) - 1, "to be made again": 0}
    assert (data / f"{RUN}/run.json").read_text() == "newer"


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside-of-the-data", "rounds/../../outside"])  # noqa: S108
def test_nothing_is_put_outside(name: str, tmp_path: Path) -> None:
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
    assert unpack(directory, sink)["put back"] == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "inner"]
