"""Runs in the classic image: compares nearest neighbours with a full search. Prints the differences as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from numerai_contract import operations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_EMBEDDED, _OTHERS, _K = 3_000, 400, 40
search = operations.load("tsne").search
random = np.random.default_rng(3)
# some rows are repeated, and some are far from all others
matrix = random.normal(2, 1, (_EMBEDDED + _OTHERS, 7)).astype(np.float32)
matrix[10:20] = matrix[:10]
matrix[-5:] += 100


class Space:
    """The matrix, in blocks of an arbitrary size."""

    dimensions = matrix.shape[1]

    def blocks(self, rows: NDArray[np.intp]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield rows, a block at a time."""
        for start in range(0, len(rows), 777):
            part = slice(start, min(start + 777, len(rows)))
            yield part, matrix[rows[part]].copy()


rows = random.permutation(len(matrix))
embedded, others = rows[:_EMBEDDED], rows[_EMBEDDED:]
shares: list[float] = []
own, theirs = search(Space(), embedded, others, _K, 1, lambda share, _: shares.append(share))

exact = matrix.astype(np.float64)
distances = np.sqrt(((exact[:, np.newaxis] - exact[embedded]) ** 2).sum(axis=2))
between = distances[embedded]
np.fill_diagonal(between, np.inf)
found = {}
for name, nearest, full in (("own", own, between), ("others", theirs, distances[others])):
    k = nearest.indices.shape[1]
    found[name] = {
        "k": k,
        "distance_error": float(np.abs(nearest.distances - np.sort(full, axis=1)[:, :k]).max()),
        "index_error": float(np.abs(nearest.distances - np.take_along_axis(full, nearest.indices, axis=1)).max()),
        "unique": all(len(set(row)) == k for row in nearest.indices.tolist()),
    }
print(json.dumps({**found, "shares": [shares[0], shares[-1]], "increasing": shares == sorted(shares)}))
