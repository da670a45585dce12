"""Auto-sklearn: a search for scikit-learn learners, their settings and preprocessing of the features.

A binary target is learned by classifiers, evaluated by their logloss, a graded one by regressors, evaluated by their
mean squared error. The last eras are held out, after an embargo; every candidate is trained on the other eras and
evaluated on these, and so is the ensemble of the best ones. The embargo is the run's EMBARGO.

The search runs in a separate process. Ensembles are selected and predict the validation table during the search, so
that a model is available whenever it ends, at its limit or at a stop request. After a stop request there is no final
fit. Otherwise the final fit fits each member again, with the same settings and weight, on 50,000 rows of both tables,
then on four times as many, until it has all rows that fit MEMORY_LIMIT, in at most the time of the search. The model of
a member is that of its largest fit; where none succeeds, that of the first fit. Of more than 100 features it learns
from those with the largest correlation with the target.

Environment variables:

``TIME_LIMIT`` (600), ``TIME_LIMIT_PART`` (a quarter of it)
    Seconds for the search, after the training rows have been read; seconds for one fit. A longer fit is cut short;
    learners that train iteratively are then evaluated with the iterations so far.
``RUN_LIMIT``
    Maximum number of candidates. With it candidates run one at a time, so that the same seed tries the same candidates
    in the same order (unless a time limit intervenes); without it the order depends on the timing.
``ROW_LIMIT`` (all rows that fit MEMORY_LIMIT)
    Maximum number of rows of the final fit, and of the search, which has at most 2,500,000 values. Above it, it learns
    from a sample that keeps the share of every era and every target value.
``MEMORY_LIMIT_PART``
    MiB of address space of one candidate; by default the container's memory less that of the other processes, divided
    by the number of candidates at a time. A candidate that exceeds it fails, and the search continues.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from numerai_contract.fitting import Fitted
from numerai_contract.progress import duration
from numerai_contract.search import SearchedModel, growing_rows, table_to_predict
from numerai_contract.stopping import stop_requests
from numerai_contract.task import TrainingSummary

from . import _training_data
from ._budget import LEAST_ROWS, SearchPlan, allocate, plan, search_rows, time_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numerai_contract.task import Task

    from ._ensemble import Ensemble

SELF_TEST_PARAMETERS = {"TIME_LIMIT": "60", "TIME_LIMIT_PART": "20", "RUN_LIMIT": "2"}


class Choice(NamedTuple):
    """The plans of the search and of the final fit, and the ensemble that the search has found."""

    plan: SearchPlan
    row_limit: int
    ensemble: Ensemble


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Search on the training table; the final fit fits the members of the ensemble again."""
    return _search(task) if earlier is None else _refit(task, earlier.choice)


def load(task: Task, directory: Path) -> Ensemble:
    """Load a saved model."""
    with task.progress.step("loading auto-sklearn"):
        from ._ensemble import Ensemble

    return Ensemble.load(directory)


def _search(task: Task) -> Fitted:
    parameters = task.parameters
    seconds = time_limit(parameters)
    run_limit = parameters.get_int("RUN_LIMIT", at_least=1, at_most=1_000_000) if "RUN_LIMIT" in parameters else None
    planned = plan(parameters, task.sizes)
    task.follow(planned)
    data = _training_data.load(task, min(planned.rows, search_rows(planned.features)))
    budget = allocate(task, 1 if run_limit is not None else parameters.threads, data.features.nbytes)
    # opened before the search, so that an invalid table fails now
    table = table_to_predict(task)
    with task.progress.step("loading auto-sklearn"):
        from ._search_runner import SearchRunner

    with _scratch() as directory, stop_requests() as stop:
        search_plan = SearchPlan(
            kind=data.kind,
            began=time.monotonic(),
            seconds=seconds,
            seconds_per_fit=min(parameters.time_limit_part or max(seconds // 4, 1), seconds),
            run_limit=run_limit,
            budget=budget,
            seed=parameters.seed,
            directory=directory / "search",
        )
        runner = SearchRunner(task, search_plan, data, stop)
        with task.progress.step(
            f"searching for {duration(seconds)} or less among {search_plan.kind}s, {budget.jobs} at a time, "
            f"each for at most {duration(search_plan.seconds_per_fit)} and in {budget.memory:,} MiB"
        ):
            runner.search()
        with task.progress.step(f"predicting {len(table):,} rows"):
            ensemble, best = runner.result()
    summary = TrainingSummary(
        training_rows=data.training_rows,
        held_out_rows=len(data.labels) - data.training_rows,
        chosen={"embargo_weeks": data.embargo, **runner.report_details(best)},
        libraries=("auto-sklearn", "scikit-learn", "smac", "ConfigSpace"),
    )
    model = SearchedModel(ensemble, table, best.predictions)
    return Fitted(model, summary, Choice(search_plan, planned.rows, ensemble), is_last=bool(stop))


def _refit(task: Task, choice: Choice) -> Fitted:
    from ._refit import refit

    with stop_requests() as stop:
        limits = growing_rows(LEAST_ROWS, choice.row_limit)
        ensemble, refitted, rows = refit(task, choice.plan, choice.ensemble, limits, stop)
    chosen = {"members": len(choice.ensemble.members), "refitted": refitted}
    return Fitted(ensemble, TrainingSummary(training_rows=rows, chosen=chosen))


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Create a temporary directory and remove it afterwards; ignore files that ending processes still use."""
    directory = Path(tempfile.mkdtemp(prefix="auto_sklearn_"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
