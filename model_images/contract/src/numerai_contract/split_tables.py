"""The run's tables for Jim Fleming's models: split by similarity to the later rows, embeddings as further features.

A model learns from the split's training part, uses the split's validation part for selection and scores, and gets the
coordinates of embeddings as additional features. The final fit learns from all rows of both tables, without a split.
The validation part has all rows with a known target, also for a classifier, which learns from no row at exactly 0.5: so
the scores of all models on it are comparable.
Parameters of every model that uses this module:

``EMBEDDINGS`` (default of the model)
    Names of embeddings, separated by commas (``perplexity_05,perplexity_50_polynomial``), or ``none``.
``ROW_LIMIT`` (default of the model)
    Above it, each part is a sample that keeps the share of every era and every target value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import targets
from numerai_contract.embeddings import LIVE, STANDARD, Embedding, read_embedding
from numerai_contract.exits import BadDataError, BadParameterError
from numerai_contract.feature_matrix import FeatureMatrix
from numerai_contract.scores import Scores, logloss, score
from numerai_contract.split import PRODUCER, read_split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan
    from numerai_contract.tables import TableView
    from numerai_contract.targets import LabeledRows
    from numerai_contract.task import Task

_NONE = "none"


class FeatureSource:
    """The features of a table's rows, followed by their coordinates in embeddings.

    Parameters
    ----------
    task
        For its tables and STORING.
    embeddings
        The embeddings in use.

    Attributes
    ----------
    embeddings : tuple of Embedding
    """

    def __init__(self, task: Task, embeddings: Sequence[Embedding]) -> None:
        self._task = task
        self.embeddings = tuple(embeddings)

    @classmethod
    def from_names(cls, task: Task, names: Sequence[str]) -> FeatureSource:
        """Create the source of a saved model from the names of its embeddings."""
        return cls(task, [embedding for name in names if (embedding := Embedding.parse(name)) is not None])

    @property
    def names(self) -> list[str]:
        """Names of the embeddings, for `from_names`."""
        return [embedding.name for embedding in self.embeddings]

    def batches(
        self, table: TableView, rows: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Read the columns a batch of rows at a time, see `numerai_contract.tables.Table.batches`.

        Yields
        ------
        positions : numpy.ndarray of int, shape (rows of the batch,)
            Positions of the rows in the table, from 0.
        block : numpy.ndarray of float32, shape (rows of the batch, columns)
            NaN where a value is missing.
        """
        coordinates = self.coordinates(table)
        for positions, block in table.batches(rows):
            yield positions, np.hstack([block.astype(np.float32, copy=False), coordinates[positions]])

    def columns(self, table: TableView) -> tuple[str, ...]:
        """Name the columns: the features, then the coordinates (``perplexity_30_x`` …)."""
        coordinates = [f"{embedding.name}_{axis}" for embedding in self.embeddings for axis in embedding.axes]
        return (*table.feature_names, *coordinates)

    def coordinates(self, table: TableView, rows: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Read the coordinates of a table's rows.

        Parameters
        ----------
        table
            The task's table of any rows.
        rows
            Marks of the rows to return, shape (rows,); by default all.

        Returns
        -------
        numpy.ndarray of float32, shape (rows returned, coordinates)
        """
        storing = self._task.parameters.storing
        live = storing / LIVE
        # the rows to predict are placed in finished embeddings; where one table has all rows, the fit has them, too
        parameters = self._task.parameters
        is_live = "TESTING" in parameters and table.path == parameters.testing and live.is_dir()
        marks = np.ones(len(table), dtype=bool) if rows is None else rows
        found = np.empty((np.count_nonzero(marks), dimensions(self.embeddings)), dtype=np.float32)
        start = 0
        for embedding in self.embeddings:
            stop = start + embedding.dimensions
            found[:, start:stop] = read_embedding(live if is_live else storing, embedding, table)[marks]
            start = stop
        return found


class SplitTables:
    """A training table in two parts, with embeddings.

    Parameters
    ----------
    task
        Provides tables, seed, EMBEDDINGS and ROW_LIMIT.
    labeled
        The rows of the training table that the model may learn from, see `numerai_contract.targets`.
    embeddings
        Default of EMBEDDINGS.
    row_limit
        Default of ROW_LIMIT; a plan has its own.
    plan
        The plan of the fit: `Task.follow` selects its features, by the split's training part.

    Attributes
    ----------
    source : FeatureSource
        The features with the embeddings in use.
    feature_names : tuple of str
        The features, then the coordinates (``perplexity_30_x`` …): the columns of every matrix.
    training, validation : numpy.ndarray of bool, shape (rows of the training table,)
        Marks of the training rows, of those in `labeled`, and of the validation rows, of those with a known target;
        rows of the split's embargo are in neither. In the final fit all rows are training rows.
    training_labels : numpy.ndarray, shape (training rows,)
        Classes or values, as in `labeled`.
    validation_labels : numpy.ndarray of float32, shape (validation rows,)
        Target values.

    Raises
    ------
    BadParameterError
        When EMBEDDINGS or ROW_LIMIT is invalid.
    MissingInputError, BadDataError
        When the split or an embedding is missing, or a part of the split has no usable targets.
    """

    def __init__(
        self,
        task: Task,
        labeled: LabeledRows,
        *,
        embeddings: Sequence[Embedding],
        row_limit: int = 100_000_000,
        plan: Plan | None = None,
    ) -> None:
        self._task = task
        self.source = FeatureSource(task, selected_embeddings(task.parameters, embeddings))
        if plan is not None:
            row_limit = plan.rows
        limit = task.parameters.get_int("ROW_LIMIT", row_limit, at_least=100, at_most=100_000_000)
        training, held_out = np.ones(len(task.training), dtype=bool), np.zeros(len(task.training), dtype=bool)
        if not task.is_final:
            split = read_split(task.parameters.storing, task.training)
            training, held_out = split.training, split.validation
        if plan is not None:
            task.follow(plan, labeled.rows & training)
        known = ~np.isnan(task.training.targets)
        values = targets.LabeledRows(known, task.training.targets[known])
        self.training, self.training_labels = self._part("training", labeled, training, limit)
        self.validation, self.validation_labels = self._part("validation", values, held_out, limit)
        self._require_usable_labels(labeled)
        self.feature_names = self.source.columns(task.training)
        task.note(
            f"{len(self.training_labels):,} training rows, {len(self.validation_labels):,} validation rows; "
            f"embeddings as features: {', '.join(self.source.names) or _NONE}"
        )

    def matrix(self, rows: NDArray[np.bool_]) -> FeatureMatrix:
        """Read the columns of rows of the training table, such as `training`, into little memory."""
        table = self._task.training
        if not rows.any():
            return FeatureMatrix(np.empty((0, len(self.feature_names)), dtype=np.float32))
        return FeatureMatrix.read(table, rows, self.source.coordinates(table, rows))

    def training_features(self) -> NDArray[np.float32]:
        """Read the features of the training rows; shape (rows, columns), NaN where a value is missing."""
        return self.matrix(self.training)[:]

    def validation_features(self) -> NDArray[np.float32]:
        """Read the features of the validation rows; shape (rows, columns), NaN where a value is missing."""
        return self.matrix(self.validation)[:]

    def score(self, probabilities: NDArray[np.float64]) -> Scores | None:
        """Score predictions of the validation rows, shape (rows,), against their targets."""
        table = self._task.training
        return score(probabilities, table.targets[self.validation], table.era_numbers[self.validation])

    def logloss(self, probabilities: NDArray[np.float64]) -> float:
        """Compute the logloss, in nats, on the validation rows, shape (rows,); NaN when every label is 0.5."""
        loss = logloss(probabilities, self.validation_labels)
        return math.nan if loss is None else loss

    def _part(
        self, name: str, labeled: LabeledRows, side: NDArray[np.bool_], limit: int
    ) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        task = self._task
        part = targets.LabeledRows(labeled.rows & side, labeled.labels[side[labeled.rows]])
        drawn = targets.sample(part, task.training.era_numbers, limit, seed=task.parameters.seed)
        if len(drawn.labels) < len(part.labels):
            task.note(
                f"using {len(drawn.labels):,} of the {len(part.labels):,} rows of the split's {name} part, drawn "
                "evenly from all eras (ROW_LIMIT)"
            )
        return drawn.rows, drawn.labels

    def _require_usable_labels(self, labeled: LabeledRows) -> None:
        labels = self.training_labels
        usable = {"training": len(labels) > 0 and bool((labels != labels[0]).any())}
        if not self._task.is_final:
            usable["validation"] = bool((self.validation & labeled.rows).any())
        for name, is_usable in usable.items():
            if is_usable:
                continue
            problem = "every target is the same" if name == "training" and len(labels) else "no target is known"
            raise BadDataError(
                f"{self._task.training.path.name}: {problem} among the rows of the split's {name} part. Is the "
                f"training set complete? If so, run `{PRODUCER}` with a larger or smaller VALIDATION_SHARE."
            )


def dimensions(embeddings: Sequence[Embedding]) -> int:
    """Return the number of coordinates of a row in all of the embeddings."""
    return sum(embedding.dimensions for embedding in embeddings)


def selected_embeddings(parameters: Parameters, default: Sequence[Embedding]) -> tuple[Embedding, ...]:
    """Read EMBEDDINGS.

    Raises
    ------
    BadParameterError
        When it is not ``none`` or a list of different valid names.
    """
    text = parameters.get_str("EMBEDDINGS", ",".join(embedding.name for embedding in default) or _NONE)
    if text == _NONE:
        return ()
    names = [name.strip() for name in text.split(",")]
    found = [Embedding.parse(name) for name in names]
    if None in found or len(set(found)) < len(found):
        raise BadParameterError(
            f"EMBEDDINGS is {text!r}: allowed are {_NONE}, or different names separated by commas, such as "
            f"{', '.join(embedding.name for embedding in STANDARD)}. Correct it in models.yaml."
        )
    return tuple(embedding for embedding in found if embedding is not None)
