"""t-SNE of more rows than can be embedded: neighbors found, neighbors kept, spread, and processor seconds of each step.

Runs `tests/images/in_image/placement.py` in the ``classic`` image, in both spaces. Rows have 42 features in five bins
that correlate in groups of five; with --season those of rows of a table. Prints, of the rows that are placed, the share
of the 15 nearest neighbors that the index finds, the share that the embedding keeps and the spread, both relative to
embedding all rows together, and the processor time that `tsne_operation.plan` computes with:

    PYTHONPATH=plugins:model_images/contract/src:. .venv/bin/python benchmarks/tsne.py
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import docker
import numpy as np
from docker.types import Mount
from rich.console import Console
from rich.table import Table as PrintedTable

from numerai_contract.imputation import Medians
from numerai_contract.tables import Table
from numerai_pipeline.models.registry import load_registry

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = REPOSITORY / "tests" / "images" / "in_image" / "placement.py"


def main() -> None:
    """Measure both spaces and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedded", type=int, default=20_000, help="rows to embed")
    parser.add_argument("--placed", type=int, default=10_000, help="rows to place")
    parser.add_argument("--perplexities", type=int, nargs="+", default=[5, 50])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--season", type=Path, help="a table, such as validation.parquet")
    options = parser.parse_args()
    engine = docker.from_env(timeout=7200)
    image = load_registry(REPOSITORY / "model_images").image_names["classic"]
    title = f"{options.embedded:,} rows embedded, {options.placed:,} placed"
    names = ("perplexity", "dimensions", "KL", "found", "kept", "kept of all", "spread", "processor time")
    printed = PrintedTable(*names, title=title)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        directory.chmod(0o755)
        matrix = []
        if options.season is not None:
            _write_rows(options.season, options.embedded + options.placed, directory / "matrix.npy")
            matrix = ["/data/matrix.npy"]
        for space in ("features", "products"):
            for perplexity in options.perplexities:
                output: bytes = engine.containers.run(
                    image,
                    ["/placement.py", str(options.embedded), str(options.placed), str(perplexity), space, *matrix],
                    entrypoint="python",
                    environment={"THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)},
                    mounts=[
                        Mount("/placement.py", str(PROGRAM), type="bind", read_only=True),
                        Mount("/data", str(directory), type="bind", read_only=True),
                    ],
                    network_mode="none",
                    remove=True,
                )
                found = json.loads(output.decode().splitlines()[-1])
                kept, of_all = (found["placed"][name] / found["embedded"][name] for name in ("kept", "all_kept"))
                seconds = ", ".join(f"{name}: {value:.2g} s" for name, value in found["seconds"].items())
                printed.add_row(
                    str(perplexity),
                    f"{found['dimensions']:,}",
                    f"{found['kl_divergence']:.3f}",
                    f"{found['recall']:.1%}",
                    f"{kept:.1%}",
                    f"{of_all:.1%}",
                    f"{found['placed']['spread']:.3f}",
                    seconds,
                )
    Console().print(printed)


def _write_rows(path: Path, count: int, to: Path) -> None:
    """Write the features of some rows of a table, drawn at random, in a random order."""
    table = Table(path)
    random = np.random.default_rng(67)
    marks = np.zeros(len(table), dtype=bool)
    marks[random.permutation(len(table))[:count]] = True
    features = table.features(marks).astype(np.float32, copy=False)
    np.save(to, random.permutation(Medians(features).fill(features)))


if __name__ == "__main__":
    main()
