"""The page ``docs/results/known-signal.md``: each benchmark of the models writes its own section of it."""

from __future__ import annotations

from pathlib import Path

from docs.marked_section import replace_section

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "known-signal.md"


def write_section(script: str, lines: list[str], page: Path = PAGE) -> None:
    """Replace the section of a script; see `replace_section`.

    Parameters
    ----------
    script
        Its name, such as ``worlds``.
    lines
        The section, with its heading.
    page
        The page.

    Raises
    ------
    ValueError
        When the markers are missing.
    """
    page.write_text(replace_section(page.read_text(), page, script, f"benchmarks/{script}.py", lines))
