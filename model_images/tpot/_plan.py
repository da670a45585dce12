"""What a search is asked for: its time, its limits, its ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numerai_contract.exits import BadParameterError

if TYPE_CHECKING:
    from numerai_contract.parameters import Parameters

OWN_SPACE = "weak-signal"
_SPACES = (OWN_SPACE, "linear-light", "linear")
_DEFAULT_SECONDS = 600
# below it TPOT is hardly imported before its time is up
_FEWEST_SECONDS = 10
_PARTS = 6
# of the time given, how much may go by until the very first pipeline is there, and until all must be over
_WITHOUT_ANY, _AT_THE_LATEST = 2.0, 2.25
# seconds of a search kept back for its end
_RESERVE = 2.0


@dataclass(frozen=True)
class Plan:
    """What a search is asked for.

    Attributes
    ----------
    began : float
        When its time began, by the monotonic clock.
    seconds : int
        How much time it has.
    seconds_per_pipeline : int
        How long one pipeline may take to be judged, on all its folds.
    run_limit : int or None
        How many pipelines it may try.
    space : str
        The name of what pipelines are made of.
    population : int
        How many pipelines survive a generation.
    folds : int
        On how many a pipeline is judged.
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
    def asked_for(cls, parameters: Parameters, began: float) -> Plan:
        """Read the parameters."""
        seconds = parameters.time_limit or _DEFAULT_SECONDS
        if seconds < _FEWEST_SECONDS:
            raise BadParameterError(
                f"TIME_LIMIT is '{seconds}': TPOT needs at least {_FEWEST_SECONDS} seconds to find anything. "
                "Set automl_minutes to 1 or more."
            )
        limited = "RUN_LIMIT" in parameters
        return cls(
            began=began,
            seconds=seconds,
            seconds_per_pipeline=min(parameters.time_limit_part or max(seconds // _PARTS, 1), seconds),
            run_limit=parameters.whole("RUN_LIMIT", at_least=1, at_most=1_000_000) if limited else None,
            space=parameters.text("SEARCH_SPACE", OWN_SPACE, choices=_SPACES),
            population=parameters.whole("POPULATION", 20, at_least=2, at_most=1_000),
            folds=parameters.whole("FOLDS", 3, at_least=2, at_most=20),
            seed=parameters.seed,
        )

    @property
    def deadline(self) -> float:
        """When the search must be over."""
        return self.began + self.seconds - _RESERVE

    @property
    def deadline_without_any(self) -> float:
        """When a search that has found nothing at all must be over."""
        return self.began + _WITHOUT_ANY * self.seconds

    @property
    def last_moment(self) -> float:
        """When the last predictions must be there, where there are others."""
        return min(self.began + self.seconds + self.seconds_per_pipeline, self.latest)

    @property
    def latest(self) -> float:
        """When all must be over, whether there are any or not."""
        return self.began + _AT_THE_LATEST * self.seconds
