"""What a search has found: its candidates, which of them are kept, and what an ensemble of those predicts."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ._library import BINARY_CLASSIFICATION, REGRESSION, EnsembleSelection
from ._search import metric_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import Table

    from ._plan import Plan

# the number auto-sklearn gives the model that says the same of every row
CONSTANT = 1
# of how many draws with replacement an ensemble is made, and from how many candidates
_DRAWS = 20
_MOST_CANDIDATES = 20
# where nothing beats the constant: what the best candidate may say, as a prediction that says nothing is of no use
_LEAST_SHARE = 0.1
_ROWS_AT_A_TIME = 8_192
_MOST_LISTED = 200
_OUTCOMES = {"SUCCESS": "succeeded", "TIMEOUT": "timed_out", "MEMOUT": "out_of_memory", "CRASHED": "crashed"}


class Candidate(NamedTuple):
    """A model that was found.

    Attributes
    ----------
    number : int
        Auto-sklearn's own.
    cost : float
        The metric on the held-out rows.
    learner : str
    configuration : dict
    """

    number: int
    cost: float
    learner: str
    configuration: Mapping[str, Any]


class Found:
    """Keeps book of a search, and throws away the models that are not needed any more.

    Parameters
    ----------
    plan
        Of the search.

    Attributes
    ----------
    kept : list of Candidate
        The best, whose models are there; the very best first.
    trajectory : list of dict
        When a candidate was better than all before it, and its cost.
    tried : int
    in_use : frozenset of int
        Candidates whose files must stay for now.
    """

    def __init__(self, plan: Plan) -> None:
        self.kept: list[Candidate] = []
        self.trajectory: list[dict[str, float]] = []
        self.tried = 0
        self.in_use: frozenset[int] = frozenset()
        self._plan = plan
        self._everything: dict[int, Candidate] = {}
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
        """How many were tried, and how they ended."""
        names = ("succeeded", "cut_short", "timed_out", "out_of_memory", "crashed")
        return {"tried": self.tried, **{name: self._outcomes[name] for name in names}}

    @property
    def candidates(self) -> dict[str, Any]:
        """What was tried, in order: the first ones each, and a hash over all."""
        return {"order": self._order.hexdigest(), "first": self._listed}

    def describe(self, number: int) -> dict[str, Any]:
        """Say what a member of an ensemble is."""
        if number == CONSTANT:
            return {"learner": "constant"}
        candidate = self._everything[number]
        return {
            "learner": candidate.learner,
            "held_out_loss": candidate.cost,
            "configuration": dict(candidate.configuration),
        }

    def add(self, told: Mapping[str, Any], seconds: float) -> None:
        """Take in what the search told of a candidate, `seconds` after its beginning."""
        self.tried += 1
        outcome = _OUTCOMES.get(told["status"], "crashed")
        self._outcomes[outcome] += 1
        self._outcomes["cut_short"] += told["cut_short"]
        configuration = told["configuration"]
        digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
        self._order.update(digest.encode())
        learner = configuration[f"{self._plan.kind}:__choice__"]
        cost = told["cost"] if outcome == "succeeded" else None
        if len(self._listed) < _MOST_LISTED:
            entry = {"learner": learner, "configuration": digest[:12], "outcome": outcome, "held_out_loss": cost}
            self._listed.append({**entry, "seconds": told["seconds"]})
        if cost is None:
            self._discard(told["number"])
            return
        if self.best is None or cost < self.best:
            self.trajectory.append({"seconds": seconds, "held_out_loss": cost})
        candidate = Candidate(told["number"], cost, learner, configuration)
        self.kept.append(candidate)
        self._everything[candidate.number] = candidate
        self._keep_the_best()

    def _keep_the_best(self) -> None:
        kept: list[Candidate] = []
        left = self._plan.memory.disk
        for candidate in sorted(self.kept, key=lambda candidate: (candidate.cost, candidate.number)):
            size = _size(self._plan.files_of(candidate.number))
            # the best is kept whatever it takes
            if not kept or (size <= left and len(kept) < _MOST_CANDIDATES):
                kept.append(candidate)
                left -= size
            else:
                self._discard(candidate.number)
        self.kept = kept

    def _discard(self, number: int) -> None:
        """Remove a candidate's files, now or when nobody uses them any more."""
        self._discarded.add(number)
        for unused in self._discarded - self.in_use:
            shutil.rmtree(self._plan.files_of(unused), ignore_errors=True)
            self._discarded.remove(unused)


