"""Gradient boosted trees on polynomials: the same with terms in blocks and all at once."""

from __future__ import annotations

import pytest

from tests.images.conftest import Runner, five_bins
from tests.images.split_data import run_reference_model, write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODEL = "gradient_boosted_trees"


def test_gradient_boosted_trees_blocks_equal_all_terms_at_once(runner: Runner) -> None:
    # products of five bins have so few values that bins are exact for any blocks
    write_split_tables(runner.directory, five_bins)
    distance, spread = run_reference_model(runner, MODEL, EMBEDDINGS="none", MAX_TREES="30")
    assert distance < 1e-6
    assert spread > 0.05
