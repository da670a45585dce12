"""Boosted trees: the presets on tables of any size, and the score by which they stop early."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from numerai_tools.scoring import numerai_corr

from numerai_contract.exits import BadParameterError
from numerai_contract.parameters import Parameters
from tests.samples import ROOT


def _module(name: str) -> Any:
    package = ModuleType("classic_modules")
    package.__path__ = [str(ROOT / "model_images" / "classic")]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.{name}")


def _read(rows: int, **environment: str) -> Any:
    return _module("_presets").TreeSettings.read(Parameters(environment), rows)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("", (2_000, 0.01, 5, 31, 500, 0.1)),
        ("small", (2_000, 0.01, 5, 31, 500, 0.1)),
        ("standard", (20_000, 0.001, 6, 64, 500, 0.1)),
        ("deep", (30_000, 0.001, 10, 1_024, 10_000, 0.1)),
    ],
)
def test_tree_settings_at_full_size_are_those_of_the_preset(preset: str, expected: tuple[float, ...]) -> None:
    settings = _read(6_860_000, PRESET=preset)
    assert settings[:6] == expected
    assert settings.early_stopping == 0


def test_tree_settings_fewer_rows_have_fewer_trees() -> None:
    trees = [_read(rows).trees for rows in (3_000, 60_000, 343_750, 2_750_000)]
    assert trees == sorted(trees)
    assert trees[1:] == [559, 1_000, 2_000]


def test_tree_settings_deep_trees_of_a_small_table_can_have_leaves() -> None:
    assert _read(60_000, PRESET="deep").min_leaf_rows == 600
    assert _read(50, PRESET="deep").min_leaf_rows == 1


def test_tree_settings_a_variable_replaces_that_of_the_preset() -> None:
    settings = _read(60_000, PRESET="standard", MAX_TREES="150", COLSAMPLE="1", EARLY_STOPPING="300")
    assert (settings.trees, settings.colsample, settings.early_stopping) == (150, 1, 300)
    assert settings.learning_rate == 0.001


def test_tree_settings_unknown_preset_is_rejected() -> None:
    with pytest.raises(BadParameterError, match="PRESET is 'huge': allowed are small, standard, deep"):
        _read(60_000, PRESET="huge")


def _predictions_of_eras(rows: int = 600) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(1)
    targets = random.choice([0, 0.25, 0.5, 0.75, 1], rows, p=[0.05, 0.2, 0.5, 0.2, 0.05]).astype(np.float32)
    eras = random.integers(1, 4, rows).astype(np.int32)
    # rounded, so that some are equal
    return np.round(targets * 0.1 + random.normal(0, 0.3, rows), 2), targets, eras


def test_era_corr_equals_the_mean_of_numerai_tools() -> None:
    predictions, targets, eras = _predictions_of_eras()
    expected = [
        numerai_corr(
            pd.DataFrame({"prediction": predictions[eras == era]}),
            pd.Series(targets[eras == era], dtype=float, name="target"),
        )["prediction"]
        for era in (1, 2, 3)
    ]
    assert _module("_era_corr").EraCorr(targets, eras)(predictions) == pytest.approx(np.mean(expected), abs=1e-6)


def test_era_corr_eras_without_a_score_are_left_out() -> None:
    predictions, targets, eras = _predictions_of_eras()
    targets[eras == 2] = 0.5
    judge = _module("_era_corr").EraCorr(targets, eras)
    known = eras != 2
    assert judge(predictions) == pytest.approx(
        _module("_era_corr").EraCorr(targets[known], eras[known])(predictions[known])
    )
    assert judge(np.full(len(targets), 0.5)) == 0


def test_era_corr_repeats_its_score_between_two_computations() -> None:
    predictions, targets, eras = _predictions_of_eras()
    judge = _module("_era_corr").EraCorr(targets, eras, every=3)
    scores = [judge(sign * predictions) for sign in (1, -1, -1, -1)]
    assert scores[0] == scores[1] == scores[2] == pytest.approx(-scores[3])
