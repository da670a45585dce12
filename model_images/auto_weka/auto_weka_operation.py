"""Auto-WEKA: a search among WEKA's learners and their options, with the best one trained on more rows.

The search is the original authors' (SMAC, Bayesian optimisation over a space of some 1,700 options), and so is its
space: 32 classifiers, single and nested. Each configuration is evaluated by cross-validation on four folds, one at a
time and only until it is worse than the best. A fold has consecutive eras, with the run's EMBARGO between two folds;
where the eras are too few for that, it has random rows, with a note. The errors serve for the selection only: see
``validation`` in the report for an unbiased score.

Environment variables:

``TIME_LIMIT`` (600), ``TIME_LIMIT_PART`` (a tenth of it)
    Seconds for the search, and for training a configuration on three quarters of the rows. The search ends exactly at
    the limit; training the best may take as long again, at least 5 minutes, and so may the final fit.
``RUN_LIMIT`` (none)
    Maximum number of runs of each search (a configuration on a fold). With it, and parts that no learner exceeds, the
    same seed evaluates the same configurations in the same order.
``METRIC`` (``rmse``)
    The error to minimise: the root mean squared error of the probabilities, a proper score like the logloss, or
    ``errorRate``, the share of misclassified rows, as in 2018.
``ROW_LIMIT`` (200,000 in the first fit; all rows that fit MEMORY_LIMIT in the final fit)
    Maximum number of rows for the best configuration. The search learns from at most 20,000 of them, since each run
    reads all rows again and trains one of many learners, some of which need time that grows with the square of the
    rows. Both samples keep the share of every era and class. Of more than 100 features it learns from those with the
    largest correlation with the target.

With several ``THREADS`` as many searches run at the same time, with consecutive seeds from ``SEED``, and the best of
all is used; fewer when the memory is not enough for all.

A configuration with constant predictions is worthless, however small its error; so is one that cannot predict the
validation table in 90 seconds, or in 10 minutes for each 4 million rows, which the first 20,000 rows show. Then the
next best is used, and the report has a note. Where lazy learners (IBk, KStar, LWL) would take longer, they do not take
part in the search: IBk needs 3.6 ns for each feature, training row and row to predict.

The best one so far is trained on the rows of the search and predicts the validation table during the search, at a low
priority and with at most 15 % of the processor time; the log has a line when its model is ready. At a stop request
(SIGTERM) this is the model, without a final fit and with a note in the report; without any, as with millions of rows to
predict, the operation ends with 75, for a retry. Built with ``AUTO_WEKA=2.6`` it always does the latter
(`_auto_weka_26`).

After the search the best configuration is trained on 200,000 rows of the training table, or on 50,000, or on those of
the search where more take too much time or memory. The final fit trains it on 50,000 rows of both tables, then on four
times as many, until it has all rows that fit MEMORY_LIMIT; the model is that of the largest training that succeeds.
Where none does, it is that of the first fit, with a note.
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
from numerai_contract.search import SearchedModel, growing_rows, has_time, table_to_predict
from numerai_contract.stopping import stop_requests
from numerai_contract.task import TrainingSummary

from . import _arff, _auto_weka_26, _era_folds
from ._background import BackgroundTrainer
from ._budget import FIRST_ROWS, LEAST_ROWS, SEARCH_ROWS, SearchPlan, create_plan, plan, prediction_seconds
from ._java import CancelledError, CpuBudget, ProgramError, versions
from ._predict import Trained, WekaModel, model_file, train_and_predict
from ._search import search
from ._search_log import FOLDS, Candidate, SearchLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from signal import Signals

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.tables import Table
    from numerai_contract.task import Task

# two runs, to keep the build of the image short
SELF_TEST_PARAMETERS = {"TIME_LIMIT": "60", "TIME_LIMIT_PART": "20", "RUN_LIMIT": "2", "THREADS": "1"}

# minimum seconds for training after the search, and for the final fit
_MIN_FINISH_SECONDS = 300.0
# multiple of the seconds that a useful model needs to predict, as another process may slow it down
_PREDICTION_MARGIN = 2.0
_MAX_REPORTED = 200


class Result(NamedTuple):
    """The best configuration, its model with predictions, and its number of training rows."""

    candidate: Candidate
    trained: Trained
    rows: int


class Choice(NamedTuple):
    """The result of the first fit, for the final fit.

    Attributes
    ----------
    plan : SearchPlan
        Of the search.
    candidate : Candidate
        The best configuration.
    model : WekaModel
        Its model of the first fit.
    row_limit : int
        Maximum number of rows that its training has time and memory for.
    """

    plan: SearchPlan
    candidate: Candidate
    model: WekaModel
    row_limit: int


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Search on the training table; the final fit trains the best configuration again."""
    planned = plan(task.parameters, task.sizes)
    task.follow(planned)
    # a cancelled background prediction may still write a file
    with tempfile.TemporaryDirectory(prefix="auto_weka_", ignore_cleanup_errors=True) as folder:
        trainer = Trainer(task, Path(folder), targets.classes(task.training))
        # a stop request during the delivery does not interrupt it
        if earlier is not None:
            with stop_requests() as stop:
                return _train_again(task, earlier.choice, trainer, stop)
        # opened before the search, so that an invalid table fails now
        table = table_to_predict(task)
        header = trainer.write_header()
        if _auto_weka_26.is_installed():
            arff, rows = trainer.write(min(SEARCH_ROWS, planned.rows))
            file = model_file(task)
            details = _auto_weka_26.search(task, Path(folder), arff, file)
            summary = TrainingSummary(rows, chosen={**versions(), **details})
            return Fitted(WekaModel(_auto_weka_26.LEARNER, file), summary, is_last=True)
        arff, rows = trainer.write_folds(min(SEARCH_ROWS, planned.rows))
        search_plan = create_plan(task, Path(folder), arff, header, rows=rows, to_predict=len(table))
        with stop_requests() as stop:
            first_rows = min(FIRST_ROWS, planned.rows)
            result, details = _search(task, search_plan, rows, table, trainer, first_rows, stop)
    summary = TrainingSummary(result.rows, chosen={**versions(), **details})
    model = SearchedModel(result.trained.model, table, result.trained.predictions)
    # where all rows of the training table were not too many, those of both tables may be more
    row_limit = planned.rows if result.rows == trainer.available(first_rows) else result.rows
    choice = Choice(search_plan, result.candidate, result.trained.model, row_limit)
    return Fitted(model, summary, choice, is_last=bool(stop))


