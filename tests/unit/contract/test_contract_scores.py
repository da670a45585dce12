"""Scores, compared with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from numerai_contract.scores import COIN_TOSS, logloss, rank_correlation, score

F = np.float64
T = np.float32


def test_logloss_rows_at_one_half_are_left_out() -> None:
    found = logloss(np.array([0.8, 0.4, 0.99]), np.array([1, 0, 0.5], dtype=T))
    assert found == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert logloss(np.array([0.5] * 4), np.array([0, 1, 0.25, 0.75], dtype=T)) == pytest.approx(COIN_TOSS)
    assert logloss(np.array([0.3]), np.array([0.5], dtype=T)) is None


def test_logloss_wrong_certainty_is_finite() -> None:
    certain = np.array([1.0, 0.0, 1.0, 0.0])
    assert logloss(certain, np.array([1, 0, 1, 0], dtype=T)) == pytest.approx(0)
    assert logloss(certain, np.array([0, 1, 1, 0], dtype=T)) == pytest.approx(-math.log(np.finfo(F).eps) / 2)


def test_rank_correlation_ties_share_their_mean_rank() -> None:
    assert rank_correlation(np.array([1.0, 2, 9]), np.array([0, 0.5, 1], dtype=T)) == pytest.approx(1)
    assert rank_correlation(np.array([9.0, 2, 1]), np.array([0, 0.5, 1], dtype=T)) == pytest.approx(-1)
    # ranks 1 2 3 4 against 1.5 1.5 3.5 3.5: 4 / sqrt(5 * 4)
    found = rank_correlation(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, 0, 1, 1], dtype=T))
    assert found == pytest.approx(4 / math.sqrt(20))
    assert rank_correlation(np.array([1.0, 2]), np.array([1, 1], dtype=T)) is None


def test_score_several_eras_averages_over_eras() -> None:
    predictions = np.array([0.9, 0.1, 0.1, 0.9, 0.7, 0.2])
    targets = np.array([1, 0, 1, 0, 1, np.nan], dtype=T)
    numbers = np.array([1, 1, 2, 2, 3, 3], dtype=np.int32)
    found = score(predictions, targets, numbers)
    assert found is not None
    assert (found.rows, found.eras) == (5, 3)
    # eras 1 and 3 are below ln 2; era 3 has one known row and so no correlation
    assert found.consistency == pytest.approx(2 / 3)
    assert found.correlation == pytest.approx(0)
    expected = -(2 * math.log(0.9) + 2 * math.log(0.1) + math.log(0.7)) / 5
    assert found.logloss == pytest.approx(expected)


def test_score_without_known_targets_is_none() -> None:
    assert score(np.array([0.5]), np.array([np.nan], dtype=T), np.array([1], dtype=np.int32)) is None


def test_score_targets_at_one_half_only_have_no_logloss() -> None:
    found = score(np.array([0.4, 0.6]), np.array([0.5, 0.5], dtype=T), np.array([1, 1], dtype=np.int32))
    assert found is not None
    assert (found.logloss, found.consistency, found.correlation) == (None, None, None)