class Forecast(NamedTuple):
    """What an ensemble predicts.

    Attributes
    ----------
    predictions : numpy.ndarray of float64, shape (rows of the tournament,)
    members : list of (int, float)
        Numbers of the candidates and their weights, the heaviest first; `CONSTANT` may be among them.
    held_out_loss : float
        The metric of the ensemble on the held-out rows.
    """

    predictions: NDArray[np.float64]
    members: list[tuple[int, float]]
    held_out_loss: float

    def save(self, path: Path) -> None:
        """Write it so that it is whole or not there."""
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            pickle.dump(tuple(self), stream, protocol=4)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Forecast | None:
        """Read one; None when there is none."""
        return cls(*_unpickled(path)) if path.exists() else None


def forecast(plan: Plan, kept: list[Candidate], held_out: NDArray[Any], tournament: Table) -> Forecast:
    """Choose an ensemble from the kept candidates and predict the tournament with it.

    Parameters
    ----------
    plan
        Of the search.
    kept
        At least one.
    held_out
        The labels of the held-out rows, shape (rows,).
    tournament
        What to predict.
    """
    numbers = [CONSTANT, *(candidate.number for candidate in kept)]
    judged = [_unpickled(plan.held_out_predictions(number)).astype(np.float64) for number in numbers]
    task_type = BINARY_CLASSIFICATION if plan.kind == "classifier" else REGRESSION
    selection = EnsembleSelection(
        task_type=task_type,
        metrics=[metric_of(plan.kind)],
        backend=None,
        ensemble_size=_DRAWS,
        random_state=plan.seed,
    )
    selection.fit(judged, held_out, [(plan.seed, number, 0.0) for number in numbers], runs=[])
    weights = {number: float(weight) for number, weight in zip(numbers, selection.weights_) if weight > 0}
    loss = float(selection.train_loss_)
    if set(weights) == {CONSTANT}:
        best = 1 + int(np.argmin([candidate.cost for candidate in kept]))
        weights = {CONSTANT: 1 - _LEAST_SHARE, numbers[best]: _LEAST_SHARE}
        mixed = (1 - _LEAST_SHARE) * judged[0] + _LEAST_SHARE * judged[best]
        metric = metric_of(plan.kind)
        loss = float(metric._optimum - metric(held_out, mixed))  # its scores are the larger the better
    constant = float(judged[0].reshape(len(held_out), -1)[0, -1])
    members = sorted(weights.items(), key=lambda member: -member[1])
    # beside a search that takes all cores, threads that wait for one another are slower than one alone
    with threadpool_limits(1):
        return Forecast(_predict(plan, weights, constant, tournament), members, loss)


def _predict(plan: Plan, weights: Mapping[int, float], constant: float, tournament: Table) -> NDArray[np.float64]:
    predictions = np.full(len(tournament), weights.get(CONSTANT, 0.0) * constant)
    models = []
    for number, weight in weights.items():
        if number != CONSTANT:
            models.append((_unpickled(plan.model(number)), weight))
    for positions, block in tournament.batches():
        for start in range(0, len(positions), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            rows = block[part].astype(np.float32, copy=False)
            for model, weight in models:
                said = model.predict_proba(rows)[:, 1] if plan.kind == "classifier" else model.predict(rows).ravel()
                # a regressor may overshoot; the mean of what is left in place is in place
                predictions[positions[part]] += weight * np.clip(said, 0, 1)
    return predictions.clip(0, 1)


def _unpickled(path: Path) -> Any:
    with path.open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 (written by ourselves, in a place of our own)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*"))
