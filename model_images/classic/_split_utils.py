"""The default row limit of the models that learn on the split."""

from __future__ import annotations

# the least default: fewer rows are not enough to learn such a weak signal
_MIN_ROWS = 20_000


def row_limit(work_per_row: int, max_work: int) -> int:
    """Return a default of ROW_LIMIT: as many rows as the work allows, but at least 20,000.

    Parameters
    ----------
    work_per_row
        The cost of a row in time or memory, such as the square of the number of features.
    max_work
        The maximum cost of all rows, in the same unit.
    """
    return max(_MIN_ROWS, max_work // work_per_row)
