"""Outputs: whole or not there, at whatever point a writer is cut off."""

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


def test_writes_file_and_manifest(tmp_path: Path) -> None:
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


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    _write(path, b"old")
    with path.open("rb") as reader:
        _write(path, b"new, and longer")
        assert reader.read() == b"old"


def test_others_may_read_what_a_container_wrote(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    before = os.umask(0o022)
    try:
        _write(path, b"content")
    finally:
        os.umask(before)
    for written in (path, outputs.manifest_path(path)):
        assert stat.S_IMODE(written.stat().st_mode) == 0o644


def test_a_writer_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
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


class _CutOff(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("point", range(30))
def test_a_manifest_never_stands_beside_other_content(
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
                raise _CutOff
            steps += 1
            return original(*arguments, **options)

        return step

    with monkeypatch.context() as patched:
        for name in ("open", "fsync", "rename", "replace", "unlink"):
            patched.setattr(os, name, cut_off_at(getattr(os, name)))
        for name in ("replace", "unlink", "write_text"):
            patched.setattr(Path, name, cut_off_at(getattr(Path, name)))
        with contextlib.suppress(_CutOff):
            _write(path, b"new")
    assert path.read_bytes() in (b"old", b"new")
    # raises when manifest and content differ
    whole = outputs.verify(path)
    if point == 29:
        assert whole
        assert path.read_bytes() == b"new"


def test_a_try_that_overlaps_another_keeps_its_part(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    with outputs.replacing(path) as first:
        first.write_bytes(b"first")
        with outputs.replacing(path) as second:
            second.write_bytes(b"second")
            assert first != second
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"


def test_parts_of_killed_containers_are_removed_after_an_hour(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    abandoned, fresh, other = (tmp_path / name for name in (".svm.csv.a.part", ".svm.csv.b.part", ".x.csv.a.part"))
    for part in (abandoned, fresh, other):
        part.touch()
    for part in (abandoned, other):
        os.utime(part, (1, 1))
    _write(path, b"content")
    assert [abandoned.exists(), fresh.exists(), other.exists()] == [False, True, True]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_may_pass_and_the_message_says_where(
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


def test_other_errors_pass_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(_descriptor: int) -> None:
        raise OSError(errno.EXDEV, "odd")

    monkeypatch.setattr(os, "fsync", odd)
    with pytest.raises(OSError, match="odd"):
        _write(tmp_path / "svm.csv", b"new")


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "svm.csv"
    path.write_bytes(b"content")
    assert not outputs.verify(path)
    _write(path, b"content")
    assert outputs.verify(path)
    for changed in (b"contend", b"content ", b""):
        path.write_bytes(changed)
        with pytest.raises(BadDataError, match="is not what its manifest"):
            outputs.verify(path)


def test_places_are_checked_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs.check_writable(tmp_path / "new" / "svm.csv", "PREDICTING")
    assert (tmp_path / "new").is_dir()
    with pytest.raises(BadParameterError, match=r"PREDICTING is .*, which is a directory"):
        outputs.check_writable(tmp_path, "PREDICTING")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(BadParameterError, match=f"may not be written to by uid {os.getuid()}"):
        outputs.check_writable(tmp_path / "svm.csv", "PREDICTING")
