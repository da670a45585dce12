"""Writes parts of the documentation from the code: settings, run parameters, commands, models, errors of first runs.

``.venv/bin/python docs/write_reference.py``. A test fails when a page is outdated.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from pydantic_core import PydanticUndefined  # noqa: E402

from docs.first_hour_errors import first_hour_errors  # noqa: E402
from docs.marked_section import replace_section  # noqa: E402
from numerai_pipeline.core.parameters import RunParameters  # noqa: E402
from numerai_pipeline.core.settings import SETTINGS_FIELDS  # noqa: E402
from numerai_pipeline.models.registry import load_registry  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic.fields import FieldInfo

COMMAND = "docs/write_reference.py"


def settings_table() -> Iterator[str]:
    """Give the lines of the table of settings: variable, default, meaning."""
    yield from _head("variable", "default", "meaning")
    for name, field in SETTINGS_FIELDS.items():
        yield _row(f"`NUMERAI_{name.upper()}`", _default(field), _text(field))


def parameters_table() -> Iterator[str]:
    """Give the lines of the table of a run's parameters: name, title on the form, default, meaning."""
    yield from _head("parameter", "on the form", "default", "meaning")
    for name, field in RunParameters.model_fields.items():
        yield _row(f"`{name}`", field.title or name, _default(field), _text(field))


def commands_tables() -> Iterator[str]:
    """Give the lines of the help text of `make help`: its headings, each with the table of the entries below it."""
    text = re.findall(r"^## ?(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line, following in pairwise([*text, ""]):
        if entry := re.fullmatch(r"  (\S.*?)(?: {2,}| (?=[A-Z]))(.*)", line):
            yield _row(f"`{entry[1]}`", entry[2])
        elif following.startswith("  "):
            title, _, note = line.rstrip(":").partition(", ")
            yield from (f"## {title}", "")
            if example := note.removeprefix("such as: ") if note.startswith("such as: ") else "":
                yield from (f"Example: `{example}`", "")
            elif note:
                yield from (f"{note[0].upper()}{note[1:]}.", "")
            yield from _head("name", "meaning")
        else:
            yield line


def models_table() -> Iterator[str]:
    """Give the lines of the table of the tasks in ``model_images/models.yaml``: image, needs and limits."""
    yield from _head("task", "description", "image", "after", "targets", "memory, MiB", "cores", "minutes")
    for name, task in load_registry(ROOT / "model_images").tasks.items():
        limit = f"{task.time_limit} + search" if task.search_parts else f"{task.time_limit}"
        upstream = ", ".join(f"`{other}`" for other in task.depends_on)
        targets = "several" if task.several_targets else "one" if task.predicts else ""
        limits = (f"{task.memory:,}", f"{task.cores}", f"{limit} a target" if task.several_targets else limit)
        yield _row(f"`{name}`", task.description, f"`{task.image}`", upstream, targets, *limits)


@dataclass(frozen=True)
class Table:
    """A generated table.

    Attributes
    ----------
    page : Path
        The page that has its markers.
    lines : function
        Gives its lines.
    """

    page: Path
    lines: Callable[[], Iterator[str]]


REFERENCE = ROOT / "docs" / "reference"
TABLES = {
    "settings": Table(REFERENCE / "settings.md", settings_table),
    "parameters": Table(REFERENCE / "parameters.md", parameters_table),
    "commands": Table(REFERENCE / "commands.md", commands_tables),
    "models": Table(REFERENCE / "models.md", models_table),
    "errors": Table(ROOT / "docs" / "guides" / "troubleshooting.md", first_hour_errors),
}


def update_table(name: str, text: str) -> str:
    """Replace a table in the text of its page; see `replace_section`."""
    return replace_section(text, TABLES[name].page, name, COMMAND, TABLES[name].lines())


def _head(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield f"|{'---|' * len(titles)}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _text(field: FieldInfo) -> str:
    return " ".join(filter(None, [field.description, _bounds(field)]))


def _bounds(field: FieldInfo) -> str:
    limits = {
        name: getattr(limit, name) for limit in field.metadata for name in ("ge", "gt", "le") if hasattr(limit, name)
    }
    least = f"{limits['ge']:,}" if "ge" in limits else f"more than {limits['gt']:,}" if "gt" in limits else None
    most = f"{limits['le']:,}" if "le" in limits else None
    if least and most:
        return f"({least} to {most})"
    return f"(at least {least})" if least else f"(at most {most})" if most else ""


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined or value is None or value in ("", [], ()):
        return ""
    if isinstance(value, bool):
        return f"`{json.dumps(value)}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    for table_name, table in TABLES.items():
        table.page.write_text(update_table(table_name, table.page.read_text(encoding="utf-8")), encoding="utf-8")
