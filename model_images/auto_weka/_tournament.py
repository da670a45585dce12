"""What a model says of the tournament: a configuration trained on all rows, or a model that was saved."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from numerai_contract import pulse
from numerai_contract.predictions import SMALLEST_SPREAD

from . import _arff, _newer
from ._java import ProgramError
from ._predictions import predict, probabilities
from ._search import classpath, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._candidates import Candidate
    from ._java import Allowance
    from ._plan import Plan

_VALUES_AT_A_TIME = 4_000_000
# of many rows, predicting a few first tells a constant, or a learner that cannot do it, before hours are spent
_FIRST_ROWS = 1_000


def train_and_predict(
    task: Task, plan: Plan, candidate: Candidate, heap: int, allowance: Allowance, tell: Callable[[float, str], object]
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
    allowance
        What all of it may take.
    tell
        Given the share that is predicted and a sentence, tells somebody.

    Returns
    -------
    numpy.ndarray of float64, shape (rows of the tournament,)
        In the table's order.

    Raises
    ------
    ProgramError
        When it takes more than it may, fails, or says the same of every row.
    GivenUpError
        When it is not wanted any more.
    """
    with _saved(task) as model:
        train(candidate.arguments, model, plan, heap, allowance)
        return predictions_of(task, plan.directory, candidate.learner, model, heap, allowance, tell)


def predictions_of(
    task: Task,
    directory: Path,
    learner: str,
    model: Path,
    heap: int,
    allowance: Allowance,
    tell: Callable[[float, str], object],
) -> NDArray[np.float64]:
    """Compute the probabilities of the tournament rows with a saved model, as `train_and_predict` does.

    Parameters
    ----------
    directory
        For files.
    learner, model
        The class of the model, and where it was saved.
    """
    tournament = task.tournament
    features = len(tournament.feature_names)
    at_a_time = max(1, _VALUES_AT_A_TIME // features)
    found = np.empty(len(tournament))
    at_first = at_a_time if len(found) <= at_a_time else _FIRST_ROWS
    done = 0
    # a directory for each: one that was given up may not have noticed yet
    with tempfile.TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as folder:
        rows = Path(folder) / "rows.arff"
        for positions, block in tournament.batches():
            start = 0
            while start < len(positions):
                part = slice(start, start + (at_a_time if done else at_first))
                _arff.write(rows, features, [(block[part], None)])
                said = predict(_classpath(), learner, model, rows, heap, allowance)
                found[positions[part]] = probabilities(said, len(positions[part]))
                if not done:
                    _refuse_constant(found[positions[part]])
                done += len(positions[part])
                start = part.stop
                tell(done / len(found), f"predicted {done:,} of {len(found):,} rows")
    _refuse_constant(found)
    return found


@contextlib.contextmanager
def _saved(task: Task) -> Iterator[Path]:
    """Find a place for a model, which may be far larger than the data, for as long as the block lasts.

    That is the run's directory: what is laid in /tmp counts as memory.
    """
    parameters = task.parameters
    folder = parameters.storing if "STORING" in parameters else Path(tempfile.gettempdir())
    model = folder / f".auto_weka.{uuid.uuid4().hex[:12]}.model"
    pulse.announce_part(model)
    try:
        yield model
    finally:
        model.unlink(missing_ok=True)
        pulse.forget_part(model)


def _classpath() -> list[Path]:
    return _newer.classpath() if _newer.is_here() else classpath()


def _refuse_constant(found: NDArray[np.float64]) -> None:
    if len(found) > 1 and found.std() < SMALLEST_SPREAD:
        raise ProgramError(f"it says {found[0]:.4f} of every row")
