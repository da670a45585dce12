"""TPOT: genetic programming of scikit-learn pipelines, with an export of the best one as Python source.

A classifier of target > 0.5 on the features and a t-SNE embedding, evaluated by its logloss in a cross-validation over
consecutive eras of the split's training part, with the run's EMBARGO between the folds. The search does not use the
split's validation part, so that the score on it is unbiased. The best pipeline is fitted on all rows of the search, and
is exported beside the report as ``<report>_pipeline.py``: a module whose ``build()`` creates it.

Every pipeline is evaluated in a separate process with enforced limits of time and memory. The best one so far is fitted
and predicts the validation table during the search, so that a model is available whenever it ends, at its limit or at a
stop request. After a stop request there is no final fit. Otherwise the final fit fits the best pipeline, with its
preprocessing, on 50,000 rows of both tables, then on four times as many, until it has all rows that fit MEMORY_LIMIT,
in at most the time of the search: the model is that of the largest fit. Where none succeeds, it is that of the first
fit, with a note. Of more than 100 features it learns from those with the largest correlation with the target.

Environment variables, in addition to those of `numerai_contract.split_tables` (embeddings: ``perplexity_05``; rows of
the search: 40,000, or fewer when they have more than 2,000,000 values; ROW_LIMIT limits the final fit as well):

``TIME_LIMIT`` (600), ``TIME_LIMIT_PART`` (a sixth of it)
    Seconds for the search, after the training rows have been read; seconds for one pipeline, with all its folds. Its
    last predictions may take longer, 5 minutes for each 4 million rows.
``RUN_LIMIT``
    Maximum number of pipelines. Unless a time limit intervenes, the same seed then breeds the same pipelines.
``SEARCH_SPACE`` (weak-signal)
    The parts of pipelines: TPOT's ``linear-light`` or ``linear``, or ``weak-signal``, which has TPOT's structure and
    learners within bounds that suit a very weak signal.
``POPULATION`` (20)
    Number of pipelines that survive a generation, and of their offspring.
``FOLDS`` (3)
    Of the cross-validation.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from numerai_contract.fitting import Fitted
from numerai_contract.progress import duration
from numerai_contract.search import SearchedModel, growing_rows, table_to_predict
from numerai_contract.self_test import write_fixture_inputs
from numerai_contract.split import read_split
from numerai_contract.stopping import stop_requests
from numerai_contract.task import TrainingSummary

from ._budget import LEAST_ROWS, SearchPlan, plan

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.task import Task

    from ._model import PipelineModel
    from ._training_data import ResourceBudget

SELF_TEST_PARAMETERS = {"TIME_LIMIT": "60", "TIME_LIMIT_PART": "20", "RUN_LIMIT": "4"}
prepare_self_test = write_fixture_inputs


class Choice(NamedTuple):
    """The limits of the search and of the final fit, and the pipeline that the search has found."""

    plan: SearchPlan
    row_limit: int
    budget: ResourceBudget
    model: PipelineModel


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Search on the split's training part; the final fit fits the best pipeline on all rows."""
    return _search(task) if earlier is None else _refit(task, earlier.choice)


def load(task: Task, directory: Path) -> PipelineModel:
    """Load a saved model."""
    with task.progress.step("loading TPOT"):
        from ._model import PipelineModel

    return PipelineModel.load(directory)


def _search(task: Task) -> Fitted:
    search_plan = SearchPlan.read(task.parameters, time.monotonic(), len(table_to_predict(task)))
    planned = plan(task.parameters, task.sizes)
    selects = planned.features < len(task.training.feature_names)
    # the score on the split's validation part is to be unbiased
    task.follow(planned, read_split(task.parameters.storing, task.training).training if selects else None)
    table = table_to_predict(task)
    with task.progress.step("loading TPOT"):
        from ._export import export
        from ._model import PipelineModel
        from ._search_runner import SearchRunner
        from ._training_data import allocate, load

    data = load(task, search_plan)
    budget = allocate(task, data)
    search_plan = replace(search_plan, began=time.monotonic())
    with stop_requests() as stop:
        runner = SearchRunner(task, search_plan, budget, data, stop)
        with task.progress.step(
            f"searching for {duration(search_plan.seconds)} or less, {budget.jobs} pipelines at a time, "
            f"each for at most {duration(search_plan.seconds_per_pipeline)} and in {budget.memory:,} MiB"
        ):
            runner.search()
        with task.progress.step(f"predicting {len(table):,} rows"):
            best, trained = runner.result()
    exported = export(task, data, best)
    summary = TrainingSummary(
        training_rows=len(data.labels),
        held_out_rows=len(trained.on_split),
        chosen={**runner.report_details(best), "exported": exported.name},
        libraries=("tpot", "scikit-learn", "lightgbm", "xgboost-cpu"),
        split=data.tables.score(trained.on_split),
    )
    model = PipelineModel(trained.pipeline, data.tables.source.names)
    return Fitted(
        SearchedModel(model, table, trained.predictions),
        summary,
        Choice(search_plan, planned.rows, budget, model),
        is_last=bool(stop),
    )


def _refit(task: Task, choice: Choice) -> Fitted:
    from ._model import refit

    with stop_requests() as stop:
        limits = growing_rows(LEAST_ROWS, choice.row_limit)
        model, rows = refit(task, choice.plan, choice.budget, choice.model, limits, stop)
    return Fitted(model, TrainingSummary(training_rows=rows, chosen={"refitted": model is not choice.model}))
