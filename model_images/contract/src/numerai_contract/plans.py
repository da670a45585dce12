"""The plan of a fit: rows and features that fit the container's memory, computed from the sizes of the tables alone.

An operation's module has a function

``plan(parameters, sizes) -> Plan``

It is computed before any work, from constants that were measured. It chooses rows and features so that the fit and the
final fit need at most MEMORY_LIMIT; a table is never too large. Where products of features or large matrices are the
cause, it takes fewer features rather than fewer rows: the effect of a feature is weak, and needs many rows.
`Task.follow` logs a plan, and selects its features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from numerai_contract.parameters import Parameters

# The least rows and features of a plan: fewer are not enough to learn a weak signal.
MIN_ROWS = 50_000
_MIN_FEATURES = 10
# Bytes for each row of an open table: its id, era, data type and target, and the copies made to validate them.
_BYTES_PER_OPEN_ROW = 150


class Sizes(NamedTuple):
    """The sizes of the tables of a fit.

    Attributes
    ----------
    training, validation : int
        Rows of the training table, and of the validation table (0 without one). The final fit has the rows of both.
    features : int
        Number of features.
    value_bytes : int
        Bytes of a feature's value in memory: 1 where all are int8 without missing values, else 4.
    holds_int8 : bool
        Whether all features can be read as int8, with a mark where a value is missing; see `packed_bytes`.
    """

    training: int
    validation: int
    features: int
    value_bytes: int = 4
    holds_int8: bool = False

    @property
    def packed_bytes(self) -> int:
        """Bytes of a feature's value in a `FeatureMatrix`."""
        return 1 if self.holds_int8 else self.value_bytes

    @property
    def rows(self) -> int:
        """Rows of both tables, those of the final fit."""
        return self.training + self.validation

    def rows_in_memory(self, limit: int, parts: int = 2) -> int:
        """Return the most rows that are in memory at a time: those of the parts of the split, or of the final fit.

        Parameters
        ----------
        limit
            Maximum rows of a part, and of the final fit.
        parts
            2 for a model on the split, whose first fit has both parts in memory; otherwise 1.
        """
        return max(min(parts * limit, self.training), min(limit, self.rows))

    @property
    def open_tables(self) -> float:
        """Memory of the open tables without their features, in MiB."""
        return self.rows * _BYTES_PER_OPEN_ROW / 2**20


class Plan(NamedTuple):
    """The plan of a fit and of the final fit that follows.

    Attributes
    ----------
    rows : int
        Maximum number of rows to learn from, in either fit; more are sampled.
    features : int
        Number of features to learn from; of more, those with the largest correlation with the target.
    memory : float
        Peak memory of the container, in MiB.
    """

    rows: int
    features: int
    memory: float


def largest(at_most: int, at_least: int, need: Callable[[int], float], limit: float | None) -> int:
    """Return the largest number in [`at_least`, `at_most`] whose need is within a limit.

    Parameters
    ----------
    at_most, at_least
        Bounds; `at_most` is returned when it is the smaller one, and `at_least` when its need exceeds the limit.
    need
        The memory of a number of rows or features, in MiB; it does not decrease.
    limit
        In MiB; None for no limit.
    """
    if limit is None or at_most <= at_least or need(at_most) <= limit:
        return at_most
    low, high = at_least, at_most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if need(middle) <= limit else (low, middle)
    return low


def within_memory(parameters: Parameters, rows: int, features: int, memory: Callable[[int, int], float]) -> Plan:
    """Plan as many rows, but at least 50,000 of them, and then as many features, but at least 10, as fit MEMORY_LIMIT.

    Parameters
    ----------
    parameters
        For MEMORY_LIMIT and ROW_LIMIT, which replaces `rows` where it is set.
    rows, features
        The maximum, for the time of the fit or because a table has no more.
    memory
        The memory of a maximum number of rows and a number of features, in MiB; it does not decrease.
    """
    limit = parameters.memory_limit
    if "ROW_LIMIT" in parameters:
        rows = parameters.get_int("ROW_LIMIT", at_least=100, at_most=100_000_000)
    else:
        rows = largest(rows, MIN_ROWS, lambda count: memory(count, features), limit)
    features = largest(features, _MIN_FEATURES, lambda count: memory(rows, count), limit)
    return Plan(rows, features, memory(rows, features))
