"""Eras in training: hold-out, sampling and folds.

Rows of one era are not independent, and targets of neighbouring eras overlap. So an era is never split, the held-out
eras are the latest, and an embargo separates them from the training eras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# the largest share of the eras that an embargo may take
_MAX_EMBARGO_SHARE = 0.1


class HoldOut(NamedTuple):
    """A split in time.

    Attributes
    ----------
    training, held_out : numpy.ndarray of bool, shape (rows,)
        Marks of the rows of either part; rows of the embargo are in neither.
    embargo : int
        Number of eras between the parts.
    description : str
        The split in a sentence, for the log.
    """

    training: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    embargo: int
    description: str


def rows_of_eras(era_numbers: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Return the positions of the rows of each era, eras by their numbers; rows without a number are one era."""
    # one sort, since a search for each era's rows takes seconds in a table of millions
    order = np.argsort(era_numbers, kind="stable")
    _, first_rows = np.unique(era_numbers[order], return_index=True)
    return np.split(order, first_rows[1:])


def hold_out_last(era_numbers: NDArray[np.int32], *, share: float, embargo: int, seed: int) -> HoldOut:
    """Hold out the last eras.

    Parameters
    ----------
    era_numbers
        The era of each row, shape (rows,). Rows without a number count as one era before all others.
    share
        The share of the eras to hold out, in (0, 1); at least one era.
    embargo
        Number of eras to leave out between the parts; reduced to a tenth of all eras when it is more.
    seed
        For the random split of the rows when there is only one era.

    Raises
    ------
    ValueError
        When there are fewer than two rows.
    """
    if len(era_numbers) < 2:
        raise ValueError(f"{len(era_numbers)} rows cannot be split")
    eras = np.unique(era_numbers)
    if len(eras) == 1:
        held_out = np.zeros(len(era_numbers), dtype=bool)
        count = min(max(1, round(share * len(era_numbers))), len(era_numbers) - 1)
        held_out[np.random.default_rng(seed).permutation(len(era_numbers))[:count]] = True
        return HoldOut(~held_out, held_out, 0, f"one era only: held out {count:,} of its rows at random")
    last = min(max(1, round(share * len(eras))), len(eras) - 1)
    gap = min(embargo, int(_MAX_EMBARGO_SHARE * len(eras)), len(eras) - last - 1)
    first_held_out, first_embargoed = eras[-last], eras[len(eras) - last - gap]
    description = f"held out the last {last:,} of {len(eras):,} eras, after an embargo of {gap:,}"
    if gap < embargo:
        description += f" (not {embargo:,}: there are too few eras)"
    return HoldOut(era_numbers < first_embargoed, era_numbers >= first_held_out, gap, description)


def within(rows: NDArray[np.bool_], selected: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Convert marks among some rows to marks among all rows.

    Parameters
    ----------
    rows
        Marks of rows, shape (rows,).
    selected
        Marks among the marked rows, shape (rows marked,).

    Returns
    -------
    numpy.ndarray of bool, shape (rows,)
    """
    marks = np.zeros_like(rows)
    marks[rows] = selected
    return marks


def sample(era_numbers: NDArray[np.int32], labels: NDArray[np.int8], limit: int, *, seed: int) -> NDArray[np.bool_]:
    """Draw rows so that every era and every class keeps its share.

    Parameters
    ----------
    era_numbers, labels
        The era and the class of each row, shape (rows,).
    limit
        Number of rows to draw, at least the number of classes.
    seed
        The same seed draws the same rows.

    Returns
    -------
    numpy.ndarray of bool, shape (rows,)
        Marks of the rows drawn: `limit` rows, or all when there are fewer. Every class is kept.
    """
    if len(labels) <= limit:
        return np.ones(len(labels), dtype=bool)
    random = np.random.default_rng(seed)
    drawn = np.zeros(len(labels), dtype=bool)
    kinds, counts = np.unique(labels, return_counts=True)
    # rounding the cumulative sum makes the quotas add up to the limit
    totals = np.round(np.cumsum(counts) * limit / len(labels)).astype(int)
    quotas = np.maximum(np.diff(totals, prepend=0), 1)
    quotas[np.argmax(quotas)] -= quotas.sum() - limit
    for kind, count, quota in zip(kinds, counts, quotas):
        rows = random.permutation(np.flatnonzero(labels == kind))
        rows = rows[np.argsort(era_numbers[rows], kind="stable")]
        # equal steps through rows sorted by era: each era contributes its share, plus or minus one row
        steps = np.floor((np.arange(quota) + random.random()) * count / quota).astype(int)
        drawn[rows[steps]] = True
    return drawn


def assign_folds(era_numbers: NDArray[np.int32], count: int) -> NDArray[np.intp] | None:
    """Assign each row to a fold: consecutive eras, about as many rows in each fold.

    Consecutive rather than scattered eras, since a target reaches over several eras: targets then overlap only at the
    ends of a fold.

    Returns
    -------
    numpy.ndarray of int, shape (rows,), or None
        Fold numbers from 0 to `count` - 1, none empty; None when there are fewer eras than folds.
    """
    eras, inverse, sizes = np.unique(era_numbers, return_inverse=True, return_counts=True)
    if len(eras) < count:
        return None
    middles = np.cumsum(sizes) - sizes / 2
    fold_of_era = np.zeros(len(eras), dtype=np.intp)
    for era in range(1, len(eras)):
        by_rows = int(middles[era] * count / len(era_numbers))
        # a huge era must not leave a fold empty: no fold is skipped, and each of the last folds gets an era
        fold_of_era[era] = min(max(by_rows, count - (len(eras) - era)), fold_of_era[era - 1] + 1)
    assigned: NDArray[np.intp] = fold_of_era[np.reshape(inverse, -1)]
    return assigned
