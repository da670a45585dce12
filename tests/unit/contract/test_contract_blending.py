"""The blend of predictions for several targets: ranks within eras, and their mean."""

from __future__ import annotations

import numpy as np
import pytest

from numerai_contract.blending import blend, era_ranks

ERAS = np.array([7, 7, 3, 7, 3, 7], dtype=np.int32)


def test_era_ranks_are_shares_of_the_rows_of_their_era() -> None:
    ranks = era_ranks(np.array([0.9, 0.1, 0.6, 0.4, 0.5, 0.2]), ERAS)
    assert ranks.tolist() == [0.875, 0.125, 0.75, 0.625, 0.25, 0.375]


def test_era_ranks_ties_share_their_mean_rank() -> None:
    assert era_ranks(np.array([0.5, 0.5, 0.1, 0.5, 0.1, 0.7]), ERAS).tolist() == [0.375, 0.375, 0.5, 0.375, 0.5, 0.875]


def test_blend_is_the_mean_of_the_ranks_whatever_the_spread() -> None:
    first, second = np.random.default_rng(3).random((2, 6))
    expected = (era_ranks(first, ERAS) + era_ranks(second, ERAS)) / 2
    assert blend(iter([first, 0.5 + 1e-4 * second]), ERAS).tolist() == expected.tolist()
    assert blend([first], ERAS).tolist() == era_ranks(first, ERAS).tolist()


def test_blend_is_between_0_and_1_with_the_mean_of_one_half_in_each_era() -> None:
    random = np.random.default_rng(4)
    eras = random.integers(1, 5, 400).astype(np.int32)
    found = blend(random.random((3, 400)), eras)
    assert 0 < np.min(found) < 0.2
    assert 0.8 < np.max(found) < 1
    assert [found[eras == era].mean() for era in range(1, 5)] == pytest.approx([0.5] * 4)
