"""Predictions while the search goes on, so that whoever asks it to stop gets the best there is.

Whenever another configuration is the best so far, it is trained on all rows and predicts the tournament, in a process
beside the search that steps back for it. All of them together take a small share of the processor's time: the next
begins when as much again as the last one took would still be within it.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from ._java import Allowance, GivenUpError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from numpy.typing import NDArray

    from ._candidates import Candidate, Journal
    from ._plan import Plan

# of the processor's time that the search has had; one that takes more than a third of all of it is given up
_SHARE = 0.15
_SHARE_OF_ONE = _SHARE / 3
# processor seconds that one gets even of the shortest search
_LEAST_FOR_ONE = 10.0
# seconds until one that is given up has noticed: it may be busy with rows
_PATIENCE = 1.0


class Forecast(NamedTuple):
    """What a configuration predicts.

    Attributes
    ----------
    candidate : Candidate
    probabilities : numpy.ndarray of float64, shape (rows of the tournament,)
    """

    candidate: Candidate
    probabilities: NDArray[Any]


class Forecaster:
    """Keeps predictions of the best so far at hand, for as long as the block lasts that it is entered for.

    Parameters
    ----------
    plan
        Of the search.
    work
        Given a configuration and what it may take, trains it on all rows and returns what it predicts. It runs in a
        thread of its own, only one at a time.
    say
        Tells somebody.
    clock
        Seconds, never going back; for tests.

    Attributes
    ----------
    ready : Forecast or None
        The last one made.
    passed_over : list of dict
        Configurations that could not be trained or predicted nothing worth having, and why.
    """

    def __init__(
        self,
        plan: Plan,
        work: Callable[[Candidate, Allowance], NDArray[Any]],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready: Forecast | None = None
        self.passed_over: list[dict[str, Any]] = []
        self._plan, self._work, self._say, self._clock = plan, work, say, clock
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._future: Future[NDArray[Any]] | None = None
        self._candidate: Candidate | None = None
        self._allowance = Allowance(until=0.0)
        self._hopeless: set[tuple[str, ...]] = set()
        self._spent = 0.0
        self._ended = False
        self._began = clock()

    def __enter__(self) -> Forecaster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give up what is under way."""
        if self._future is not None and not self._take_in():
            self._ended = True
            wait([self._future], timeout=_PATIENCE)
            self._take_in()
        self._thread.shutdown(wait=False)

    def look(self, journal: Journal) -> None:
        """Take in what is done, and begin with the best so far where that is due; to be called often."""
        if self._future is not None and not self._take_in():
            return
        passed = (self._clock() - self._began) * len(self._plan.seeds)
        if self._spent + self._allowance.spent > _SHARE * passed:
            return
        for best in journal.ranked():
            if self.ready is not None and best is self.ready.candidate:
                return
            if best.arguments not in self._hopeless:
                self._begin(best)
                return

    def _begin(self, candidate: Candidate) -> None:
        plan = self._plan
        self._candidate = candidate
        self._allowance = Allowance(
            until=time.monotonic() + plan.seconds,
            processor_seconds=max(_LEAST_FOR_ONE, _SHARE_OF_ONE * plan.seconds * len(plan.seeds)),
            in_background=True,
            unwanted=lambda: self._ended,
        )
        self._future = self._thread.submit(self._work, candidate, self._allowance)

    def _take_in(self) -> bool:
        """Say whether the one under way is done, and keep what it gave."""
        future, candidate = self._future, self._candidate
        if future is None or candidate is None or not future.done():
            return False
        self._future = None
        self._spent += self._allowance.spent
        trouble = future.exception()
        if trouble is None:
            self.ready = Forecast(candidate, future.result())
            self._say(
                f"ready, should it be stopped: {candidate.learner} (error {candidate.error:.4f}) on all rows, for "
                f"{self._allowance.spent:.0f} s of the processor's time"
            )
        elif not isinstance(trouble, GivenUpError):
            # whatever it was, the search goes on; what is worth a failure will be one when it has ended
            self._hopeless.add(candidate.arguments)
            self.passed_over.append({"learner": candidate.learner, "why": str(trouble)})
            self._say(f"not ready yet: {candidate.learner} (error {candidate.error:.4f}) on all rows: {trouble}")
        return True
