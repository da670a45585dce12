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


def test_manifest_has_name_rows_size_and_checksum(finished: Path) -> None:
    manifest = verified_manifest(finished, inputs="abc")
    assert manifest is not None
    assert (manifest.file, manifest.rows, manifest.bytes) == ("table.csv", 1, finished.stat().st_size)
    assert manifest.about == {"etag": "1"}
    assert json.loads(manifest_path(finished).read_text())["sha256"] == manifest.sha256


def test_verified_manifest_flipped_byte_is_none(finished: Path) -> None:
    finished.write_text("id,prediction\na,0.6\n")
    assert verified_manifest(finished) is None


def test_verified_manifest_truncated_file_is_none(finished: Path) -> None:
    finished.write_text("id,prediction\n")
    assert verified_manifest(finished) is None


def test_verified_manifest_other_inputs_is_none(finished: Path) -> None:
    assert verified_manifest(finished, inputs="other") is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"file": "x"}', '{"unknown": 1}'])
def test_read_manifest_unreadable_is_none(finished: Path, content: str) -> None:
    manifest_path(finished).write_text(content)
    assert read_manifest(finished) is None
    assert verified_manifest(finished) is None


def test_verified_manifest_without_manifest_is_none(finished: Path) -> None:
    manifest_path(finished).unlink()
    assert verified_manifest(finished) is None


def test_discard_removes_file_and_manifest(finished: Path) -> None:
    discard(finished)
    assert list(finished.parent.iterdir()) == []


def test_atomic_path_failing_write_keeps_the_old_content(finished: Path) -> None:
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


def test_atomic_path_killed_write_keeps_the_old_content(finished: Path) -> None:
    _kill_in_a_write(finished)
    assert verified_manifest(finished, inputs="abc") is not None


def _parts(finished: Path) -> list[Path]:
    return sorted(finished.parent.glob(".*.part"))


def test_atomic_path_next_write_removes_parts_of_a_killed_one(finished: Path) -> None:
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


def test_atomic_path_concurrent_writes_have_separate_parts(finished: Path) -> None:
    with atomic_path(finished) as first:
        first.write_text("first")
        with atomic_path(finished) as second:
            second.write_text("second")
            assert _parts(finished) == sorted([first, second])
        assert finished.read_text() == "second"
    assert finished.read_text() == "first"
    assert _parts(finished) == []


def test_atomic_path_part_removed_before_its_lock_is_made_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
