"""Unpacks an untrusted zip: completely and as its directory declares, or not at all.

The directory of the zip is checked before the first byte is written, and the content is checked against it while
writing.
"""

from __future__ import annotations

import copy
import errno
import logging
import re
import shutil
import stat
import tempfile
import unicodedata
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from numerai_pipeline.core.errors import BadInputError, NotFoundError, PipelineError
from numerai_pipeline.core.number_format import distinct_texts
from numerai_pipeline.dataset.file_checks import READABLE_COMPRESSIONS, ZIP_ERRORS, is_system_file
from numerai_pipeline.storage.disk import require_free_space, translate_disk_errors
from numerai_pipeline.storage.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger(__name__)

_BLOCK = 2**20
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DIRECTORY_ENTRY = b"PK\x01\x02"
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Limits:
    """Size limits of an archive.

    Attributes
    ----------
    total_bytes : int
        Unpacked size of all members.
    members : int
        Number of members, including folders.
    ratio : float
        Unpacked size of a member divided by its packed size. CSV files of numbers reach about 20.
    ratio_from_bytes : int
        Unpacked size from which the ratio is limited; smaller members are harmless.
    """

    total_bytes: int = 64 * 2**30
    members: int = 1_000
    ratio: float = 100.0
    ratio_from_bytes: int = 16 * 2**20


DEFAULT_LIMITS = Limits()


def extract(archive: Path, directory: Path, *, limits: Limits = DEFAULT_LIMITS) -> list[Path]:
    """Unpack a zip into a folder that appears only when all files are complete.

    Parameters
    ----------
    archive : Path
        The zip. Its members must be plain files and folders, stored or deflated.
    directory : Path
        The folder to create. It must be empty or not exist; its parent must exist.
    limits : Limits
        Size limits.

    Returns
    -------
    list of Path
        The unpacked files, in the archive's order; at least one. Files that operating systems add
        (:func:`~numerai_pipeline.dataset.file_checks.is_system_file`) are ignored.

    Raises
    ------
    NotFoundError
        When the archive does not exist.
    BadInputError
        When it is not a zip, is damaged, encrypted or too large, declares wrong sizes, or has names outside the folder,
        links, special files or duplicate names. No file remains.
    DiskFullError
        When the volume has not enough space for the unpacked files. No file remains.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        msg = f"{directory} exists already: unpack {archive.name} into a new or an empty folder"
        raise BadInputError(msg)
    if not archive.is_file():
        msg = f"{archive}: the file does not exist: set the path of a zip of the classic layout"
        raise NotFoundError(msg)
    with _translate_corruption(archive), translate_disk_errors(directory.parent):
        _check_form(archive)
        _check_member_count(archive, limits)
        with zipfile.ZipFile(archive) as opened:
            members = _checked_members(archive, opened.infolist(), limits)
            total = sum(info.file_size for info, _ in members)
            require_free_space(directory.parent, total, f"unpacking {archive.name}")
            log.info("%s: unpacking %d files, %.1f MB", archive.name, len(members), total / 1e6)
            temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".part", dir=directory.parent))
            try:
                progress = Progress(log, f"{archive.name}: unpacking", total, "bytes")
                for info, name in members:
                    _unpack_member(archive, opened, info, temporary / name, progress)
                temporary.chmod(0o755)
                temporary.replace(directory)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    return [directory / name for _, name in members]


@contextmanager
def _translate_corruption(archive: Path) -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except ZIP_ERRORS as error:
        msg = f"{archive.name}: the zip is damaged ({error or type(error).__name__}): download it again"
        raise BadInputError(msg) from error
    except OSError as error:
        if error.errno == errno.EINVAL:
            # the operating system's error for an offset outside the file, from a damaged directory
            msg = f"{archive.name}: the zip is damaged (an offset lies outside the file): download it again"
            raise BadInputError(msg) from error
        msg = f"{archive.name}: could not be unpacked ({error}): check the file and the data volume"
        raise PipelineError(msg) from error


def _check_form(archive: Path) -> None:
    """Distinguish a file that is not a zip from a truncated zip; zipfile does not."""
    with archive.open("rb") as file:
        beginning = file.read(16)
        size = file.seek(0, 2)
    if zipfile.is_zipfile(archive):
        return
    if size == 0:
        msg = f"{archive.name}: the file is empty: download it again"
    elif beginning.startswith(b"PK"):
        msg = f"{archive.name}: the zip is truncated after {size:,} bytes (its end is missing): download it again"
    else:
        msg = f"{archive.name}: not a zip archive (it begins with {beginning!r}): set a zip of the classic layout"
    raise BadInputError(msg)


def _check_member_count(archive: Path, limits: Limits) -> None:
    """Limit the members before zipfile creates an object for each: all have a directory entry with this signature."""
    count, carried = 0, b""
    with archive.open("rb") as file:
        while block := file.read(_BLOCK):
            count += (carried + block).count(_DIRECTORY_ENTRY)
            carried = block[-len(_DIRECTORY_ENTRY) + 1 :]
    if count > limits.members:
        msg = (
            f"{archive.name}: holds {count:,} members, more than the {limits.members:,} allowed: a Numerai archive has"
            " about five files"
        )
        raise BadInputError(msg)


def _checked_members(
    archive: Path, infos: Sequence[zipfile.ZipInfo], limits: Limits
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Check the archive's directory; return the files to unpack."""
    # system files are not unpacked, so they are not checked either, not even their names
    members = [(info, _safe_name(archive, info)) for info in infos if not is_system_file(info.orig_filename)]
    for info, _ in members:
        _check_kind(archive, info)
        _check_ratio(archive, info, limits)
    files = [(info, name) for info, name in members if not info.is_dir()]
    if not files:
        msg = f"{archive.name}: the zip holds no files: a Numerai archive has about five"
        raise BadInputError(msg)
    _check_names_differ(archive, [name for _, name in files])
    _check_total(archive, files, limits)
    return files


