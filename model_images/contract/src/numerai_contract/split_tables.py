"""The run's tables as Jim Fleming's models see them: split by likeness to the tournament, maps as further features.

A model learns from the split's training part, stops and reports by its validation part, and gets the coordinates of the
maps it asks for beside the features. Parameters of its own, for every model that uses it:

``EMBEDDINGS`` (the model's own choice)
    Which maps, by comma (``perplexity_05,perplexity_50_polynomial``), or ``none``.
``ROW_LIMIT`` (the model's own)
    Above it, either part is a sample that keeps every era's and every target value's share.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import eras
from numerai_contract.embeddings import STANDARD, Embedding, read_embedding
from numerai_contract.exits import BadDataError, BadParameterError
from numerai_contract.scores import Scores, logloss, score
from numerai_contract.split import MADE_BY, read_split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from numerai_contract.tables import Table
    from numerai_contract.targets import Lesson
    from numerai_contract.task import Task

_NONE = "none"


class SplitTables:
    """A training table in two parts and a tournament table, with maps.

    Parameters
    ----------
    task
        Whose tables, seed, EMBEDDINGS and ROW_LIMIT.
    lesson
        What the model may learn of the training table, from `numerai_contract.targets`.
    embeddings
        The maps that the model uses unless EMBEDDINGS says otherwise.
    row_limit
        The most rows of either part unless ROW_LIMIT says otherwise.

    Attributes
    ----------
    embeddings : tuple of Embedding
        The maps in use.
    feature_names : tuple of str
        The features, then the coordinates (``perplexity_30_x`` …): the columns of every matrix.
    training, validation : numpy.ndarray of bool, shape (rows of the training table,)
        Marks of the rows to learn from, and of those to validate on.
    training_labels, validation_labels : numpy.ndarray, shape (rows marked,)
        Their labels: classes or values, as the lesson has them.

    Raises
    ------
    BadParameterError
        When EMBEDDINGS or ROW_LIMIT make no sense.
    MissingInputError, BadDataError
        When the split or a map is not there, or a part of the split has nothing to learn from.
    """

    def __init__(self, task: Task, lesson: Lesson, *, embeddings: Sequence[Embedding], row_limit: int) -> None:
        storing = task.parameters.storing
        self._task = task
        self.embeddings = _asked_for(task, embeddings)
        limit = task.parameters.whole("ROW_LIMIT", row_limit, at_least=100, at_most=100_000_000)
        split = read_split(storing, task.training)
        self.training, self.training_labels = self._part("training", lesson, ~split.validation, limit)
        self.validation, self.validation_labels = self._part("validation", lesson, split.validation, limit)
        self._refuse_one_label()
        self._training_maps = self._maps(task.training)
        self._tournament_maps = self._maps(task.tournament)
        coordinates = [f"{embedding.name}_{axis}" for embedding in self.embeddings for axis in embedding.axes]
        self.feature_names = (*task.training.feature_names, *coordinates)
        task.note(
            f"{len(self.training_labels):,} rows to learn from, {len(self.validation_labels):,} to validate on; "
            f"maps as features: {', '.join(embedding.name for embedding in self.embeddings) or _NONE}"
        )

    def training_features(self) -> NDArray[np.float32]:
        """Read the features of the rows to learn from; shape (rows, columns), NaN where a value is missing."""
        return self._features(self.training)

    def validation_features(self) -> NDArray[np.float32]:
        """Read the features of the rows to validate on; shape (rows, columns), NaN where a value is missing."""
        return self._features(self.validation)

    def tournament_batches(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Read the features of the tournament table a batch of rows at a time.

        Yields
        ------
        positions : numpy.ndarray of int, shape (rows of the batch,)
            Which rows of the table these are, counted from 0.
        block : numpy.ndarray of float32, shape (rows of the batch, columns)
        """
        yield from self._batches(self._task.tournament, self._tournament_maps, None)

    def score(self, probabilities: NDArray[np.float64]) -> Scores | None:
        """Score predictions of the rows to validate on, shape (rows,), against their targets."""
        table = self._task.training
        return score(probabilities, table.targets[self.validation], table.era_numbers[self.validation])

    def logloss(self, probabilities: NDArray[np.float64]) -> float:
        """Compute the logloss, in nats, on the rows to validate on, shape (rows,); NaN when every label is 0.5."""
        loss = logloss(probabilities, self.validation_labels)
        return math.nan if loss is None else loss

    def _part(
        self, name: str, lesson: Lesson, side: NDArray[np.bool_], limit: int
    ) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        task = self._task
        rows, labels = lesson.rows & side, lesson.labels[side[lesson.rows]]
        kinds = (labels * 4).round().astype(np.int8)
        drawn = eras.sample(task.training.era_numbers[rows], kinds, limit, seed=task.parameters.seed)
        if not drawn.all():
            task.note(
                f"using {drawn.sum():,} of the {len(drawn):,} rows of the split's {name} part, drawn evenly from all "
                "eras (ROW_LIMIT)"
            )
        return eras.within(rows, drawn), labels[drawn]

    def _refuse_one_label(self) -> None:
        for name, labels in (("training", self.training_labels), ("validation", self.validation_labels)):
            if len(labels) and (name == "validation" or not (labels == labels[0]).all()):
                continue
            what = "no target is known" if not len(labels) else "every target is the same"
            raise BadDataError(
                f"{self._task.training.path.name}: {what} among the rows of the split's {name} part. Is the training "
                f"set complete? If so, run `{MADE_BY}` with a larger or smaller VALIDATION_SHARE."
            )

    def _maps(self, table: Table) -> NDArray[np.float32]:
        storing = self._task.parameters.storing
        maps = [read_embedding(storing, embedding, table) for embedding in self.embeddings]
        return np.hstack(maps) if maps else np.empty((len(table), 0), dtype=np.float32)

    def _features(self, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
        matrix = np.empty((np.count_nonzero(rows), len(self.feature_names)), dtype=np.float32)
        filled = 0
        for positions, block in self._batches(self._task.training, self._training_maps, rows):
            matrix[filled : filled + len(positions)] = block
            filled += len(positions)
        return matrix

    def _batches(
        self, table: Table, maps: NDArray[np.float32], rows: NDArray[np.bool_] | None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        for positions, block in table.batches(rows):
            yield positions, np.hstack([block.astype(np.float32, copy=False), maps[positions]])


def _asked_for(task: Task, default: Sequence[Embedding]) -> tuple[Embedding, ...]:
    text = task.parameters.text("EMBEDDINGS", ",".join(embedding.name for embedding in default) or _NONE)
    if text == _NONE:
        return ()
    names = [name.strip() for name in text.split(",")]
    found = [Embedding.named(name) for name in names]
    if None in found or len(set(found)) < len(found):
        raise BadParameterError(
            f"EMBEDDINGS is {text!r}: allowed are {_NONE}, or different names by comma, such as "
            f"{', '.join(embedding.name for embedding in STANDARD)}. Correct it in models.yaml."
        )
    return tuple(embedding for embedding in found if embedding is not None)
