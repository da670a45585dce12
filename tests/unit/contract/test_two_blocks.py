"""The two blocks of eras of an ensemble: selected on the earlier one, scored on the later one."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.samples import ROOT


def _blocks(numbers: list[Any], embargo: int) -> tuple[list[Any], list[Any]]:
    package = ModuleType("evaluation_modules")
    package.__path__ = [str(ROOT / "model_images" / "evaluation")]
    sys.modules[package.__name__] = package
    targets: Any = importlib.import_module(f"{package.__name__}._targets")
    eras = tuple(targets.Era(number, np.empty(0, dtype=int), np.empty(0)) for number in numbers)
    first, second = targets.two_blocks(eras, embargo)
    return [era.number for era in first], [era.number for era in second]


def test_two_blocks_without_an_embargo_have_all_eras() -> None:
    assert _blocks([*range(1, 11)], 0) == ([*range(1, 6)], [*range(6, 11)])


def test_two_blocks_of_consecutive_eras_are_an_embargo_apart() -> None:
    first, second = _blocks([*range(1, 101)], 16)
    assert second[0] - first[-1] == 17
    assert len(first) == len(second) == 42


def test_two_blocks_embargo_counts_weeks_and_not_kept_eras() -> None:
    first, second = _blocks([*range(4, 401, 4)], 16)
    assert second[0] - first[-1] == 20
    assert len(first) + len(second) == 96


@pytest.mark.parametrize("count", [2, 3, 5, 6, 20])
def test_two_blocks_of_few_eras_keep_two_thirds_of_them(count: int) -> None:
    first, second = _blocks([*range(count)], 16)
    assert first
    assert second
    assert len(first) + len(second) == count - count // 3


def test_two_blocks_era_of_unknown_number_is_the_earliest() -> None:
    first, second = _blocks([None, *range(1, 40)], 4)
    assert first[0] is None
    assert None not in second
