"""Selection of the features that correlate most with the target, in one pass over a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView


def _no_report(_share: float, _text: str) -> None:
    pass


def most_correlated(
    table: TableView,
    rows: NDArray[np.bool_],
    count: int,
    report: Callable[[float, str], object] = _no_report,
) -> list[str]:
    """Select the features with the largest correlation with the target, positive or negative.

    Pearson's correlation of the values with the target. Features of few levels, as Numerai's, have about the same rank
    correlation. A missing value counts as the feature's mean.

    Parameters
    ----------
    table
        The table, read once.
    rows
        Marks of the rows to use, shape (rows,); those without a known target are left out.
    count
        Number of features to select.
    report
        Called with the share of the rows that is done and a description, such as `Progress.update`.

    Returns
    -------
    list of str
        Names in the order of the table: `count`, or all when there are fewer. Of equal correlations, the first ones.
    """
    names = table.feature_names
    if count >= len(names):
        return list(names)
    used = rows & ~np.isnan(table.targets)
    targets = table.targets.astype(np.float64)
    targets -= targets[used].mean()
    known, sums, squares, products, target_sums = (np.zeros(len(names)) for _ in range(5))
    total, done = max(int(np.count_nonzero(used)), 1), 0
    for positions, block in table.batches(used):
        values = block.astype(np.float32)
        is_known = ~np.isnan(values)
        own = targets[positions].astype(np.float32)
        if is_known.all():
            known += len(values)
            target_sums += own.sum(dtype=np.float64)
        else:
            values[~is_known] = 0
            known += is_known.sum(axis=0)
            target_sums += own @ is_known
        sums += values.sum(axis=0, dtype=np.float64)
        squares += np.einsum("rf,rf->f", values, values, dtype=np.float64)
        products += own @ values
        done += len(values)
        report(done / total, f"row {done:,} of {total:,}")
    # a feature without any known value has the strength 0
    means = sums / np.maximum(known, 1)
    deviations = np.sqrt(np.maximum(squares - known * means**2, 0))
    strengths = np.zeros(len(names))
    varies = deviations > 1e-6 * np.sqrt(np.maximum(squares, 1))
    strengths[varies] = np.abs(products - means * target_sums)[varies] / deviations[varies]
    selected = np.sort(np.argsort(-strengths, kind="stable")[:count])
    return [names[index] for index in selected]
