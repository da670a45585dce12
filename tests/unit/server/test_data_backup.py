"""The data in a server's backup, and its restoration."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import IO

import pytest

from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.task_records import TaskRecord, require_record, write_record
from server.airflow import data_backup
from server.airflow.data_backup import MANIFEST, Selection, pack, unpack

RUN = "rounds/1335/f09bf676d967"
FIT, PREDICTION = "results/svm/f17000000000", "results/svm/93ed00000000"
DATASET, UNUSED_DATASET = "da7a5e700001", "da7a5e700002"
LINKS = (f"{RUN}/predictions/svm.csv", f"{RUN}/predictions/svm.csv{MANIFEST}", f"{RUN}/reports/svm.json")
INCLUDED = (
    ".installation",
    "backtests/2026-08-15.csv",
    f"{RUN}/run.json",
    f"{RUN}/live.parquet",
    f"{RUN}/tasks/svm.json",
    f"{RUN}/submissions/my_model.json",
    f"{FIT}/result.json",
    f"{FIT}/saved/weights.bin",
    f"{FIT}/saved/.hidden",
    f"{FIT}/report.json",
    f"{PREDICTION}/result.json",
    f"{PREDICTION}/predictions/svm.csv",
    f"{PREDICTION}/predictions/svm.csv{MANIFEST}",
    f"datasets/{DATASET}/dataset.json",
)
REPLACEABLE = (
    f"{RUN}/tournament.parquet",
    f"datasets/{DATASET}/training.parquet",
    f"datasets/{UNUSED_DATASET}/dataset.json",
    "results/svm/000000000000/result.json",
    "downloads/numerai/train.parquet",
    f"downloads/numerai/train.parquet{MANIFEST}",
)
NEVER = (
    f"{RUN}/.svm.lock",
    f"{RUN}/predictions/.svm.csv.x1",
    "work/svm/f17000000000/model.json",
    "results/.removed-x/y",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Make a data directory with a run, its results, and links to them."""
    directory = tmp_path / "data"
    for name in (*INCLUDED, *REPLACEABLE, *NEVER):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    layout = DataLayout(directory).run("1335", "f09bf676d967")
    layout.run_metadata.write_text(json.dumps({"dataset": DATASET}))
    fit, prediction = (name.rpartition("/")[2] for name in (FIT, PREDICTION))
    record = TaskRecord("svm", "image", DATASET, fit, prediction, fitted_at="", fit_round="")
    write_record(layout, record, [directory / FIT, directory / PREDICTION], ["predictions/svm.csv"])
    (directory / RUN / "outside").symlink_to("/etc/passwd")
    return directory


def packed(data: Path, *, everything: bool = False) -> io.BytesIO:
    sink = io.BytesIO()
    pack(data, sink, everything=everything)
    sink.seek(0)
    return sink


def names(packed: io.BytesIO) -> set[str]:
    with tarfile.open(fileobj=packed) as tar:
        return set(tar.getnames())


def test_pack_includes_runs_and_the_results_they_use(data: Path) -> None:
    assert names(packed(data)) == {*INCLUDED, *LINKS}
    assert names(packed(data, everything=True)) == {*INCLUDED, *LINKS, *REPLACEABLE}


def test_tables_are_the_tables_of_a_run(data: Path) -> None:
    layout = DataLayout(data).run("1335", "f09bf676d967")
    tables = {layout.training, layout.tournament, layout.directory / "training.csv", layout.tournament_csv}
    assert {path.name for path in tables} == set(data_backup.TABLES)
    selection = Selection(data, everything=False)
    assert not any(selection.includes(path.relative_to(data)) for path in tables)


def test_unpack_restores_results_and_links(data: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    count = len(INCLUDED) + len(LINKS)
    assert unpack(new, packed(data)) == {"restored": count, "existing": 0, "to be computed": 0}
    assert (new / FIT / "saved" / "weights.bin").read_text() == f"content of {FIT}/saved/weights.bin"
    for link in LINKS:
        assert (new / link).readlink() == (data / link).readlink()
        assert (new / link).resolve().is_relative_to(new / "results")
    assert require_record(DataLayout(new).run("1335", "f09bf676d967"), "svm").fit == FIT.rpartition("/")[2]
    assert not list(new.rglob("*.part"))


def test_unpack_killed_leaves_no_result_that_counts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, content: IO[bytes]) -> None:
        if path.name == "weights.bin":
            raise KeyboardInterrupt
        write(path, content)

    write, new = data_backup._write, tmp_path / "new"
    archive = packed(data)
    monkeypatch.setattr(data_backup, "_write", fail)
    with pytest.raises(KeyboardInterrupt):
        unpack(new, archive)
    assert (new / FIT / "report.json").exists()
    assert not list(new.rglob("result.json"))
    monkeypatch.undo()
    archive.seek(0)
    unpack(new, archive)
    assert (new / FIT / "result.json").exists()


def test_unpack_never_overwrites(data: Path) -> None:
    archive = packed(data)
    (data / f"{RUN}/run.json").write_text("newer")
    (data / f"{RUN}/submissions/my_model.json").unlink()
    count = len(INCLUDED) + len(LINKS)
    assert unpack(data, archive) == {"restored": 1, "existing": count - 1, "to be computed": 0}
    assert (data / f"{RUN}/run.json").read_text() == "newer"


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("link", "/etc/passwd"),
        (f"{RUN}/link", "/etc/passwd"),
        (f"{RUN}/link", "../../../../etc/passwd"),
        (f"{RUN}/link", "../../../results/svm/key/../../../../passwd"),
        (f"{RUN}/link", "../../../../results/svm/key/report.json"),
        (f"{RUN}/link", "../../../downloads/secret"),
        ("submissions/link", "../results/svm/key/report.json"),
    ],
)
def test_unpack_ignores_links_that_lead_to_no_result(link: str, target: str, tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w|gz") as tar:
        member = tarfile.TarInfo(link)
        member.type, member.linkname = tarfile.SYMTYPE, target
        tar.addfile(member)
    sink.seek(0)
    assert unpack(tmp_path, sink)["restored"] == 0
    assert list(tmp_path.rglob("*")) == []


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
