"""What a model learns from a target: its value, or on which side of one half it lies.

A binary classifier learns target > 0.5 and leaves rows at exactly 0.5 out of its training; a regressor uses the value.
Rows whose target is unknown teach nobody anything.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract.exits import BadDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.tables import Table


class TargetKind(str, Enum):
    """Whether a target has two values or several."""

    BINARY = "binary"
    GRADED = "graded"


class Lesson(NamedTuple):
    """The rows a model may learn from, and what they say.

    Attributes
    ----------
    rows : numpy.ndarray of bool, shape (rows of the table,)
        Marks of the rows to learn from.
    labels : numpy.ndarray, shape (rows marked,)
        int8 classes 0 and 1 for a classifier, float32 values in [0, 1] for a regressor.
    """

    rows: NDArray[np.bool_]
    labels: NDArray[Any]


def target_kind(targets: NDArray[np.float32]) -> TargetKind:
    """Say whether the known targets are all 0 or 1 (binary), or lie between as well (graded)."""
    known = targets[~np.isnan(targets)]
    return TargetKind.BINARY if bool(np.isin(known, (0.0, 1.0)).all()) else TargetKind.GRADED


def classes(table: Table) -> Lesson:
    """Select what a binary classifier learns from.

    Raises
    ------
    BadDataError
        When no target is known, or all fall into one class.
    """
    # a comparison with NaN is false: unknown targets drop out here
    rows = (table.targets < 0.5) | (table.targets > 0.5)
    labels = (table.targets[rows] > 0.5).astype(np.int8)
    if not len(labels):
        raise BadDataError(
            f"{table.path.name}: column 'target' is empty, or exactly 0.5, in all {len(table):,} rows; "
            "there is nothing to learn."
        )
    if (labels == labels[0]).all():
        side = "above" if labels[0] else "below"
        raise BadDataError(
            f"{table.path.name}: column 'target' has one class only: all {len(labels):,} known values are {side} 0.5. "
            "A classifier needs both; was the right target column chosen?"
        )
    return Lesson(rows, labels)


def values(table: Table) -> Lesson:
    """Select what a regressor learns from.

    Raises
    ------
    BadDataError
        When no target is known, or all are the same.
    """
    rows = ~np.isnan(table.targets)
    labels = table.targets[rows]
    if not len(labels):
        raise BadDataError(
            f"{table.path.name}: column 'target' is empty in all {len(table):,} rows; there is nothing to learn."
        )
    if (labels == labels[0]).all():
        raise BadDataError(
            f"{table.path.name}: column 'target' is {labels[0]:g} in all {len(labels):,} rows where it is known. "
            "Was the right target column chosen?"
        )
    return Lesson(rows, labels)
