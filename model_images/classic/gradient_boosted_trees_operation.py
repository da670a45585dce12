"""Gradient boosted trees by XGBoost, on the polynomial of degree 2 of the features and t-SNE's coordinates.

It learns the target's value as a probability on the split's training part, with early stopping on the validation part.
The final fit grows as many trees as the first has kept, on all rows.
The terms are expanded a block of rows at a time and stored as histograms only, two bytes each. The product of a missing
value is missing, and a missing term is a value below all others.
Of more than 50 features, the 50 with the largest correlation with the target are used: with all products of 780, a fit
of 400 million would have 1,300 rows.

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
``EMBEDDINGS`` (the five embeddings of the features), ``ROW_LIMIT`` (400 million terms: 211,000 rows of 50 features)
    See `numerai_contract.split_tables`. The default is less where MEMORY_LIMIT is, but at least 50,000 rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import saved_state, targets
from numerai_contract.embeddings import STANDARD
from numerai_contract.fitting import Fitted
from numerai_contract.plans import Plan, largest
from numerai_contract.self_test import write_fixture_inputs
from numerai_contract.split_tables import FeatureSource, SplitTables, dimensions, selected_embeddings
from numerai_contract.task import TrainingSummary

from ._boosting import BoostedModel, BoostingParams, memory
from ._polynomial import blocks, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.feature_matrix import FeatureMatrix
    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Sizes
    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_TREES": "20"}
prepare_self_test = write_fixture_inputs

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if not embedding.polynomial)
# terms of the training rows of a fit: a tree on so many takes one second of a core, also if it may use only some terms
_MAX_TERMS = 400_000_000
_MIN_FEATURES, _MAX_FEATURES = 10, 50
_MIN_ROWS = 50_000


class TermsModel:
    """Trees on the terms of the features and coordinates of a row."""

    def __init__(self, source: FeatureSource, boosted: BoostedModel) -> None:
        self._source, self._boosted = source, boosted

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        return task.predict_rows(table, self._source.batches(table), self.predict_block)

    def predict_block(self, block: NDArray[np.float32] | FeatureMatrix) -> NDArray[np.float64]:
        """Predict rows, shape (rows, columns), NaN where a value is missing; shape (rows,)."""
        return np.concatenate([self._boosted.predict(terms) for _, terms in blocks(block)])

    def save(self, directory: Path) -> None:
        """Save the trees in XGBoost's format, and the names of the embeddings."""
        self._boosted.save(directory)
        saved_state.save(directory, {}, {"embeddings": self._source.names})


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan features first, since their products take the memory and the time, then rows."""
    coordinates = dimensions(selected_embeddings(parameters, _EMBEDDINGS))

    def need(rows: int, features: int) -> float:
        most = sizes.rows_in_memory(rows)
        matrix = most * (features * sizes.packed_bytes + 4 * coordinates) / 2**20
        return memory(sizes, most, count(features + coordinates)) + matrix

    limit = parameters.memory_limit
    rows = min(sizes.rows, parameters.get_int("ROW_LIMIT", _MIN_ROWS, at_least=100, at_most=100_000_000))
    features = largest(min(sizes.features, _MAX_FEATURES), _MIN_FEATURES, lambda count: need(rows, count), limit)
    if "ROW_LIMIT" not in parameters:
        most = min(sizes.rows, max(_MIN_ROWS, _MAX_TERMS // count(features + coordinates)))
        rows = largest(most, _MIN_ROWS, lambda count: need(count, features), limit)
    return Plan(rows, features, need(rows, features))


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the split's training part, with early stopping; the final fit has the number of trees of the first."""
    params = BoostingParams.read(task.parameters, learning_rate=0.05, max_depth=3, colsample=0.05)
    params.settings["max_bin"] = task.parameters.get_int("MAX_BIN", 32, at_least=2, at_most=256)
    tables = SplitTables(
        task, targets.values(task.training), embeddings=_EMBEDDINGS, plan=plan(task.parameters, task.sizes)
    )
    rows, held_out_rows = len(tables.training_labels), len(tables.validation_labels)
    terms = count(len(tables.feature_names))
    with task.progress.step(f"reading {terms:,} terms into histograms"):
        training = params.histograms(_terms(tables.matrix(tables.training)), tables.training_labels)
    if earlier is not None:
        boosted = params.train_fixed(task, training, trees=earlier.choice)
        summary = TrainingSummary(training_rows=rows, chosen={**boosted.chosen, "terms": terms})
        return Fitted(TermsModel(tables.source, boosted), summary, boosted.trees)
    validation = tables.matrix(tables.validation)
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


def _terms(matrix: FeatureMatrix) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: (terms for _, terms in blocks(matrix))
