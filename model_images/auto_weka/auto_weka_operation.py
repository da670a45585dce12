"""Auto-WEKA: a search among WEKA's learners and their options, with the best one trained on all rows.

The search is the original authors' (SMAC, Bayesian optimisation over a space of some 1,700 options), and so is its
space: 32 classifiers, single and nested. Each configuration is evaluated by cross-validation on four folds, one at a
time and only until it is worse than the best. The folds are random and divide the rows of an era: the errors are
slightly too low, equally for all, and serve for the selection only; see ``validation`` in the report for an unbiased
score.

Environment variables:

``TIME_LIMIT`` (600), ``TIME_LIMIT_PART`` (a tenth of it)
    Seconds for the search, and for training a configuration on three quarters of the rows. The search ends exactly at
    the limit; training the best on all rows and predicting the validation table may take as long again, and so may the
    final fit.
``RUN_LIMIT`` (none)
    Maximum number of runs of each search (a configuration on a fold). With it, and parts that no learner exceeds, the
    same seed evaluates the same configurations in the same order.
``METRIC`` (``rmse``)
    The error to minimise: the root mean squared error of the probabilities, a proper score like the logloss, or
    ``errorRate``, the share of misclassified rows, as in 2018.
``ROW_LIMIT`` (20,000, or fewer when they have more than 4,000,000 values)
    Each run reads all rows again and trains one of many learners, some of which need time that grows with the square of
    the rows. Above the limit it learns from a sample that keeps the share of every era and class.

With several ``THREADS`` as many searches run at the same time, with consecutive seeds from ``SEED``, and the best of
all is used; fewer when the memory is not enough for all.

A configuration with constant predictions is worthless, however small its error; so is a configuration that cannot be
trained on all rows in the remaining time. Then the next best is used, and the report has a note.

The best one so far is trained on all rows and predicts the validation table during the search, at a low priority and
with at most 15 % of the processor time; the log has a line when its model is ready. At a stop request (SIGTERM) this is
the model, without a final fit and with a note in the report; without any the operation ends with 75, for a retry. Built
with ``AUTO_WEKA=2.6`` it always does the latter (`_auto_weka_26`).

The final fit trains the best configuration on the rows of both tables. Where that fails, the model is that of the first
fit, with a note.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numerai_contract import targets
from numerai_contract.exits import ModelFailureError
from numerai_contract.fitting import Fitted
from numerai_contract.progress import duration
from numerai_contract.search import SearchedModel, table_to_predict
from numerai_contract.stopping import stop_requests
from numerai_contract.task import TrainingSummary

from . import _arff, _auto_weka_26
from ._background import BackgroundTrainer
from ._java import CancelledError, CpuBudget, ProgramError, versions
from ._plan import Plan, create_plan
from ._predict import WekaModel, model_file, train_and_predict
from ._search import search
from ._search_log import Candidate, SearchLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from signal import Signals

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.tables import Table
    from numerai_contract.task import Task

    from ._predict import Trained

    Result = tuple[Candidate, Trained]

# two runs, to keep the build of the image short
SELF_TEST_PARAMETERS = {"TIME_LIMIT": "60", "TIME_LIMIT_PART": "20", "RUN_LIMIT": "2", "THREADS": "1"}

_ROWS, _VALUES = 20_000, 4_000_000
# minimum seconds for training and predicting after the search
_MIN_FINISH_SECONDS = 90.0
_MAX_REPORTED = 200


class Choice(NamedTuple):
    """The plan of the search, the best configuration and its model of the first fit, for the final fit."""

    plan: Plan
    candidate: Candidate
    model: WekaModel


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Search on the training table; the final fit trains the best configuration again."""
    training = task.training
    row_limit = task.parameters.get_int(
        "ROW_LIMIT", max(200, min(_ROWS, _VALUES // len(training.feature_names))), at_least=100, at_most=1_000_000
    )
    rows, labels = task.sample_rows(targets.classes(training), row_limit)
    # a cancelled background prediction may still write a file
    with tempfile.TemporaryDirectory(prefix="auto_weka_", ignore_cleanup_errors=True) as directory:
        # a stop request during the delivery does not interrupt it
        if earlier is not None:
            with stop_requests() as stop:
                arff, header = _write(task, Path(directory), rows, labels)
                plan = earlier.choice.plan._replace(directory=Path(directory), training=arff, header=header)
                return _train_again(task, earlier.choice._replace(plan=plan), len(labels), stop)
        # opened before the search, so that an invalid table fails now
        table = table_to_predict(task)
        arff, header = _write(task, Path(directory), rows, labels)
        if _auto_weka_26.is_installed():
            file = model_file(task)
            details = _auto_weka_26.search(task, Path(directory), arff, file)
            summary = TrainingSummary(len(labels), chosen={**versions(), **details})
            return Fitted(WekaModel(_auto_weka_26.LEARNER, file), summary, is_last=True)
        plan = create_plan(task, Path(directory), arff, header)
        with stop_requests() as stop:
            (candidate, trained), details = _search(task, plan, table, stop)
    summary = TrainingSummary(len(labels), chosen={**versions(), **details})
    model = SearchedModel(trained.model, table, trained.predictions)
    return Fitted(model, summary, Choice(plan, candidate, trained.model), is_last=bool(stop))


def load(task: Task, directory: Path) -> WekaModel:  # noqa: ARG001 - every operation has this signature
    """Load a saved model."""
    return WekaModel.load(directory)


def _write(task: Task, directory: Path, rows: NDArray[np.bool_], labels: NDArray[np.int8]) -> tuple[Path, Path]:
    """Write training rows and header for WEKA; return their paths."""
    training, header = directory / "training.arff", directory / "header.arff"
    features = len(task.training.feature_names)
    with task.progress.step(f"writing {len(labels):,} rows for WEKA"):
        _arff.write(training, features, _labeled_blocks(task, rows, labels))
        _arff.write_header(header, features)
    return training, header


def _labeled_blocks(
    task: Task, rows: NDArray[np.bool_], labels: NDArray[np.int8]
) -> Iterator[tuple[NDArray[Any], NDArray[np.int8]]]:
    start = 0
    for positions, block in task.training.batches(rows):
        yield block, labels[start : start + len(positions)]
        start += len(positions)


def _search(task: Task, plan: Plan, table: Table, stop: Sequence[Signals]) -> tuple[Result, dict[str, Any]]:
    """Search, train the best and predict a table; at a stop request, return the model that is ready.

    Returns
    -------
    result : tuple
        The configuration, its model and its predictions.
    details : dict
        For the report.
    """
    began = time.monotonic()
    log = SearchLog()

    def work(candidate: Candidate, budget: CpuBudget) -> Trained:
        return train_and_predict(task, plan, candidate, table, plan.heap, budget)

    trainer = BackgroundTrainer(plan, work, task.progress.log)
    try:
        with trainer, task.progress.step(f"searching for {plan.seconds:,} s, {len(plan.seeds)} at a time"):
            search(plan, log, task.progress, lambda: bool(stop), lambda: trainer.update(log))
        result, failed = _finish(task, plan, table, log, trainer.predictor.latest, lambda: bool(stop))
    except CancelledError:
        result = trainer.predictor.result(
            task,
            stop,
            time.monotonic() - began,
            describe=lambda best: (
                f"{best.learner} (error {best.error:.4f}), the best that was ready in a search of "
                f"{duration(plan.seconds)}"
            ),
        )
        failed = trainer.failed
    return result, _report_details(plan, log, result[0], failed)


def _finish(
    task: Task, plan: Plan, table: Table, log: SearchLog, ready: Result | None, is_cancelled: Callable[[], bool]
) -> tuple[Result, list[dict[str, Any]]]:
    """Train the best configuration on all rows and predict, unless it is `ready`; the next best where it fails.

    Returns
    -------
    result : tuple
        The configuration, its model and its predictions.
    failed : list of dict
        Failed configurations, for the report.
    """
    ranked = log.ranked()
    task.note(
        f"tried {len(log.tried):,} configurations in {log.runs:,} runs, of which {log.failed_runs:,} took "
        "too long or failed"
    )
    end = time.monotonic() + max(_MIN_FINISH_SECONDS, plan.seconds)
    failed: list[dict[str, Any]] = []
    for rank, candidate in enumerate(ranked, start=1):
        remaining = end - time.monotonic()
        if remaining <= 0 or (ready is not None and candidate is ready[0]):
            break
        # half of the remaining time, so that the next best has time after a failure; the last has all of it
        deadline = time.monotonic() + (remaining if rank == len(ranked) else remaining / 2)
        budget = CpuBudget(deadline, is_cancelled=is_cancelled)
        try:
            with task.progress.step(f"training {candidate.learner} on all rows"):
                # after the searches, one process can have their memory
                trained = train_and_predict(task, plan, candidate, table, plan.whole_heap, budget, task.progress.update)
        except ProgramError as error:
            task.note(f"rejected {candidate.learner} (error {candidate.error:.4f}): {error}")
            failed.append({"learner": candidate.learner, "why": str(error)})
        else:
            if ready is not None:
                ready[1].model.discard()
            return (candidate, trained), failed
    if ready is None:
        raise ModelFailureError(
            f"of {len(log.tried):,} configurations tried in {plan.seconds:,} s, {len(ranked):,} succeeded and none "
            f"had useful predictions after training on all rows. Give it more time (automl_minutes), memory, or "
            f"a smaller ROW_LIMIT."
        )
    task.progress.log(f"{ready[0].learner} was trained on all rows during the search")
    return ready, failed


def _train_again(task: Task, choice: Choice, rows: int, stop: Sequence[Signals]) -> Fitted:
    """Train the configuration of the first fit on the rows of both tables; return the first model where that fails."""
    plan, learner = choice.plan, choice.candidate.learner
    budget = CpuBudget(time.monotonic() + max(_MIN_FINISH_SECONDS, plan.seconds), is_cancelled=lambda: bool(stop))
    model, reason = choice.model, ""
    try:
        with task.progress.step(f"training {learner} on the rows of both tables"):
            model = WekaModel.train(task, plan, choice.candidate, plan.whole_heap, budget)
            with model.discarded_on_error():
                model.check(task.training, plan.whole_heap, budget)
    except CancelledError:
        model, reason = choice.model, f"stopped by {stop[0].name}"
    except ProgramError as error:
        model, reason = choice.model, str(error)
    if reason:
        task.note(f"no final fit, using the first: {reason}")
    else:
        choice.model.discard()
    return Fitted(model, TrainingSummary(rows, chosen={"refitted": not reason}))


def _report_details(plan: Plan, log: SearchLog, candidate: Candidate, failed: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **candidate.described(),
        # not as a separate step; the search space has the learner AttributeSelectedClassifier
        "attribute_selection": None,
        "metric": plan.metric,
        "seeds": plan.seeds,
        "seconds_searched": round(log.seconds, 1),
        "configurations": len(log.tried),
        "runs": log.runs,
        "failed_runs": log.failed_runs,
        "passed_over": failed,
        "trajectory": [
            {"seconds": round(seconds, 1), "error": error, "learner": learner}
            for seconds, error, learner in log.trajectory[-_MAX_REPORTED:]
        ],
        # the first ones: enough to compare two searches
        "tried": [candidate.described() for candidate in log.tried[:_MAX_REPORTED]],
    }
