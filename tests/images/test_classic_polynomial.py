"""The polynomial of degree 2, computed in blocks."""

from __future__ import annotations

import importlib
import itertools
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.samples import ROOT


@pytest.fixture(scope="module")
def polynomial() -> Any:
    """Import the module without the image: it needs numpy only."""
    package = ModuleType("classic_operations")
    package.__path__ = [str(ROOT / "model_images" / "classic")]
    sys.modules[package.__name__] = package
    return importlib.import_module("classic_operations._polynomial")


def _matrix(rows: int, features: int = 5) -> Any:
    return np.random.default_rng(1).normal(3, 2, size=(rows, features)).astype(np.float32)


def test_expand_terms_are_features_and_products_of_two(polynomial: Any) -> None:
    matrix = _matrix(7)
    pairs = [
        matrix[:, first] * matrix[:, second] for first, second in itertools.combinations_with_replacement(range(5), 2)
    ]
    terms = polynomial.expand(matrix)
    assert terms.dtype == np.float32
    assert terms.shape == (7, polynomial.count(5)) == (7, 20)
    assert terms.tolist() == np.column_stack([matrix, *pairs]).tolist()


def test_blocks_cover_every_row_once(polynomial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polynomial, "_BLOCK_BYTES", 1)
    matrix = _matrix(150)
    parts = list(polynomial.blocks(matrix))
    assert [len(terms) for _, terms in parts] == [64, 64, 22]
    whole = np.vstack([terms for _, terms in parts])
    assert whole.tolist() == polynomial.expand(matrix).tolist()
    assert np.concatenate([np.arange(150)[rows] for rows, _ in parts]).tolist() == list(range(150))


def test_scaling_large_means_and_constant_terms_are_exact(polynomial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polynomial, "_BLOCK_BYTES", 1 << 12)
    matrix = _matrix(5_000)
    matrix[:, 3] = 100 + matrix[:, 3] / 100
    matrix[:, 4] = 0.5
    terms = polynomial.expand(matrix)
    exact = terms.astype(np.float64)
    scaling = polynomial.Scaling.of(matrix)
    scaled = scaling.apply(terms)
    varies = exact.std(axis=0) > 1e-9
    assert (~varies).sum() == 2
    assert scaling.means == pytest.approx(exact.mean(axis=0), rel=1e-6)
    assert scaling.scales[varies] == pytest.approx(1 / exact.std(axis=0)[varies], rel=1e-3)
    assert (scaled[:, ~varies] == 0).all()
    assert scaled.std(axis=0)[varies] == pytest.approx(np.ones(varies.sum()), rel=2e-3)
