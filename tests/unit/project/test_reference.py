"""The generated tables of the reference match the code."""

from __future__ import annotations

import pytest

from docs.write_reference import COMMAND, TABLES, update_table
from numerai_pipeline.core.settings import SETTINGS_FIELDS
from tests.samples import ROOT


@pytest.mark.parametrize("name", TABLES)
def test_reference_matches_the_code(name: str) -> None:
    page = TABLES[name].page
    text = page.read_text(encoding="utf-8")
    if update_table(name, text) != text:
        pytest.fail(f"{page.relative_to(ROOT)} does not match the code; run `.venv/bin/python {COMMAND}` to update it")


@pytest.mark.parametrize(
    ("name", "row", "outdated"),
    [
        ("settings", "| `NUMERAI_KEEP_ROUNDS` | `12` |", "| `NUMERAI_KEEP_ROUNDS` | `13` |"),
        ("parameters", "| `seed` | Seed | `67` |", "| `seed` | Seed | `68` |"),
        ("commands", "| `make down` | Stop everything", "| `make down` | Stop something"),
        ("errors", "Choose a free one", "Choose any"),
        ("models", "| `classic` | `adversarial_validation` |", "| `classic` | `unzip` |"),
    ],
)
def test_update_table_replaces_an_outdated_row(name: str, row: str, outdated: str) -> None:
    text = TABLES[name].page.read_text(encoding="utf-8")
    assert text.count(row) == 1
    assert update_table(name, text.replace(row, outdated)) == text


@pytest.mark.parametrize("heading", ["## Commands", "## Options of `make run`", "## Options of the server"])
def test_commands_have_the_headings_of_make_help(heading: str) -> None:
    assert heading in TABLES["commands"].page.read_text(encoding="utf-8").splitlines()


def test_settings_all_have_descriptions() -> None:
    assert [name for name, field in SETTINGS_FIELDS.items() if not field.description] == []


def test_update_table_without_markers_names_the_page() -> None:
    with pytest.raises(ValueError, match=r"settings\.md: the markers <!-- settings: written by"):
        update_table("settings", "# Nothing\n")
