"""Folds of whole eras for Auto-WEKA, whose cross-validation has folds of random rows.

It shuffles the rows of its file with a seed (WEKA's ``Instances.randomize``, by ``java.util.Random``), and each fold is
then a part of consecutive rows. So the rows are written in an order of which the shuffle makes the order of the eras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numerai_contract import eras

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SEED = 0
"""Of Auto-WEKA's shuffle."""
# of java.util.Random
_MULTIPLIER, _INCREMENT, _MASK = 0x5DEECE66D, 0xB, (1 << 48) - 1
_BITS = 31


def order(
    era_numbers: NDArray[np.int32], labels: NDArray[np.int8], folds: int, embargo: int, seed: int
) -> NDArray[np.intp] | None:
    """Select rows and put them into the order of the file.

    Parameters
    ----------
    era_numbers, labels
        The era and the class of each row, shape (rows,).
    folds
        Number of folds.
    embargo
        Weeks between two folds.
    seed
        Selects the rows: as many of each fold as the smallest has.

    Returns
    -------
    numpy.ndarray of int, or None
        Positions of the selected rows in the order of the file; None where the eras are too few, or so different in
        size that more than half of the rows would be left out.
    """
    assigned = eras.assign_folds(era_numbers, folds, embargo)
    if assigned is None:
        return None
    of_folds = [np.flatnonzero(assigned == fold) for fold in range(folds)]
    count = min(len(rows) for rows in of_folds)
    if 2 * folds * count < len(labels):
        return None
    drawn = [rows[eras.sample(era_numbers[rows], labels[rows], count, seed=seed)] for rows in of_folds]
    in_file = np.empty(folds * count, dtype=np.intp)
    in_file[shuffled(folds * count)] = np.concatenate(drawn)
    return in_file


def shuffled(count: int) -> list[int]:
    """Return the rows of a file, from 0, in the order after Auto-WEKA's shuffle."""
    rows, random = list(range(count)), _java_random(SEED)
    for last in range(count - 1, 0, -1):
        other = _next_int(random, last + 1)
        rows[last], rows[other] = rows[other], rows[last]
    return rows


def _java_random(seed: int) -> Iterator[int]:
    """Yield the numbers of 31 bits of a ``java.util.Random``, without end."""
    state = (seed ^ _MULTIPLIER) & _MASK
    while True:
        state = (state * _MULTIPLIER + _INCREMENT) & _MASK
        yield state >> (48 - _BITS)


def _next_int(random: Iterator[int], bound: int) -> int:
    """Return ``java.util.Random.nextInt(bound)``."""
    if bound & (bound - 1) == 0:
        return (bound * next(random)) >> _BITS
    while True:
        bits = next(random)
        value = bits % bound
        # a number of the last, incomplete range of `bound` numbers is rejected
        if bits - value + bound - 1 < 1 << _BITS:
            return value
