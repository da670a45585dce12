"""What a search is given before it begins: rows, time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract import eras, targets
from numerai_contract.exits import BadDataError, BadParameterError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.task import Task

_DEFAULT_SECONDS = 600
# below it nothing can be found: some 10 s pass before the first fit
_FEWEST_SECONDS = 20
_HELD_OUT_SHARE = 0.2
_MOST_NUMBERS, _MOST_ROWS = 2_500_000, 100_000
# MiB: this process, the search, the one that forks candidates
_OWN_MEMORY = 600
# MiB of a candidate's address space that is never used: libraries
_UNUSED_MEMORY = 450
_LEAST_MEMORY = 250
# seconds of a search kept back for drawing the last ensemble
_RESERVE = 2.0


class Lesson(NamedTuple):
    """What to learn from, in the order auto-sklearn wants it: rows to learn from, then the held-out ones."""

    kind: str
    features: NDArray[Any]
    labels: NDArray[Any]
    learning_rows: int
    embargo: int


class Memory(NamedTuple):
    """How the container's memory is shared out: `jobs` candidates at once, `part` MiB each, `disk` bytes of models."""

    jobs: int
    part: int
    disk: int


@dataclass(frozen=True)
class Plan:
    """What a search is given.

    Attributes
    ----------
    kind : str
        "classifier" or "regressor".
    began : float
        When its time began, by the monotonic clock.
    seconds : int
        How much time it has.
    seconds_per_fit : int
        How long one fit may take.
    run_limit : int or None
        How many candidates it may try.
    memory : Memory
        How many at once, and what each may take.
    seed : int
    directory : pathlib.Path
        Where auto-sklearn keeps its models; must not exist.
    """

    kind: str
    began: float
    seconds: int
    seconds_per_fit: int
    run_limit: int | None
    memory: Memory
    seed: int
    directory: Path

    @property
    def deadline(self) -> float:
        """When the search must be over: what is left then is for drawing the last ensemble."""
        return self.began + self.seconds - _RESERVE

    def files_of(self, number: int) -> Path:
        """Where the model of a candidate and its predictions are."""
        return self.directory / ".auto-sklearn" / "runs" / f"{self.seed}_{number}_0.0"

    def model(self, number: int) -> Path:
        """Where the model of a candidate is."""
        return self.files_of(number) / f"{self.seed}.{number}.0.0.model"

    def held_out_predictions(self, number: int) -> Path:
        """Where the predictions of a candidate for the held-out rows are; those of the constant have number 1."""
        return self.files_of(number) / f"predictions_ensemble_{self.seed}_{number}_0.0.npy"


def seconds_of(parameters: Parameters) -> int:
    seconds = parameters.time_limit or _DEFAULT_SECONDS
    if seconds < _FEWEST_SECONDS:
        raise BadParameterError(
            f"TIME_LIMIT is '{seconds}': auto-sklearn needs at least {_FEWEST_SECONDS} seconds to find anything. "
            "Set automl_minutes to 1 or more."
        )
    return seconds


def lesson(task: Task) -> Lesson:
    """Read the rows to learn from, those to be judged by, and their labels."""
    training, seed = task.training, task.parameters.seed
    binary = targets.target_kind(training.targets) is targets.TargetKind.BINARY
    rows, labels = targets.classes(training) if binary else targets.values(training)
    era_numbers = training.era_numbers[rows]
    usual = min(max(_MOST_NUMBERS // len(training.feature_names), 1_000), _MOST_ROWS)
    row_limit = task.parameters.whole("ROW_LIMIT", usual, at_least=100, at_most=10_000_000)
    grades = np.round(labels * 4).astype(np.int8)
    drawn = eras.sample(era_numbers, grades, row_limit, seed=seed)
    if not drawn.all():
        task.note(f"learning from {drawn.sum():,} of {len(drawn):,} rows, drawn evenly from all eras (ROW_LIMIT)")
        rows[rows] = drawn
        labels, era_numbers = labels[drawn], era_numbers[drawn]
    if len(labels) < 10:
        raise BadDataError(f"{training.path.name}: {len(labels)} rows with a known target are too few to search on.")

    embargo = task.parameters.whole("EMBARGO_ERAS", 8, at_least=0, at_most=1_000)
    split = eras.hold_out_last(era_numbers, share=_HELD_OUT_SHARE, embargo=embargo, seed=seed)
    if not _both_vary(labels, split):
        # too few eras, or classes too unevenly spread over them
        split = eras.hold_out_last(np.zeros_like(era_numbers), share=_HELD_OUT_SHARE, embargo=0, seed=seed)
    if not _both_vary(labels, split):
        raise BadDataError(
            f"{training.path.name}: column 'target' has hardly more than one value in {len(labels):,} rows; "
            "rows to learn from and held-out ones must both have several. Is the training set complete?"
        )
    task.note(f"{split.description}: {split.training.sum():,} rows to learn from, {split.held_out.sum():,} to judge by")
    features = training.features(rows).astype(np.float32, copy=False)
    order = np.concatenate([np.flatnonzero(split.training), np.flatnonzero(split.held_out)])
    features, labels = features[order], labels[order]
    # a column without any value would be left out by some candidates and refused by others
    features[:, np.isnan(features).all(axis=0)] = 0
    return Lesson("classifier" if binary else "regressor", features, labels, int(split.training.sum()), split.embargo)


def _both_vary(labels: NDArray[Any], split: eras.HoldOut) -> bool:
    return bool(np.ptp(labels[split.training]) > 0 and np.ptp(labels[split.held_out]) > 0)


def memory(task: Task, threads: int, table: int) -> Memory:
    """Share out the container's memory: fewer candidates at once rather than ones too small to learn anything."""
    limit = task.parameters.memory_limit
    asked = "MEMORY_LIMIT_PART" in task.parameters
    part = task.parameters.whole("MEMORY_LIMIT_PART", at_least=64) if asked else 0
    if limit is None:
        return Memory(threads, part or 3_072, 1 << 30)
    # models lie in /tmp, which is memory as well; the ensemble's are in it once more when it predicts, somewhat larger
    disk = limit // 10
    left = limit - _OWN_MEMORY - 3 * disk - 3 * (table >> 20)
    jobs = max(1, min(threads, left // _LEAST_MEMORY))
    if left < _LEAST_MEMORY:
        raise BadParameterError(
            f"MEMORY_LIMIT is '{limit}': auto-sklearn and a table of {table >> 20:,} MiB leave a candidate "
            f"{max(left, 0)} MiB of it, of {_LEAST_MEMORY} it needs. Give it more in models.yaml, or set a smaller "
            "ROW_LIMIT."
        )
    if jobs < threads:
        task.note(f"{jobs} of {threads} cores used: more candidates at once would not fit into {limit:,} MiB")
    return Memory(jobs, part or left // jobs + _UNUSED_MEMORY, disk << 20)
