from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from numerai_pipeline.storage.manifests import (
    atomic_path,
    discard,
    manifest_path,
    read_manifest,
    verified_manifest,
    write_manifest,
)
from tests.samples import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("id,prediction\na,0.5\n")
    write_manifest(path, rows=1, columns=["id", "prediction"], inputs="abc", about={"etag": "1"})
    return path


def test_a_manifest_says_what_the_file_is(finished: Path) -> None:
    manifest = verified_manifest(finished, inputs="abc")
    assert manifest is not None
    assert (manifest.file, manifest.rows, manifest.bytes) == ("table.csv", 1, finished.stat().st_size)
    assert manifest.about == {"etag": "1"}
    assert json.loads(manifest_path(finished).read_text())["sha256"] == manifest.sha256


def test_a_flipped_byte_does_not_verify(finished: Path) -> None:
    finished.write_text("id,prediction\na,0.6\n")
    assert verified_manifest(finished) is None


def test_a_truncated_file_does_not_verify(finished: Path) -> None:
    finished.write_text("id,prediction\n")
    assert verified_manifest(finished) is None


def test_other_inputs_do_not_verify(finished: Path) -> None:
    assert verified_manifest(finished, inputs="other") is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"file": "x"}', '{"unknown": 1}'])
def test_an_unreadable_manifest_is_none(finished: Path, content: str) -> None:
    manifest_path(finished).write_text(content)
    assert read_manifest(finished) is None
    assert verified_manifest(finished) is None


def test_no_manifest_no_output(finished: Path) -> None:
    manifest_path(finished).unlink()
    assert verified_manifest(finished) is None


def test_discarding_leaves_nothing(finished: Path) -> None:
    discard(finished)
    assert list(finished.parent.iterdir()) == []


def test_a_failing_write_keeps_the_old_content_and_leaves_nothing(finished: Path) -> None:
    def write_half() -> None:
        with atomic_path(finished) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    before = finished.read_text()
    with pytest.raises(RuntimeError):
        write_half()
    assert finished.read_text() == before
    assert sorted(path.name for path in finished.parent.iterdir()) == ["table.csv", "table.csv.manifest.json"]


KILLED_IN_A_WRITE = """
import os, signal, sys
from pathlib import Path
from numerai_pipeline.storage.manifests import atomic_path

with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _kill_in_a_write(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins")}
    died = subprocess.run([sys.executable, "-c", KILLED_IN_A_WRITE, str(path)], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL


def test_a_killed_write_keeps_the_old_content(finished: Path) -> None:
    _kill_in_a_write(finished)
    assert verified_manifest(finished, inputs="abc") is not None


def _parts(finished: Path) -> list[Path]:
    return sorted(finished.parent.glob(".*.part"))


def test_what_a_killed_write_left_goes_with_the_next_one(finished: Path) -> None:
    _kill_in_a_write(finished)
    assert len(_parts(finished)) == 1
    other = finished.with_name("other.csv")
    with atomic_path(other) as temporary:
        temporary.write_text("of another name")
    assert len(_parts(finished)) == 1
    with atomic_path(finished) as temporary:
        temporary.write_text("whole")
    assert _parts(finished) == []
    assert finished.read_text() == "whole"


def test_two_that_write_the_same_file_at_once_leave_each_other_alone(finished: Path) -> None:
    with atomic_path(finished) as first:
        first.write_text("first")
        with atomic_path(finished) as second:
            second.write_text("second")
            assert _parts(finished) == sorted([first, second])
        assert finished.read_text() == "second"
    assert finished.read_text() == "first"
    assert _parts(finished) == []


def test_a_write_survives_one_who_tidies_up_before_its_lock(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.mkstemp
    removed: list[str] = []

    def make_and_remove_once(**options: Any) -> tuple[int, str]:
        handle, name = make(**options)
        if not removed:
            removed.append(name)
            os.unlink(name)  # noqa: PTH108 - what another process does
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", make_and_remove_once)
    with atomic_path(finished) as temporary:
        temporary.write_text("whole")
    assert removed
    assert finished.read_text() == "whole"
    assert _parts(finished) == []
