"""Auto-WEKA: a search among WEKA's learners and their options, and the best of them trained on everything.

The search is the original authors' (SMAC, Bayesian optimisation over a space of some 1,700 options), and so is
everything it chooses from: 32 classifiers, alone and inside one another. Each configuration is judged by
cross-validation on four folds, one at a time and only as many as it takes to see that it is worse than the best. The
folds are drawn at random, rows of an era on both sides: its errors flatter a little, alike for all, and are for
choosing only; what to expect is what the report's ``validation`` says.

Parameters of its own:

``TIME_LIMIT`` (600), ``TIME_LIMIT_PART`` (a tenth of it)
    Seconds for the search, and for training a configuration on three quarters of the rows. The search is ended on the
    second; as long again may be spent on training the best on all rows and on predicting.
``RUN_LIMIT`` (none)
    End each search after so many runs (a configuration on a fold). With it, and parts that no learner exceeds, the same
    seed tries the same configurations in the same order.
``METRIC`` (``rmse``)
    What is made small: the root mean squared error of the probabilities, which like the logloss asks for honest ones,
    or ``errorRate``, the share of rows on the wrong side, as in 2018.
``ROW_LIMIT`` (20,000, or as many as make 4,000,000 values if fewer)
    Each run reads all rows anew and trains one of a great many learners, some of which take the square of the rows in
    time. Above the limit it learns from a sample that keeps every era's and either class's share.

With several ``THREADS`` as many searches run at once, with seeds that follow ``SEED``, and the best of all is taken;
fewer where the memory would be too little for all.

A configuration that gives every row the same answer is worth nothing here, however small its error; so is one that
cannot be trained on all rows in the time that is left. Then the next best is taken, and the report says so.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import eras, pulse, targets
from numerai_contract.exits import ModelFailureError, NotEnoughMemoryError, memory_advice
from numerai_contract.predictions import SMALLEST_SPREAD
from numerai_contract.task import Learned

from . import _arff, _newer
from ._java import ProgramError, versions
from ._predictions import predict, probabilities
from ._search import Plan, classpath, search, train

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._candidates import Candidate, Journal

# two configurations on a fold or two: all that an image's build has time for
SELF_TEST_PARAMETERS = {"TIME_LIMIT": "60", "TIME_LIMIT_PART": "20", "RUN_LIMIT": "2", "THREADS": "1"}

_DEFAULT_SECONDS = 600
_ROWS, _VALUES = 20_000, 4_000_000
# MiB: of a container that does not say, of this process and its tables, of SMAC, of a Java process beyond its heap
_USUAL_MEMORY, _OWN_MEMORY, _SMAC_HEAP, _BEYOND_HEAP = 4_096, 400, 352, 100
_LEAST_HEAP, _LARGEST_HEAP = 256, 16_384
# predicting a few rows first tells a constant, or a learner that cannot do it, before hours are spent
_FIRST_ROWS = 1_000
# seconds that training and predicting get at least, whatever the search was given
_LEAST_FINISH = 90.0
_MOST_REPORTED = 200


def run(task: Task) -> None:
    """Search, train the best on the training table, and predict the tournament table."""
    training = task.training
    features = len(training.feature_names)
    row_limit = task.parameters.whole(
        "ROW_LIMIT", max(200, min(_ROWS, _VALUES // features)), at_least=100, at_most=1_000_000
    )
    rows, labels = targets.classes(training)
    drawn = eras.sample(training.era_numbers[rows], labels, row_limit, seed=task.parameters.seed)
    if not drawn.all():
        task.note(f"learning from {drawn.sum():,} of {len(drawn):,} rows, drawn evenly from all eras (ROW_LIMIT)")
        rows[rows] = drawn
        labels = labels[drawn]
    held = versions()
    with tempfile.TemporaryDirectory(prefix="auto_weka_") as directory:
        place = Path(directory)
        learned, header = place / "training.arff", place / "header.arff"
        with task.progress.step(f"writing {len(labels):,} rows for WEKA"):
            _arff.write(learned, features, _learned_blocks(task, rows, labels))
            _arff.write_header(header, features)
        if _newer.is_here():
            found, chosen = _newer.search_and_predict(
                task, place, learned, lambda *model: _predicted(task, place, *model)
            )
        else:
            plan = _plan(task, learned)
            with task.progress.step(f"searching for {plan.seconds:,} s, {len(plan.seeds)} at a time"):
                journal = search(plan, place, learned, header, task.progress)
            found, chosen = _finish(task, plan, journal, place, learned, header)
    task.deliver(found, Learned(training_rows=len(labels), chosen={**held, **chosen}))


def _learned_blocks(
    task: Task, rows: NDArray[np.bool_], labels: NDArray[np.int8]
) -> Iterator[tuple[NDArray[Any], NDArray[np.int8]]]:
    start = 0
    for positions, block in task.training.batches(rows):
        yield block, labels[start : start + len(positions)]
        start += len(positions)


def _plan(task: Task, learned: Path) -> Plan:
    """Divide time and memory among the searches."""
    parameters = task.parameters
    seconds = parameters.time_limit or _DEFAULT_SECONDS
    memory = parameters.memory_limit or _USUAL_MEMORY
    # /tmp is memory as well
    left = memory - _OWN_MEMORY - (learned.stat().st_size >> 20)
    of_search = _LEAST_HEAP + _SMAC_HEAP + 2 * _BEYOND_HEAP
    searches = min(parameters.threads, left // of_search)
    if searches < 1:
        raise NotEnoughMemoryError(
            f"{memory_advice(memory)}; a search needs {memory - left + of_search:,} MiB here (ROW_LIMIT makes it less)."
        )
    if searches < parameters.threads:
        task.note(f"searching {searches} at a time, not {parameters.threads} (THREADS): {memory:,} MiB are not enough")
    return Plan(
        seeds=[(parameters.seed + number) % 2**31 for number in range(searches)],
        seconds=seconds,
        seconds_of_part=min(parameters.time_limit_part or max(1, seconds // 10), seconds),
        run_limit=parameters.whole("RUN_LIMIT", at_least=1, at_most=1_000_000) if "RUN_LIMIT" in parameters else None,
        heap=min(left // searches - _SMAC_HEAP - 2 * _BEYOND_HEAP, _LARGEST_HEAP),
        smac_heap=_SMAC_HEAP,
        metric=parameters.text("METRIC", "rmse", choices=("rmse", "errorRate")),
    )


def _finish(
    task: Task, plan: Plan, journal: Journal, place: Path, learned: Path, header: Path
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Train the best configuration on all rows and predict with it; the next best where that fails.

    Returns
    -------
    probabilities : numpy.ndarray of float64, shape (rows of the tournament,)
    chosen : dict
        For the report.
    """
    ranked = journal.ranked()
    task.note(
        f"tried {len(journal.tried):,} configurations in {journal.runs:,} runs, of which {journal.failed_runs:,} took "
        "too long or failed"
    )
    # the searches are over, and have left their memory to one process
    plan = plan._replace(heap=min(len(plan.seeds) * plan.heap, _LARGEST_HEAP))
    end = time.monotonic() + max(_LEAST_FINISH, plan.seconds)
    passed_over: list[dict[str, Any]] = []
    for place_in_rank, candidate in enumerate(ranked, start=1):
        left = end - time.monotonic()
        if left <= 0:
            break
        # half of what is left, so that the next best has a chance after a failure; the last has all
        until = time.monotonic() + (left if place_in_rank == len(ranked) else left / 2)
        try:
            with (
                task.progress.step(f"training {candidate.learner} on all rows"),
                _saved(task) as model,
            ):
                train(candidate.arguments, model, learned, header, plan, until - time.monotonic())
                found = _predicted(task, place, candidate.learner, model, plan.heap, until)
        except ProgramError as error:
            task.note(f"passed over {candidate.learner} (error {candidate.error:.4f}): {error}")
            passed_over.append({"learner": candidate.learner, "why": str(error)})
        else:
            return found, _chosen(plan, journal, candidate, passed_over)
    raise ModelFailureError(
        f"of {len(journal.tried):,} configurations tried in {plan.seconds:,} s, {len(ranked):,} succeeded and none "
        f"could be trained on all rows to predictions worth having. Give it more time (automl_minutes), memory, or a "
        f"smaller ROW_LIMIT."
    )


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


