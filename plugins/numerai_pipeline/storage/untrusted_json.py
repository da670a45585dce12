"""Reads untrusted JSON, which may be missing, truncated or malformed, as plain values.

Reports come from containers, including custom images. The values are written as JSON again for a browser: numbers are
finite, strings are strings, and the size is limited to the capacity of a page.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TypeVar

from numerai_pipeline.storage.layout import RunLayout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LARGEST_FILE = 32 * 2**20
_DIGITS = 6
_LONGEST_TEXT = 2_000
_Item = TypeVar("_Item")


class LinkError(Exception):
    """A link in a run's directory that must not be followed, or leads to a file that does not exist."""


def check_link(path: Path, directory: Path) -> None:
    """Check that a file of a run's directory is in it, or is a link to a result of the same data volume.

    Raises
    ------
    LinkError
        When it leads elsewhere, or to a file that does not exist.
    FileNotFoundError
        When there is neither a file nor a link.
    """
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        if path.is_symlink():
            msg = "a broken link: the result that it leads to was removed"
            raise LinkError(msg) from None
        raise
    except RuntimeError:  # a loop of links
        msg = "a link that leads to itself"
        raise LinkError(msg) from None
    allowed = (directory, RunLayout(directory).data.results_root)
    if not any(target.is_relative_to(folder.resolve()) for folder in allowed):
        msg = "a link to a file that is neither in the run's directory nor a result"
        raise LinkError(msg)


class RunFiles:
    """The JSON files of one run's directory.

    Parameters
    ----------
    directory : Path
        The run's directory. Links that lead elsewhere than to a result of the same data volume are not followed.

    Attributes
    ----------
    problems : list of str
        Files that could not be read, each with the reason; missing files are not included.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.problems: list[str] = []

    def read(self, path: Path) -> dict[str, Any] | None:
        """Read a JSON object; None if it is missing or damaged."""
        name = path.relative_to(self.directory)
        try:
            check_link(path, self.directory)
            if path.stat().st_size > LARGEST_FILE:
                self.problems.append(f"{name}: larger than {LARGEST_FILE // 2**20} MiB")
                return None
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except LinkError as error:
            self.problems.append(f"{name}: {error}")
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.problems.append(f"{name}: cannot be read ({error})")
            return None
        if not isinstance(content, dict):
            self.problems.append(f"{name}: not a JSON object")
            return None
        return content


def as_float(value: object) -> float | None:
    """Return a finite number with six significant digits; None for other values."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    except OverflowError:
        return None


def as_int(value: object) -> int | None:
    """Return an integer; None for other values."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53 else None


def as_str(value: object) -> str | None:
    """Return a string, truncated if it is very long, or a number as a string; None for other values."""
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else str(value)


def as_bool(value: object) -> bool | None:
    """Return a boolean; None for other values."""
    return value if isinstance(value, bool) else None


def as_list(value: object, convert: Callable[[object], _Item], limit: int) -> list[_Item]:
    """Return the first items of a list, converted; an empty list for other values."""
    return [convert(item) for item in value[:limit]] if isinstance(value, list) else []


def get_in(value: object, *path: str) -> Any:
    """Return a nested value by the names of its path; None if a name is missing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
