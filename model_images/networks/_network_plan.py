"""The plan of a network's training: rows and features that fit its time and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerai_contract.plans import MIN_ROWS, within_memory
from numerai_contract.split_tables import dimensions, selected_embeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numerai_contract.embeddings import Embedding
    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes

# Maximum of rows * (features + 200), which the time of an epoch follows: about ten seconds. Of 2.5 million rows of 48
# columns it took 7 s on two cores.
_MAX_WORK = 600_000_000
_FIXED_WORK = 200
# Python, Keras, XLA, a small network, and the batches that are read: 340 MiB measured on 18,000 rows, and in all 1,308
# (the plan: 2,016) with 2.5 of 6.8 million rows of 48 columns.
_BASE_MEBIBYTES = 768
# Of a training row: its position in the order of the epoch, and its label.
_BYTES_OF_A_ROW = 40


def network_plan(
    parameters: Parameters, sizes: Sizes, embeddings: Sequence[Embedding] | None = None, *, all_rows: bool = False
) -> Plan:
    """Plan the rows and features of a training, whose time and memory are proportional to both.

    Parameters
    ----------
    parameters
        For EMBEDDINGS, ROW_LIMIT and MEMORY_LIMIT.
    sizes
        The sizes of the tables.
    embeddings
        Default of EMBEDDINGS of a network on the split; None of one without a split.
    all_rows
        Whether to limit the rows by the memory only: an epoch then takes a minute of 6.8 million rows of 42 features.
    """
    coordinates = 0 if embeddings is None else dimensions(selected_embeddings(parameters, embeddings))
    parts = 1 if embeddings is None else 2

    def memory(rows: int, features: int) -> float:
        in_memory = sizes.rows_in_memory(rows, parts)
        row_bytes = features * sizes.packed_bytes + 4 * coordinates + _BYTES_OF_A_ROW
        return _BASE_MEBIBYTES + sizes.open_tables + in_memory * row_bytes / 2**20

    rows = sizes.rows
    if not all_rows:
        rows = min(rows, max(MIN_ROWS, _MAX_WORK // (sizes.features + _FIXED_WORK)))
    return within_memory(parameters, rows, sizes.features, memory)
