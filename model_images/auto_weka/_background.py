"""Background training during the search, so that a stop request has a model.

Whenever another configuration is the best so far, it is trained on the rows of the search and predicts the validation
table, beside the search and at a lower priority. All of this together takes a small share of the processor time: the
next one starts when the share allows as much again as the last one took. Of a long table it predicts the first rows
only, for its speed, when all of them would take too much of the share.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from numerai_contract.search import BackgroundPredictor
from numerai_contract.workers import Outcome

from ._java import CancelledError, CpuBudget
from ._predict import CostlyError, UnusableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ._budget import SearchPlan
    from ._predict import Trained
    from ._search_log import Candidate, SearchLog

# the share of the search's processor time; a prediction that takes more than a third of all of it is ended
_PREDICTION_TIME_SHARE = 0.15
_MAX_SHARE_OF_ONE = _PREDICTION_TIME_SHARE / 3
# minimum processor seconds of a prediction, even in the shortest search
_MIN_CPU_SECONDS = 10.0
# seconds until a cancelled prediction has ended: it may be writing rows
_CANCEL_SECONDS = 1.0


class ThreadJob:
    """A prediction in a thread, within a budget of processor time.

    Parameters
    ----------
    pool
        Runs the work.
    work
        Trains a configuration and predicts within a budget.
    candidate
        The configuration.
    plan
        Of the search, for the budget.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[[Candidate, CpuBudget], Trained],
        candidate: Candidate,
        plan: SearchPlan,
    ) -> None:
        self._is_cancelled = False
        self._budget = CpuBudget(
            time.monotonic() + plan.seconds,
            cpu_seconds=max(_MIN_CPU_SECONDS, _MAX_SHARE_OF_ONE * plan.seconds * len(plan.seeds)),
            in_background=True,
            is_cancelled=lambda: self._is_cancelled,
        )
        self._future: Future[Trained] = pool.submit(work, candidate, self._budget)

    def wait(self, timeout: float) -> None:
        """Wait for the outcome, at most `timeout` seconds."""
        wait([self._future], timeout=timeout)

    def poll(self) -> Outcome | None:
        """Return the outcome, with processor seconds; None while the job is running, or when it was cancelled."""
        if not self._future.done() or isinstance(self._future.exception(), CancelledError):
            return None
        # the search continues after any error; errors that matter recur when it has ended
        error = self._future.exception()
        if error is not None:
            return Outcome("crashed", error, str(error), self._budget.spent)
        return Outcome("succeeded", self._future.result(), "", self._budget.spent)

    def end(self) -> None:
        """Cancel the job."""
        self._is_cancelled = True
        self.wait(_CANCEL_SECONDS)


class BackgroundTrainer:
    """Trains and predicts with the best configuration so far, until the end of the block.

    Parameters
    ----------
    plan
        Of the search.
    work
        Trains a configuration on all rows and predicts within a budget. It runs in a thread, one at a time.
    log_line
        Logs a line.
    clock
        Monotonic seconds; for tests.

    Attributes
    ----------
    predictor : BackgroundPredictor
    failed : list of dict
        Configurations that could not be trained or whose predictions are worthless, with the reasons.
    unusable : list of (Candidate, str)
        Configurations whose predictions are constant or too slow, with the reasons.
    """

    def __init__(
        self,
        plan: SearchPlan,
        work: Callable[[Candidate, CpuBudget], Trained],
        log_line: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failed: list[dict[str, Any]] = []
        self.unusable: list[tuple[Candidate, str]] = []
        self._log_line = log_line
        self._ready: Trained | None = None
        self._pool = ThreadPoolExecutor(max_workers=1)
        began = clock()
        self.predictor: BackgroundPredictor[Candidate, ThreadJob] = BackgroundPredictor(
            lambda candidate, _search_is_running: ThreadJob(self._pool, work, candidate, plan),
            on_done=self._on_done,
            elapsed=lambda: (clock() - began) * len(plan.seeds),
            share=_PREDICTION_TIME_SHARE,
            headroom=1.0,
        )

    def __enter__(self) -> BackgroundTrainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Cancel the running job."""
        self.predictor.end()
        self._pool.shutdown(wait=False)

    def update(self, log: SearchLog) -> None:
        """Collect a finished job, and start one for the best configuration if it is due; call this often."""
        self.predictor.update(log.ranked())

    def _on_done(self, candidate: Candidate, outcome: Outcome) -> None:
        name = f"{candidate.learner} (error {candidate.error:.6f})"
        if outcome.status == "succeeded":
            if self._ready is not None:
                self._ready.model.discard()
            self._ready = outcome.value
            self._log_line(
                f"ready for a stop request: {name} on the rows of the search, after {outcome.seconds:.0f} s of "
                "processor time"
            )
            return
        self._log_line(f"not ready: {name} on the rows of the search: {outcome.reason}")
        if isinstance(outcome.value, CostlyError):
            return
        self.failed.append({"learner": candidate.learner, "why": outcome.reason})
        if isinstance(outcome.value, UnusableError):
            self.unusable.append((candidate, outcome.reason))
