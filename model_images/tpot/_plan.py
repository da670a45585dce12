"""The plan of a search: its time, its limits and its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numerai_contract.exits import BadParameterError

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
# seconds of a search reserved for its end
_RESERVE = 2.0


@dataclass(frozen=True)
class Plan:
    """The plan of a search.

    Attributes
    ----------
    began : float
        Start of its time, by the monotonic clock.
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
    """

    began: float
    seconds: int
    seconds_per_pipeline: int
    run_limit: int | None
    space: str
    population: int
    folds: int
    seed: int

    @classmethod
    def read(cls, parameters: Parameters, began: float) -> Plan:
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
        return min(self.began + self.seconds + self.seconds_per_pipeline, self.latest)

    @property
    def latest(self) -> float:
        """End of everything, with predictions or without."""
        return self.began + _LATEST * self.seconds
