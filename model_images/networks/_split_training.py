"""Training of a network on the split of adversarial validation: its inputs and its summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract.split_tables import SplitTables
from numerai_contract.task import TrainingSummary

from . import _keras_utils
from ._network_plan import network_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from numerai_contract.embeddings import Embedding
    from numerai_contract.targets import LabeledRows
    from numerai_contract.task import Task


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
    plan = network_plan(task.parameters, task.sizes, embeddings)
    tables = SplitTables(task, labeled, embeddings=embeddings, plan=plan)
    with task.progress.step("reading the features"):
        training = _keras_utils.Part(tables.matrix(tables.training), tables.training_labels.astype(np.float32))
        held_out = (
            None
            if task.is_final
            else _keras_utils.Part(tables.matrix(tables.validation), tables.validation_labels.astype(np.float32))
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
