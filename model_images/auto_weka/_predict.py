"""A model in WEKA's own file, its training and its predictions."""

from __future__ import annotations

import contextlib
import math
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract import batches, heartbeat, saved_state
from numerai_contract.exits import ModelFailureError
from numerai_contract.predictions import MIN_STD

from . import _arff, _auto_weka_26
from ._java import CpuBudget, ProgramError
from ._plan import prediction_heap
from ._search import classpath, train
from ._weka_predictions import predict, probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

    from ._plan import Plan
    from ._search_log import Candidate

_FILE = "learner.model"
_VALUES_AT_A_TIME = 4_000_000
# the first prediction of a long table has few rows, to detect a constant or a failing learner before hours of work
_FIRST_ROWS = 1_000


class WekaModel:
    """A trained learner of WEKA.

    Parameters
    ----------
    learner
        Its class.
    file
        The model file, which `discard` removes and `save` moves.
    """

    def __init__(self, learner: str, file: Path) -> None:
        self.learner, self._file = learner, file

    @classmethod
    def train(cls, task: Task, plan: Plan, candidate: Candidate, heap: int, budget: CpuBudget) -> WekaModel:
        """Train a configuration on all rows of the plan.

        Parameters
        ----------
        task
            For the directory of the file.
        plan
            For the training rows.
        candidate
            The configuration.
        heap
            Memory, MiB.
        budget
            Its limits.

        Raises
        ------
        ProgramError
            When it exceeds its budget or fails.
        CancelledError
            When it is cancelled.
        """
        model = cls(candidate.learner, model_file(task))
        with model.discarded_on_error():
            train(candidate.arguments, model._file, plan, heap, budget)
        return model

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,).

        Raises
        ------
        ModelFailureError
            When WEKA fails, or the predictions are constant.
        """
        budget, heap = CpuBudget(math.inf), prediction_heap(task.parameters)
        try:
            with task.progress.step(f"predicting {len(table):,} rows of {table.path.name}"):
                return self.predictions_of(table, heap, budget, report=task.progress.update)
        except ProgramError as error:
            raise ModelFailureError(f"{self.learner} cannot predict {table.path.name}: {error}.") from error

    def predictions_of(
        self,
        table: TableView,
        heap: int,
        budget: CpuBudget,
        *,
        first_rows: int | None = None,
        report: Callable[[float, str], object] = lambda _share, _text: None,
    ) -> NDArray[np.float64]:
        """Predict a table within a budget.

        Parameters
        ----------
        table
            The table.
        heap
            Memory, MiB.
        budget
            The limits.
        first_rows
            Only so many rows; by default all.
        report
            Called with the share that is predicted and a description.

        Returns
        -------
        numpy.ndarray of float64, shape (rows,)

        Raises
        ------
        ProgramError
            When it exceeds its budget, fails, or its predictions are constant.
        CancelledError
            When it is cancelled.
        """
        features, count = len(table.feature_names), min(len(table), first_rows or len(table))
        at_a_time = max(1, _VALUES_AT_A_TIME // features)
        is_checked = False
        # a directory for each call: a cancelled one may still use its own
        with tempfile.TemporaryDirectory(prefix="auto_weka_", ignore_cleanup_errors=True) as folder:
            rows = Path(folder) / "rows.arff"

            def predict_block(block: NDArray[Any]) -> NDArray[np.float64]:
                nonlocal is_checked
                _arff.write(rows, features, [(block, None)])
                found = probabilities(predict(_classpath(), self.learner, self._file, rows, heap, budget), len(block))
                if not is_checked:
                    _require_variation(found)
                is_checked = True
                return found

            predicted = batches.predict(
                table.batches(None if count == len(table) else np.arange(len(table)) < count),
                count,
                predict_block,
                report=report,
                rows_at_a_time=at_a_time,
                first_rows=at_a_time if count <= at_a_time else _FIRST_ROWS,
            )
        _require_variation(predicted)
        return predicted

    def check(self, table: TableView, heap: int, budget: CpuBudget) -> None:
        """Predict a table's first rows; raise `ProgramError` when that fails or the predictions are constant."""
        self.predictions_of(table, heap, budget, first_rows=_FIRST_ROWS)

    def save(self, directory: Path) -> None:
        """Move the model file into a directory."""
        self._file = self._file.replace(directory / _FILE)
        saved_state.save(directory, {}, {"learner": self.learner})

    @classmethod
    def load(cls, directory: Path) -> WekaModel:
        """Load what `save` has saved."""
        return cls(saved_state.load(directory).settings["learner"], directory / _FILE)

    def discard(self) -> None:
        """Remove the model file."""
        self._file.unlink(missing_ok=True)
        heartbeat.report_file_removed(self._file)

    @contextlib.contextmanager
    def discarded_on_error(self) -> Iterator[None]:
        """Remove the model file after an exception."""
        try:
            yield
        except BaseException:
            self.discard()
            raise


class Trained(NamedTuple):
    """A trained model, and its predictions of a table, shape (rows,)."""

    model: WekaModel
    predictions: NDArray[np.float64]


def train_and_predict(
    task: Task,
    plan: Plan,
    candidate: Candidate,
    table: TableView,
    heap: int,
    budget: CpuBudget,
    report: Callable[[float, str], object] = lambda _share, _text: None,
) -> Trained:
    """Train a configuration on all rows of the plan and predict a table, within one budget.

    The parameters, and the exceptions, are those of `WekaModel.train` and `WekaModel.predictions_of`.
    """
    model = WekaModel.train(task, plan, candidate, heap, budget)
    with model.discarded_on_error():
        return Trained(model, model.predictions_of(table, heap, budget, report=report))


def model_file(task: Task) -> Path:
    """Return the path of a new model file, which the supervisor removes unless it is saved.

    It may be far larger than the data. So it is in the directory of the fit, since files in /tmp count as memory.
    """
    file = task.model.path / f".auto_weka.{uuid.uuid4().hex[:12]}.model"
    heartbeat.report_temporary_file(file)
    return file


def _classpath() -> list[Path]:
    return _auto_weka_26.classpath() if _auto_weka_26.is_installed() else classpath()


def _require_variation(found: NDArray[np.float64]) -> None:
    if len(found) > 1 and found.std() < MIN_STD:
        raise ProgramError(f"it predicts {found[0]:.4f} for every row")
