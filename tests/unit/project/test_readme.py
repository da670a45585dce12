"""The README's tables of settings and parameters match the code."""

from __future__ import annotations

import pytest

from docs.write_settings import COMMAND, update_tables
from numerai_pipeline.core.settings import SETTINGS_FIELDS
from tests.samples import ROOT


def test_readme_tables_match_the_code() -> None:
    text = (ROOT / "README.md").read_text()
    if update_tables(text) != text:
        pytest.fail(f"README.md: its tables do not match the code; run `.venv/bin/python {COMMAND}` to update them")


def test_update_tables_replaces_an_outdated_table() -> None:
    text = (ROOT / "README.md").read_text()
    old = text.replace("| `NUMERAI_KEEP_ROUNDS` | `12` |", "| `NUMERAI_KEEP_ROUNDS` | `13` |")
    assert old != text
    assert update_tables(old) == text


def test_settings_all_have_descriptions() -> None:
    assert [name for name, field in SETTINGS_FIELDS.items() if not field.description] == []


def test_update_tables_without_markers_fails() -> None:
    with pytest.raises(ValueError, match="the markers <!-- settings: written by"):
        update_tables("# Nothing\n")
