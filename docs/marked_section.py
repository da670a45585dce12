"""Generated sections of pages, between two comments that name the section and the script that writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def replace_section(text: str, page: Path, name: str, script: str, lines: Iterable[str]) -> str:
    """Replace a section between its markers ``<!-- name: written by … -->`` and ``<!-- end of name -->``.

    Parameters
    ----------
    text, page
        The page's text, and its path for the error.
    name, script
        The section, and the script that writes it, such as ``benchmarks/worlds.py``.
    lines
        The new lines.

    Raises
    ------
    ValueError
        When the markers are missing.
    """
    begin, end = f"<!-- {name}: written by {script} -->\n", f"<!-- end of {name} -->\n"
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        msg = f"{page}: the markers {begin.strip()} and {end.strip()} are missing: put them around the section"
        raise ValueError(msg)
    # Markdown takes the lines after a comment for a table only when there is an empty line between them
    return before + begin + "\n" + "".join(f"{line}\n" for line in lines) + "\n" + end + after
