"""t-SNE embeddings of all rows: training, validation and tournament together, in two dimensions.

An embedding for each perplexity, of the features and again of the features with their products of two. Each is saved as
soon as it is finished, so that a retry continues after the last finished one. Environment variables:

``PERPLEXITIES`` (5,10,15,30,50)
    Approximate number of neighbours of a row. One search for neighbours serves all embeddings of a space.
``THREE_D`` (false)
    Whether to compute an embedding in three dimensions as well, at perplexity 30. It cannot use a grid and takes long.
``POLYNOMIAL_FEATURES`` (50)
    Maximum number of features with products; fewer when the memory is not enough. When there are more, the features
    with the largest rank correlation with the target in the split's training part are used.
``ITERATIONS`` (250)
    Of each embedding.
``ROW_LIMIT`` (400,000)
    Above it, a sample is embedded that keeps the share of each era and each table, and every other row is placed among
    its 15 nearest in the sample.

Features are imputed by their median; columns are standardised. Neighbours are exact. See `_tsne_optimizer` for the
optimization and its measurements.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.stats import rankdata

from numerai_contract import eras, outputs
from numerai_contract.embeddings import PERPLEXITIES, STANDARD, Embedding, read_embedding, write_embedding
from numerai_contract.exits import BadParameterError, ModelFailureError
from numerai_contract.imputation import Medians
from numerai_contract.progress import duration
from numerai_contract.split import Split, read_split, write_split
from numerai_contract.tables import Table
from numerai_contract.task import TrainingSummary

from ._nearest_neighbors import Neighbours, interpolate, search, share_preserved
from ._polynomial import count
from ._scatter_plot import draw
from ._standardized import Space, max_features
from ._tsne_optimizer import largest_perplexity, optimise, start

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"ITERATIONS": "20", "POLYNOMIAL_FEATURES": "4"}

_PERPLEXITY_3D = 30
_COMPARED_NEIGHBOURS, _COMPARED_ROWS = 15, 2_000
# MiB of libraries and blocks, and bytes for each neighbour of each row during the computation of affinities
_BASE_MEMORY, _BYTES_PER_NEIGHBOUR = 700, 90


class _Rows(NamedTuple):
    """All rows of both tables, the training table's first, and the indices of the embedded ones and of the others."""

    ids: pa.ChunkedArray
    targets: NDArray[np.float32]
    features: NDArray[np.float32]
    embedded: NDArray[np.intp]
    others: NDArray[np.intp]


def run(task: Task) -> None:
    """Compute every embedding that is not finished yet."""
    parameters = task.parameters
    requested = _requested(task)
    iterations = parameters.get_int("ITERATIONS", 250, at_least=10, at_most=100_000)
    most = parameters.get_int("POLYNOMIAL_FEATURES", 50, at_least=1, at_most=1_000)
    limit = parameters.get_int("ROW_LIMIT", 400_000, at_least=10, at_most=100_000_000)
    figures: dict[str, Any] = {}
    unfinished = []
    for embedding in requested:
        if outputs.is_finished(embedding.path(parameters.storing), parameters.inputs):
            task.note(f"{embedding.name}: already finished, reused")
            figures[embedding.name] = {"reused": True}
            _draw_missing_plot(task, embedding)
        else:
            unfinished.append(embedding)
    if unfinished:
        _embed(task, unfinished, iterations, most, limit, figures)
    task.write_report(
        TrainingSummary(
            training_rows=len(task.training),
            chosen={"iterations": iterations, "embeddings": figures},
            libraries=("opentsne", "faiss-cpu", "scikit-learn", "scipy", "matplotlib"),
        ),
        f"{len(requested)} embeddings of {len(task.training) + len(task.tournament):,} rows in "
        f"{parameters.storing}/tsne",
    )


def prepare_self_test(storing: Path) -> None:
    """Write a split, which the selection of features for products needs."""
    training = Table(storing / "training.parquet")
    similarity = np.linspace(0, 1, len(training), dtype=np.float32)
    write_split(storing, training.ids, Split(similarity, similarity > 0.9), None)


def check_self_test(storing: Path) -> None:
    """Check that every embedding has all rows and an extent, and that its plot exists."""
    training = Table(storing / "training.parquet")
    tournament = Table(storing / "tournament.parquet")
    for embedding in STANDARD:
        coordinates = [read_embedding(storing, embedding, table) for table in (training, tournament)]
        if not float(np.min(np.std(np.vstack(coordinates), axis=0))) > 1e-3 or not _plot(storing, embedding).is_file():
            raise ModelFailureError(f"self-test of tsne: {embedding.name} is a single point, or has no plot.")


