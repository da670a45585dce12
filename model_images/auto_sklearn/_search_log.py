"""The log of a search: its candidates, their outcomes, and the best ones, whose models are stored."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ._budget import SearchPlan

# auto-sklearn's number of the constant model
CONSTANT = 1
_MAX_STORED = 20
_MAX_LISTED = 200
_OUTCOMES = {"SUCCESS": "succeeded", "TIMEOUT": "timed_out", "MEMOUT": "out_of_memory", "CRASHED": "crashed"}


class Candidate(NamedTuple):
    """A successful candidate.

    Attributes
    ----------
    number : int
        Auto-sklearn's number of it.
    cost : float
        The metric on the held-out rows.
    learner : str
    configuration : dict
    """

    number: int
    cost: float
    learner: str
    configuration: Mapping[str, Any]


class SearchLog:
    """Records the candidates of a search, and removes the models that are not needed any more.

    Parameters
    ----------
    plan
        Of the search.

    Attributes
    ----------
    stored : list of Candidate
        The best ones, whose models are stored; the best first.
    trajectory : list of dict
        The improvements of the best cost, with their times.
    tried : int
    in_use : frozenset of int
        Candidates whose files must not be removed now.
    """

    def __init__(self, plan: SearchPlan) -> None:
        self.stored: list[Candidate] = []
        self.trajectory: list[dict[str, float]] = []
        self.tried = 0
        self.in_use: frozenset[int] = frozenset()
        self._plan = plan
        self._successful: dict[int, Candidate] = {}
        self._discarded: set[int] = set()
        self._outcomes: Counter[str] = Counter()
        self._listed: list[dict[str, Any]] = []
        self._order = hashlib.sha256()

    @property
    def best(self) -> float | None:
        """The best cost so far."""
        return self.trajectory[-1]["held_out_loss"] if self.trajectory else None

    @property
    def runs(self) -> dict[str, int]:
        """Number of candidates, in total and by outcome."""
        names = ("succeeded", "cut_short", "timed_out", "out_of_memory", "crashed")
        return {"tried": self.tried, **{name: self._outcomes[name] for name in names}}

    @property
    def candidates(self) -> dict[str, Any]:
        """The candidates in order: the first ones in detail, and a hash of all."""
        return {"order": self._order.hexdigest(), "first": self._listed}

    def describe(self, number: int) -> dict[str, Any]:
        """Describe a member of an ensemble for the report."""
        if number == CONSTANT:
            return {"learner": "constant"}
        candidate = self._successful[number]
        return {
            "learner": candidate.learner,
            "held_out_loss": candidate.cost,
            "configuration": dict(candidate.configuration),
        }

    def add(self, message: Mapping[str, Any], seconds: float) -> None:
        """Record a candidate from a message of the search, `seconds` after its start."""
        self.tried += 1
        outcome = _OUTCOMES.get(message["status"], "crashed")
        self._outcomes[outcome] += 1
        self._outcomes["cut_short"] += message["cut_short"]
        configuration = message["configuration"]
        digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
        self._order.update(digest.encode())
        learner = configuration[f"{self._plan.kind}:__choice__"]
        cost = message["cost"] if outcome == "succeeded" else None
        if len(self._listed) < _MAX_LISTED:
            entry = {"learner": learner, "configuration": digest[:12], "outcome": outcome, "held_out_loss": cost}
            self._listed.append({**entry, "seconds": message["seconds"]})
        if cost is None:
            self._discard(message["number"])
            return
        if self.best is None or cost < self.best:
            self.trajectory.append({"seconds": seconds, "held_out_loss": cost})
        candidate = Candidate(message["number"], cost, learner, configuration)
        self.stored.append(candidate)
        self._successful[candidate.number] = candidate
        self._discard_the_worst()

    def _discard_the_worst(self) -> None:
        stored: list[Candidate] = []
        available = self._plan.budget.disk
        for candidate in sorted(self.stored, key=lambda candidate: (candidate.cost, candidate.number)):
            size = _size(self._plan.files_of(candidate.number))
            # the best is stored even if it is too large
            if not stored or (size <= available and len(stored) < _MAX_STORED):
                stored.append(candidate)
                available -= size
            else:
                self._discard(candidate.number)
        self.stored = stored

    def _discard(self, number: int) -> None:
        """Remove a candidate's files, at once or when they are no longer in use."""
        self._discarded.add(number)
        for unused in self._discarded - self.in_use:
            shutil.rmtree(self._plan.files_of(unused), ignore_errors=True)
            self._discarded.remove(unused)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*"))
