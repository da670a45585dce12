"""The plan of a search: its files, its time and its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from numerai_contract.exits import NotEnoughMemoryError, memory_advice

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.parameters import Parameters
    from numerai_contract.task import Task

_DEFAULT_SECONDS = 600
# MiB: of a container without a limit, of this process and its tables, of SMAC, of a Java process beyond its heap
_DEFAULT_MEMORY, _BASE_MEMORY, _SMAC_HEAP, _BEYOND_HEAP = 4_096, 400, 352, 100
_MIN_HEAP, _MAX_HEAP = 256, 16_384


class Plan(NamedTuple):
    """The plan of a search.

    Attributes
    ----------
    directory : pathlib.Path
        For its files.
    training, header : pathlib.Path
        The training rows, ARFF, and the same header with one empty row.
    seeds : list of int
        One search runs for each, all at the same time.
    seconds, seconds_of_part : int
        Time limits of the search, and of training on three quarters of the rows.
    run_limit : int or None
        Maximum number of runs (a configuration on a fold) of each search.
    heap, smac_heap : int
        Memory of a learner and of SMAC, MiB. There is a learner for each search and one in the background.
    metric : str
        The error to minimise: ``rmse`` (of the probabilities) or ``errorRate``.
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
        """Memory of a learner after the end of the searches, MiB."""
        return min((len(self.seeds) + 1) * self.heap, _MAX_HEAP)


def create_plan(task: Task, directory: Path, training: Path, header: Path) -> Plan:
    """Divide time and memory among the searches and the background predictions."""
    parameters = task.parameters
    seconds = parameters.time_limit or _DEFAULT_SECONDS
    memory = parameters.memory_limit or _DEFAULT_MEMORY
    # /tmp is memory as well
    available = memory - _BASE_MEMORY - (training.stat().st_size >> 20) - _BEYOND_HEAP
    per_search = _SMAC_HEAP + 2 * _BEYOND_HEAP
    searches = min(parameters.threads, (available - _MIN_HEAP) // (per_search + _MIN_HEAP))
    if searches < 1:
        raise NotEnoughMemoryError(
            f"{memory_advice(memory)}; a search needs {memory - available + per_search + 2 * _MIN_HEAP:,} MiB for "
            "these rows (fewer with ROW_LIMIT)."
        )
    if searches < parameters.threads:
        task.note(
            f"{searches} searches at a time, not {parameters.threads} (THREADS): {memory:,} MiB are not enough for more"
        )
    return Plan(
        directory=directory,
        training=training,
        header=header,
        seeds=[(parameters.seed + number) % 2**31 for number in range(searches)],
        seconds=seconds,
        seconds_of_part=min(parameters.time_limit_part or max(1, seconds // 10), seconds),
        run_limit=parameters.get_int("RUN_LIMIT", at_least=1, at_most=1_000_000) if "RUN_LIMIT" in parameters else None,
        heap=min((available - searches * per_search) // (searches + 1), _MAX_HEAP),
        smac_heap=_SMAC_HEAP,
        metric=parameters.get_str("METRIC", "rmse", choices=("rmse", "errorRate")),
    )


def prediction_heap(parameters: Parameters) -> int:
    """Return the memory of a saved model that predicts alone, MiB."""
    memory = parameters.memory_limit or _DEFAULT_MEMORY
    return min(max(memory - _BASE_MEMORY - _BEYOND_HEAP, _MIN_HEAP), _MAX_HEAP)
