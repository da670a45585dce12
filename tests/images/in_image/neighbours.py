"""Runs in the classic image: compares nearest neighbours with a full search. Prints the differences as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import operations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_EMBEDDED, _OTHERS, _K = 3_000, 400, 40
tsne: Any = operations.load("tsne")
random = np.random.default_rng(3)
# some rows are repeated, and some are far from all others
matrix = random.normal(2, 1, (_EMBEDDED + _OTHERS, 7)).astype(np.float32)
matrix[10:20] = matrix[:10]
matrix[-5:] += 100
random.shuffle(matrix)
embedded, others = matrix[:_EMBEDDED], matrix[_EMBEDDED:]


class Space(tsne.Space):  # type: ignore[misc]
    """The columns, in blocks of an arbitrary size."""

    def blocks(self, rows: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield rows, a block at a time."""
        for start in range(0, len(rows), 777):
            part = slice(start, min(start + 777, len(rows)))
            yield part, self.columns(rows[part])


# not standardised, so that distances are those of the matrix
features = np.arange(matrix.shape[1])
space = Space(False, features, np.full(7, 2, np.float32), np.ones(7, np.float32))
shares: list[float] = []
own = tsne.search(space, embedded, _K, 1, lambda share, _: shares.append(share))
anchors = tsne.Index.build(space, embedded, space.covariance(embedded)).search(
    [others[:100], others[100:]], _OTHERS, 1, lambda *_: None
)

exact = matrix.astype(np.float64)
distances = np.sqrt(((exact[:, np.newaxis] - exact[:_EMBEDDED]) ** 2).sum(axis=2))
np.fill_diagonal(distances, np.inf)
found = {}
for name, near, full in (
    ("own", own.indices, distances[:_EMBEDDED]),
    ("others", anchors.indices, distances[_EMBEDDED:]),
):
    k = near.shape[1]
    own_distances = np.take_along_axis(full, near, axis=1)
    found[name] = {
        "k": k,
        "index_error": float(np.abs(own_distances - np.sort(full, axis=1)[:, :k]).max()),
        "unique": all(len(set(row)) == k for row in near.tolist()),
    }
found["own"]["distance_error"] = float(
    np.abs(own.distances - np.take_along_axis(distances[:_EMBEDDED], own.indices, axis=1)).max()
)
weights = anchors.weights.astype(np.float64)
entropies = -np.sum(weights * np.log(np.maximum(weights, 1e-30)), axis=1)
found["others"]["perplexities"] = np.quantile(np.exp(entropies), [0.05, 0.95]).tolist()
print(json.dumps({**found, "shares": [shares[0], shares[-1]], "increasing": shares == sorted(shares)}))
