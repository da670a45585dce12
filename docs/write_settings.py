"""Writes the tables of settings and parameters in the README from the code.

``.venv/bin/python docs/write_settings.py``. A test fails when the README is outdated.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "plugins"))

from pydantic_core import PydanticUndefined  # noqa: E402

from numerai_pipeline.core.parameters import RunParameters  # noqa: E402
from numerai_pipeline.core.settings import SETTINGS_FIELDS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic.fields import FieldInfo

COMMAND = "docs/write_settings.py"


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


TABLES: dict[str, Callable[[], Iterator[str]]] = {"settings": settings_table, "parameters": parameters_table}


def update_tables(text: str) -> str:
    """Replace each table between its markers ``<!-- name: … -->`` and ``<!-- end of name -->``.

    Raises
    ------
    ValueError
        When markers are missing.
    """
    for name, lines in TABLES.items():
        begin, end = f"<!-- {name}: written by {COMMAND} -->\n", f"<!-- end of {name} -->\n"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            msg = f"README.md: the markers {begin.strip()} and {end.strip()} are missing: put them around the table"
            raise ValueError(msg)
        text = before + begin + "".join(f"{line}\n" for line in lines()) + end + after
    return text


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
    readme = ROOT / "README.md"
    readme.write_text(update_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
