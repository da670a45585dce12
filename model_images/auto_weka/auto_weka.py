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

The best so far is trained on all rows and predicts the tournament while the search goes on, beside it, at low priority
and for at most 15 % of the processor's time; the log says when its predictions are ready. Asked to stop (SIGTERM), the
operation delivers those that are, and the report says so; before there are any it ends with 75, to be tried again.
Built with ``AUTO_WEKA=2.6`` it always does the latter (`_newer`).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerai_contract import eras, targets
from numerai_contract.exits import ModelFailureError, TryAgainError
from numerai_contract.progress import duration
from numerai_contract.stopping import stop_requests
from numerai_contract.task import Learned

from . import _arff, _newer
from ._candidates import Journal
from ._forecasts import Forecast, Forecaster
from ._java import Allowance, GivenUpError, ProgramError, versions
from ._plan import Plan, plan
from ._search import search
from ._tournament import predictions_of, train_and_predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from signal import Signals

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._candidates import Candidate

# two configurations on a fold or two: all that an image's build has time for
SELF_TEST_PARAMETERS = {"TIME_LIMIT": "60", "TIME_LIMIT_PART": "20", "RUN_LIMIT": "2", "THREADS": "1"}

_ROWS, _VALUES = 20_000, 4_000_000
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
    # opened before the search, so that a mistake in it is told now
    _ = task.tournament
    held = versions()
    # a forecast that was given up may not have noticed yet, and lay another file
    with tempfile.TemporaryDirectory(prefix="auto_weka_", ignore_cleanup_errors=True) as directory:
        place = Path(directory)
        learned, header = place / "training.arff", place / "header.arff"
        with task.progress.step(f"writing {len(labels):,} rows for WEKA"):
            _arff.write(learned, features, _learned_blocks(task, rows, labels))
            _arff.write_header(header, features)
        if _newer.is_here():

            def predict(learner: str, model: Path, heap: int, allowance: Allowance) -> NDArray[np.float64]:
                return predictions_of(task, place, learner, model, heap, allowance, task.progress.update)

            found, chosen = _newer.search_and_predict(task, place, learned, predict)
            task.deliver(found, Learned(len(labels), chosen={**held, **chosen}))
        else:
            divided = plan(task, place, learned, header)
            # whoever asks it to stop while it delivers gets what is being delivered
            with stop_requests() as stop:
                found, chosen = _search_and_predict(task, divided, stop)
                task.deliver(found, Learned(len(labels), chosen={**held, **chosen}))


def _learned_blocks(
    task: Task, rows: NDArray[np.bool_], labels: NDArray[np.int8]
) -> Iterator[tuple[NDArray[Any], NDArray[np.int8]]]:
    start = 0
    for positions, block in task.training.batches(rows):
        yield block, labels[start : start + len(positions)]
        start += len(positions)


def _search_and_predict(task: Task, plan: Plan, stop: Sequence[Signals]) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Search, and predict the tournament with the best; when asked to stop, give the predictions that are ready.

    Returns
    -------
    probabilities : numpy.ndarray of float64, shape (rows of the tournament,)
    chosen : dict
        For the report.
    """
    began = time.monotonic()
    journal = Journal()

    def work(candidate: Candidate, allowance: Allowance) -> NDArray[np.float64]:
        return train_and_predict(task, plan, candidate, plan.heap, allowance, lambda _share, _text: None)

    forecaster = Forecaster(plan, work, task.progress.say)
    try:
        with forecaster, task.progress.step(f"searching for {plan.seconds:,} s, {len(plan.seeds)} at a time"):
            search(plan, journal, task.progress, lambda: bool(stop), lambda: forecaster.look(journal))
        best, passed_over = _finish(task, plan, journal, forecaster.ready, lambda: bool(stop))
    except GivenUpError:
        asked = f"stopped by {stop[0].name} after {duration(time.monotonic() - began)}"
        if forecaster.ready is None:
            raise TryAgainError(f"{asked}, before the first model had predicted anything. Run it again.") from None
        best, passed_over = forecaster.ready, forecaster.passed_over
        task.note(
            f"{asked} of a search of {duration(plan.seconds)}: these are the predictions of "
            f"{best.candidate.learner} (error {best.candidate.error:.4f}), the best that was ready"
        )
    return best.probabilities, _chosen(plan, journal, best.candidate, passed_over)


def _finish(
    task: Task, plan: Plan, journal: Journal, ready: Forecast | None, stop: Callable[[], bool]
) -> tuple[Forecast, list[dict[str, Any]]]:
    """Train the best configuration on all rows and predict with it, unless that is done; the next best where it fails.

    Returns
    -------
    best : Forecast
    passed_over : list of dict
        Those that failed, for the report.
    """
    ranked = journal.ranked()
    task.note(
        f"tried {len(journal.tried):,} configurations in {journal.runs:,} runs, of which {journal.failed_runs:,} took "
        "too long or failed"
    )
    end = time.monotonic() + max(_LEAST_FINISH, plan.seconds)
    passed_over: list[dict[str, Any]] = []
    for place_in_rank, candidate in enumerate(ranked, start=1):
        left = end - time.monotonic()
        if left <= 0 or (ready is not None and candidate is ready.candidate):
            break
        # half of what is left, so that the next best has a chance after a failure; the last has all
        until = time.monotonic() + (left if place_in_rank == len(ranked) else left / 2)
        try:
            with task.progress.step(f"training {candidate.learner} on all rows"):
                # the searches are over, and have left their memory to one process
                found = train_and_predict(
                    task, plan, candidate, plan.whole_heap, Allowance(until, unwanted=stop), task.progress.update
                )
        except ProgramError as error:
            task.note(f"passed over {candidate.learner} (error {candidate.error:.4f}): {error}")
            passed_over.append({"learner": candidate.learner, "why": str(error)})
        else:
            return Forecast(candidate, found), passed_over
    if ready is None:
        raise ModelFailureError(
            f"of {len(journal.tried):,} configurations tried in {plan.seconds:,} s, {len(ranked):,} succeeded and none "
            f"could be trained on all rows to predictions worth having. Give it more time (automl_minutes), memory, or "
            f"a smaller ROW_LIMIT."
        )
    task.progress.say(f"{ready.candidate.learner} was trained on all rows while the search went on")
    return ready, passed_over


def _chosen(plan: Plan, journal: Journal, candidate: Candidate, passed_over: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **candidate.described(),
        # as a step of its own; where it pays, the search has AttributeSelectedClassifier for a learner
        "attribute_selection": None,
        "metric": plan.metric,
        "seeds": plan.seeds,
        "seconds_searched": round(journal.seconds, 1),
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