def load(task: Task, directory: Path) -> WekaModel:  # noqa: ARG001 - every operation has this signature
    """Load a saved model."""
    return WekaModel.load(directory)


class Trainer:
    """Trains a configuration on samples of the training rows, the larger ones first.

    Parameters
    ----------
    task
        For its tables, seed and log.
    directory
        For WEKA's files.
    labeled
        The rows of the training table and their classes.
    """

    def __init__(self, task: Task, directory: Path, labeled: targets.LabeledRows) -> None:
        self._task, self._directory, self._labeled = task, directory, labeled

    def available(self, limit: int) -> int:
        """Return the number of rows, at most `limit`."""
        return min(limit, len(self._labeled.labels))

    def write(self, limit: int) -> tuple[Path, int]:
        """Write a sample for WEKA; return its path and its number of rows."""
        task = self._task
        rows, labels = targets.sample(self._labeled, task.training.era_numbers, limit, seed=task.parameters.seed)
        path = self._directory / f"{len(labels)}.arff"
        if not path.exists():
            with task.progress.step(f"writing {len(labels):,} of {len(self._labeled.labels):,} rows for WEKA"):
                _arff.write(path, len(task.training.feature_names), _labeled_blocks(task, rows, labels))
        return path, len(labels)

    def write_folds(self, limit: int) -> tuple[Path, int]:
        """Write a sample for the search, in an order that gives its folds whole eras; as `write` where it cannot."""
        task, parameters = self._task, self._task.parameters
        rows, labels = targets.sample(self._labeled, task.training.era_numbers, limit, seed=parameters.seed)
        order = _era_folds.order(task.training.era_numbers[rows], labels, FOLDS, parameters.embargo, parameters.seed)
        if order is None:
            task.note(f"too few eras for {FOLDS} folds of eras: using random folds")
            return self.write(limit)
        path = self._directory / "folds.arff"
        with task.progress.step(f"writing {len(order):,} of {len(self._labeled.labels):,} rows for the search"):
            features = task.training.features(rows)[order]
            _arff.write(path, features.shape[1], [(features, labels[order])])
        return path, len(order)

    def write_header(self) -> Path:
        """Write the header for WEKA; return its path."""
        path = self._directory / "header.arff"
        _arff.write_header(path, len(self._task.training.feature_names))
        return path

    def train(
        self,
        search_plan: SearchPlan,
        candidate: Candidate,
        limits: Sequence[int],
        seconds: float,
        check: Callable[[WekaModel, CpuBudget], object],
        is_cancelled: Callable[[], bool],
    ) -> tuple[WekaModel, int]:
        """Train a configuration on the largest sample that does not take too much time or memory.

        Parameters
        ----------
        search_plan
            For its memory and its metric.
        candidate
            The configuration.
        limits
            Numbers of rows, at least one, the largest first.
        seconds
            Time for all attempts; each but the last has half of the remaining time.
        check
            Raises `ProgramError` for a model that is not useful.
        is_cancelled
            Whether to stop.

        Returns
        -------
        model : WekaModel
        rows : int
            Its number of training rows.

        Raises
        ------
        ProgramError
            When the last attempt fails.
        CancelledError
            When it is cancelled.
        """
        end = time.monotonic() + seconds
        for number, limit in enumerate(limits, start=1):
            remaining = max(end - time.monotonic(), 0)
            deadline = end if number == len(limits) else time.monotonic() + remaining / 2
            path, rows = self.write(limit)
            budget = CpuBudget(deadline, is_cancelled=is_cancelled)
            own_plan = search_plan._replace(
                directory=self._directory, training=path, header=self._directory / "header.arff"
            )
            try:
                with self._task.progress.step(f"training {candidate.learner} on {rows:,} rows"):
                    model = WekaModel.train(self._task, own_plan, candidate, search_plan.whole_heap, budget)
                    with model.discarded_on_error():
                        check(model, budget)
            except ProgramError as error:
                if number == len(limits):
                    raise
                self._task.note(f"{candidate.learner} on {rows:,} rows: {error}; training on fewer")
            else:
                return model, rows
        raise ProgramError("there was no time to train it")


