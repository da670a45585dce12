"""The page ``docs/results/known-signal.md``: each benchmark of the models writes its own section of it."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results" / "known-signal.md"


def write_section(script: str, lines: list[str], page: Path = PAGE) -> None:
    """Replace the lines between the markers of a script.

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
    begin, end = f"<!-- {script}: written by benchmarks/{script}.py -->\n", f"<!-- end of {script} -->\n"
    before, begun, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        msg = f"{page}: the markers {begin.strip()} and {end.strip()} are missing: put them around the section"
        raise ValueError(msg)
    page.write_text(before + begin + "\n".join(["", *lines, "", ""]) + end + after)
