"""The README says of settings and parameters what the code does."""

from __future__ import annotations

import pytest

from docs.write_settings import COMMAND, renewed
from numerai_pipeline.settings import Settings
from tests.samples import ROOT


def test_the_tables_are_what_the_code_says() -> None:
    text = (ROOT / "README.md").read_text()
    if renewed(text) != text:
        pytest.fail(f"README.md: its tables are not what the code says; run `.venv/bin/python {COMMAND}` to renew them")


def test_an_old_table_is_found_and_renewed() -> None:
    text = (ROOT / "README.md").read_text()
    old = text.replace("| `NUMERAI_KEEP_ROUNDS` | `12` |", "| `NUMERAI_KEEP_ROUNDS` | `13` |")
    assert old != text
    assert renewed(old) == text


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_readme_without_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="the markers <!-- settings: written by"):
        renewed("# Nothing\n")