def _predicted(task: Task, place: Path, learner: str, model: Path, heap: int, until: float) -> NDArray[np.float64]:
    """Compute the probabilities of the tournament rows, in their order; shape (rows,).

    Raises
    ------
    ProgramError
        When it takes longer than `until`, fails, or says the same of every row.
    """
    tournament = task.tournament
    features = len(tournament.feature_names)
    at_a_time = max(1, _VALUES // features)
    found = np.empty(len(tournament))
    rows = place / "rows.arff"
    done = 0
    for positions, block in tournament.batches():
        start = 0
        while start < len(positions):
            part = slice(start, start + (at_a_time if done else _FIRST_ROWS))
            _arff.write(rows, features, [(block[part], None)])
            said = predict(_classpath(), learner, model, rows, heap, until - time.monotonic())
            found[positions[part]] = probabilities(said, len(positions[part]))
            if not done and len(tournament) > _FIRST_ROWS:
                _refuse_constant(found[positions[part]])
            done += len(positions[part])
            start = part.stop
            task.progress.update(done / len(found), f"predicted {done:,} of {len(found):,} rows")
    _refuse_constant(found)
    return found


def _classpath() -> list[Path]:
    return _newer.classpath() if _newer.is_here() else classpath()


def _refuse_constant(found: NDArray[np.float64]) -> None:
    if len(found) > 1 and found.std() < SMALLEST_SPREAD:
        raise ProgramError(f"it says {found[0]:.4f} of every row")


def _chosen(plan: Plan, journal: Journal, candidate: Candidate, passed_over: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **candidate.described(),
        # as a step of its own; where it pays, the search has AttributeSelectedClassifier for a learner
        "attribute_selection": None,
        "metric": plan.metric,
        "seeds": plan.seeds,
        "seconds_searched": plan.seconds,
        "configurations": len(journal.tried),
        "runs": journal.runs,
        "failed_runs": journal.failed_runs,
        "passed_over": passed_over,
        "trajectory": [
            {"seconds": round(seconds, 1), "error": error, "learner": learner}
            for seconds, error, learner in journal.trajectory[-_MOST_REPORTED:]
        ],
        # the first of them: enough to compare two searches by
        "tried": [candidate.described() for candidate in journal.tried[:_MOST_REPORTED]],
    }
