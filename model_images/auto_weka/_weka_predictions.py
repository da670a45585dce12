"""Probabilities from a saved model, by WEKA's command line."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from ._arff import CLASSES
from ._java import ProgramError, command, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ._java import CpuBudget

_DECIMALS = 9
# precedes the probability of the predicted class
_PREDICTED = "*"


def predict(classpath: Sequence[Path], learner: str, model: Path, rows: Path, heap: int, budget: CpuBudget) -> Path:
    """Predict the rows of a file.

    Parameters
    ----------
    classpath
        The jars of WEKA.
    learner
        The class of the model.
    model, rows
        The saved model, and the ARFF file to predict.
    heap
        Memory, MiB.
    budget
        Its limits.

    Returns
    -------
    pathlib.Path
        WEKA's output file, for `probabilities`; beside `rows`.

    Raises
    ------
    ProgramError
        When it fails, or exceeds its budget.
    """
    predictions = rows.with_suffix(".csv")
    predictions.unlink(missing_ok=True)
    output = "weka.classifiers.evaluation.output.prediction.CSV"
    run(
        command(
            classpath,
            heap,
            learner,
            *("-l", str(model), "-T", str(rows), "-o"),
            *("-classifications", f"{output} -distribution -decimals {_DECIMALS} -suppress -file {predictions}"),
        ),
        rows.parent,
        budget,
    )
    if not predictions.exists():
        raise ProgramError("WEKA wrote no predictions")
    return predictions


def probabilities(path: Path, rows: int) -> NDArray[np.float64]:
    """Read the probabilities of class 1.

    The columns of the distribution have no names. The rows identify them: each has the class it predicts (``2:1``, the
    second, with the label 1), and an asterisk at its probability.

    Parameters
    ----------
    path
        ``inst#,actual,predicted,error,distribution,`` and a line for each row.
    rows
        The required number.

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
        One half where the model is undecided.

    Raises
    ------
    ProgramError
        When a row is missing or inconsistent with the others.
    """
    read = np.full((rows, len(CLASSES)), np.nan)
    column_of: dict[str, int] = {}
    count = 0
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.reader(stream):
            # a title and empty lines precede the header, an empty line follows the last row
            if len(line) < 4 + len(CLASSES) or not line[0].isdigit():
                continue
            if count == rows or int(line[0]) != count + 1:
                raise ProgramError(f"WEKA predicted row {line[0]} instead of row {count + 1} of {rows}")
            distribution = line[4 : 4 + len(CLASSES)]
            marked = [column for column, text in enumerate(distribution) if text.startswith(_PREDICTED)]
            label = line[2].rpartition(":")[2]
            if len(marked) == 1 and label in CLASSES:
                if column_of.setdefault(label, marked[0]) != marked[0]:
                    raise ProgramError(f"WEKA's columns change their order in row {line[0]}")
                read[count] = [float(text.lstrip(_PREDICTED)) for text in distribution]
            count += 1
    if count != rows:
        raise ProgramError(f"WEKA predicted {count} of {rows} rows")
    negative, positive = CLASSES
    if column_of.get(negative, 0) == column_of.get(positive, 1):
        raise ProgramError("WEKA has both classes in one column")
    column = column_of.get(positive, 1 - column_of.get(negative, 0))
    undecided = ~(read.sum(axis=1) > 0)
    found: NDArray[np.float64] = np.where(undecided, 0.5, read[:, column] / np.where(undecided, 1, read.sum(axis=1)))
    return found
