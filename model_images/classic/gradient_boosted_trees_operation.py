"""Gradient boosted trees by XGBoost, on the polynomial of degree 2 of the features and t-SNE's coordinates.

It learns the target's value as a probability on the split's training part, with early stopping on the validation part.
The final fit grows as many trees as the first has kept, on all rows.
The terms are expanded a block of rows at a time and stored as histograms only, a byte each; missing values are not
imputed, and the product of a missing value is missing.

Environment variables:

``MAX_TREES`` (1,000), ``LEARNING_RATE`` (0.05), ``MAX_DEPTH`` (3)
    Maximum number of trees, shrinkage of each, and maximum depth. A term is a product of two features already: on data
    with a known weak signal, a depth of 3 was as good as 4, and better than 2.
``MAX_BIN`` (32)
    Number of bins of a term: more than the number of values of a product of two five-bin features. On 60,000 rows of
    continuous features, 64 took a quarter more memory for .0004 less logloss; 256 took longer without a further gain.
``COLSAMPLE`` (0.05)
    The share of the terms available to each tree.
``MIN_CHILD_WEIGHT`` (10)
    Minimum sum of p (1 - p) in a leaf: about a quarter of its rows, as predictions are close to one half.
``EARLY_STOPPING`` (50), ``MIN_TREES`` (20)
    Stop after so many trees without improvement; keep at least so many trees.
``EMBEDDINGS`` (the five embeddings of the features), ``ROW_LIMIT`` (a billion terms: 754,000 rows of 50 features)
    See `numerai_contract.split_tables`. The default is never less than 20,000 rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import saved_state, targets
from numerai_contract.embeddings import STANDARD
from numerai_contract.fitting import Fitted
from numerai_contract.self_test import write_fixture_inputs
from numerai_contract.split_tables import FeatureSource, SplitTables
from numerai_contract.task import TrainingSummary

from ._boosting import BoostedModel, BoostingParams
from ._polynomial import blocks, count
from ._split_utils import row_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_TREES": "20"}
prepare_self_test = write_fixture_inputs

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if not embedding.polynomial)
_MAX_TERMS = 1_000_000_000


class TermsModel:
    """Trees on the terms of the features and coordinates of a row."""

    def __init__(self, source: FeatureSource, boosted: BoostedModel) -> None:
        self._source, self._boosted = source, boosted

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        return task.predict_rows(table, self._source.batches(table), self.predict_block)

    def predict_block(self, block: NDArray[np.float32]) -> NDArray[np.float64]:
        """Predict rows, shape (rows, columns), NaN where a value is missing; shape (rows,)."""
        return np.concatenate([self._boosted.predict(terms) for _, terms in blocks(block)])

    def save(self, directory: Path) -> None:
        """Save the trees in XGBoost's format, and the names of the embeddings."""
        self._boosted.save(directory)
        saved_state.save(directory, {}, {"embeddings": self._source.names})


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the split's training part, with early stopping; the final fit has the number of trees of the first."""
    params = BoostingParams.read(task.parameters, learning_rate=0.05, max_depth=3, colsample=0.05)
    params.settings["max_bin"] = task.parameters.get_int("MAX_BIN", 32, at_least=2, at_most=256)
    tables = SplitTables(
        task,
        targets.values(task.training),
        embeddings=_EMBEDDINGS,
        row_limit=row_limit(count(len(task.training.feature_names)), _MAX_TERMS),
    )
    rows, held_out_rows = len(tables.training_labels), len(tables.validation_labels)
    terms, most = count(len(tables.feature_names)), max(rows + held_out_rows, tables.most_rows)
    task.require_memory(_memory(most, terms), f"{most:,} rows of {terms:,} terms")

    with task.progress.step(f"reading {terms:,} terms into histograms"):
        training = params.histograms(_terms(tables.training_features()), tables.training_labels)
    if earlier is not None:
        boosted = params.train_fixed(task, training, trees=earlier.choice)
        summary = TrainingSummary(training_rows=rows, chosen={**boosted.chosen, "terms": terms})
        return Fitted(TermsModel(tables.source, boosted), summary, boosted.trees)
    validation = tables.validation_features()
    held_out = params.histograms(_terms(validation), tables.validation_labels, bins_of=training)
    boosted = params.train(task, training, held_out)
    model = TermsModel(tables.source, boosted)
    summary = TrainingSummary(
        training_rows=rows,
        held_out_rows=held_out_rows,
        chosen={**boosted.chosen, "terms": terms},
        libraries=("xgboost-cpu",),
        split=tables.score(model.predict_block(validation)),
    )
    return Fitted(model, summary, boosted.trees)


def load(task: Task, directory: Path) -> TermsModel:
    """Load a saved model."""
    source = FeatureSource.from_names(task, saved_state.load(directory).settings["embeddings"])
    return TermsModel(source, BoostedModel.load(directory, task.parameters.threads))


def _terms(matrix: NDArray[np.float32]) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: (terms for _, terms in blocks(matrix))


def _memory(rows: int, terms: int) -> float:
    return 700 + 3.2e-6 * rows * terms
