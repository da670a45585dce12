"""Predictions of the tournament: by a configuration that is trained on all rows, or by a saved model."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerai_contract import batches, heartbeat
from numerai_contract.predictions import MIN_STD

from . import _arff, _auto_weka_26
from ._java import ProgramError
from ._search import classpath, train
from ._weka_predictions import predict, probabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._java import CpuBudget
    from ._plan import Plan
    from ._search_log import Candidate

_VALUES_AT_A_TIME = 4_000_000
# the first prediction of a long table has few rows, to detect a constant or a failing learner before hours of work
_FIRST_ROWS = 1_000


def train_and_predict(
    task: Task,
    plan: Plan,
    candidate: Candidate,
    heap: int,
    budget: CpuBudget,
    report: Callable[[float, str], object],
) -> NDArray[np.float64]:
    """Train a configuration on all rows and compute the probabilities of the tournament rows.

    Parameters
    ----------
    task, plan
        For their tables and files.
    candidate
        The configuration.
    heap
        Memory, MiB.
    budget
        Its limits, for training and predicting together.
    report
        Called with the share that is predicted and a description.

    Returns
    -------
    numpy.ndarray of float64, shape (rows of the tournament,)
        In the table's order.

    Raises
    ------
    ProgramError
        When it exceeds its budget, fails, or its predictions are constant.
    CancelledError
        When it is cancelled.
    """
    with _temporary_model(task) as model:
        train(candidate.arguments, model, plan, heap, budget)
        return predictions_of(task, plan.directory, candidate.learner, model, heap, budget, report)


def predictions_of(
    task: Task,
    directory: Path,
    learner: str,
    model: Path,
    heap: int,
    budget: CpuBudget,
    report: Callable[[float, str], object],
) -> NDArray[np.float64]:
    """Compute the probabilities of the tournament rows with a saved model, as `train_and_predict` does.

    Parameters
    ----------
    directory
        For files.
    learner, model
        The class of the model, and its path.
    """
    tournament = task.tournament
    features, count = len(tournament.feature_names), len(tournament)
    at_a_time = max(1, _VALUES_AT_A_TIME // features)
    is_checked = False
    # a directory for each call: a cancelled one may still use its own
    with tempfile.TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as folder:
        rows = Path(folder) / "rows.arff"

        def predict_block(block: NDArray[Any]) -> NDArray[np.float64]:
            nonlocal is_checked
            _arff.write(rows, features, [(block, None)])
            found = probabilities(predict(_classpath(), learner, model, rows, heap, budget), len(block))
            if not is_checked:
                _require_variation(found)
            is_checked = True
            return found

        predicted = batches.predict(
            tournament.batches(),
            count,
            predict_block,
            report=report,
            rows_at_a_time=at_a_time,
            first_rows=at_a_time if count <= at_a_time else _FIRST_ROWS,
        )
    _require_variation(predicted)
    return predicted


@contextlib.contextmanager
def _temporary_model(task: Task) -> Iterator[Path]:
    """Yield the path of a temporary model, which may be far larger than the data.

    It is in the run's directory, since files in /tmp count as memory.
    """
    parameters = task.parameters
    folder = parameters.storing if "STORING" in parameters else Path(tempfile.gettempdir())
    model = folder / f".auto_weka.{uuid.uuid4().hex[:12]}.model"
    heartbeat.report_temporary_file(model)
    try:
        yield model
    finally:
        model.unlink(missing_ok=True)
        heartbeat.report_file_removed(model)


def _classpath() -> list[Path]:
    return _auto_weka_26.classpath() if _auto_weka_26.is_installed() else classpath()


def _require_variation(found: NDArray[np.float64]) -> None:
    if len(found) > 1 and found.std() < MIN_STD:
        raise ProgramError(f"it predicts {found[0]:.4f} for every row")
