"""The plan of the classic models that learn on the split: rows and features that fit their time and memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from numerai_contract.plans import MIN_ROWS, within_memory
from numerai_contract.split_tables import dimensions, selected_embeddings

from ._polynomial import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numerai_contract.embeddings import Embedding
    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes

    # bytes of a fit of rows and columns, beside the open tables and the matrix of the columns
    Bytes = Callable[[int, int], float]

# Python, its libraries and the batches that are read: 166 to 195 MiB measured on 18,000 rows, 310 on 677,000
_BASE_MEBIBYTES = 400
# Features beyond this number are left out rather than rows: a weak signal needs hundreds of thousands of rows.
_MANY_FEATURES = 100
# Maximum of rows * features^2 of a fit on products. A step of L-BFGS took 0.6 us of a core for a row of 52 columns, and
# a fit has 40 to 60 steps.
_MAX_PRODUCTS = 10_000_000_000
# The sums, margins, slopes and losses of a row in float64.
_BYTES_OF_A_ROW = 100
# The 20 pairs of vectors of L-BFGS, and the weights and gradients of a step.
_BYTES_OF_A_TERM = 1_200


def split_plan(
    parameters: Parameters,
    sizes: Sizes,
    embeddings: Sequence[Embedding],
    *,
    max_work: float,
    power: int,
    needed: Bytes,
) -> Plan:
    """Plan a fit whose time grows with the rows and a power of the number of features.

    Parameters
    ----------
    parameters
        For EMBEDDINGS, ROW_LIMIT and MEMORY_LIMIT.
    sizes
        The sizes of the tables.
    embeddings
        Default of EMBEDDINGS.
    max_work
        The maximum of rows * features^power, which limits the time. Of a table that exceeds it, features beyond 100 are
        left out first, then rows.
    power
        1 or 2.
    needed
        Bytes of a fit of rows and columns, beside the open tables and the matrix of the columns.
    """
    coordinates = dimensions(selected_embeddings(parameters, embeddings))

    def memory(rows: int, features: int) -> float:
        of_matrix = sizes.rows_in_memory(rows) * (features * sizes.packed_bytes + 4 * coordinates)
        of_fit = needed(min(rows, sizes.rows), features + coordinates)
        return _BASE_MEBIBYTES + sizes.open_tables + (of_matrix + of_fit) / 2**20

    most = min(sizes.rows, parameters.get_int("ROW_LIMIT", sizes.rows, at_least=100, at_most=100_000_000))
    features = min(sizes.features, max(math.floor((max_work / most) ** (1 / power)), _MANY_FEATURES))
    rows = min(sizes.rows, max(MIN_ROWS, int(max_work / features**power)))
    return within_memory(parameters, rows, features, memory)


def quadratic_plan(
    parameters: Parameters, sizes: Sizes, embeddings: Sequence[Embedding], *, row_bytes: int = 0
) -> Plan:
    """Plan a fit on the polynomial of degree 2, see `split_plan`; `row_bytes` is the further memory of a row."""

    def needed(rows: int, columns: int) -> float:
        return rows * (_BYTES_OF_A_ROW + row_bytes) + count(columns) * _BYTES_OF_A_TERM

    return split_plan(parameters, sizes, embeddings, max_work=_MAX_PRODUCTS, power=2, needed=needed)
