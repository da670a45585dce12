"""The final fit: the pipelines of an ensemble are fitted again on all rows, with the same weights."""

from __future__ import annotations

import functools
import pickle
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from numerai_contract.exits import ModelFailureError
from numerai_contract.search import POLL_SECONDS, has_time
from numerai_contract.workers import Limits, Worker, wait_for_any

from ._budget import allocate_refit
from ._ensemble import probabilities
from ._training_data import load_all

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from numerai_contract.task import Task

    from ._budget import SearchPlan
    from ._ensemble import Ensemble, Member
    from ._training_data import TrainingData

# rows that a refitted pipeline must be able to predict
_CHECKED_ROWS = 1_000


def refit(
    task: Task, plan: SearchPlan, first: Ensemble, limits: Sequence[int], stop: Sequence[signal.Signals]
) -> tuple[Ensemble, int, int]:
    """Refit the members of an ensemble on more and more rows, for at most the time of the search.

    The model of a member is that of its largest fit. A member without any, as at a stop request, keeps its model of the
    first fit, with a note.

    Parameters
    ----------
    task
        For its tables, memory and notes.
    plan
        Of the search.
    first
        The ensemble of the first fit.
    limits
        Numbers of rows, ascending.
    stop
        The stop requests.

    Returns
    -------
    ensemble : Ensemble
        With the weights of the first.
    refitted : int
        Number of members that are refitted.
    rows : int
        The largest number of training rows of a member; 0 where none is refitted.
    """
    end = time.monotonic() + plan.seconds
    members = list(first.members)
    refitted: set[int] = set()
    remaining = list(range(len(members)))
    most_rows, seconds = 0, 0.0
    for limit in limits:
        data = load_all(task, plan.kind, limit)
        rows, began = len(data.labels), time.monotonic()
        if rows == most_rows or not has_time(most_rows, rows, seconds, end - began):
            break
        own_plan = replace(plan, budget=allocate_refit(task, plan.budget, data.features.nbytes))
        with task.progress.step(f"fitting {len(remaining)} members on {rows:,} rows"):
            remaining = _refit_all(task, own_plan, members, remaining, data, max(end, began + 1), stop)
        seconds = time.monotonic() - began
        refitted.update(remaining)
        most_rows = rows if remaining else most_rows
        if not remaining or stop:
            break
        del data  # before the next one is read
    if len(refitted) < len(members):
        reason = f" (stopped by {stop[0].name})" if stop else ""
        task.note(f"{len(members) - len(refitted)} of {len(members)} members keep their model of the first fit{reason}")
    return first._replace(members=members), len(refitted), most_rows


def _refit_all(
    task: Task,
    plan: SearchPlan,
    members: list[Member],
    numbers: Sequence[int],
    data: TrainingData,
    deadline: float,
    stop: Sequence[signal.Signals],
) -> list[int]:
    """Replace the models of the members with these numbers until a deadline; return those that succeeded."""
    waiting, running, done = deque(numbers), dict[Worker, int](), set[int]()
    ended = 0
    try:
        while (waiting or running) and not stop and time.monotonic() < deadline:
            while waiting and len(running) < plan.budget.jobs:
                number = waiting.popleft()
                work = functools.partial(_refit_one, plan.kind, members[number].pickled, data)
                limits = Limits(max(deadline - time.monotonic(), 0), plan.budget.memory)
                running[Worker(work, limits=limits, seed=plan.seed)] = number
            wait_for_any(list(running), POLL_SECONDS)
            for worker, number in list(running.items()):
                outcome = worker.poll()
                if outcome is None:
                    continue
                del running[worker]
                ended += 1
                task.progress.update(ended / len(numbers), f"{ended:,} of {len(numbers):,} members")
                if outcome.status == "succeeded":
                    members[number] = members[number]._replace(pickled=outcome.value)
                    done.add(number)
                else:
                    task.progress.log(f"a member could not be fitted on {len(data.labels):,} rows: {outcome.reason}")
    finally:
        for worker in running:
            worker.end()
    return [number for number in numbers if number in done]


def _refit_one(kind: str, pickled: bytes, data: TrainingData, _send: object) -> bytes:
    pipeline: Any = pickle.loads(pickled)  # noqa: S301 - own files
    with threadpool_limits(1):
        pipeline.fit(data.features, data.labels)
        if not np.isfinite(probabilities(kind, pipeline, data.features[:_CHECKED_ROWS])).all():
            raise ModelFailureError("a prediction is not a number")
    return pickle.dumps(pipeline, protocol=pickle.HIGHEST_PROTOCOL)
