"""Eras in training: hold-out, sampling and folds.

Rows of one era are not independent, and targets of neighbouring eras overlap. So an era is never split, and an embargo
separates held-out eras from training eras. It is counted in weeks, by the numbers of the eras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_FOLD = -1
"""Of the rows between two folds."""
# the largest share of the eras that an embargo may take
_MAX_EMBARGO_SHARE = 0.1


class HoldOut(NamedTuple):
    """A split by eras.

    Attributes
    ----------
    training, held_out : numpy.ndarray of bool, shape (rows,)
        Marks of the rows of either part; rows of the embargo are in neither.
    embargo : int
        Weeks between the parts, at most those requested.
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
        See `hold_out`.
    seed
        For the random split of the rows when there is only one era.

    Raises
    ------
    ValueError
        When there are fewer than two rows.
    """
    if len(era_numbers) < 2:
        raise ValueError(f"{len(era_numbers)} rows cannot be split")
    eras = len(np.unique(era_numbers))
    if eras == 1:
        held_out = np.zeros(len(era_numbers), dtype=bool)
        count = min(max(1, round(share * len(era_numbers))), len(era_numbers) - 1)
        held_out[np.random.default_rng(seed).permutation(len(era_numbers))[:count]] = True
        return HoldOut(~held_out, held_out, 0, f"one era only: held out {count:,} of its rows at random")
    last = min(max(1, round(share * eras)), eras - 1)
    return hold_out(era_numbers, eras - last, last, embargo)


def hold_out(era_numbers: NDArray[np.int32], first: int, count: int, embargo: int) -> HoldOut:
    """Hold out consecutive eras.

    Parameters
    ----------
    era_numbers
        The era of each row, shape (rows,).
    first, count
        Position of the first era to hold out among the eras of the rows, from 0, and the number of eras; at least one
        other era remains.
    embargo
        Weeks to leave out on both sides of the held-out eras. They are differences of era numbers: of a table with
        every fourth era, 16 weeks are four eras. At most a tenth of the eras are left out.
    """
    eras = np.unique(era_numbers)
    start, stop = int(eras[first]), int(eras[first + count - 1])
    sides = (first > 0) + (first + count < len(eras))
    most = min(int(_MAX_EMBARGO_SHARE * len(eras)), len(eras) - count - 1) // sides
    before = max(int(np.searchsorted(eras, start - embargo)), first - most)
    after = min(int(np.searchsorted(eras, stop + embargo, side="right")), first + count + most)
    gaps = [start - int(eras[before - 1])] if before else []
    gaps += [int(eras[after]) - stop] if after < len(eras) else []
    weeks = min(embargo, *(gap - 1 for gap in gaps))
    which = "the last" if first + count == len(eras) else f"eras {start} to {stop}:"
    description = f"held out {which} {count:,} of {len(eras):,} eras, with an embargo of {weeks:,} weeks"
    if weeks < embargo:
        description += f" (not {embargo:,}: there are too few eras)"
    training = np.isin(era_numbers, np.concatenate([eras[:before], eras[after:]]))
    return HoldOut(training, (era_numbers >= start) & (era_numbers <= stop), weeks, description)


def before(era_numbers: NDArray[np.int32], era: int, embargo: int) -> NDArray[np.bool_]:
    """Mark the rows of the last eras before another one.

    Parameters
    ----------
    era_numbers
        The era of each row, shape (rows,).
    era
        Number of the other era, such as the first of a later table.
    embargo
        Weeks before it, by the numbers of the eras; at most a tenth of the eras are marked.

    Returns
    -------
    numpy.ndarray of bool, shape (rows,)
    """
    eras = np.unique(era_numbers)
    stop = int(np.searchsorted(eras, era))
    start = max(int(np.searchsorted(eras, era - embargo)), stop - int(_MAX_EMBARGO_SHARE * len(eras)))
    return np.isin(era_numbers, eras[start:stop])


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


def assign_folds(era_numbers: NDArray[np.int32], count: int, embargo: int) -> NDArray[np.intp] | None:
    """Assign each row to a fold: consecutive eras, about as many rows in each fold.

    Consecutive rather than scattered eras, since a target reaches over several eras: targets then overlap only at the
    ends of a fold.

    Parameters
    ----------
    era_numbers
        The era of each row, shape (rows,).
    count
        Number of folds.
    embargo
        Weeks to leave out between folds, by the numbers of the eras; at most a tenth of the eras are left out.

    Returns
    -------
    numpy.ndarray of int, shape (rows,), or None
        Fold numbers from 0 to `count` - 1, none empty, and `NO_FOLD` for the rows of the embargo; None when there are
        fewer eras than folds.
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
    borders = np.flatnonzero(np.diff(fold_of_era)) + 1
    most = int(_MAX_EMBARGO_SHARE * len(eras)) // max(1, len(borders))
    for previous, border in zip([0, *borders], borders):
        start = int(np.searchsorted(eras, int(eras[border]) - embargo))
        fold_of_era[max(start, border - most, previous + 1) : border] = NO_FOLD
    assigned: NDArray[np.intp] = fold_of_era[np.reshape(inverse, -1)]
    return assigned