def _labeled_blocks(
    task: Task, rows: NDArray[np.bool_], labels: NDArray[np.int8]
) -> Iterator[tuple[NDArray[Any], NDArray[np.int8]]]:
    start = 0
    for positions, block in task.training.batches(rows):
        yield block, labels[start : start + len(positions)]
        start += len(positions)


def _search(
    task: Task, plan: SearchPlan, rows: int, table: Table, trainer: Trainer, row_limit: int, stop: Sequence[Signals]
) -> tuple[Result, dict[str, Any]]:
    """Search, train the best and predict a table; at a stop request, return the model that is ready.

    `rows` is the number of rows of the search.

    Returns
    -------
    result : Result
    details : dict
        For the report.
    """
    began = time.monotonic()
    log = SearchLog()

    def work(candidate: Candidate, budget: CpuBudget) -> Trained:
        return train_and_predict(task, plan, candidate, table, plan.heap, budget)

    background = BackgroundTrainer(plan, work, task.progress.log)
    try:
        with background, task.progress.step(f"searching for {plan.seconds:,} s, {len(plan.seeds)} at a time"):
            search(plan, log, task.progress, lambda: bool(stop), lambda: background.update(log))
        result, failed = _finish(task, plan, rows, table, log, background, trainer, row_limit, lambda: bool(stop))
    except CancelledError:
        candidate, trained = background.predictor.result(
            task,
            stop,
            time.monotonic() - began,
            describe=lambda best: (
                f"{best.learner} (error {best.error:.6f}), the best that was ready in a search of "
                f"{duration(plan.seconds)}"
            ),
        )
        result = Result(candidate, trained, rows)
        failed = background.failed
    return result, _report_details(plan, log, result.candidate, failed)