def _requested(task: Task) -> list[Embedding]:
    text = task.parameters.get_str("PERPLEXITIES", ",".join(map(str, PERPLEXITIES)))
    items = [item.strip() for item in text.split(",")]
    if not all(item.isdecimal() and 1 <= int(item) <= 999 for item in items) or len(set(map(int, items))) < len(items):
        raise BadParameterError(
            f"PERPLEXITIES is {text!r}: allowed are different whole numbers from 1 to 999, separated by commas, "
            f"such as {','.join(map(str, PERPLEXITIES))}. Correct it in models.yaml."
        )
    numbers = sorted(map(int, items))
    requested = [Embedding(number, polynomial) for polynomial in (False, True) for number in numbers]
    if task.parameters.get_str("THREE_D", "false", choices=("false", "true")) == "true":
        requested.insert(len(numbers), Embedding(_PERPLEXITY_3D, dimensions=3))
    return requested


def _embed(
    task: Task, unfinished: list[Embedding], iterations: int, most: int, limit: int, figures: dict[str, Any]
) -> None:
    training, tournament = task.training, task.tournament
    total, features = len(training) + len(tournament), len(training.feature_names)
    embedded_count = min(total, limit)
    k = min(embedded_count - 1, 3 * max(embedding.perplexity for embedding in unfinished))
    held = _BASE_MEMORY + (total * features * 4 + embedded_count * k * 8) / 2**20
    affinities = embedded_count * k * (_BYTES_PER_NEIGHBOUR - 8) / 2**20
    spaces = list(dict.fromkeys(embedding.polynomial for embedding in unfinished))
    selected = min(most, features)
    if True in spaces and task.parameters.memory_limit is not None:
        selected = max_features(embedded_count, at_most=selected, mebibytes=task.parameters.memory_limit - held)
    columns = max(features if False in spaces else 0, count(selected) if True in spaces else 0)
    index = embedded_count * columns * 4 / 2**20
    task.require_memory(held + max(affinities, index), f"{embedded_count:,} rows in {columns:,} dimensions")

    rows = _read(task, limit)
    perplexity = largest_perplexity(len(rows.embedded))
    for polynomial in spaces:
        part = [embedding for embedding in unfinished if embedding.polynomial == polynomial]
        matrix = rows.features
        if polynomial and selected < features:
            matrix = np.ascontiguousarray(matrix[:, _most_informative(task, rows, selected)])
            task.note(
                f"products of the {selected:,} features, of {features:,}, that correlate most with the target "
                "(POLYNOMIAL_FEATURES, or what fits in memory)"
            )
        space = Space.of(matrix, polynomial=polynomial)
        with task.progress.step(
            f"searching the {k:,} nearest neighbours of {len(rows.embedded):,} rows in {space.dimensions:,} dimensions"
        ):
            own, theirs = search(space, rows.embedded, rows.others, k, task.parameters.threads, task.progress.update)
        components = space.principal_components(rows.embedded, max(embedding.dimensions for embedding in part))
        for embedding in part:
            if embedding.perplexity > perplexity:
                task.note(f"{embedding.name}: {len(rows.embedded):,} rows allow a perplexity of {perplexity:.1f}")
            positions = start(components[:, : embedding.dimensions], task.parameters.seed)
            figures[embedding.name] = _compute_embedding(task, embedding, rows, own, theirs, positions, iterations)
            figures[embedding.name]["space_dimensions"] = space.dimensions


def _read(task: Task, limit: int) -> _Rows:
    tables = (task.training, task.tournament)
    ids = pa.chunked_array([chunk for table in tables for chunk in table.ids.chunks])
    features = np.empty((len(ids), len(task.training.feature_names)), dtype=np.float32)
    filled = 0
    for table in tables:
        for positions, block in table.batches():
            features[filled + positions] = block
        filled += len(table)
    Medians(features).fill(features)
    era_numbers = np.concatenate([table.era_numbers for table in tables])
    sides = np.repeat(np.array([0, 1], dtype=np.int8), [len(table) for table in tables])
    drawn = eras.sample(era_numbers, sides, limit, seed=task.parameters.seed)
    if not drawn.all():
        task.note(
            f"embedding {drawn.sum():,} of {len(drawn):,} rows, drawn evenly from all eras (ROW_LIMIT); "
            f"the other {(~drawn).sum():,} are placed among their nearest"
        )
    targets = np.concatenate([table.targets for table in tables])
    return _Rows(ids, targets, features, np.flatnonzero(drawn), np.flatnonzero(~drawn))


