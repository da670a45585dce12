"""The time and the memory of a search, and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from numerai_contract.exits import NotEnoughMemoryError, memory_advice
from numerai_contract.plans import Plan, Sizes, largest

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.parameters import Parameters
    from numerai_contract.task import Task

# rows of the search: each run reads them again, and some learners need time that grows with their square
SEARCH_ROWS = 20_000
# rows of the best configuration in the first fit, or the next number where its training takes too much time or memory;
# the final fit trains on more and more, from the latter to all that fit the memory
FIRST_ROWS, LEAST_ROWS = 200_000, 50_000
_FEATURES = 100
_DEFAULT_SECONDS = 600
# MiB: of a container without a limit, of this process, of SMAC, of a Java process beyond its heap
_DEFAULT_MEMORY, _BASE_MEMORY, _SMAC_HEAP, _BEYOND_HEAP = 4_096, 400, 352, 100
_MIN_HEAP, _MAX_HEAP = 256, 16_384
# share of the memory beside this process for a learner that runs alone; the rest has the open tables and the files
_HEAP_SHARE = 0.6
# bytes of a value in an ARFF file, in /tmp and therefore in memory, and on WEKA's heap: a number in each of three
# copies of the rows, such as a filter's and an ensemble's
_BYTES_IN_FILE, _BYTES_ON_HEAP = 2.2, 24
# seconds of a lazy learner for a value of a training row and a row to predict: IBk took 3.0 s of processor time for
# 1,000 rows and 20,000 training rows of 42 features of a generated season
_LAZY_SECONDS = 3.6e-9
# minimum seconds for the predictions of a table, and seconds a row: 10 minutes for 4 million rows
_PREDICTION_SECONDS, _PREDICTION_SECONDS_PER_ROW = 90.0, 150e-6


class SearchPlan(NamedTuple):
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
    heap, whole_heap, smac_heap : int
        Memory of a learner beside the searches, of a learner alone, and of SMAC, MiB. There is a learner for each
        search and one in the background.
    metric : str
        The error to minimise: ``rmse`` (of the probabilities) or ``errorRate``.
    with_lazy : bool
        Whether lazy learners take part.
    """

    directory: Path
    training: Path
    header: Path
    seeds: list[int]
    seconds: int
    seconds_of_part: int
    run_limit: int | None
    heap: int
    whole_heap: int
    smac_heap: int
    metric: str
    with_lazy: bool = True


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows and the features of the best configuration; see `numerai_contract.plans`."""
    features = min(sizes.features, _FEATURES)
    heap = whole_heap(parameters)
    values_on_heap = _BYTES_ON_HEAP * (features + 1) / 2**20

    def need(rows: int) -> float:
        # the files of all fits of the final fit, and of the search
        files = (4 / 3 * rows + SEARCH_ROWS) * (features + 1) * _BYTES_IN_FILE / 2**20
        beside_heaps = _BASE_MEMORY + sizes.open_tables + files + _BEYOND_HEAP
        return beside_heaps + max(heap, _per_search() + 2 * _MIN_HEAP)

    rows = largest(sizes.rows, LEAST_ROWS, lambda rows: rows * values_on_heap, heap)
    rows = largest(rows, LEAST_ROWS, need, parameters.memory_limit or _DEFAULT_MEMORY)
    rows = min(parameters.get_int("ROW_LIMIT", rows, at_least=100, at_most=100_000_000), sizes.rows)
    return Plan(rows, features, need(rows))


def create_plan(task: Task, directory: Path, training: Path, header: Path, *, rows: int, to_predict: int) -> SearchPlan:
    """Divide time and memory among the searches and the background predictions.

    Parameters
    ----------
    task
        For its parameters and notes.
    directory, training, header
        See `SearchPlan`.
    rows
        Number of training rows.
    to_predict
        Number of rows to predict.
    """
    parameters = task.parameters
    seconds = parameters.time_limit or _DEFAULT_SECONDS
    memory = parameters.memory_limit or _DEFAULT_MEMORY
    available = int(memory - _BASE_MEMORY - task.sizes.open_tables - (training.stat().st_size >> 20) - _BEYOND_HEAP)
    searches = min(parameters.threads, (available - _MIN_HEAP) // (_per_search() + _MIN_HEAP))
    if searches < 1:
        raise NotEnoughMemoryError(
            f"{memory_advice(memory)}; a search needs {memory - available + _per_search() + 2 * _MIN_HEAP:,} MiB for "
            "these rows (fewer with ROW_LIMIT)."
        )
    if searches < parameters.threads:
        task.note(
            f"{searches} searches at a time, not {parameters.threads} (THREADS): {memory:,} MiB are not enough for more"
        )
    lazy_seconds = _LAZY_SECONDS * len(task.training.feature_names) * rows * to_predict
    with_lazy = lazy_seconds <= prediction_seconds(to_predict)
    if not with_lazy:
        task.note(
            f"without lazy learners, which compare each of {to_predict:,} rows to predict with {rows:,} training rows: "
            f"about {lazy_seconds / 60:,.0f} minutes"
        )
    return SearchPlan(
        directory=directory,
        training=training,
        header=header,
        seeds=[(parameters.seed + number) % 2**31 for number in range(searches)],
        seconds=seconds,
        seconds_of_part=min(parameters.time_limit_part or max(1, seconds // 10), seconds),
        run_limit=parameters.get_int("RUN_LIMIT", at_least=1, at_most=1_000_000) if "RUN_LIMIT" in parameters else None,
        heap=min((available - searches * _per_search()) // (searches + 1), _MAX_HEAP),
        whole_heap=whole_heap(parameters),
        smac_heap=_SMAC_HEAP,
        metric=parameters.get_str("METRIC", "rmse", choices=("rmse", "errorRate")),
        with_lazy=with_lazy,
    )


def whole_heap(parameters: Parameters) -> int:
    """Return the memory of a learner that trains or predicts alone, MiB."""
    memory = parameters.memory_limit or _DEFAULT_MEMORY
    return min(max(int(_HEAP_SHARE * (memory - _BASE_MEMORY - _BEYOND_HEAP)), _MIN_HEAP), _MAX_HEAP)


def prediction_seconds(rows: int) -> float:
    """Return the seconds that a useful model may need to predict a table; a slower one is rejected."""
    return max(_PREDICTION_SECONDS, _PREDICTION_SECONDS_PER_ROW * rows)


def _per_search() -> int:
    """Return the memory of a search beside the heap of its learner, MiB."""
    return _SMAC_HEAP + 2 * _BEYOND_HEAP
