"""Runs in the classic image: how well rows are placed in an embedding, compared with embedding them. Prints JSON.

    python placement.py [EMBEDDED PLACED PERPLEXITY SPACE [MATRIX]]

Rows of 42 features in five bins that correlate in groups of five, or those of a ``.npy`` file. SPACE is ``features`` or
``products``. The 15 nearest embedded rows of each placed row are its neighbours; `kept` is the share of them that are
its 15 nearest in the embedding: when it was placed, when all rows were embedded together, and when it is at the mean of
its neighbours. `all_kept` has the neighbours among all rows, embedded and placed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import faiss
import numpy as np

from numerai_contract import operations

embedded, placed, perplexity = map(int, sys.argv[1:4] or (12_000, 2_000, 15))
space_name = sys.argv[4] if len(sys.argv) > 4 else "features"
threads, iterations, k = int(os.environ["THREADS"]), int(os.environ.get("ITERATIONS", "250")), 15
tsne = operations.load("tsne")
random = np.random.default_rng(67)
rows = embedded + placed


def grouped_features() -> Any:
    """Draw rows of 42 features, of which 40 correlate in groups of five with about .5."""
    groups = np.repeat(random.standard_normal((rows, 8)), 5, axis=1)
    values = np.hstack([0.7 * groups + 0.7 * random.standard_normal((rows, 40)), random.standard_normal((rows, 2))])
    return (values.argsort(axis=0).argsort(axis=0) * 5 // rows).astype(np.int8)


def silent(*_: object) -> None:
    """Report nothing."""


def timed(work: Any) -> tuple[Any, float]:
    """Return a result, and the processor seconds it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def embed(neighbours: Any, components: Any) -> Any:
    """Compute an embedding."""
    return tsne.optimise(neighbours, perplexity, tsne.start(components, 67), iterations, threads, silent)


def share_kept(of: Any, among: Any, near: Any, selves: Any) -> float:
    """Measure the share of the nearest rows that are the nearest in an embedding; a row is not its own neighbour."""
    found = faiss.knn(np.ascontiguousarray(of), np.ascontiguousarray(among), k + 1)[1]
    common = [
        len(np.intersect1d(own[own != itself][:k], others))
        for own, others, itself in zip(found, near, selves, strict=True)
    ]
    return float(np.mean(common)) / k


matrix = np.load(sys.argv[5])[:rows] if len(sys.argv) > 5 else grouped_features()
space = tsne.Space.of(matrix[:embedded], np.arange(matrix.shape[1]), polynomial=space_name == "products")
covariance = space.covariance(matrix[:embedded])
own, exact_seconds = timed(lambda: tsne.search(space, matrix[:embedded], 3 * perplexity, threads, silent))
together = tsne.search(space, matrix, 3 * perplexity, threads, silent)
index, build_seconds = timed(lambda: tsne.Index.build(space, matrix[:embedded], covariance))
found, search_seconds = timed(lambda: index.search([matrix[embedded:]], placed, threads, silent))

sample = random.permutation(placed)[:2_000]
# all rows of another matrix: the exact neighbours among the embedded rows only
candidates = np.vstack([block for _, block in space.blocks(matrix[:embedded])])
near = faiss.knn(space.columns(matrix[embedded + sample]), candidates, k)[1]
recall = float(np.mean([len(np.intersect1d(*pair)) for pair in zip(found.indices[sample], near, strict=True)])) / k

directions = tsne.principal_directions(covariance, 2)
of_embedded, embed_seconds = timed(lambda: embed(own, space.project(matrix[:embedded], directions)))
of_all = embed(together, space.project(matrix, directions)).coordinates
coordinates = of_embedded.coordinates
ours, place_seconds = timed(lambda: tsne.place(found, coordinates, threads))
means = np.einsum("rk,rka->ra", found.weights, coordinates[found.indices])
result: dict[str, Any] = {"dimensions": space.dimensions, "recall": recall, "kl_divergence": of_embedded.divergence}
for name, every in (
    ("placed", np.vstack([coordinates, ours])),
    ("embedded", of_all),
    ("mean", np.vstack([coordinates, means.astype(np.float32)])),
):
    of = every[embedded + sample]
    result[name] = {
        "kept": share_kept(of, every[:embedded], near, np.full(len(of), -1)),
        "all_kept": share_kept(of, every, together.indices[embedded + sample, :k], embedded + sample),
        "spread": float(np.min(every[embedded:].std(axis=0) / every[:embedded].std(axis=0))),
    }
result["seconds"] = {
    "exact search, each pair": exact_seconds / embedded**2,
    "index, each row": build_seconds / embedded,
    "search by the index, each row": search_seconds / placed,
    "embedding, each row": embed_seconds / embedded,
    "placement, each row": place_seconds / placed,
}
print(json.dumps(result))