def _most_informative(task: Task, rows: _Rows, limit: int) -> NDArray[np.intp]:
    """Select the features with the largest rank correlation with the target; indices in order, shape (limit,)."""
    known = np.flatnonzero(
        ~read_split(task.parameters.storing, task.training).validation & ~np.isnan(task.training.targets)
    )
    ranks = rankdata(task.training.targets[known])
    ranks -= ranks.mean()
    strengths = np.zeros(rows.features.shape[1])
    for column in range(len(strengths)):
        own = rankdata(rows.features[known, column])
        own -= own.mean()
        scale = np.sqrt((own @ own) * (ranks @ ranks))
        strengths[column] = abs(own @ ranks) / scale if scale > 0 else 0
    return np.sort(np.argsort(-strengths, kind="stable")[:limit])


def _compute_embedding(
    task: Task,
    embedding: Embedding,
    rows: _Rows,
    own: Neighbours,
    theirs: Neighbours,
    positions: NDArray[np.float64],
    iterations: int,
) -> dict[str, Any]:
    """Compute, save and plot an embedding; return its figures for the report."""
    seed, storing = task.parameters.seed, task.parameters.storing
    began = time.monotonic()

    def report(iteration: int, divergence: float) -> None:
        position = f"{embedding.name}: iteration {iteration:,} of {iterations:,}, KL divergence {divergence:.4f}"
        task.progress.update(iteration / iterations, position)

    with task.progress.step(f"computing {embedding.name}"):
        optimised = optimise(own, embedding.perplexity, positions, iterations, task.parameters.threads, report)
    if not np.isfinite(optimised.coordinates).all():
        raise ModelFailureError(f"{embedding.name}: a coordinate is not a finite number. Please report it.")
    coordinates = np.empty((len(rows.ids), embedding.dimensions), dtype=np.float32)
    coordinates[rows.embedded] = optimised.coordinates
    coordinates[rows.others] = interpolate(theirs, optimised.coordinates)
    write_embedding(storing, embedding, rows.ids, coordinates, task.parameters.inputs)
    seconds = time.monotonic() - began
    share = share_preserved(own, optimised.coordinates, k=_COMPARED_NEIGHBOURS, sample=_COMPARED_ROWS, seed=seed)
    preserved = f"{share:.1%} of the {_COMPARED_NEIGHBOURS} nearest neighbours preserved"
    quality = f"KL divergence {optimised.divergence:.4f}, {preserved}"
    task.progress.log(f"saved {embedding.name}: {quality}, {duration(seconds)}")
    _draw_plot(task, embedding, coordinates, rows.targets, quality)
    return {
        "kl_divergence": optimised.divergence,
        "neighbours_preserved": share,
        "perplexity": float(optimised.perplexity),
        "iterations": iterations,
        "grown": optimised.grown,
        "seconds": seconds,
        "rows": len(rows.ids),
        "embedded_rows": len(rows.embedded),
    }


def _draw_missing_plot(task: Task, embedding: Embedding) -> None:
    """Draw the plot of a finished embedding if an attempt ended between the two."""
    storing = task.parameters.storing
    if not _plot(storing, embedding).is_file():
        coordinates = [read_embedding(storing, embedding, table) for table in (task.training, task.tournament)]
        targets = np.concatenate([task.training.targets, task.tournament.targets])
        _draw_plot(task, embedding, np.vstack(coordinates), targets, "finished by an earlier attempt")


def _draw_plot(
    task: Task, embedding: Embedding, coordinates: NDArray[np.float32], targets: NDArray[np.float32], subtitle: str
) -> None:
    space = "features and their products of two" if embedding.polynomial else "features"
    title = f"t-SNE of the {space}, perplexity {embedding.perplexity}"
    draw(_plot(task.parameters.storing, embedding), coordinates, targets, title, subtitle, task.parameters.seed)


def _plot(storing: Path, embedding: Embedding) -> Path:
    return storing / "plots" / f"tsne_{embedding.name}.png"
