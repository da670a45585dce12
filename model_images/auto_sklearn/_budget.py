"""The plan of a search: its time, its limits and its memory; and the plan of its rows and features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from numerai_contract.exits import BadParameterError
from numerai_contract.plans import Plan, Sizes, largest

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.parameters import Parameters
    from numerai_contract.task import Task

_DEFAULT_SECONDS = 600
# a shorter search finds nothing: about 10 s pass before the first fit
_MIN_SECONDS = 20
# MiB: this process, the search, the process that forks candidates
_BASE_MEMORY = 600
# MiB of a candidate's address space that is never used: libraries
_UNUSED_MEMORY = 450
_MIN_MEMORY = 250
_DEFAULT_MEMORY = 3_072
# share of the container's memory for stored models, which are in /tmp: those of the last ensemble are not removed
# before the next one has predicted, which loads its models again, somewhat larger
_DISK_SHARE, _DISK_COPIES = 1 / 12, 4
# copies of the features: of this process, the search and a candidate
_TABLE_COPIES = 3
# rows of the first of the fits of the final fit, see `growing_rows`; features of the search
LEAST_ROWS = 50_000
_FEATURES = 100
# of the search: the same data are fitted by hundreds of candidates
_SEARCH_VALUES, _SEARCH_ROWS = 2_500_000, 100_000
# seconds of a search reserved for the last ensemble
_RESERVE = 2.0


class ResourceBudget(NamedTuple):
    """The allocation of the container: `jobs` candidates at a time, `memory` MiB each, `disk` bytes of models."""

    jobs: int
    memory: int
    disk: int


@dataclass(frozen=True)
class SearchPlan:
    """The plan of a search.

    Attributes
    ----------
    kind : str
        "classifier" or "regressor".
    began : float
        Start of its time, by the monotonic clock.
    seconds : int
        Its time limit.
    seconds_per_fit : int
        The time limit of one fit.
    run_limit : int or None
        Maximum number of candidates.
    budget : ResourceBudget
        Number of candidates at a time, and their memory.
    seed : int
    directory : pathlib.Path
        Auto-sklearn's directory for models; must not exist.
    """

    kind: str
    began: float
    seconds: int
    seconds_per_fit: int
    run_limit: int | None
    budget: ResourceBudget
    seed: int
    directory: Path

    @property
    def deadline(self) -> float:
        """End of the search; the remaining time is for the last ensemble."""
        return self.began + self.seconds - _RESERVE

    def files_of(self, number: int) -> Path:
        """Return the directory of a candidate's model and predictions."""
        return self.directory / ".auto-sklearn" / "runs" / f"{self.seed}_{number}_0.0"

    def model(self, number: int) -> Path:
        """Return the path of a candidate's model."""
        return self.files_of(number) / f"{self.seed}.{number}.0.0.model"

    def held_out_predictions(self, number: int) -> Path:
        """Return the path of a candidate's predictions of the held-out rows; the constant has number 1."""
        return self.files_of(number) / f"predictions_ensemble_{self.seed}_{number}_0.0.npy"


def time_limit(parameters: Parameters) -> int:
    """Read TIME_LIMIT, in seconds."""
    seconds = parameters.time_limit or _DEFAULT_SECONDS
    if seconds < _MIN_SECONDS:
        raise BadParameterError(
            f"TIME_LIMIT is '{seconds}': auto-sklearn needs at least {_MIN_SECONDS} seconds to find anything. "
            "Set automl_minutes to 1 or more."
        )
    return seconds


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows of the final fit and the features; see `numerai_contract.plans`."""
    features = min(sizes.features, _FEATURES)
    limit = parameters.memory_limit

    def need(rows: int) -> float:
        table = 4 * rows * features / 2**20
        share = 0 if limit is None else _DISK_COPIES * int(limit * _DISK_SHARE)
        return _BASE_MEMORY + sizes.open_tables + share + _TABLE_COPIES * table + _MIN_MEMORY

    rows = largest(sizes.rows, LEAST_ROWS, need, limit)
    rows = min(parameters.get_int("ROW_LIMIT", rows, at_least=100, at_most=10_000_000), sizes.rows)
    return Plan(rows, features, need(rows))


def search_rows(features: int) -> int:
    """Return the maximum number of rows of the search."""
    return max(1_000, min(_SEARCH_VALUES // features, _SEARCH_ROWS))


def allocate_refit(task: Task, budget: ResourceBudget, table: int) -> ResourceBudget:
    """Allocate the container's memory to a final fit, beside which there is no search.

    Parameters
    ----------
    task
        For its parameters and sizes.
    budget
        Of the search.
    table
        Size of the features, in bytes; each member copies them.
    """
    limit = task.parameters.memory_limit
    if limit is None or "MEMORY_LIMIT_PART" in task.parameters:
        return budget
    mebibytes = table >> 20
    reserved = _BASE_MEMORY + int(task.sizes.open_tables) + _DISK_COPIES * (budget.disk >> 20) + mebibytes
    available = max(limit - reserved, _MIN_MEMORY)
    jobs = max(1, min(budget.jobs, available // (_MIN_MEMORY + (_TABLE_COPIES - 1) * mebibytes)))
    return budget._replace(jobs=jobs, memory=available // jobs + _UNUSED_MEMORY)


def allocate(task: Task, threads: int, table: int) -> ResourceBudget:
    """Allocate the container's memory: fewer candidates at a time rather than candidates with too little memory.

    Parameters
    ----------
    task
        For its parameters, sizes and notes.
    threads
        Maximum number of candidates at a time.
    table
        Size of the features, in bytes.
    """
    limit = task.parameters.memory_limit
    is_set = "MEMORY_LIMIT_PART" in task.parameters
    memory = task.parameters.get_int("MEMORY_LIMIT_PART", at_least=64) if is_set else 0
    if limit is None:
        return ResourceBudget(threads, memory or _DEFAULT_MEMORY, 1 << 30)
    disk = int(limit * _DISK_SHARE)
    base = _BASE_MEMORY + int(task.sizes.open_tables)
    available = limit - base - _DISK_COPIES * disk - _TABLE_COPIES * (table >> 20)
    jobs = max(1, min(threads, available // _MIN_MEMORY))
    if available < _MIN_MEMORY:
        raise BadParameterError(
            f"MEMORY_LIMIT is '{limit}': beside auto-sklearn and a table of {table >> 20:,} MiB a candidate has "
            f"{max(available, 0)} MiB, and needs {_MIN_MEMORY}. Increase it in models.yaml, or set a smaller ROW_LIMIT."
        )
    if jobs < threads:
        task.note(f"{jobs} of {threads} cores used: more candidates at a time do not fit into {limit:,} MiB")
    return ResourceBudget(jobs, memory or available // jobs + _UNUSED_MEMORY, disk << 20)
