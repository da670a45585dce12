"""Published predictions to compare with, as far as the run has them: a damaged or missing file stops no task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerai_contract.exits import BadDataError

from ._prediction_files import read_optional

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

META_MODEL, BENCHMARKS, EXAMPLE = "meta_model", "benchmark_models", "example_predictions"
"""Names of the files, without suffix."""
BENCHMARK = "BENCHMARK"
"""Variable with the name of the benchmark model, a column of its file."""


def find_comparison(task: Task, stem: str, table: TableView, column: str | None = None) -> NDArray[np.float64] | None:
    """Read a column of a file, by default its first of numbers; a damaged file is left out with a note.

    Returns
    -------
    numpy.ndarray of float64, shape (rows of the table,), or None
        NaN for rows without a value.
    """
    try:
        return read_optional(task.parameters.storing, stem, table, column)
    except BadDataError as error:
        task.note(f"left out: {error}")
        return None


def find_benchmark(task: Task, table: TableView) -> tuple[str, NDArray[np.float64]] | None:
    """Read the predictions of the benchmark model that ``BENCHMARK`` names; return its name and them."""
    if BENCHMARK not in task.parameters:
        return None
    name = task.parameters.get_str(BENCHMARK)
    values = find_comparison(task, BENCHMARKS, table, name)
    return None if values is None else (name, values)
