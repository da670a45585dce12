"""The log of a search: its pipelines, their outcomes, and the best ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numerai_contract.workers import Outcome

_MAX_CANDIDATES = 20
_MAX_LISTED = 200


class Trial(NamedTuple):
    """A pipeline in evaluation.

    Attributes
    ----------
    number : int
        1-based sequence number.
    name : str
        All its parameters: equal pipelines have equal names.
    pipeline : sklearn.pipeline.Pipeline
        Not fitted.
    """

    number: int
    name: str
    pipeline: Any


class Candidate(NamedTuple):
    """An evaluated pipeline.

    Attributes
    ----------
    loss : float
        Cross-validated logloss, in nats.
    number : int
        That of its trial: among equal ones the first is best.
    pipeline : sklearn.pipeline.Pipeline
        Not fitted.
    seconds : float
        Duration of its evaluation.
    """

    loss: float
    number: int
    pipeline: Any
    seconds: float


class SearchLog:
    """Records the pipelines of a search.

    Attributes
    ----------
    best : list of Candidate
        The best ones, the very best first.
    tried : int
        Number of started trials.
    trajectory : list of dict
        The improvements of the best loss, with their times.
    last_failure : str
        Reason of the last failure.
    """

    def __init__(self) -> None:
        self.best: list[Candidate] = []
        self.tried = 0
        self.trajectory: list[dict[str, float]] = []
        self.last_failure = "it did not finish in time"
        self._outcomes: Counter[str] = Counter()
        self._cut_short = 0
        self._order = hashlib.sha256()
        self._listed: list[dict[str, Any]] = []

    def begin(self, name: str, pipeline: Any) -> Trial:
        """Record the start of a trial, under the unique name of the pipeline."""
        self.tried += 1
        self._order.update(name.encode())
        if len(self._listed) < _MAX_LISTED:
            learner = pipeline.steps[-1][1].__class__.__name__
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]
            self._listed.append({"learner": learner, "pipeline": digest, "outcome": "unfinished"})
        return Trial(self.tried, name, pipeline)

    def end(self, trial: Trial, outcome: Outcome, seconds: float) -> None:
        """Record the outcome of a trial, `seconds` after the search began."""
        self._outcomes[outcome.status] += 1
        loss = outcome.value.loss if outcome.status == "succeeded" else None
        if trial.number <= len(self._listed):
            entry = {"outcome": outcome.status, "seconds": outcome.seconds}
            entry |= {"why": outcome.reason} if loss is None else {"logloss": loss}
            self._listed[trial.number - 1] |= entry
        if loss is None:
            self.last_failure = outcome.reason
            return
        self._cut_short += outcome.value.cut_short
        candidate = Candidate(loss, trial.number, trial.pipeline, outcome.seconds)
        if not self.best or candidate < self.best[0]:
            self.trajectory.append({"seconds": seconds, "logloss": loss})
        self.best = sorted([*self.best, candidate])[:_MAX_CANDIDATES]

    def reject(self, candidate: Candidate, reason: str) -> None:
        """Remove a pipeline that could not predict."""
        self.best.remove(candidate)
        self.last_failure = reason

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of trials, in total and by outcome."""
        names = ("succeeded", "timed_out", "out_of_memory", "crashed")
        ended = {name: self._outcomes[name] for name in names}
        return {
            "tried": self.tried,
            **ended,
            "unfinished": self.tried - sum(ended.values()),
            "cut_short": self._cut_short,
        }

    @property
    def candidates(self) -> dict[str, Any]:
        """The trials in order: the first ones in detail, and a hash of all."""
        return {"order": self._order.hexdigest(), "first": self._listed}
