"""TPOT: genetic programming that breeds scikit-learn pipelines, and the best one written down as Python.

A classifier of target > 0.5 on the features and a map of t-SNE, judged by its logloss in a cross-validation over
stretches of eras of the split's training part. The split's validation part has no say in the search, so that the score
on it is an honest one. The best pipeline is fitted on all rows of the search, predicts, and is left beside the report
as ``<report>_pipeline.py``: a module whose ``build()`` makes it anew.

Every pipeline is judged in a process of its own, with a time limit and a memory limit that hold. The best so far is
fitted and predicts while the search goes on, so that whatever ends it, the limit or a request to stop, there is
something to deliver.

Parameters of its own, beside those of `numerai_contract.split_tables` (maps: ``perplexity_05``; rows: 40,000, or fewer
where they are more than 2,000,000 numbers):

``TIME_LIMIT`` (600), ``TIME_LIMIT_PART`` (a sixth of it)
    Seconds for the search, from the operation's beginning; seconds for one pipeline, with all its folds.
``RUN_LIMIT``
    How many pipelines to try. Where no time limit cuts in, the same seed then breeds the same pipelines.
``SEARCH_SPACE`` (weak-signal)
    What pipelines are made of: TPOT's own ``linear-light`` or ``linear``, or ``weak-signal``, which has TPOT's form and
    learners within bounds that suit a signal close to nothing.
``POPULATION`` (20)
    How many pipelines survive a generation, and how many offspring they have.
``FOLDS`` (3)
    Of the cross-validation.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from numerai_contract.progress import duration
from numerai_contract.self_test import lay_preparations
from numerai_contract.stopping import stop_requests
from numerai_contract.task import Learned

from ._plan import Plan

if TYPE_CHECKING:
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"TIME_LIMIT": "60", "TIME_LIMIT_PART": "20", "RUN_LIMIT": "4"}
prepare_self_test = lay_preparations


def run(task: Task) -> None:
    """Search, and predict the tournament table with the best pipeline that was found."""
    plan = Plan.asked_for(task.parameters, began=time.monotonic())
    with task.progress.step("loading TPOT"):
        from ._export import export
        from ._lesson import read_lesson, share_out
        from ._search import Search

    lesson = read_lesson(task, plan)
    room = share_out(task, lesson)
    with stop_requests() as stop:
        search = Search(task, plan, room, lesson, stop)
        with task.progress.step(
            f"searching for {duration(plan.seconds)} or less, {room.jobs} pipelines at a time, "
            f"each for at most {duration(plan.seconds_per_pipeline)} and in {room.memory:,} MiB"
        ):
            search.run()
        with task.progress.step(f"predicting {len(task.tournament):,} rows"):
            best, forecast = search.last_forecast()
    exported = export(task, lesson, best)
    task.deliver(
        forecast.tournament,
        Learned(
            training_rows=len(lesson.labels),
            held_out_rows=len(forecast.validation),
            chosen={**search.chosen(best), "exported": exported.name},
            libraries=("tpot", "scikit-learn", "lightgbm", "xgboost-cpu"),
            split=lesson.tables.score(forecast.validation),
        ),
    )
