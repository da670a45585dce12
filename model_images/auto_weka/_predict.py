"""A model in WEKA's own file, its training and its predictions."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numerai_contract import batches, heartbeat, saved_state
from numerai_contract.exits import ModelFailureError
from numerai_contract.predictions import MIN_STD

from . import _arff, _auto_weka_26
from ._budget import prediction_seconds, whole_heap
from ._java import CpuBudget, ProgramError
from ._search import classpath, train
from ._weka_predictions import predict, probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

    from ._budget import SearchPlan
    from ._search_log import Candidate

_FILE = "learner.model"
_VALUES_AT_A_TIME = 4_000_000
# the first prediction of a long table has few rows, to detect a constant or a failing learner before hours of work
_FIRST_ROWS = 1_000
# rows that measure the speed of a model: together with the first ones they take a second of most learners
_MEASURED_ROWS = 20_000
# MiB on the heap of a process that predicts: for the rows, and for each MiB of the model's file
_HEAP_OF_ROWS, _HEAP_OF_MODEL = 256, 4


class UnusableError(ProgramError):
    """A model that no amount of this run's time makes usable: its predictions are constant, or too slow."""


class CostlyError(ProgramError):
    """A useful model whose predictions take too much processor time for its budget."""


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
    def train(cls, task: Task, plan: SearchPlan, candidate: Candidate, heap: int, budget: CpuBudget) -> WekaModel:
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
        try:
            return self.predict_within(task, table, CpuBudget(math.inf))
        except ProgramError as error:
            raise ModelFailureError(f"{self.learner} cannot predict {table.path.name}: {error}.") from error

    def predict_within(self, task: Task, table: TableView, budget: CpuBudget) -> NDArray[np.float64]:
        """Predict all rows of a table as a step of the log, several parts at a time; see `predictions_of`."""
        heap = whole_heap(task.parameters)
        fitting = heap // (_HEAP_OF_ROWS + _HEAP_OF_MODEL * (self._file.stat().st_size >> 20))
        processes = max(1, min(task.parameters.threads, fitting))
        with task.progress.step(f"predicting {len(table):,} rows of {table.path.name}"):
            return self.predictions_of(
                table, heap // processes, budget, processes=processes, report=task.progress.update
            )

    def predictions_of(
        self,
        table: TableView,
        heap: int,
        budget: CpuBudget,
        *,
        first_rows: int | None = None,
        processes: int = 1,
        report: Callable[[float, str], object] = lambda _share, _text: None,
    ) -> NDArray[np.float64]:
        """Predict a table within a budget.

        Parameters
        ----------
        table
            The table.
        heap
            Memory of a process, MiB.
        budget
            The limits; those of the processor time count one process only.
        first_rows
            Only so many rows; by default all.
        processes
            Maximum number of processes at the same time, each with a part of the rows.
        report
            Called with the share that is predicted and a description.

        Returns
        -------
        numpy.ndarray of float64, shape (rows,)

        Raises
        ------
        UnusableError
            When the predictions are constant.
        ProgramError
            When it exceeds its budget or fails.
        CancelledError
            When it is cancelled.
        """
        features, count = len(table.feature_names), min(len(table), first_rows or len(table))
        at_a_time = max(1, _VALUES_AT_A_TIME // features)
        numbers = itertools.count()
        # a directory for each call: a cancelled one may still use its own
        with tempfile.TemporaryDirectory(prefix="auto_weka_", ignore_cleanup_errors=True) as folder:

            def predict_block(block: NDArray[Any]) -> NDArray[np.float64]:
                number = next(numbers)
                rows = Path(folder) / f"{number}.arff"
                _arff.write(rows, features, [(block, None)])
                output = predict(_classpath(), self._file, rows, features, heap, budget)
                found = probabilities(output, len(block))
                # files in /tmp are memory
                rows.unlink()
                output.unlink()
                if number == 0:
                    _require_variation(found)
                return found

            predicted = batches.predict(
                _first_batches(table, count),
                count,
                predict_block,
                threads=processes,
                report=report,
                rows_at_a_time=at_a_time,
                first_rows=at_a_time if count <= at_a_time else _FIRST_ROWS,
            )
        _require_variation(predicted)
        return predicted

    def check(self, table: TableView, heap: int, budget: CpuBudget) -> None:
        """Predict a table's first rows; raise `ProgramError` when that fails or the predictions are constant."""
        self.predictions_of(table, heap, budget, first_rows=_FIRST_ROWS)

    def require_speed(self, table: TableView, heap: int, budget: CpuBudget, processes: int = 1) -> float:
        """Check a model on the first rows of a table that it is to predict, with the speed of its predictions.

        Parameters
        ----------
        table
            The table.
        heap, budget
            As for `predictions_of`.
        processes
            Number of processes that will predict at the same time.

        Returns
        -------
        float
            Seconds of processor time for the whole table, estimated.

        Raises
        ------
        UnusableError
            When the predictions are constant, or of the table would take longer than `prediction_seconds`.
        ProgramError, CancelledError
            As for `predictions_of`.
        """
        if len(table) <= _VALUES_AT_A_TIME // len(table.feature_names):
            return 0.0
        began, before = time.monotonic(), budget.spent
        self.check(table, heap, budget)
        # the start of Java and the loading of the model, twice, as other processes may delay either
        start, first = 2 * (time.monotonic() - began), budget.spent - before
        allowed = processes * prediction_seconds(len(table)) * _MEASURED_ROWS / len(table)
        limited = dataclasses.replace(budget, deadline=min(budget.deadline, time.monotonic() + start + allowed))
        try:
            self.predictions_of(table, heap, limited, first_rows=_MEASURED_ROWS)
        except ProgramError as error:
            if limited.deadline == budget.deadline or time.monotonic() < limited.deadline:
                raise
            raise UnusableError(
                f"its predictions of {len(table):,} rows would take more than {prediction_seconds(len(table)):,.0f} s"
            ) from error
        finally:
            budget.spent = limited.spent
        return max(budget.spent - before - 2 * first, 0.0) * len(table) / (_MEASURED_ROWS - _FIRST_ROWS)

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
    task: Task, plan: SearchPlan, candidate: Candidate, table: TableView, heap: int, budget: CpuBudget
) -> Trained:
    """Train a configuration on the rows of the plan and predict a table, within one budget of processor time.

    The parameters, and the exceptions, are those of `WekaModel.train` and `WekaModel.require_speed`.
    """
    model = WekaModel.train(task, plan, candidate, heap, budget)
    with model.discarded_on_error():
        seconds = model.require_speed(table, heap, budget, len(plan.seeds))
        if seconds > budget.cpu_seconds - budget.spent:
            raise CostlyError(f"its predictions take about {seconds:.0f} s of processor time, too long for a search")
        return Trained(model, model.predictions_of(table, heap, budget))


def _first_batches(table: TableView, count: int) -> Iterator[batches.Batch]:
    """Read the first rows of a table, and no more of its file."""
    for positions, block in table.batches():
        remaining = count - int(positions[0])
        yield positions[:remaining], block[:remaining]
        if remaining <= len(positions):
            return


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
        raise UnusableError(f"it predicts {found[0]:.4f} for every row")
