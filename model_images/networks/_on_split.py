"""How a network learns on the split that adversarial validation made: what it is given, and what it hands over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Learned

from . import _nets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numerai_contract.embeddings import Embedding
    from numerai_contract.targets import Lesson
    from numerai_contract.task import Task

# What Python, XLA, Arrow and a small network take, whatever the rows. Measured on one core with 50 features: 514 MiB in
# all with 20,000 training rows and a fifth as many to predict, 601 with 60,000 and 889 with 354,000.
_OWN_MEBIBYTES = 768
# of a row of either table, beside its features: its id, and what finds it in the split and in the maps
_ROW_BYTES = 400


def read(task: Task, lesson: Lesson, embeddings: Sequence[Embedding]) -> tuple[SplitTables, _nets.Examples]:
    """Read both parts of the split, maps included, at most ROW_LIMIT rows of either.

    Parameters
    ----------
    task
        Whose tables; its memory must be enough for them.
    lesson
        What the network may learn of the training table.
    embeddings
        The maps it uses unless EMBEDDINGS says otherwise.

    Returns
    -------
    tables : SplitTables
    examples : Examples
        The split's training part to learn from, its validation part to stop by.
    """
    columns = len(task.training.feature_names) + sum(embedding.dimensions for embedding in embeddings)
    limit = _nets.row_limit(4 * columns, task.parameters)
    tables = SplitTables(task, lesson, embeddings=embeddings, row_limit=limit)
    rows, columns = len(tables.training_labels) + len(tables.validation_labels), len(tables.feature_names)
    known = (len(task.training) + len(task.tournament)) * _ROW_BYTES
    task.need_memory(_OWN_MEBIBYTES + ((rows * columns * 4 + known) >> 20), f"{rows:,} rows of {columns:,} columns")
    with task.progress.step("reading the features"):
        training = _nets.Part(tables.training_features(), tables.training_labels.astype(np.float32))
        held_out = _nets.Part(tables.validation_features(), tables.validation_labels.astype(np.float32))
    return tables, _nets.Examples(training, held_out)


def deliver(
    network: Any,
    fitted: _nets.Fitted,
    task: Task,
    tables: SplitTables,
    examples: _nets.Examples,
    chosen: Mapping[str, Any],
) -> None:
    """Predict the tournament's rows and the validation part's, and deliver.

    Parameters
    ----------
    network
        From the features of a row to a logit.
    fitted
        How its training went.
    task, tables, examples
        What it learned from.
    chosen
        For the report, beside what every network says.
    """
    held_out = examples.held_out
    rows = len(held_out.labels)
    on_split = _nets.predict(network, [(np.arange(rows), held_out.features)], rows, task.progress)
    probabilities = _nets.predict(network, tables.tournament_batches(), len(task.tournament), task.progress)
    task.deliver(
        probabilities,
        Learned(
            training_rows=len(examples.training.labels),
            held_out_rows=rows,
            chosen={
                **chosen,
                "embeddings": [embedding.name for embedding in tables.embeddings],
                "epochs": fitted.epochs,
                "best_epoch": fitted.best_epoch,
                "best_held_out_logloss": fitted.best_loss,
                "device": _nets.device(),
            },
            libraries=("keras", "jax", "jaxlib"),
            split=tables.score(on_split),
        ),
    )
