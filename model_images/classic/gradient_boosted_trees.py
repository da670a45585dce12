"""Gradient boosted trees by XGBoost, on the polynomial of degree 2 of the features and t-SNE's coordinates.

It learns the target's value as a probability on the split's training part, and stops when the validation part no longer
gains. The terms are expanded a block of rows at a time and kept as histograms, a byte each, never as numbers; missing
values are learned from as they are, and a product of one is missing too.

Parameters of its own:

``MAX_TREES`` (1,000), ``LEARNING_RATE`` (0.05), ``MAX_DEPTH`` (3)
    How many trees at most, how far each moves the prediction, and how many questions it asks. A term is a product of
    two features already: on data with a known weak signal, 3 questions did as well as 4, and better than 2.
``MAX_BIN`` (32)
    Into how many bins a term is cut: more than a product of two five-bin features has values. On 60,000 rows of
    continuous features, 64 took a quarter more memory for .0004 less logloss; 256 took longer and gained no more.
``COLSAMPLE`` (0.05)
    The share of the terms each tree may look at.
``MIN_CHILD_WEIGHT`` (10)
    The least sum of p (1 - p) in a leaf: four times as many rows, as predictions are close to one half.
``EARLY_STOPPING`` (50), ``MIN_TREES`` (20)
    Stop after so many trees without gain; keep at least so many trees.
``EMBEDDINGS`` (the five maps of the features), ``ROW_LIMIT`` (a billion terms in all: 754,000 with 50 features)
    See `numerai_contract.split_tables`. With so many features that it would be less, the limit is 20,000 rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import targets
from numerai_contract.embeddings import STANDARD
from numerai_contract.self_test import lay_preparations
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Learned

from ._boosting import Growth
from ._polynomial import blocks, count
from ._split_learning import predict, row_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_TREES": "20"}
prepare_self_test = lay_preparations

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if not embedding.polynomial)
_MOST_TERMS_OF_ALL_ROWS = 1_000_000_000


def run(task: Task) -> None:
    """Fit on the split's training part and predict the tournament table."""
    growth = Growth.read(task.parameters, learning_rate=0.05, max_depth=3, colsample=0.05)
    growth.settings["max_bin"] = task.parameters.whole("MAX_BIN", 32, at_least=2, at_most=256)
    tables = SplitTables(
        task,
        targets.values(task.training),
        embeddings=_EMBEDDINGS,
        row_limit=row_limit(count(len(task.training.feature_names)), _MOST_TERMS_OF_ALL_ROWS),
    )
    rows, held_out_rows = len(tables.training_labels), len(tables.validation_labels)
    terms = count(len(tables.feature_names))
    task.need_memory(_memory(rows + held_out_rows, terms), f"{rows + held_out_rows:,} rows of {terms:,} terms")

    with task.progress.step(f"reading {terms:,} terms into histograms"):
        validation = tables.validation_features()
        learning = growth.histograms(_terms(tables.training_features()), tables.training_labels)
        held_out = growth.histograms(_terms(validation), tables.validation_labels, bins_of=learning)
    grown = growth.grow(task, learning, held_out)
    del learning, held_out

    def model(block: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.concatenate([grown.predict(terms) for _, terms in blocks(block)])

    probabilities = predict(task, tables, model)
    task.deliver(
        probabilities,
        Learned(
            training_rows=rows,
            held_out_rows=held_out_rows,
            chosen={**grown.chosen, "terms": terms},
            libraries=("xgboost-cpu",),
            split=tables.score(model(validation)),
        ),
    )


def _terms(matrix: NDArray[np.float32]) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: (terms for _, terms in blocks(matrix))


def _memory(rows: int, terms: int) -> float:
    return 700 + 3.2e-6 * rows * terms
