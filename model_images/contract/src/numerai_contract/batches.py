"""Prediction in batches: features are read a batch at a time, since a table may be larger than the memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    Batch = tuple[NDArray[np.intp], NDArray[Any]]


def _no_report(_share: float, _text: str) -> None:
    pass


def iterate(
    batches: Iterable[Batch],
    rows: int,
    *,
    report: Callable[[float, str], object] = _no_report,
    rows_at_a_time: int | None = None,
    first_rows: int | None = None,
) -> Iterator[Batch]:
    """Divide batches into smaller ones and report the progress after each.

    Parameters
    ----------
    batches
        Positions of rows and their features, see `numerai_contract.tables.Table.batches`.
    rows
        Total number of rows.
    report
        Called with the share of the rows that is done and a description, such as `Progress.update`.
    rows_at_a_time
        Maximum rows of a smaller batch; by default batches are not divided.
    first_rows
        Maximum rows of the first one; by default `rows_at_a_time`.

    Yields
    ------
    positions : numpy.ndarray of int, shape (rows of the batch,)
    block : numpy.ndarray, shape (rows of the batch, features)
    """
    size = rows_at_a_time if first_rows is None else first_rows
    done = 0
    for positions, block in batches:
        start = 0
        while start < len(positions):
            part = slice(start, None if size is None else start + size)
            yield positions[part], block[part]
            start += len(positions[part])
            done += len(positions[part])
            report(done / rows, f"row {done:,} of {rows:,}")
            size = rows_at_a_time


def predict(
    batches: Iterable[Batch],
    rows: int,
    model: Callable[[NDArray[Any]], NDArray[np.float64]],
    *,
    threads: int = 1,
    **options: Any,
) -> NDArray[np.float64]:
    """Predict all rows, a batch at a time or several.

    Parameters
    ----------
    batches, rows, options
        See `iterate`.
    model
        From features, shape (rows of the batch, features), to probabilities, shape (rows of the batch,).
    threads
        Number of batches at the same time, each in a thread.

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
        In the order of the positions.
    """
    probabilities = np.empty(rows)
    if threads == 1:
        for positions, block in iterate(batches, rows, **options):
            probabilities[positions] = model(block)
        return probabilities
    running: deque[tuple[NDArray[np.intp], Future[NDArray[np.float64]]]] = deque()

    def collect(at_most: int) -> None:
        while len(running) > at_most:
            positions, future = running.popleft()
            probabilities[positions] = future.result()

    with ThreadPoolExecutor(threads) as pool:
        for positions, block in iterate(batches, rows, **options):
            running.append((positions, pool.submit(model, block)))
            collect(threads - 1)
        collect(0)
    return probabilities
