"""What the tests of models on the split share: tables with the preparations laid beside them, and definitions.

A definition is a program in `definitions/` that computes, in the image and on the same tables, what an operation claims
to compute, by the plainest means there are; it prints how far the operation's predictions are from its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerai_contract.self_test import write_fixture_inputs
from tests.images.conftest import Runner, write_tables

DEFINITIONS = Path(__file__).parent / "definitions"
# products this small take longer on several threads, and far longer on a busy machine
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def write_split_tables(directory: Path, *arguments: Any, **options: Any) -> None:
    """Write a run's tables as `write_tables` does, a split and the ten maps."""
    write_tables(directory, *arguments, **options)
    write_fixture_inputs(directory)


def few_floats(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """So few features that even the plainest means are quick."""
    return random.random((rows, 10)).astype(np.float32)


def spoilt(matrix: NDArray[Any]) -> NDArray[Any]:
    """Take values away, one in twenty, and all that one feature says, and another has."""
    spoilt = matrix.copy()
    spoilt[np.random.default_rng(1).random(matrix.shape) < 0.05] = np.nan
    spoilt[:, 8] = 0.5
    spoilt[:, 9] = np.nan
    return spoilt


def distances(runner: Runner, operation: str, **environment: str) -> list[float]:
    """Run an operation's definition in the image, after the operation itself, and read what it prints."""
    program = (DEFINITIONS / f"{operation}.py").read_text()
    ended = runner.run(operation, {"entrypoint": ["python", "-c", program]}, **ONE_THREAD, **environment)
    assert ended.code == 0, ended.lines
    return [float(word) for word in ended.lines[-1].split()]
