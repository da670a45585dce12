"""Modules that look as if they were not installed, to what is imported meanwhile and to nothing else."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from numerai_contract.imports import absent

ASKS = """
try:
    import {extra}
except ImportError:
    {extra} = None
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A library that makes use of another where that is installed."""
    (tmp_path / "a_library.py").write_text(ASKS.format(extra="an_extra"))
    (tmp_path / "an_extra.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("a_library", "an_extra"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "a_library"


def test_a_library_does_without(library: str) -> None:
    with absent("an_extra"):
        assert importlib.import_module(library).an_extra is None
    assert "an_extra" not in sys.modules
    assert importlib.import_module("an_extra")


def test_what_is_imported_already_stays(library: str) -> None:
    extra = importlib.import_module("an_extra")
    with absent("an_extra"):
        assert importlib.import_module(library).an_extra is extra
    assert sys.modules["an_extra"] is extra


def test_it_ends_with_an_error_as_well() -> None:
    with pytest.raises(ModuleNotFoundError), absent("csv_of_mine"):
        importlib.import_module("csv_of_mine")
    assert "csv_of_mine" not in sys.modules
