"""Duration of the exact nearest-neighbor search in t-SNE's spaces: this project's, and faiss's.

Runs in the ``classic`` image on random rows of 50 features, alone and with their products of two, 150 neighbors of
each, as for perplexity 50. Prints nanoseconds per pair of rows, on all cores, and the share of equal neighbors:

    PYTHONPATH=plugins:model_images/contract/src:. .venv/bin/python benchmarks/nearest_neighbors.py
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import docker
from rich.console import Console
from rich.table import Table

from numerai_pipeline.models.registry import load_registry

IMAGES = Path(__file__).resolve().parent.parent / "model_images"
K = 150
PROGRAM = """
import json, os, sys, time

import faiss
import numpy as np

from numerai_contract import operations

rows, k = map(int, sys.argv[1:3])
threads = int(os.environ["THREADS"])
tsne = operations.load("tsne")
matrix = np.random.default_rng(67).standard_normal((rows, 50)).astype(np.float32)
space = tsne.Space.of(matrix, polynomial=sys.argv[3] == "polynomial")
everything = np.arange(rows)
columns = np.vstack([block for _, block in space.blocks(everything)])


def search(among):
    return tsne.search(space, among, everything[:0], k, threads, lambda *_: None)


def timed(work):
    began = time.perf_counter()
    found = work()
    return (time.perf_counter() - began) / rows**2 * 1e9, found


search(everything[:1000])
ours, (own, _) = timed(lambda: search(everything))
theirs, (_, places) = timed(lambda: faiss.knn(columns, columns, k + 1))
same = np.mean([len(np.intersect1d(own.indices[row], places[row])) / k for row in range(0, rows, 101)])
print(json.dumps({"dimensions": space.dimensions, "ours": ours, "faiss": theirs, "same": float(same)}))
"""


def main() -> None:
    """Measure both spaces and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    engine = docker.from_env(timeout=3600)
    threads = str(os.cpu_count())
    table = Table("dimensions", "ours, ns", "faiss, ns", "equal", title=f"{rows:,} rows, {K} neighbors each")
    for features in ("plain", "polynomial"):
        output: bytes = engine.containers.run(
            load_registry(IMAGES).image_names["classic"],
            ["-c", PROGRAM, str(rows), str(K), features],
            entrypoint="python",
            environment={"THREADS": threads, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            network_mode="none",
            remove=True,
        )
        found = json.loads(output.decode().splitlines()[-1])
        dimensions, same = f"{found['dimensions']:,}", f"{found['same']:.2%}"
        table.add_row(dimensions, f"{found['ours']:.1f}", f"{found['faiss']:.1f}", same)
    Console().print(table)


if __name__ == "__main__":
    main()
