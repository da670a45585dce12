"""The ensemble of the best candidates: its selection, its predictions, and its files."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from numerai_contract import batches, saved_state

from ._library import BINARY_CLASSIFICATION, REGRESSION, EnsembleSelection
from ._search import metric_of
from ._search_log import CONSTANT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import Table, TableView
    from numerai_contract.task import Task

    from ._budget import SearchPlan
    from ._search_log import Candidate

# draws with replacement in the selection of an ensemble
_DRAWS = 20
# the weight of the best candidate when none beats the constant, as constant predictions are useless
_MIN_SHARE = 0.1
_ROWS_AT_A_TIME = 8_192
_FILE = "member_{:02}.pickle"


class Selected(NamedTuple):
    """A selected ensemble and its predictions.

    Attributes
    ----------
    predictions : numpy.ndarray of float64, shape (rows of the predicted table,)
    members : list of (int, float)
        Numbers of the candidates and their weights, the largest first; `CONSTANT` may be among them.
    constant : float
        The prediction of the constant.
    held_out_loss : float
        The metric of the ensemble on the held-out rows.
    """

    predictions: NDArray[np.float64]
    members: list[tuple[int, float]]
    constant: float
    held_out_loss: float


class Member(NamedTuple):
    """A member of an ensemble: its weight, and its pipeline of auto-sklearn, pickled as auto-sklearn stores it."""

    weight: float
    pickled: bytes


class Ensemble(NamedTuple):
    """The model: a weighted mean of the members and of a constant.

    Attributes
    ----------
    kind : str
        "classifier" or "regressor".
    constant, constant_weight : float
        The prediction of the constant and its weight, which may be zero.
    members : list of Member
    """

    kind: str
    constant: float
    constant_weight: float
    members: list[Member]

    @classmethod
    def read(cls, plan: SearchPlan, members: Sequence[tuple[int, float]], constant: float) -> Ensemble:
        """Read the stored models of a search; `members` as in `Selected`."""
        constant_weight = sum(weight for number, weight in members if number == CONSTANT)
        models = [Member(weight, plan.model(number).read_bytes()) for number, weight in members if number != CONSTANT]
        return cls(plan.kind, constant, constant_weight, models)

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        with task.progress.step(f"predicting {len(table):,} rows of {table.path.name}"):
            return self.predictions_of(table, task.parameters.threads, task.progress.update)

    def predictions_of(
        self, table: TableView, threads: int, report: Callable[[float, str], object] = lambda _share, _text: None
    ) -> NDArray[np.float64]:
        """Predict all rows of a table with a number of threads; shape (rows,)."""
        # beside a search, several threads that wait for each other are slower than one
        with threadpool_limits(1):
            return batches.predict(
                table.batches(),
                len(table),
                self.predictor(),
                threads=threads,
                report=report,
                rows_at_a_time=_ROWS_AT_A_TIME,
            )

    def predictor(self) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
        """Return a function from features, shape (rows, features), to probabilities, shape (rows,)."""
        models = [(pickle.loads(pickled), weight) for weight, pickled in self.members]  # noqa: S301 - own files

        def weighted_mean(block: NDArray[Any]) -> NDArray[np.float64]:
            rows = block.astype(np.float32, copy=False)
            mean = np.full(len(rows), self.constant_weight * self.constant)
            for model, weight in models:
                mean += weight * probabilities(self.kind, model, rows)
            return mean.clip(0, 1)

        return weighted_mean

    def save(self, directory: Path) -> None:
        """Save the members' pickles and the weights."""
        for number, member in enumerate(self.members):
            (directory / _FILE.format(number)).write_bytes(member.pickled)
        settings = {
            "kind": self.kind,
            "constant": self.constant,
            "constant_weight": self.constant_weight,
            "weights": [member.weight for member in self.members],
        }
        saved_state.save(directory, {}, settings)

    @classmethod
    def load(cls, directory: Path) -> Ensemble:
        """Load what `save` has saved; the directory must have been verified."""
        settings = saved_state.load(directory).settings
        members = [
            Member(weight, (directory / _FILE.format(number)).read_bytes())
            for number, weight in enumerate(settings["weights"])
        ]
        return cls(settings["kind"], settings["constant"], settings["constant_weight"], members)


def probabilities(kind: str, model: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Predict rows, shape (rows, features), with one pipeline; shape (rows,)."""
    found = model.predict_proba(rows)[:, 1] if kind == "classifier" else model.predict(rows).ravel()
    # a regressor may exceed [0, 1]; clipped before the mean, so that one does not distort it
    clipped: NDArray[np.float64] = np.clip(found, 0, 1).astype(np.float64)
    return clipped


def select(
    plan: SearchPlan, candidates: Sequence[Candidate], held_out: NDArray[Any], table: Table, threads: int
) -> Selected:
    """Select an ensemble from candidates and predict a table.

    Parameters
    ----------
    plan
        Of the search.
    candidates
        At least one.
    held_out
        The labels of the held-out rows, shape (rows,).
    table
        The table to predict.
    threads
        Number of threads that predict.
    """
    numbers = [CONSTANT, *(candidate.number for candidate in candidates)]
    on_held_out = [_held_out_predictions(plan, number) for number in numbers]
    task_type = BINARY_CLASSIFICATION if plan.kind == "classifier" else REGRESSION
    selection = EnsembleSelection(
        task_type=task_type,
        metrics=[metric_of(plan.kind)],
        backend=None,
        ensemble_size=_DRAWS,
        random_state=plan.seed,
    )
    selection.fit(on_held_out, held_out, [(plan.seed, number, 0.0) for number in numbers], runs=[])
    weights = {number: float(weight) for number, weight in zip(numbers, selection.weights_) if weight > 0}
    loss = float(selection.train_loss_)
    if set(weights) == {CONSTANT}:
        best = 1 + int(np.argmin([candidate.cost for candidate in candidates]))
        weights = {CONSTANT: 1 - _MIN_SHARE, numbers[best]: _MIN_SHARE}
        mixed = (1 - _MIN_SHARE) * on_held_out[0] + _MIN_SHARE * on_held_out[best]
        metric = metric_of(plan.kind)
        loss = float(metric._optimum - metric(held_out, mixed))  # its scores are better when larger
    constant = float(on_held_out[0].reshape(len(held_out), -1)[0, -1])
    members = sorted(weights.items(), key=lambda member: -member[1])
    predictions = Ensemble.read(plan, members, constant).predictions_of(table, threads)
    return Selected(predictions, members, constant, loss)


def _held_out_predictions(plan: SearchPlan, number: int) -> NDArray[np.float64]:
    with plan.held_out_predictions(number).open("rb") as stream:
        found: NDArray[np.float64] = pickle.load(stream).astype(np.float64)  # noqa: S301 - own files
    return found