def _member_error(archive: Path, info: zipfile.ZipInfo, reason: str) -> BadInputError:
    return BadInputError(f"{archive.name}: member {info.orig_filename!r} {reason}; nothing was unpacked")


def _safe_name(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    # zipfile truncates names at a NUL and may convert separators: check the name in the archive
    raw = info.orig_filename
    if any(unicodedata.category(character).startswith("C") for character in raw):
        raise _member_error(archive, info, "has control characters in its name: create the archive again")
    if "\\" in raw:
        raise _member_error(
            archive, info, "has a backslash in its name: create the archive again with '/' between folders"
        )
    if re.match(r"[A-Za-z]:", raw):
        raise _member_error(archive, info, "names a drive: an archive's names must be relative")
    if raw.startswith("/"):
        raise _member_error(archive, info, "has an absolute path: an archive's names must be relative")
    name = PurePosixPath(raw)
    if ".." in name.parts:
        raise _member_error(archive, info, "leads out of the archive ('..'): do not use this archive")
    if not name.parts:
        raise _member_error(archive, info, "has no name: create the archive again")
    if len(str(name).encode()) > 4 * _LONGEST_NAME or any(len(part.encode()) > _LONGEST_NAME for part in name.parts):
        raise _member_error(archive, info, f"has a name longer than {_LONGEST_NAME} bytes: create the archive again")
    return name


def _check_kind(archive: Path, info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _member_error(archive, info, "is a link: an archive may hold plain files only")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise _member_error(archive, info, f"is a special file (mode {kind:#o}): an archive may hold plain files only")
    if info.flag_bits & _ENCRYPTED:
        raise _member_error(archive, info, "is encrypted: set an archive without a password")
    if info.compress_type not in READABLE_COMPRESSIONS:
        reason = f"is compressed with method {info.compress_type}: only stored and deflated members can be read"
        raise _member_error(archive, info, f"{reason}; create the archive again")


def _check_ratio(archive: Path, info: zipfile.ZipInfo, limits: Limits) -> None:
    ratio = info.file_size / max(info.compress_size, 1)
    if info.file_size > limits.ratio_from_bytes and ratio > limits.ratio:
        growth, limit = distinct_texts(ratio, limits.ratio, 0)
        raise _member_error(
            archive,
            info,
            f"would grow {growth}-fold to {info.file_size:,} bytes, more than the {limit}-fold allowed: this looks like"
            " a zip bomb",
        )


def _check_names_differ(archive: Path, names: list[PurePosixPath]) -> None:
    """Reject names that are equal on some file system, and a file that is also the folder of another file."""
    seen: dict[str, PurePosixPath] = {}
    for name in names:
        key = _comparable(name)
        if key in seen:
            msg = (
                f"{archive.name}: members {str(seen[key])!r} and {str(name)!r} have the same name: the archive is"
                " ambiguous; nothing was unpacked"
            )
            raise BadInputError(msg)
        seen[key] = name
    for name in names:
        for folder in name.parents:
            if (clash := seen.get(_comparable(folder))) is not None:
                msg = (
                    f"{archive.name}: member {str(clash)!r} is a file and the folder of {str(name)!r}: create the"
                    " archive again; nothing was unpacked"
                )
                raise BadInputError(msg)


def _comparable(name: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(name)).casefold()


def _check_total(archive: Path, files: list[tuple[zipfile.ZipInfo, PurePosixPath]], limits: Limits) -> None:
    total = sum(info.file_size for info, _ in files)
    if total > limits.total_bytes:
        msg = (
            f"{archive.name}: would unpack to {total:,} bytes, more than the {limits.total_bytes:,} allowed: this looks"
            " like a zip bomb; nothing was unpacked"
        )
        raise BadInputError(msg)
    packed, size = sum(info.compress_size for info, _ in files), archive.stat().st_size
    if packed > size:
        msg = (
            f"{archive.name}: its members claim {packed:,} packed bytes in a file of {size:,}: they overlap, or the zip"
            " is damaged; nothing was unpacked"
        )
        raise BadInputError(msg)


def _unpack_member(
    archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo, destination: Path, progress: Progress
) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    # zipfile stops silently at the declared size; a larger declared size reveals further bytes
    enlarged = copy.copy(info)
    enlarged.file_size = info.file_size + _BLOCK
    written = 0
    with opened.open(enlarged) as source, destination.open("xb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > info.file_size:
                raise _member_error(archive, info, f"is larger than the {info.file_size:,} bytes that it declares")
            file.write(block)
            progress.advance(len(block))
    if written < info.file_size:
        raise _member_error(archive, info, f"has {written:,} bytes, not the declared {info.file_size:,}: it is damaged")
