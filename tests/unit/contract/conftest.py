"""Tables, and a real process that runs operations."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import numerai_contract

Columns = dict[str, Any]


def table_columns(rows: int = 12, features: int = 3) -> Columns:
    """A valid table: eras of four rows, alternating targets 0 and 1."""
    random = np.random.default_rng(1)
    return {
        "id": [f"n{row}" for row in range(rows)],
        "era": [f"era{row // 4 + 1}" for row in range(rows)],
        "data_type": ["train"] * rows,
        **{f"feature{index + 1}": random.random(rows).astype(np.float32) for index in range(features)},
        "target": (np.arange(rows) % 2).astype(np.float32),
    }


@pytest.fixture
def columns() -> Columns:
    return table_columns()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write columns as a Parquet file in the test's folder."""

    def write_columns(columns: Columns, name: str = "training.parquet") -> Path:
        path = tmp_path / name
        pq.write_table(pa.table(columns), path)
        return path

    return write_columns


class Contract(Protocol):
    """Starts ``python -m numerai_contract`` with the given operations.

    Modules with a leading underscore are helpers, written under their own name.
    """

    def __call__(self, operations: dict[str, str], *arguments: str, **environment: str) -> subprocess.Popen[str]: ...


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    folder = tmp_path / "operations"
    folder.mkdir()
    source = Path(numerai_contract.__file__).parent.parent

    def start(operations: dict[str, str], *arguments: str, **environment: str) -> subprocess.Popen[str]:
        for name, code in operations.items():
            file_name = f"{name}.py" if name.startswith("_") else f"{name}_operation.py"
            (folder / file_name).write_text(dedent(code), encoding="utf-8")
        return subprocess.Popen(
            [sys.executable, "-m", "numerai_contract", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source), "OPERATIONS_DIR": str(folder)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    return start
