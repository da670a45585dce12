"""Unpacking of valid and invalid zips."""

from __future__ import annotations

import logging
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest

from numerai_pipeline.core.errors import BadInputError, DiskFullError, NotFoundError
from numerai_pipeline.dataset.archive import Limits, extract
from numerai_pipeline.dataset.file_checks import ContentError, check_zip
from numerai_pipeline.storage import disk, progress
from tests.unit.dataset.raw_files import patch_zip, write_zip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD: dict[str, str | bytes] = {
    "numerai_training_data.csv": "id,era\n" * 50,
    "folder/numerai_tournament_data.csv": b"id\n" * 30,
}


def files_under(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Create a folder for the unpacked files only."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.fixture
def refused(tmp_path: Path, place: Path) -> Callable[..., str]:
    """Unpack an invalid archive; check that no file remains, and return the message."""

    def attempt(path: Path, **limits: float) -> str:
        with pytest.raises(BadInputError) as caught:
            extract(path, place / "out", limits=Limits(**limits))  # type: ignore[arg-type]
        assert files_under(place) == []
        message = str(caught.value)
        assert path.name in message
        return message

    return attempt


def member(name: str, mode: int = 0, content: bytes = b"x") -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = mode << 16
    return info, content


def zip_of(path: Path, *members: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_extract_valid_zip_writes_every_file(tmp_path: Path, place: Path, compression: int) -> None:
    junk = {"__MACOSX/._a.csv": "x", "folder/.DS_Store": "x"}
    path = write_zip(tmp_path / "good.zip", {**GOOD, **junk}, compression)

    files = extract(path, place / "out")

    assert files == [place / "out" / name for name in GOOD]
    assert files[0].read_text() == GOOD["numerai_training_data.csv"]
    assert files[1].read_bytes() == GOOD["folder/numerai_tournament_data.csv"]
    assert files_under(place) == ["out", "out/folder", "out/folder/numerai_tournament_data.csv", f"out/{files[0].name}"]


@pytest.mark.parametrize(
    "name",
    [
        "__MACOSX/._numerai_training_data.csv",
        "data/__MACOSX/._numerai_training_data.csv",
        "a/b/__macosx/c/numerai_training_data.csv",
        "._numerai_training_data.csv",
        "data/._numerai_training_data.csv",
        "._data/numerai_training_data.csv",
        f"._{'n' * 254}",
        "__MACOSX\\._x",
        ".DS_Store",
        "data/.DS_Store",
        "Icon\r",
        "a/.Spotlight-V100/numerai_training_data.csv",
        "Thumbs.db",
        "data/thumbs.db",
        "data/Desktop.ini",
        "$RECYCLE.BIN/numerai_training_data.csv",
        "@eaDir/numerai_training_data.csv",
    ],
)
def test_extract_system_file_at_any_depth_is_ignored(tmp_path: Path, place: Path, name: str) -> None:
    path = zip_of(tmp_path / "mac.zip", *(member(good) for good in GOOD), member(name))
    assert extract(path, place / "out") == [place / "out" / good for good in GOOD]
    assert len([found for found in place.rglob("*") if found.is_file()]) == len(GOOD)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_extract_unusable_system_file_does_not_refuse_the_zip(tmp_path: Path, place: Path) -> None:
    link, pipe = member("._link", stat.S_IFLNK | 0o777, b"/etc/passwd"), member("__MACOSX/._pipe", stat.S_IFIFO)
    twice = [member("__MACOSX/._a"), member("__MACOSX/._A"), member("__MACOSX/._a")]
    encrypted = member("data/Thumbs.db")
    path = zip_of(tmp_path / "mac.zip", *(member(good) for good in GOOD), link, pipe, *twice, encrypted)
    patch_zip(path, name="data/Thumbs.db", flags=1, method=99)
    assert extract(path, place / "out") == [place / "out" / good for good in GOOD]


def test_check_zip_damaged_system_file_is_not_read(tmp_path: Path) -> None:
    path = zip_of(
        tmp_path / "mac.zip", member("a.csv", 0, b"0123456789"), member("__MACOSX/._a.csv", 0, b"AppleDouble")
    )
    path.write_bytes(path.read_bytes().replace(b"AppleDouble", b"AppleDoubl?"))
    check_zip(path)
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"012345678?"))
    with pytest.raises(ContentError, match=r"'a\.csv' is damaged"):
        check_zip(path)


