"""Reading what others wrote: JSON that may be missing, half-written or not what it should be, as plain values.

Reports come from containers, images of one's own among them. What is read here ends as JSON again, in a browser: so
numbers are finite, texts are texts, and nothing is larger than a page can show.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LARGEST_FILE = 32 * 2**20
_DIGITS = 6
_LONGEST_TEXT = 2_000
_Kept = TypeVar("_Kept")


class RunFiles:
    """The JSON files of one run's directory.

    Parameters
    ----------
    directory : Path
        The run's directory. Nothing outside of it is read, whatever links a container left there.

    Attributes
    ----------
    problems : list of str
        What could not be read, and why, a sentence each; what is merely missing is not among them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.problems: list[str] = []

    def read(self, path: Path) -> dict[str, Any] | None:
        """Read a JSON object; None when it is missing or damaged."""
        name = path.relative_to(self.directory)
        try:
            if not path.resolve(strict=True).is_relative_to(self.directory.resolve()):
                self.problems.append(f"{name}: a link that leads out of the run's directory")
                return None
            if path.stat().st_size > LARGEST_FILE:
                self.problems.append(f"{name}: larger than {LARGEST_FILE // 2**20} MiB")
                return None
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.problems.append(f"{name}: cannot be read ({error})")
            return None
        if not isinstance(content, dict):
            self.problems.append(f"{name}: not a JSON object")
            return None
        return content


def number(value: object) -> float | None:
    """Give a finite number with six significant digits; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(value: object) -> int | None:
    """Give a whole number; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53 else None


def text(value: object) -> str | None:
    """Give a text, cut where it is very long; a number as text; None for anything else."""
    if isinstance(value, str):
        return value[:_LONGEST_TEXT]
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else str(value)


def truth(value: object) -> bool | None:
    """Give true or false; None for anything else."""
    return value if isinstance(value, bool) else None


def items(value: object, keep: Callable[[object], _Kept], most: int) -> list[_Kept]:
    """Give the first items of a list, each as ``keep`` has it; nothing for what is no list."""
    return [keep(item) for item in value[:most]] if isinstance(value, list) else []


def member(value: object, *path: str) -> Any:
    """Follow names into objects within objects; None where one of them is not there."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
