"""Finding the module of an operation."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from numerai_contract import operations
from numerai_contract.exits import BadParameterError


@pytest.fixture(autouse=True)
def operations_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPERATIONS_DIR", str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("numerai_operations")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_load_operation_by_its_module(operations_folder: Path) -> None:
    (operations_folder / "mine_operation.py").write_text("ANSWER = 1\n")
    (operations_folder / "mine.py").write_text("ANSWER = 2\n")
    assert operations.load("mine").ANSWER == 1


def test_load_operation_under_its_former_name_warns(operations_folder: Path) -> None:
    (operations_folder / "mine.py").write_text("ANSWER = 2\n")
    with pytest.warns(FutureWarning, match=r"mine\.py: rename it to mine_operation\.py"):
        assert operations.load("mine").ANSWER == 2


@pytest.mark.parametrize("name", ["_helper", "../mine", "other"])
def test_load_unknown_operation_lists_the_available_ones(operations_folder: Path, name: str) -> None:
    (operations_folder / "mine_operation.py").write_text("")
    (operations_folder / "_helper.py").write_text("")
    with pytest.raises(BadParameterError, match="this image has mine"):
        operations.load(name)
