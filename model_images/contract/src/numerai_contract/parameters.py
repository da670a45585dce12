"""The parameters of an operation, read from the environment and checked once.

The names are those of the 2018 series, so that an image written for it still fits. A variable that is set but blank
counts as not set, since a template that renders to nothing leaves it so.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from numerai_contract.exits import BadParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_SEED = 67
# numpy's legacy seeding and most libraries take no more than 32 bits
LARGEST_SEED = 2**32 - 1

# what number libraries read when they are imported, to decide how many threads they start
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
)


class Parameters:
    """What the environment asks for.

    Parameters
    ----------
    environment
        Names and values, ``os.environ`` as a rule. It is copied.

    Raises
    ------
    BadParameterError
        From every property and method, naming the variable, its value and what is allowed.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {name: value.strip() for name, value in environment.items() if value.strip()}

    @property
    def operation(self) -> str:
        """Which operation of the image to run."""
        return self.text("OPERATION")

    @property
    def training(self) -> Path:
        """The run's training table."""
        return self.path("TRAINING")

    @property
    def testing(self) -> Path:
        """The run's tournament table."""
        return self.path("TESTING")

    @property
    def predicting(self) -> Path:
        """Where the predictions go."""
        return self.path("PREDICTING")

    @property
    def storing(self) -> Path:
        """The run's directory, for what an operation shares with later ones."""
        return self.path("STORING")

    @property
    def reporting(self) -> Path | None:
        """Where the report goes; None when nobody asked for one."""
        return self.path("REPORTING") if "REPORTING" in self else None

    @property
    def inputs(self) -> str | None:
        """A hash of all that went into this task, opaque to the operation and recorded in manifests."""
        return self._environment.get("INPUTS")

    @property
    def time_limit(self) -> int | None:
        """Seconds a search may take, at least 1; None when not set."""
        return self.whole("TIME_LIMIT", at_least=1) if "TIME_LIMIT" in self else None

    @property
    def time_limit_part(self) -> int | None:
        """Seconds one part of a search may take, at least 1; None when not set."""
        return self.whole("TIME_LIMIT_PART", at_least=1) if "TIME_LIMIT_PART" in self else None

    @property
    def threads(self) -> int:
        """How many cores to use; by default all that this process may run on."""
        return self.whole("THREADS", default=_cores(), at_least=1, at_most=1_024)

    @property
    def memory_limit(self) -> int | None:
        """The container's memory in MiB; None when not set."""
        return self.whole("MEMORY_LIMIT", at_least=64) if "MEMORY_LIMIT" in self else None

    @property
    def seed(self) -> int:
        """What every random choice starts from."""
        return self.whole("SEED", default=DEFAULT_SEED, at_least=0, at_most=LARGEST_SEED)

    def __contains__(self, name: str) -> bool:
        return name in self._environment

    def path(self, name: str) -> Path:
        """Read a path that must be set."""
        return Path(self.text(name))

    def text(self, name: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        """Read a word, one of `choices` when there are any; without a default it must be set."""
        value = self._environment.get(name, default)
        if value is None:
            raise BadParameterError(f"{name} is not set. Every container needs it in its environment; see --help.")
        if choices and value not in choices:
            self._refuse(name, f"allowed are {', '.join(choices)}")
        return value

    def whole(
        self, name: str, default: int | None = None, *, at_least: int | None = None, at_most: int | None = None
    ) -> int:
        """Read a whole number within bounds, both inclusive; without a default it must be set."""
        allowed = f"allowed is a whole number{_bounds(at_least, at_most)}"
        if name not in self._environment and default is not None:
            return default
        try:
            value = int(self.text(name))
        except ValueError:
            self._refuse(name, allowed)
        if (at_least is not None and value < at_least) or (at_most is not None and value > at_most):
            self._refuse(name, allowed)
        return value

    def number(
        self, name: str, default: float | None = None, *, at_least: float | None = None, at_most: float | None = None
    ) -> float:
        """Read a finite number within bounds, both inclusive; without a default it must be set."""
        allowed = f"allowed is a number{_bounds(at_least, at_most)}"
        if name not in self._environment and default is not None:
            return default
        try:
            value = float(self.text(name))
        except ValueError:
            self._refuse(name, allowed)
        if not math.isfinite(value):
            self._refuse(name, allowed)
        if (at_least is not None and value < at_least) or (at_most is not None and value > at_most):
            self._refuse(name, allowed)
        return value

    def limit_threads(self) -> None:
        """Tell the number libraries how many threads to start; they read it when imported, so call it first.

        A thread that waits for its like shall sleep: OpenMP's spin instead, and where several containers share the
        cores that keeps those from working which are waited for.
        """
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self.threads)))
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

    def check(self) -> None:
        """Read every parameter that all operations share, so that a bad one is told before any work is done."""
        _ = (self.inputs, self.reporting, self.time_limit, self.time_limit_part, self.threads, self.memory_limit)
        _ = self.seed

    def _refuse(self, name: str, allowed: str) -> NoReturn:
        value = self._environment[name]
        raise BadParameterError(f"{name} is {value!r}: {allowed}. Correct it in models.yaml or in the run's settings.")


def _bounds(at_least: float | None, at_most: float | None) -> str:
    """Put bounds into words: " from 1 to 10", " of at least 1", " of at most 10" or nothing."""
    if at_least is not None and at_most is not None:
        return f" from {at_least:,} to {at_most:,}"
    if at_least is not None:
        return f" of at least {at_least:,}"
    return "" if at_most is None else f" of at most {at_most:,}"


def _cores() -> int:
    # the cores this process may use, which can be fewer than the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