def test_extract_folders_and_unix_modes_are_accepted(tmp_path: Path, place: Path) -> None:
    path = zip_of(
        tmp_path / "unix.zip",
        member("data/", stat.S_IFDIR | 0o755, b""),
        member("./data/a.csv", stat.S_IFREG | 0o4755),
    )
    [file] = extract(path, place / "out")
    assert file == place / "out" / "data" / "a.csv"
    assert stat.S_IMODE(file.stat().st_mode) & 0o7111 == 0, "no mode of the archive is taken over"


def test_extract_into_nonempty_folder_changes_nothing(tmp_path: Path, place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "mine").write_text("kept")
    with pytest.raises(BadInputError, match="exists already"):
        extract(write_zip(tmp_path / "good.zip", GOOD), place / "out")
    assert files_under(place) == ["out", "out/mine"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.csv", "leads out"),
        ("a/../../evil.csv", "leads out"),
        ("a/..", "leads out"),
        ("/etc/passwd", "absolute"),
        ("//server/share", "absolute"),
        ("C:/evil.csv", "drive"),
        ("c:evil.csv", "drive"),
        ("..\\evil.csv", "backslash"),
        ("a\\b.csv", "backslash"),
        ("a\nb.csv", "control characters"),
        ("a\0.csv", "control characters"),
        ("a\u202egpj.csv", "control characters"),
        ("./", "no name"),
        ("x" * 300, "longer than 255"),
        ("/".join(["x" * 200] * 8), "longer than 255"),
    ],
)
def test_extract_name_outside_the_folder_is_rejected(
    tmp_path: Path, refused: Callable[..., str], name: str, reason: str
) -> None:
    # zipfile would clean some of these names while writing: put them in afterwards
    placeholder = "Q" * len(name.encode())
    path = write_zip(tmp_path / "bad.zip", {placeholder: "x", "fine.csv": "y"}, zipfile.ZIP_STORED)
    content = path.read_bytes().replace(placeholder.encode(), name.encode())
    if not name.isascii():
        content = set_flag_everywhere(content, 0x800)
    path.write_bytes(content)
    assert reason in refused(path)


def set_flag_everywhere(content: bytes, flag: int) -> bytes:
    changed = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = changed.find(mark)
        while start >= 0:
            (flags,) = struct.unpack_from("<H", changed, start + offset)
            struct.pack_into("<H", changed, start + offset, flags | flag)
            start = changed.find(mark, start + 4)
    return bytes(changed)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (stat.S_IFLNK | 0o777, "is a link"),
        (stat.S_IFIFO, "special file"),
        (stat.S_IFCHR, "special file"),
        (stat.S_IFBLK, "special file"),
        (stat.S_IFSOCK, "special file"),
    ],
)
def test_extract_links_and_special_files_are_rejected(
    tmp_path: Path, refused: Callable[..., str], mode: int, reason: str
) -> None:
    message = refused(zip_of(tmp_path / "bad.zip", member("fine.csv"), member("trap", mode, b"/etc/passwd")))
    assert reason in message
    assert "'trap'" in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [("a.csv", "a.csv"), ("a.csv", "A.CSV"), ("a.csv", "./a.csv"), ("d/a.csv", "d//a.csv"), ("é.csv", "e\u0301.csv")],
)
def test_extract_duplicate_names_are_rejected(
    tmp_path: Path, refused: Callable[..., str], names: tuple[str, str]
) -> None:
    assert "the same name" in refused(zip_of(tmp_path / "bad.zip", *(member(name) for name in names)))