def _finish(
    task: Task,
    plan: SearchPlan,
    rows: int,
    table: Table,
    log: SearchLog,
    background: BackgroundTrainer,
    trainer: Trainer,
    row_limit: int,
    is_cancelled: Callable[[], bool],
) -> tuple[Result, list[dict[str, Any]]]:
    """Train the best configuration on as many rows as possible and predict; the next best where it fails.

    `rows` is the number of rows of the search.

    Returns
    -------
    result : Result
    failed : list of dict
        Failed configurations, for the report.
    """
    ready = background.predictor.latest
    failed: list[dict[str, Any]] = []

    def reject(candidate: Candidate, why: str) -> None:
        task.note(f"rejected {candidate.learner} (error {candidate.error:.6f}): {why}")
        failed.append({"learner": candidate.learner, "why": why})

    larger = [limit for limit in (row_limit, LEAST_ROWS) if rows < trainer.available(limit) <= row_limit]
    task.note(
        f"tried {len(log.tried):,} configurations in {log.runs:,} runs, of which {log.failed_runs:,} took "
        "too long or failed"
    )

    for candidate, why in background.unusable:
        reject(candidate, why)
    unusable = [candidate for candidate, _ in background.unusable]
    ranked = [candidate for candidate in log.ranked() if candidate not in unusable]
    end = time.monotonic() + max(_MIN_FINISH_SECONDS, plan.seconds)
    for rank, candidate in enumerate(ranked, start=1):
        remaining = end - time.monotonic()
        is_ready = ready is not None and candidate is ready[0]
        if remaining <= 0 or (is_ready and not larger):
            break
        # half of the remaining time, so that the next best has time after a failure; the last has all of it
        seconds = remaining if rank == len(ranked) else remaining / 2
        try:
            # the model that is ready has the rows of the search
            stages = [limits for limits in ([] if is_ready else [rows], larger) if limits]
            result = _train_and_predict(task, plan, candidate, table, trainer, stages, (seconds, end), is_cancelled)
        except ProgramError as error:
            reject(candidate, str(error))
            if is_ready:
                break
        else:
            if ready is not None:
                ready[1].model.discard()
            return result, failed
    if ready is None:
        reason = f"; the last one: {failed[-1]['why']}" if failed else ""
        raise ModelFailureError(
            f"of {len(log.tried):,} configurations tried in {plan.seconds:,} s, {len(log.ranked()):,} succeeded and "
            f"none had useful predictions{reason}. Another attempt would find the same. Give it more time "
            "(automl_minutes), more memory, or a smaller ROW_LIMIT."
        )
    task.progress.log(f"{ready[0].learner} was trained during the search")
    return Result(*ready, rows), failed


def _train_and_predict(
    task: Task,
    plan: SearchPlan,
    candidate: Candidate,
    table: Table,
    trainer: Trainer,
    stages: Sequence[Sequence[int]],
    limits: tuple[float, float],
    is_cancelled: Callable[[], bool],
) -> Result:
    """Train a configuration in one or two stages, and predict.

    The model of the first stage decides whether the configuration is useful, before minutes of training on more rows in
    the second, and is the model where that fails. The numbers of rows of a stage are those of `Trainer.train`; `limits`
    are the seconds of the first stage and the end of the last, by the monotonic clock.
    """

    def check(model: WekaModel, budget: CpuBudget) -> None:
        model.require_speed(table, plan.whole_heap, budget, len(plan.seeds))

    seconds, end = limits
    first, *second = stages
    model, rows = trainer.train(plan, candidate, first, seconds, check, is_cancelled)
    with model.discarded_on_error():
        for more in second:
            try:
                final, rows = trainer.train(plan, candidate, more, end - time.monotonic(), check, is_cancelled)
            except ProgramError as error:
                task.note(f"{candidate.learner} on more than {rows:,} rows: {error}; using the model of these rows")
            else:
                model.discard()
                model = final
    with model.discarded_on_error():
        deadline = time.monotonic() + _PREDICTION_MARGIN * prediction_seconds(len(table))
        predictions = model.predict_within(task, table, CpuBudget(deadline, is_cancelled=is_cancelled))
    return Result(candidate, Trained(model, predictions), rows)


def _train_again(task: Task, choice: Choice, trainer: Trainer, stop: Sequence[Signals]) -> Fitted:
    """Train the configuration of the first fit on more and more rows of both tables; return the largest model.

    Where none succeeds, return the first model, with a note.
    """
    plan = choice.plan
    trainer.write_header()

    def check(model: WekaModel, budget: CpuBudget) -> None:
        model.check(task.training, plan.whole_heap, budget)

    end = time.monotonic() + max(_MIN_FINISH_SECONDS, plan.seconds)
    model, rows, seconds, reason = choice.model, 0, 0.0, ""
    for limit in growing_rows(LEAST_ROWS, trainer.available(choice.row_limit)):
        began = time.monotonic()
        if not has_time(rows, limit, seconds, end - began):
            break
        try:
            trained = trainer.train(plan, choice.candidate, [limit], end - began, check, lambda: bool(stop))
        except (CancelledError, ProgramError) as error:
            reason = f"stopped by {stop[0].name}" if isinstance(error, CancelledError) else str(error)
            break
        seconds = time.monotonic() - began
        model.discard()
        model, rows = trained
    if reason:
        task.note(
            f"no final fit on more than {rows:,} rows: {reason}" if rows else f"no final fit, using the first: {reason}"
        )
    return Fitted(model, TrainingSummary(rows, chosen={"refitted": rows > 0}))


def _report_details(
    plan: SearchPlan, log: SearchLog, candidate: Candidate, failed: list[dict[str, Any]]
) -> dict[str, Any]:
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
