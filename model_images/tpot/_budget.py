"""The plan of a search: its time, its limits and its parameters; and the plan of its rows, features and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numerai_contract.exits import BadParameterError
from numerai_contract.plans import Plan, Sizes, largest

if TYPE_CHECKING:
    from numerai_contract.parameters import Parameters

OWN_SPACE = "weak-signal"
_SPACES = (OWN_SPACE, "linear-light", "linear")
_DEFAULT_SECONDS = 600
# a shorter search ends shortly after the import of TPOT
_MIN_SECONDS = 10
_PARTS = 6
# multiples of the time limit: until the first pipeline must have succeeded, and until everything must be over
_WITHOUT_ANY, _LATEST = 2.0, 2.25
# seconds of a search reserved for its end, and seconds to predict a row after it: 5 minutes for 4 million rows
_RESERVE, _SECONDS_PER_ROW = 2.0, 75e-6
# rows of the first of the fits of the final fit, see `growing_rows`; features of the search
LEAST_ROWS = 50_000
_FEATURES = 100
# the search fits each pipeline on several folds
_SEARCH_VALUES, _SEARCH_ROWS = 2_000_000, 40_000
# MiB of this process; bytes for each row of both tables beside the open tables: the split, an embedding's coordinates
# and the predictions (2.75 + 4.03 M rows)
_BASE_MEMORY, _BYTES_PER_ROW = 400, 40
# MiB: the minimum of a pipeline beside its copies of the training rows, and the limit of each without a limit
_MIN_MEMORY, DEFAULT_MEMORY = 300, 3_072
_COPIES = 4
# the coordinates of the default embedding
_COORDINATES = 2


@dataclass(frozen=True)
class SearchPlan:
    """The plan of a search.

    Attributes
    ----------
    began : float
        Start of its time, by the monotonic clock: the training rows have been read.
    seconds : int
        Its time limit.
    seconds_per_pipeline : int
        The time limit of one pipeline's evaluation, on all its folds.
    run_limit : int or None
        Maximum number of pipelines.
    space : str
        The name of the search space.
    population : int
        Number of pipelines that survive a generation.
    folds : int
        Number of folds of the cross-validation.
    seed : int
    to_predict : int
        Number of rows to predict.
    """

    began: float
    seconds: int
    seconds_per_pipeline: int
    run_limit: int | None
    space: str
    population: int
    folds: int
    seed: int
    to_predict: int

    @classmethod
    def read(cls, parameters: Parameters, began: float, to_predict: int) -> SearchPlan:
        """Read the parameters."""
        seconds = parameters.time_limit or _DEFAULT_SECONDS
        if seconds < _MIN_SECONDS:
            raise BadParameterError(
                f"TIME_LIMIT is '{seconds}': TPOT needs at least {_MIN_SECONDS} seconds to find anything. "
                "Set automl_minutes to 1 or more."
            )
        limited = "RUN_LIMIT" in parameters
        return cls(
            began=began,
            seconds=seconds,
            seconds_per_pipeline=min(parameters.time_limit_part or max(seconds // _PARTS, 1), seconds),
            run_limit=parameters.get_int("RUN_LIMIT", at_least=1, at_most=1_000_000) if limited else None,
            space=parameters.get_str("SEARCH_SPACE", OWN_SPACE, choices=_SPACES),
            population=parameters.get_int("POPULATION", 20, at_least=2, at_most=1_000),
            folds=parameters.get_int("FOLDS", 3, at_least=2, at_most=20),
            seed=parameters.seed,
            to_predict=to_predict,
        )

    @property
    def deadline(self) -> float:
        """End of the search."""
        return self.began + self.seconds - _RESERVE

    @property
    def deadline_without_any(self) -> float:
        """End of a search without any successful pipeline."""
        return self.began + _WITHOUT_ANY * self.seconds

    @property
    def last_moment(self) -> float:
        """End of the final predictions, when there are earlier ones."""
        predicting = max(self.seconds_per_pipeline, _SECONDS_PER_ROW * self.to_predict)
        return min(self.began + self.seconds + predicting, self.latest)

    @property
    def latest(self) -> float:
        """End of everything, with predictions or without."""
        return self.began + _LATEST * self.seconds + _SECONDS_PER_ROW * self.to_predict


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows of the final fit and the features; see `numerai_contract.plans`."""
    features = min(sizes.features, _FEATURES)
    columns = features + _COORDINATES

    def need(rows: int) -> float:
        return base_memory(sizes, table_size(rows, columns)) + min_memory(table_size(rows, columns))

    rows = largest(sizes.rows, LEAST_ROWS, need, parameters.memory_limit)
    rows = min(parameters.get_int("ROW_LIMIT", rows, at_least=100, at_most=100_000_000), sizes.rows)
    return Plan(rows, features, need(rows))


def search_rows(features: int) -> int:
    """Return the default of ROW_LIMIT for the search."""
    return max(1_000, min(_SEARCH_VALUES // features, _SEARCH_ROWS))


def table_size(rows: int, columns: int) -> float:
    """Return the memory of float32 features, in MiB."""
    return 4 * rows * columns / 2**20


def base_memory(sizes: Sizes, table: float) -> float:
    """Return the memory of this process with training rows of `table` MiB, in MiB."""
    return _BASE_MEMORY + sizes.open_tables + sizes.rows * _BYTES_PER_ROW / 2**20 + table


def min_memory(table: float) -> float:
    """Return the least memory of a pipeline that learns from `table` MiB, in MiB."""
    return _MIN_MEMORY + _COPIES * table
