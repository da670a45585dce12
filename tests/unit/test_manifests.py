from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from numerai_pipeline.manifests import (
    atomic_path,
    discard,
    manifest_path,
    read_manifest,
    verified_manifest,
    write_manifest,
)

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


def test_a_killed_write_keeps_the_old_content(finished: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from numerai_pipeline.manifests import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(finished)], check=False, env={"PYTHONPATH": "plugins"})
    assert ended.returncode == -9
    assert verified_manifest(finished, inputs="abc") is not None
