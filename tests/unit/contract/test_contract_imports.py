"""Hidden modules: not installed for the imports inside the block, unchanged otherwise."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from numerai_contract.imports import hidden_modules

OPTIONAL_IMPORT = """
try:
    import {extra}
except ImportError:
    {extra} = None
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A library with an optional import."""
    (tmp_path / "a_library.py").write_text(OPTIONAL_IMPORT.format(extra="an_extra"))
    (tmp_path / "an_extra.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("a_library", "an_extra"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "a_library"


def test_hidden_modules_optional_import_is_skipped(library: str) -> None:
    with hidden_modules("an_extra"):
        assert importlib.import_module(library).an_extra is None
    assert "an_extra" not in sys.modules
    assert importlib.import_module("an_extra")


def test_hidden_modules_already_imported_stays(library: str) -> None:
    extra = importlib.import_module("an_extra")
    with hidden_modules("an_extra"):
        assert importlib.import_module(library).an_extra is extra
    assert sys.modules["an_extra"] is extra


def test_hidden_modules_failing_block_restores_the_modules() -> None:
    with pytest.raises(ModuleNotFoundError), hidden_modules("not_installed"):
        importlib.import_module("not_installed")
    assert "not_installed" not in sys.modules