def test_extract_name_of_file_and_folder_is_rejected(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "is a file and the folder" in refused(zip_of(tmp_path / "bad.zip", member("d/a.csv"), member("D")))


def test_extract_too_large_total_size_is_rejected(tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused(write_zip(tmp_path / "bad.zip", GOOD), total_bytes=100)
    assert "440 bytes" in message
    assert "100 allowed" in message


def test_extract_too_high_compression_ratio_is_rejected(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = write_zip(tmp_path / "bad.zip", {"zeros.csv": bytes(17 * 2**20)})
    message = refused(path)
    assert "'zeros.csv'" in message
    assert "1,02" in message  # deflate's best is about 1,029-fold
    assert "grow 1,028.02-fold to 17,825,792 bytes, more than the 1,028.00-fold" in refused(path, ratio=1028.0)
    small = write_zip(tmp_path / "small.zip", {"zeros.csv": bytes(2**20)})
    assert "zip bomb" in refused(small, ratio_from_bytes=1000)


def test_extract_small_member_with_high_ratio_is_accepted(tmp_path: Path, place: Path) -> None:
    assert extract(write_zip(tmp_path / "small.zip", {"zeros.csv": bytes(2**20)}), place / "out")


def test_extract_too_many_members_are_rejected_before_reading(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "bad.zip", {f"{number}.csv": "x" for number in range(1200)})
    # refused before zipfile makes an object of each
    monkeypatch.setattr(zipfile, "ZipFile", None)
    assert "1,200 members" in refused(path)


def test_extract_overlapping_members_are_rejected(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = write_zip(tmp_path / "bad.zip", {"a.csv": "x" * 100, "b.csv": "y"}, zipfile.ZIP_STORED)
    patch_zip(path, name="a.csv", size=5000, compressed=5000)
    assert "overlap" in refused(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("declared", "reason"),
    [(900, "than the 900 bytes that it declares"), (1100, "1,000 bytes, not the declared 1,100")],
)
def test_extract_wrong_declared_size_is_rejected(
    tmp_path: Path, refused: Callable[..., str], compression: int, declared: int, reason: str
) -> None:
    path = write_zip(tmp_path / "bad.zip", {"a.csv": "0123456789" * 100}, compression)
    assert reason in refused(patch_zip(path, size=declared))


def test_extract_wrong_size_with_matching_checksum_is_rejected(tmp_path: Path, refused: Callable[..., str]) -> None:
    """zipfile alone would cut the content at the declared size and find the checksum right."""
    content = b"0123456789" * 100
    path = write_zip(tmp_path / "bad.zip", {"a.csv": content})
    refused(patch_zip(path, size=900, crc=zlib.crc32(content[:900])))


def test_extract_encrypted_member_is_rejected(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "encrypted" in refused(patch_zip(write_zip(tmp_path / "bad.zip", GOOD), flags=1))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_extract_unsupported_compression_is_rejected(
    tmp_path: Path, refused: Callable[..., str], compression: int
) -> None:
    assert f"method {compression}" in refused(write_zip(tmp_path / "bad.zip", GOOD, compression))


def test_extract_unknown_compression_is_rejected(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "method 99" in refused(patch_zip(write_zip(tmp_path / "bad.zip", GOOD), method=99))


def test_extract_wrong_checksum_is_rejected(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = write_zip(tmp_path / "bad.zip", {"a.csv": "0123456789", "b.csv": "zz"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456780"))
    message = refused(path)
    assert "damaged" in message
    assert "CRC" in message
    assert "a.csv" in message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_extract_truncated_zip_is_rejected(tmp_path: Path, refused: Callable[..., str], share: float) -> None:
    path = write_zip(tmp_path / "bad.zip", GOOD)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "truncated" in refused(path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"<html>sorry</html>", "<html>"), (b"\x1f\x8b" * 50, "not a zip")]
)
def test_extract_file_that_is_not_a_zip_is_rejected(
    tmp_path: Path, refused: Callable[..., str], content: bytes, reason: str
) -> None:
    path = tmp_path / "bad.zip"
    path.write_bytes(content)
    assert reason in refused(path)


@pytest.mark.parametrize("members", [{}, {"__MACOSX/._a": "x"}, {"a/._b": "x"}, {"folder/": ""}])
def test_extract_zip_without_files_is_rejected(
    tmp_path: Path, refused: Callable[..., str], members: dict[str, str]
) -> None:
    assert "no files" in refused(write_zip(tmp_path / "bad.zip", members))


def test_extract_missing_archive_raises_not_found(tmp_path: Path, place: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.zip"):
        extract(tmp_path / "gone.zip", place / "out")
    with pytest.raises(NotFoundError):
        extract(tmp_path, place / "out")


def test_extract_too_little_space_raises_in_advance(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "RESERVED_BYTES", 2**70)
    with pytest.raises(DiskFullError, match=r"good\.zip needs"):
        extract(write_zip(tmp_path / "good.zip", GOOD), place / "out")
    assert files_under(place) == []


def test_extract_disk_full_while_writing_removes_its_files(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress.Progress, "advance", full)
    with pytest.raises(DiskFullError, match="make room"):
        extract(write_zip(tmp_path / "good.zip", GOOD), place / "out")
    assert files_under(place) == []


def test_extract_interrupted_removes_its_files(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.Progress, "advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        extract(write_zip(tmp_path / "good.zip", GOOD), place / "out")
    assert files_under(place) == []


def test_extract_logs_progress(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    path = write_zip(tmp_path / "good.zip", {"a.csv": bytes(3 * 2**20)}, zipfile.ZIP_STORED)
    with caplog.at_level(logging.INFO):
        extract(path, place / "out")
    assert "good.zip: unpacking: 1.0 MB of about 3.1 MB (33%" in caplog.text
