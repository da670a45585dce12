"""How long the exact search of nearest neighbours takes in t-SNE's spaces: ours, and faiss's own.

Runs in the ``classic`` image on random rows, 150 neighbours of each, as for perplexity 50. Prints nanoseconds a pair of
rows, on all cores, and how many of the neighbours are the same:

    PYTHONPATH=plugins:model_images/contract/src:. .venv/bin/python benchmarks/neighbours.py
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import docker
from rich.console import Console
from rich.table import Table

from numerai_pipeline.model_registry import load_registry

IMAGES = Path(__file__).resolve().parent.parent / "model_images"
K = 150
PROGRAM = """
import json, os, sys, time

import faiss
import numpy as np

from numerai_contract import operations

rows, dimensions, k = map(int, sys.argv[1:])
threads = int(os.environ["THREADS"])
module = operations.load("tsne").search.__globals__
matrix = np.random.default_rng(67).standard_normal((rows, dimensions)).astype(np.float32)


class Space:
    dimensions = dimensions

    def blocks(self, wanted):
        at_a_time = min(16_384, (64 << 20) // (4 * dimensions))
        for start in range(0, len(wanted), at_a_time):
            places = slice(start, min(start + at_a_time, len(wanted)))
            yield places, matrix[places]


def timed(work):
    began = time.perf_counter()
    found = work()
    return (time.perf_counter() - began) / rows**2 * 1e9, found


everything = np.arange(rows)
module["search"](Space(), everything[:1000], everything[:0], k, threads, lambda *_: None)
ours, (own, _) = timed(lambda: module["search"](Space(), everything, everything[:0], k, threads, lambda *_: None))
theirs, (_, places) = timed(lambda: faiss.knn(matrix, matrix, k + 1))
same = np.mean([len(np.intersect1d(own.places[row], places[row])) / k for row in range(0, rows, 101)])
print(json.dumps({"ours": ours, "faiss": theirs, "same": float(same)}))
"""


def main() -> None:
    """Measure both spaces and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    engine = docker.from_env(timeout=3600)
    threads = str(os.cpu_count())
    table = Table("dimensions", "ours, ns", "faiss's own, ns", "the same", title=f"{rows:,} rows, {K} neighbours each")
    for dimensions in (50, 1_325):
        said: bytes = engine.containers.run(
            load_registry(IMAGES).references["classic"],
            ["-c", PROGRAM, str(rows), str(dimensions), str(K)],
            entrypoint="python",
            environment={"THREADS": threads, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            network_mode="none",
            remove=True,
        )
        found = json.loads(said.decode().splitlines()[-1])
        table.add_row(f"{dimensions:,}", f"{found['ours']:.1f}", f"{found['faiss']:.1f}", f"{found['same']:.2%}")
    Console().print(table)


if __name__ == "__main__":
    main()
