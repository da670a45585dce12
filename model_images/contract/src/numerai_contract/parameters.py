"""The parameters of an operation, read from the environment and validated once.

Their names come from the pipeline of 2018, so that an image written for it still works. A variable that is set but
blank counts as not set, since a template may render to an empty string.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from numerai_contract.exits import BadParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_SEED = 67
# trading days of the target that is assumed, and the most weeks of a default embargo
_TARGET_DAYS, _MAX_EMBARGO = 20, 16
# numpy's legacy seeding and most libraries take no more than 32 bits
MAX_SEED = 2**32 - 1

# of a column; the name of a directory as well
_FURTHER_TARGET = re.compile(r"target_\w+", re.ASCII)

# read by numerical libraries at import, for the number of threads they start
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
)


class Parameters:
    """The parameters of an operation.

    Parameters
    ----------
    environment
        Names and values, usually ``os.environ``. It is copied.

    Raises
    ------
    BadParameterError
        From every property and method, naming the variable, its value and the allowed values.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {name: value.strip() for name, value in environment.items() if value.strip()}

    @property
    def operation(self) -> str:
        """The operation of the image to run."""
        return self.get_str("OPERATION")

    @property
    def training(self) -> Path:
        """The run's training table."""
        return self.get_path("TRAINING")

    @property
    def testing(self) -> Path:
        """The table of the rows to predict."""
        return self.get_path("TESTING")

    @property
    def validation(self) -> Path:
        """The table of later rows with known targets: scored, and part of the final fit."""
        return self.get_path("VALIDATION")

    @property
    def model(self) -> Path:
        """The directory of the fit."""
        return self.get_path("MODEL")

    @property
    def target_days(self) -> int | None:
        """Trading days that the target looks ahead, such as 20 or 60; None when not set."""
        return self.get_int("TARGET_DAYS", at_least=1, at_most=1_000) if "TARGET_DAYS" in self else None

    @property
    def targets(self) -> tuple[str, ...]:
        """Further targets to learn, each a column of the tables of the fit; none when not set."""
        names = tuple(name.strip() for name in self._environment.get("TARGETS", "").split(",") if name.strip())
        if len(set(names)) < len(names) or not all(_FURTHER_TARGET.fullmatch(name) for name in names):
            self._raise_invalid("TARGETS", "allowed are different columns 'target_…', separated by commas")
        return names

    @property
    def embargo(self) -> int:
        """Weeks left out between rows that are learned and rows that judge, as the targets of neighbours overlap.

        By default twice the horizon of the target, at most 16; 8 without TARGET_DAYS.
        """
        weeks = math.ceil((self.target_days or _TARGET_DAYS) / 5)
        return self.get_int("EMBARGO", min(2 * weeks, _MAX_EMBARGO), at_least=0, at_most=1_000)

    @property
    def predicting(self) -> Path:
        """Path of the predictions."""
        return self.get_path("PREDICTING")

    @property
    def storing(self) -> Path:
        """The run's directory, for files that an operation shares with later ones."""
        return self.get_path("STORING")

    @property
    def reporting(self) -> Path | None:
        """Path of the report; None when the run requests none."""
        return self.get_path("REPORTING") if "REPORTING" in self else None

    @property
    def inputs(self) -> str | None:
        """A hash of the task's inputs, opaque to the operation and recorded in manifests."""
        return self._environment.get("INPUTS")

    @property
    def time_limit(self) -> int | None:
        """Seconds a search may take, at least 1; None when not set."""
        return self.get_int("TIME_LIMIT", at_least=1) if "TIME_LIMIT" in self else None

    @property
    def time_limit_part(self) -> int | None:
        """Seconds one part of a search may take, at least 1; None when not set."""
        return self.get_int("TIME_LIMIT_PART", at_least=1) if "TIME_LIMIT_PART" in self else None

    @property
    def threads(self) -> int:
        """Number of cores to use; by default all cores that this process may run on."""
        return self.get_int("THREADS", default=_cores(), at_least=1, at_most=1_024)

    @property
    def memory_limit(self) -> int | None:
        """The container's memory in MiB; None when not set."""
        return self.get_int("MEMORY_LIMIT", at_least=64) if "MEMORY_LIMIT" in self else None

    @property
    def seed(self) -> int:
        """The seed of every random choice."""
        return self.get_int("SEED", default=DEFAULT_SEED, at_least=0, at_most=MAX_SEED)

    def __contains__(self, name: str) -> bool:
        return name in self._environment

    def get_path(self, name: str) -> Path:
        """Read a path that must be set."""
        return Path(self.get_str(name))

    def get_str(self, name: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        """Read a string, one of `choices` when given; without a default it must be set."""
        value = self._environment.get(name, default)
        if value is None:
            raise BadParameterError(f"{name} is not set. Every container needs it in its environment; see --help.")
        if choices and value not in choices:
            self._raise_invalid(name, f"allowed are {', '.join(choices)}")
        return value

    def get_int(
        self, name: str, default: int | None = None, *, at_least: int | None = None, at_most: int | None = None
    ) -> int:
        """Read a whole number within bounds, both inclusive; without a default it must be set."""
        allowed = f"allowed is a whole number{_bounds(at_least, at_most)}"
        if name not in self._environment and default is not None:
            return default
        try:
            value = int(self.get_str(name))
        except ValueError:
            self._raise_invalid(name, allowed)
        if (at_least is not None and value < at_least) or (at_most is not None and value > at_most):
            self._raise_invalid(name, allowed)
        return value

    def get_float(
        self, name: str, default: float | None = None, *, at_least: float | None = None, at_most: float | None = None
    ) -> float:
        """Read a finite number within bounds, both inclusive; without a default it must be set."""
        allowed = f"allowed is a number{_bounds(at_least, at_most)}"
        if name not in self._environment and default is not None:
            return default
        try:
            value = float(self.get_str(name))
        except ValueError:
            self._raise_invalid(name, allowed)
        if not math.isfinite(value):
            self._raise_invalid(name, allowed)
        if (at_least is not None and value < at_least) or (at_most is not None and value > at_most):
            self._raise_invalid(name, allowed)
        return value

    def limit_threads(self) -> None:
        """Set the thread counts of numerical libraries; they read them at import, so call this first.

        Waiting threads must sleep. OpenMP's spin by default, which blocks the cores for the threads they wait for when
        several containers share the cores.
        """
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self.threads)))
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

    def check(self) -> None:
        """Read every parameter that all operations share, so that an invalid one fails before the work begins."""
        _ = (self.inputs, self.reporting, self.time_limit, self.time_limit_part, self.threads, self.memory_limit)
        _ = (self.seed, self.target_days, self.embargo, self.targets)

    def _raise_invalid(self, name: str, allowed: str) -> NoReturn:
        value = self._environment[name]
        raise BadParameterError(f"{name} is {value!r}: {allowed}. Correct it in models.yaml or in the run's settings.")


def _bounds(at_least: float | None, at_most: float | None) -> str:
    """Describe bounds: " from 1 to 10", " of at least 1", " of at most 10" or an empty string."""
    if at_least is not None and at_most is not None:
        return f" from {at_least:,} to {at_most:,}"
    if at_least is not None:
        return f" of at least {at_least:,}"
    return "" if at_most is None else f" of at most {at_most:,}"


def _cores() -> int:
    # the cores this process may use, which can be fewer than the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
