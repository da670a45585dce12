"""Keeps book of a search: what was tried, what became of it, which pipelines are the best."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ._workers import Outcome

_MOST_KEPT = 20
_MOST_LISTED = 200


class Trial(NamedTuple):
    """A pipeline that is being tried.

    Attributes
    ----------
    number : int
        It was the how-manieth, from 1 on.
    name : str
        All that is set in it: the same pipeline has the same name.
    pipeline : sklearn.pipeline.Pipeline
        Not fitted.
    """

    number: int
    name: str
    pipeline: Any


class Candidate(NamedTuple):
    """A pipeline that was judged.

    Attributes
    ----------
    loss : float
        Cross-validated logloss, in nats.
    number : int
        That of its trial: of two equally good ones the first is the better.
    pipeline : sklearn.pipeline.Pipeline
        Not fitted.
    seconds : float
        How long it took to judge.
    """

    loss: float
    number: int
    pipeline: Any
    seconds: float


class Found:
    """Keeps book of a search.

    Attributes
    ----------
    best : list of Candidate
        The best ones, the very best first.
    tried : int
        How many were begun.
    trajectory : list of dict
        When a pipeline was better than all before it, and its loss.
    last_trouble : str
        Why the last one that failed did.
    """

    def __init__(self) -> None:
        self.best: list[Candidate] = []
        self.tried = 0
        self.trajectory: list[dict[str, float]] = []
        self.last_trouble = "it was not done in time"
        self._outcomes: Counter[str] = Counter()
        self._cut_short = 0
        self._order = hashlib.sha256()
        self._listed: list[dict[str, Any]] = []

    def begin(self, name: str, pipeline: Any) -> Trial:
        """Note that a pipeline is being tried, under a name that is its own."""
        self.tried += 1
        self._order.update(name.encode())
        if len(self._listed) < _MOST_LISTED:
            learner = pipeline.steps[-1][1].__class__.__name__
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]
            self._listed.append({"learner": learner, "pipeline": digest, "outcome": "unfinished"})
        return Trial(self.tried, name, pipeline)

    def end(self, trial: Trial, outcome: Outcome, seconds: float) -> None:
        """Note what became of it, `seconds` after the search began."""
        self._outcomes[outcome.status] += 1
        loss = outcome.value.loss if outcome.status == "succeeded" else None
        if trial.number <= len(self._listed):
            told = {"outcome": outcome.status, "seconds": outcome.seconds}
            told |= {"why": outcome.words} if loss is None else {"logloss": loss}
            self._listed[trial.number - 1] |= told
        if loss is None:
            self.last_trouble = outcome.words
            return
        self._cut_short += outcome.value.cut_short
        candidate = Candidate(loss, trial.number, trial.pipeline, outcome.seconds)
        if not self.best or candidate < self.best[0]:
            self.trajectory.append({"seconds": seconds, "logloss": loss})
        self.best = sorted([*self.best, candidate])[:_MOST_KEPT]

    def pass_over(self, candidate: Candidate, why: str) -> None:
        """Forget a pipeline that turned out useless."""
        self.best.remove(candidate)
        self.last_trouble = why

    @property
    def outcomes(self) -> dict[str, int]:
        """How many were tried, and how they ended."""
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
        """What was tried, in order: the first ones each, and a hash over all."""
        return {"order": self._order.hexdigest(), "first": self._listed}
