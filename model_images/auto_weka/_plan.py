"""What a search is given before it begins: files, time and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from numerai_contract.exits import NotEnoughMemoryError, memory_advice

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.task import Task

_DEFAULT_SECONDS = 600
# MiB: of a container that does not say, of this process and its tables, of SMAC, of a Java process beyond its heap
_USUAL_MEMORY, _OWN_MEMORY, _SMAC_HEAP, _BEYOND_HEAP = 4_096, 400, 352, 100
_LEAST_HEAP, _LARGEST_HEAP = 256, 16_384


class Plan(NamedTuple):
    """What a search is given.

    Attributes
    ----------
    directory : pathlib.Path
        For its files.
    training, header : pathlib.Path
        What to learn from, ARFF, and the same without rows worth speaking of.
    seeds : list of int
        One search runs for each, all at once.
    seconds, seconds_of_part : int
        For the search, and for training on three quarters of the rows.
    run_limit : int or None
        Runs (a configuration on a fold) of each search after which it ends.
    heap, smac_heap : int
        Memory of a learner and of SMAC itself, MiB. There is a learner for each search and one beside them.
    metric : str
        The error that is made small: ``rmse`` (of the probabilities) or ``errorRate``.
    """

    directory: Path
    training: Path
    header: Path
    seeds: list[int]
    seconds: int
    seconds_of_part: int
    run_limit: int | None
    heap: int
    smac_heap: int
    metric: str

    @property
    def whole_heap(self) -> int:
        """What a learner may take once the searches are over."""
        return min((len(self.seeds) + 1) * self.heap, _LARGEST_HEAP)


def plan(task: Task, directory: Path, training: Path, header: Path) -> Plan:
    """Divide time and memory among the searches and what goes on beside them."""
    parameters = task.parameters
    seconds = parameters.time_limit or _DEFAULT_SECONDS
    memory = parameters.memory_limit or _USUAL_MEMORY
    # /tmp is memory as well
    left = memory - _OWN_MEMORY - (training.stat().st_size >> 20) - _BEYOND_HEAP
    of_search = _SMAC_HEAP + 2 * _BEYOND_HEAP
    searches = min(parameters.threads, (left - _LEAST_HEAP) // (of_search + _LEAST_HEAP))
    if searches < 1:
        raise NotEnoughMemoryError(
            f"{memory_advice(memory)}; a search needs {memory - left + of_search + 2 * _LEAST_HEAP:,} MiB here "
            "(ROW_LIMIT makes it less)."
        )
    if searches < parameters.threads:
        task.note(f"searching {searches} at a time, not {parameters.threads} (THREADS): {memory:,} MiB are not enough")
    return Plan(
        directory=directory,
        training=training,
        header=header,
        seeds=[(parameters.seed + number) % 2**31 for number in range(searches)],
        seconds=seconds,
        seconds_of_part=min(parameters.time_limit_part or max(1, seconds // 10), seconds),
        run_limit=parameters.whole("RUN_LIMIT", at_least=1, at_most=1_000_000) if "RUN_LIMIT" in parameters else None,
        heap=min((left - searches * of_search) // (searches + 1), _LARGEST_HEAP),
        smac_heap=_SMAC_HEAP,
        metric=parameters.text("METRIC", "rmse", choices=("rmse", "errorRate")),
    )
