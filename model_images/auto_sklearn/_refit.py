"""The final fit: the pipelines of an ensemble are fitted again on all rows, with the same weights."""

from __future__ import annotations

import functools
import pickle
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from numerai_contract.exits import ModelFailureError
from numerai_contract.search import POLL_SECONDS
from numerai_contract.workers import Limits, Worker, wait_for_any

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
    """Refit the members of an ensemble, as many at a time as in the search, for at most the time of the search.

    Members that fail are refitted on fewer rows. A member that fails on these as well, or is not finished at the end of
    the time or at a stop request, keeps its model of the first fit, with a note.

    Parameters
    ----------
    task
        For its tables and notes.
    plan
        Of the search.
    first
        The ensemble of the first fit.
    limits
        Numbers of rows, the largest first; each but the last has two thirds of the remaining time.
    stop
        The stop requests.

    Returns
    -------
    ensemble : Ensemble
        With the weights of the first.
    refitted : int
        Number of members that are refitted.
    rows : int
        The largest number of training rows.
    """
    end = time.monotonic() + plan.seconds
    members = list(first.members)
    waiting = list(range(len(members)))
    most_rows = 0
    for limit in limits:
        data = load_all(task, plan.kind, limit)
        rows = len(data.labels)
        most_rows = max(rows, most_rows)
        remaining = max(end - time.monotonic(), 1.0)
        deadline = end if limit == limits[-1] else time.monotonic() + 2 / 3 * remaining
        with task.progress.step(f"fitting {len(waiting)} members on {rows:,} rows"):
            waiting = _refit_all(task, plan, members, waiting, data, deadline, stop)
        if not waiting or stop:
            break
    if waiting:
        reason = f" (stopped by {stop[0].name})" if stop else ""
        task.note(f"{len(waiting)} of {len(members)} members keep their model of the first fit{reason}")
    return first._replace(members=members), len(members) - len(waiting), most_rows


def _refit_all(
    task: Task,
    plan: SearchPlan,
    members: list[Member],
    numbers: Sequence[int],
    data: TrainingData,
    deadline: float,
    stop: Sequence[signal.Signals],
) -> list[int]:
    """Replace the models of the members with these numbers until a deadline; return those that failed."""
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
    return [number for number in numbers if number not in done]


def _refit_one(kind: str, pickled: bytes, data: TrainingData, _send: object) -> bytes:
    pipeline: Any = pickle.loads(pickled)  # noqa: S301 - own files
    with threadpool_limits(1):
        pipeline.fit(data.features, data.labels)
        if not np.isfinite(probabilities(kind, pipeline, data.features[:_CHECKED_ROWS])).all():
            raise ModelFailureError("a prediction is not a number")
    return pickle.dumps(pipeline, protocol=pickle.HIGHEST_PROTOCOL)
