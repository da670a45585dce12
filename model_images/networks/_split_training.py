"""Training of a network on the split of adversarial validation: its inputs and its summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract.search import table_to_predict
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import TrainingSummary

from . import _keras_utils

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from numerai_contract.embeddings import Embedding
    from numerai_contract.targets import LabeledRows
    from numerai_contract.task import Task

# Memory of Python, XLA, Arrow and a small network, for any number of rows. Measured on one core with 50 features, 514
# MiB in total with 20,000 training rows and a fifth as many to predict, 601 with 60,000 and 889 with 354,000.
_BASE_MEBIBYTES = 768
# of a row of either table, beside its features: its id, and its indices in the split and in the embeddings
_ROW_BYTES = 400


def read(
    task: Task, labeled: LabeledRows, embeddings: Sequence[Embedding]
) -> tuple[SplitTables, _keras_utils.Examples]:
    """Read both parts of the split, with embeddings, at most ROW_LIMIT rows of each; in the final fit, all as one part.

    Parameters
    ----------
    task
        Provides the tables; its memory must be large enough for them.
    labeled
        The rows of the training table that the network may learn from.
    embeddings
        Default of EMBEDDINGS.

    Returns
    -------
    tables : SplitTables
    examples : Examples
        The split's training part, and its validation part for early stopping.
    """
    columns = len(task.training.feature_names) + sum(embedding.dimensions for embedding in embeddings)
    limit = _keras_utils.row_limit(4 * columns, task.parameters)
    tables = SplitTables(task, labeled, embeddings=embeddings, row_limit=limit)
    if not task.is_final:
        both_parts = len(tables.training_labels) + len(tables.validation_labels)
        rows, columns = max(both_parts, tables.most_rows), len(tables.feature_names)
        known = (len(task.training) + len(table_to_predict(task))) * _ROW_BYTES
        needed = _BASE_MEBIBYTES + ((rows * columns * 4 + known) >> 20)
        task.require_memory(needed, f"{rows:,} rows of {columns:,} columns")
    with task.progress.step("reading the features"):
        training = _keras_utils.Part(tables.training_features(), tables.training_labels.astype(np.float32))
        held_out = (
            None
            if task.is_final
            else _keras_utils.Part(tables.validation_features(), tables.validation_labels.astype(np.float32))
        )
    return tables, _keras_utils.Examples(training, held_out)


def summarize(
    tables: SplitTables,
    examples: _keras_utils.Examples,
    chosen: Mapping[str, Any],
    on_split: NDArray[np.float64] | None,
) -> TrainingSummary:
    """Summarize a training.

    Parameters
    ----------
    tables, examples
        Its inputs.
    chosen
        For the report, beside the embeddings.
    on_split
        Predictions of the split's validation part, shape (rows,); None in the final fit.
    """
    return TrainingSummary(
        training_rows=len(examples.training.labels),
        held_out_rows=examples.held_out_rows,
        chosen={**chosen, "embeddings": tables.source.names},
        libraries=("keras", "jax", "jaxlib"),
        split=None if on_split is None else tables.score(on_split),
    )
