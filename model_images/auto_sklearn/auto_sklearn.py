"""Auto-sklearn: a search through scikit-learn's learners, their settings and what may be done to the features before.

A binary target is learned by classifiers judged by their logloss, one with grades between by regressors judged by their
mean squared error. The last eras are held out, an embargo before them; every candidate learns from the others and is
judged by these, and so is the ensemble drawn from the best.

The search runs in a process of its own, under this one's eyes. Ensembles are drawn and the tournament is predicted as
it goes, so that whatever ends the search, the limit or a request to stop, the best so far is at hand.

Parameters of its own:

``TIME_LIMIT`` (600), ``TIME_LIMIT_PART`` (a quarter of it)
    Seconds for the search, from the operation's beginning; seconds for one fit. A fit that takes longer is cut short
    and judged by what it has learned so far, where the learner learns in rounds.
``RUN_LIMIT``
    How many candidates to try. With it they are tried one at a time, so that the same seed tries the same ones in the
    same order (unless a time limit cuts in); without it chance has a say, as what comes next depends on what is done.
``ROW_LIMIT`` (2,500,000 numbers' worth of rows, 100,000 at most)
    Above it, it learns from a sample that keeps every era's and every grade's share.
``EMBARGO_ERAS`` (8)
    Eras left out between the training and the held-out eras, as the targets of neighbours overlap.
``MEMORY_LIMIT_PART``
    MiB of address space one candidate may take; by default what the container has, less what the rest needs, shared
    among as many as run at once. A candidate that wants more is given up, and the search goes on.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from numerai_contract.progress import duration
from numerai_contract.stopping import stop_requests
from numerai_contract.task import Learned

from . import _plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"TIME_LIMIT": "60", "TIME_LIMIT_PART": "20", "RUN_LIMIT": "2"}


def run(task: Task) -> None:
    """Search, and predict the tournament table with the best that was found."""
    began = time.monotonic()
    parameters = task.parameters
    seconds = _plan.seconds_of(parameters)
    run_limit = parameters.whole("RUN_LIMIT", at_least=1, at_most=1_000_000) if "RUN_LIMIT" in parameters else None
    lesson = _plan.lesson(task)
    memory = _plan.memory(task, 1 if run_limit is not None else parameters.threads, lesson.features.nbytes)
    # opened before the search, so that a mistake in it is told now
    rows = len(task.tournament)
    with task.progress.step("loading auto-sklearn"):
        from ._hunt import Hunt

    with _scratch() as directory, stop_requests() as stop:
        plan = _plan.Plan(
            kind=lesson.kind,
            began=began,
            seconds=seconds,
            seconds_per_fit=min(parameters.time_limit_part or max(seconds // 4, 1), seconds),
            run_limit=run_limit,
            memory=memory,
            seed=parameters.seed,
            directory=directory / "search",
        )
        hunt = Hunt(task, plan, lesson, stop)
        with task.progress.step(
            f"searching for {duration(seconds)} or less among {plan.kind}s, {memory.jobs} at a time, "
            f"each for at most {duration(plan.seconds_per_fit)} and in {memory.part:,} MiB"
        ):
            hunt.search()
        with task.progress.step(f"predicting {rows:,} rows"):
            best = hunt.last_forecast()
    task.deliver(
        best.predictions,
        Learned(
            training_rows=lesson.learning_rows,
            held_out_rows=len(lesson.labels) - lesson.learning_rows,
            chosen={"embargo_eras": lesson.embargo, **hunt.chosen(best)},
            libraries=("auto-sklearn", "scikit-learn", "smac", "ConfigSpace"),
        ),
    )


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Make a directory and remove it again, as far as processes that are just being ended let it go."""
    directory = Path(tempfile.mkdtemp(prefix="auto_sklearn_"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
