"""Training of a network on the split of adversarial validation: its inputs and its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract.split_tables import SplitTables
from numerai_contract.task import TrainingSummary

from . import _keras_utils

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    """Read both parts of the split, with embeddings, at most ROW_LIMIT rows of each.

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
    rows, columns = len(tables.training_labels) + len(tables.validation_labels), len(tables.feature_names)
    known = (len(task.training) + len(task.tournament)) * _ROW_BYTES
    task.require_memory(_BASE_MEBIBYTES + ((rows * columns * 4 + known) >> 20), f"{rows:,} rows of {columns:,} columns")
    with task.progress.step("reading the features"):
        training = _keras_utils.Part(tables.training_features(), tables.training_labels.astype(np.float32))
        held_out = _keras_utils.Part(tables.validation_features(), tables.validation_labels.astype(np.float32))
    return tables, _keras_utils.Examples(training, held_out)


def predict_and_write(
    network: Any,
    fitted: _keras_utils.Fitted,
    task: Task,
    tables: SplitTables,
    examples: _keras_utils.Examples,
    chosen: Mapping[str, Any],
) -> None:
    """Predict the rows of the tournament and of the validation part, and write predictions and report.

    Parameters
    ----------
    network
        From the features of a row to a logit.
    fitted
        The result of its training.
    task, tables, examples
        Its inputs.
    chosen
        For the report, in addition to the entries of every network.
    """
    held_out = examples.held_out
    rows = len(held_out.labels)
    on_split = _keras_utils.predict(network, [(np.arange(rows), held_out.features)], rows, task.progress)
    probabilities = _keras_utils.predict(network, tables.tournament_batches(), len(task.tournament), task.progress)
    task.write_predictions(
        probabilities,
        TrainingSummary(
            training_rows=len(examples.training.labels),
            held_out_rows=rows,
            chosen={
                **chosen,
                "embeddings": [embedding.name for embedding in tables.embeddings],
                "epochs": fitted.epochs,
                "best_epoch": fitted.best_epoch,
                "best_held_out_logloss": fitted.best_loss,
                "device": _keras_utils.device(),
            },
            libraries=("keras", "jax", "jaxlib"),
            split=tables.score(on_split),
        ),
    )
