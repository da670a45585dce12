"""Prediction in batches, and imputation."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numerai_contract import batches, imputation
from numerai_contract.imputation import Medians


def _batches(*sizes: int) -> list[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Batches of these sizes, whose single feature is the row's position."""
    ends = np.cumsum(sizes).tolist()
    positions = [np.arange(end - size, end, dtype=np.intp) for size, end in zip(sizes, ends, strict=True)]
    return [(rows, rows[:, np.newaxis].astype(np.float32)) for rows in positions]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, [5, 3]),
        ({"rows_at_a_time": 2}, [2, 2, 1, 2, 1]),
        ({"rows_at_a_time": 4, "first_rows": 1}, [1, 4, 3]),
        ({"rows_at_a_time": 100}, [5, 3]),
    ],
)
def test_predict_divides_batches_and_keeps_the_order(options: dict[str, Any], sizes: list[int]) -> None:
    blocks: list[int] = []
    reports: list[tuple[float, str]] = []

    def model(block: NDArray[Any]) -> NDArray[np.float64]:
        blocks.append(len(block))
        return np.asarray(block[:, 0] / 10, dtype=np.float64)

    predicted = batches.predict(_batches(5, 3), 8, model, report=lambda *report: reports.append(report), **options)
    assert blocks == sizes
    assert predicted == pytest.approx(np.arange(8) / 10)
    assert [share for share, _ in reports] == (np.cumsum(sizes) / 8).tolist()
    assert reports[-1] == (1.0, "row 8 of 8")


def test_predict_positions_out_of_order_are_respected() -> None:
    shuffled = [(rows[::-1], block[::-1]) for rows, block in reversed(_batches(4, 4))]
    predicted = batches.predict(shuffled, 8, lambda block: block[:, 0].astype(np.float64), rows_at_a_time=3)
    assert predicted.tolist() == list(range(8))


def test_predict_several_threads_keep_order_and_raise_errors() -> None:
    at_the_same_time = threading.Barrier(2)

    def model(block: NDArray[Any]) -> NDArray[np.float64]:
        at_the_same_time.wait(timeout=60)
        if 6 in block:
            raise ValueError("row 6")
        return block[:, 0].astype(np.float64)

    predicted = batches.predict(_batches(2, 2), 4, model, threads=2)
    assert predicted.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="row 6"):
        batches.predict(_batches(2, 2, 2, 2), 8, model, threads=2)


NAN = np.nan


@pytest.mark.parametrize("at_a_time", [1, 1 << 23])
def test_medians_fill_uses_the_training_rows(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    monkeypatch.setattr(imputation, "_VALUES_AT_A_TIME", at_a_time)
    medians = Medians(np.array([[1, NAN, 5], [2, NAN, NAN], [9, NAN, 6]], dtype=np.float32))
    assert medians.values.tolist() == [2, 0, 5.5]
    others = np.array([[NAN, NAN, NAN], [7, 8, 9]], dtype=np.float32)
    assert medians.fill(others).tolist() == [[2, 0, 5.5], [7, 8, 9]]
    assert others[0].tolist() == [2, 0, 5.5]  # in place


def test_medians_int8_features_are_supported() -> None:
    assert Medians(np.array([[0, 4], [1, 4], [3, 0]], dtype=np.int8)).values.tolist() == [1, 4]
