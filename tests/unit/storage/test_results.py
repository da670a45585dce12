"""Results: published by one rename, never changed, claimed by one process at a time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import write_manifest
from numerai_pipeline.storage.results import ResultInfo, ResultStore
from tests.samples import ROOT

INFO = ResultInfo("svm", "0123", "fit", "numerai-classic:1", "dataset", "1300", "dag/run", {"seed": "67"})
CLAIM = """
import sys
from pathlib import Path
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.results import ResultStore
with ResultStore(DataLayout(Path(sys.argv[1]))).claim("svm", "0123") as held:
    print(held, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(DataLayout(tmp_path))


def made(tmp_path: Path, content: str = "content") -> Path:
    directory = tmp_path / "work" / "svm" / "0123" / "model"
    (directory / "saved").mkdir(parents=True)
    (directory / "saved" / "state").write_text(content)
    return directory


def test_publish_moves_the_directory_and_describes_it(store: ResultStore, tmp_path: Path) -> None:
    directory = made(tmp_path)
    assert not store.has("svm", "0123")
    target = store.publish(directory, INFO)
    assert target == store.path("svm", "0123") == tmp_path / "results" / "svm" / "0123"
    assert not directory.exists()
    assert (target / "saved" / "state").read_text() == "content"
    assert store.has("svm", "0123")
    found = store.read("svm", "0123")
    assert found.created_at.endswith("+00:00")
    assert (found.task, found.key, found.inputs, found.run) == ("svm", "0123", {"seed": "67"}, "dag/run")


def test_publish_existing_result_stays_as_it_is(store: ResultStore, tmp_path: Path) -> None:
    target = store.publish(made(tmp_path), INFO)
    inode = (target / "saved" / "state").stat().st_ino
    again = made(tmp_path, "another")
    assert store.publish(again, INFO) == target
    assert not again.exists()
    assert (target / "saved" / "state").stat().st_ino == inode
    assert (target / "saved" / "state").read_text() == "content"


@pytest.mark.parametrize("kind", ["link", "linked folder", "pipe", "socket", "dangling link"])
def test_publish_other_than_regular_files_is_an_error(store: ResultStore, tmp_path: Path, kind: str) -> None:
    directory = made(tmp_path)
    path = directory / "saved" / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made_socket:
            here = Path.cwd()
            os.chdir(path.parent)  # the path of a socket is short
            try:
                made_socket.bind("odd")
            finally:
                os.chdir(here)
    else:
        path.symlink_to({"link": "/etc/passwd", "linked folder": "/etc", "dangling link": "/nowhere"}[kind])
    with pytest.raises(BadInputError, match="saved/odd: the container produced something other than a regular file"):
        store.publish(directory, INFO)
    assert not store.has("svm", "0123")
    assert not (tmp_path / "results").exists()


def test_publish_interrupted_before_the_rename_has_no_result(
    store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    directory = made(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.publish(directory, INFO)
    assert not store.has("svm", "0123")
    monkeypatch.undo()
    store.publish(directory, INFO)
    assert store.has("svm", "0123")


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"task": 1}', "[" * 100_000])
def test_read_missing_or_damaged_description_names_the_remedy(
    store: ResultStore, tmp_path: Path, content: str | None
) -> None:
    target = store.publish(made(tmp_path), INFO)
    (target / "result.json").unlink()
    if content is not None:
        (target / "result.json").write_text(content)
    with pytest.raises(BadInputError, match=r"the result of `svm` is missing or damaged .*: clear `svm` and run"):
        store.read("svm", "0123")


def test_is_whole_finds_changed_and_missing_files(store: ResultStore, tmp_path: Path) -> None:
    directory = made(tmp_path)
    (directory / "predictions").mkdir()
    for name in ("validation.csv", "predictions/svm.csv"):
        (directory / name).write_text("id,prediction\n")
        write_manifest(directory / name)
    target = store.publish(directory, INFO)
    assert store.is_whole("svm", "0123")
    (target / "predictions" / "svm.csv").write_text("id,prediktion\n")
    assert not store.is_whole("svm", "0123")
    (target / "predictions" / "svm.csv").unlink()
    assert not store.is_whole("svm", "0123")
    store.discard("svm", "0123")
    assert not store.has("svm", "0123")
    assert list((tmp_path / "results" / "svm").iterdir()) == []


def test_publish_description_has_everything(store: ResultStore, tmp_path: Path) -> None:
    content = json.loads((store.publish(made(tmp_path), INFO) / "result.json").read_text())
    assert set(content) == {"task", "key", "kind", "image", "dataset", "round", "run", "inputs", "created_at"}


def test_claim_is_of_one_process_and_ends_with_it(store: ResultStore, tmp_path: Path) -> None:
    assert not store.is_claimed("svm", "0123")
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(tmp_path)],
        cwd=ROOT / "plugins",
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert store.is_claimed("svm", "0123")
        with store.claim("svm", "0123") as held:
            assert not held
        with store.claim("svm", "4567") as held:
            assert held
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert not store.is_claimed("svm", "0123")
    with store.claim("svm", "0123") as held:
        assert held
        assert store.is_claimed("svm", "0123")
