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

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from numerai_contract.task import Task

    from ._ensemble import Ensemble
    from ._plan import Plan
    from ._training_data import TrainingData

# rows that a refitted pipeline must be able to predict
_CHECKED_ROWS = 1_000


def refit(
    task: Task, plan: Plan, first: Ensemble, data: TrainingData, stop: Sequence[signal.Signals]
) -> tuple[Ensemble, int]:
    """Refit the members of an ensemble, as many at a time as in the search, for at most the time of the search.

    A member that fails, or is not finished at the end of the time or at a stop request, keeps its model of the first
    fit, with a note.

    Parameters
    ----------
    task
        For its log and notes.
    plan
        Of the search.
    first
        The ensemble of the first fit.
    data
        All rows.
    stop
        The stop requests.

    Returns
    -------
    ensemble : Ensemble
        With the weights of the first.
    refitted : int
        Number of members that are fitted on all rows.
    """
    deadline = time.monotonic() + plan.seconds
    members, refitted = list(first.members), 0
    waiting, running = deque(range(len(members))), dict[Worker, int]()
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
                if outcome.status == "succeeded":
                    members[number] = members[number]._replace(pickled=outcome.value)
                    refitted += 1
                else:
                    task.progress.log(f"a member could not be fitted on all rows: {outcome.reason}")
            done = len(members) - len(waiting) - len(running)
            task.progress.update(done / len(members), f"{done:,} of {len(members):,} members")
    finally:
        for worker in running:
            worker.end()
    if refitted < len(members):
        reason = f" (stopped by {stop[0].name})" if stop else ""
        task.note(f"{len(members) - refitted} of {len(members)} members keep their model of the first fit{reason}")
    return first._replace(members=members), refitted


def _refit_one(kind: str, pickled: bytes, data: TrainingData, _send: object) -> bytes:
    pipeline: Any = pickle.loads(pickled)  # noqa: S301 - own files
    with threadpool_limits(1):
        pipeline.fit(data.features, data.labels)
        if not np.isfinite(probabilities(kind, pipeline, data.features[:_CHECKED_ROWS])).all():
            raise ModelFailureError("a prediction is not a number")
    return pickle.dumps(pipeline, protocol=pickle.HIGHEST_PROTOCOL)
