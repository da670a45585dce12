"""The training labels of a target: its value, or its class (above or below one half).

A binary classifier learns target > 0.5 and leaves rows at exactly 0.5 out of its training; a regressor uses the value.
Rows with an unknown target are not used.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract import eras
from numerai_contract.exits import BadDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.tables import TableView


class TargetKind(str, Enum):
    """Whether a target has two values or several."""

    BINARY = "binary"
    GRADED = "graded"


class LabeledRows(NamedTuple):
    """The rows that a model may learn from, and their labels.

    Attributes
    ----------
    rows : numpy.ndarray of bool, shape (rows of the table,)
        Marks of these rows.
    labels : numpy.ndarray, shape (rows marked,)
        int8 classes 0 and 1 for a classifier, float32 values in [0, 1] for a regressor.
    """

    rows: NDArray[np.bool_]
    labels: NDArray[Any]


def target_kind(targets: NDArray[np.float32]) -> TargetKind:
    """Determine whether the known targets are all 0 or 1 (binary), or have values between as well (graded)."""
    known = targets[~np.isnan(targets)]
    return TargetKind.BINARY if bool(np.isin(known, (0.0, 1.0)).all()) else TargetKind.GRADED


def classes(table: TableView) -> LabeledRows:
    """Select the training rows of a binary classifier, with their classes.

    Raises
    ------
    BadDataError
        When no target is known, or all are in one class.
    """
    # a comparison with NaN is false, which excludes unknown targets
    rows = (table.targets < 0.5) | (table.targets > 0.5)
    labels = (table.targets[rows] > 0.5).astype(np.int8)
    if not len(labels):
        raise BadDataError(
            f"{table.path.name}: column {table.target_name!r} is empty, or exactly 0.5, in all {len(table):,} rows; "
            "there is nothing to learn."
        )
    if (labels == labels[0]).all():
        side = "above" if labels[0] else "below"
        raise BadDataError(
            f"{table.path.name}: column {table.target_name!r} has one class only: all {len(labels):,} known values are "
            f"{side} 0.5. A classifier needs both; was the right target column selected?"
        )
    return LabeledRows(rows, labels)


def values(table: TableView) -> LabeledRows:
    """Select the training rows of a regressor, with their target values.

    Raises
    ------
    BadDataError
        When no target is known, or all are the same.
    """
    rows = ~np.isnan(table.targets)
    labels = table.targets[rows]
    if not len(labels):
        raise BadDataError(
            f"{table.path.name}: column {table.target_name!r} is empty in all {len(table):,} rows; there is nothing to "
            "learn."
        )
    if (labels == labels[0]).all():
        raise BadDataError(
            f"{table.path.name}: column {table.target_name!r} is {labels[0]:g} in all {len(labels):,} rows where it is "
            "known. Was the right target column selected?"
        )
    return LabeledRows(rows, labels)


def sample(labeled: LabeledRows, era_numbers: NDArray[np.int32], limit: int, *, seed: int) -> LabeledRows:
    """Draw rows so that every era and every target value keeps its share.

    Parameters
    ----------
    labeled
        The rows to draw from.
    era_numbers
        The era of each row of the table, shape (rows of the table,).
    limit
        Maximum number of rows.
    seed
        The same seed draws the same rows.
    """
    quarters = (labeled.labels * 4).round().astype(np.int8)
    drawn = eras.sample(era_numbers[labeled.rows], quarters, limit, seed=seed)
    return LabeledRows(eras.within(labeled.rows, drawn), labeled.labels[drawn])
