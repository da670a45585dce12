"""Outputs: complete or absent, at every point at which a writer may be killed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from numerai_contract import outputs
from numerai_contract.exits import BadDataError, BadParameterError, TryAgainError


def _write(path: Path, content: bytes) -> None:
    with outputs.output(path, rows=3, columns=["id", "prediction"], inputs="0f3a") as part:
        part.write_bytes(content)


def test_output_new_file_has_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "svm.csv"
    _write(path, b"content")
    assert path.read_bytes() == b"content"
    assert json.loads((tmp_path / "predictions" / "svm.csv.manifest.json").read_text()) == {
        "file": "svm.csv",
        "sha256": hashlib.sha256(b"content").hexdigest(),
        "bytes": 7,
        "rows": 3,
        "columns": ["id", "prediction"],
        "inputs": "0f3a",
    }
    assert outputs.verify(path)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["svm.csv", "svm.csv.manifest.json"]


def test_output_open_reader_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    _write(path, b"old")
    with path.open("rb") as reader:
        _write(path, b"new, and longer")
        assert reader.read() == b"old"


def test_output_written_file_is_readable_by_other_users(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    before = os.umask(0o022)
    try:
        _write(path, b"content")
    finally:
        os.umask(before)
    for written in (path, outputs.manifest_path(path)):
        assert stat.S_IMODE(written.stat().st_mode) == 0o644


def test_output_failing_writer_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    _write(path, b"old")

    def fail() -> None:
        with outputs.output(path, rows=1, columns=[], inputs=None) as part:
            part.write_bytes(b"ne")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_bytes() == b"old"
    assert outputs.verify(path)
    assert not list(tmp_path.glob(".*"))


class _Killed(BaseException):
    """Simulates a kill."""


@pytest.mark.parametrize("point", range(30))
def test_output_writer_killed_manifest_matches_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    path = tmp_path / "svm.csv"
    _write(path, b"old")
    steps = 0

    def cut_off_at(original: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            if steps >= point:
                # a killed process does nothing more, not even its clean-up
                raise _Killed
            steps += 1
            return original(*arguments, **options)

        return step

    with monkeypatch.context() as patched:
        for name in ("open", "fsync", "rename", "replace", "unlink"):
            patched.setattr(os, name, cut_off_at(getattr(os, name)))
        for name in ("replace", "unlink", "write_text"):
            patched.setattr(Path, name, cut_off_at(getattr(Path, name)))
        with contextlib.suppress(_Killed):
            _write(path, b"new")
    assert path.read_bytes() in (b"old", b"new")
    # raises when manifest and content differ
    is_complete = outputs.verify(path)
    if point == 29:
        assert is_complete
        assert path.read_bytes() == b"new"


def test_atomic_write_overlapping_attempts_have_separate_parts(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    with outputs.atomic_write(path) as first:
        first.write_bytes(b"first")
        with outputs.atomic_write(path) as second:
            second.write_bytes(b"second")
            assert first != second
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"


def test_output_stale_parts_are_removed_after_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    abandoned, fresh, other = (tmp_path / name for name in (".svm.csv.a.part", ".svm.csv.b.part", ".x.csv.a.part"))
    for part in (abandoned, fresh, other):
        part.touch()
    for part in (abandoned, other):
        os.utime(part, (1, 1))
    _write(path, b"content")
    assert [abandoned.exists(), fresh.exists(), other.exists()] == [False, True, True]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_output_disk_error_raises_try_again_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "svm.csv"
    _write(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TryAgainError, match=r"svm\.csv: the disk .* nothing was written"):
        _write(path, b"new")
    assert path.read_bytes() == b"old"
    assert outputs.verify(path)
    assert not list(tmp_path.glob(".*"))


def test_output_other_os_error_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(_descriptor: int) -> None:
        raise OSError(errno.EXDEV, "odd")

    monkeypatch.setattr(os, "fsync", odd)
    with pytest.raises(OSError, match="odd"):
        _write(tmp_path / "svm.csv", b"new")


def test_verify_changed_content_raises_bad_data(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    path.write_bytes(b"content")
    assert not outputs.verify(path)
    _write(path, b"content")
    assert outputs.verify(path)
    for changed in (b"contend", b"content ", b""):
        path.write_bytes(changed)
        with pytest.raises(BadDataError, match="differs from its manifest"):
            outputs.verify(path)


def test_check_writable_invalid_path_raises_bad_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs.check_writable(tmp_path / "new" / "svm.csv", "PREDICTING")
    assert (tmp_path / "new").is_dir()
    with pytest.raises(BadParameterError, match=r"PREDICTING is .*, which is a directory"):
        outputs.check_writable(tmp_path, "PREDICTING")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(BadParameterError, match=f"may not be written to by uid {os.getuid()}"):
        outputs.check_writable(tmp_path / "svm.csv", "PREDICTING")
