"""t-SNE embeddings of the training and validation rows together, in two dimensions.

An embedding for each perplexity, of the features and again of the features with their products of two. Each is saved as
soon as it is finished, so that a retry continues after the last finished one. The rows to predict are not used: they
are placed in the finished embeddings. Environment variables:

``PERPLEXITIES`` (5,10,15,30,50)
    Approximate number of neighbours of a row. One search for neighbours serves all embeddings of a space.
``THREE_D`` (false)
    Whether to compute an embedding in three dimensions as well, at perplexity 30. It cannot use a grid and takes long.
``POLYNOMIAL_FEATURES`` (50)
    Maximum number of features with products; fewer when the memory is not enough. When there are more, the features
    that correlate most with the target in the split's training part are used.
``ITERATIONS`` (250)
    Of each embedding.
``ROW_LIMIT``
    Above it, a sample is embedded that keeps the share of each era and each table, and every other row is placed, as
    the rows to predict are: where its 15 nearest embedded rows are the densest. By default tables of at most 400,000
    rows are embedded whole; of larger ones as many as take half an hour on two cores, and at least 50,000.

Features are imputed by their median; columns are standardised. The neighbours of embedded rows are exact. See
`_nearest_neighbors` for the placement and `_tsne_optimizer` for the optimization.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract import eras, outputs, saved_state
from numerai_contract.embeddings import LIVE, PERPLEXITIES, STANDARD, Embedding, read_embedding, write_embedding
from numerai_contract.exits import BadParameterError, ModelFailureError
from numerai_contract.feature_selection import most_correlated
from numerai_contract.imputation import Medians
from numerai_contract.plans import Plan, Sizes, largest
from numerai_contract.progress import duration
from numerai_contract.split import Split, read_split, write_split
from numerai_contract.tables import Table
from numerai_contract.task import TrainingSummary

from ._nearest_neighbors import NEIGHBOURS_OF_OTHERS, Index, place, search, share_preserved
from ._polynomial import count
from ._scatter_plot import draw
from ._standardized import Space, principal_directions
from ._tsne_optimizer import largest_perplexity, optimise, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

    from ._nearest_neighbors import Anchors, Neighbours

RESUMES = True
SELF_TEST_PARAMETERS = {"ITERATIONS": "20", "POLYNOMIAL_FEATURES": "4"}

_PERPLEXITY_3D = 30
_COMPARED_NEIGHBOURS, _COMPARED_ROWS = 15, 2_000
# MiB of libraries and blocks (a run of 135,567 rows with 12,000 embedded took 623 in all), and bytes for each
# neighbour of each row during the computation of affinities
_BASE_MEMORY, _BYTES_PER_NEIGHBOUR = 700, 90
# tables of so many rows are embedded whole
_MAX_WHOLE = 400_000
# rows of larger tables that are embedded at least, and rows that all features are used for
_MIN_ROWS, _ENOUGH_ROWS = 50_000, 100_000
_MIN_FEATURES = 50
# processor seconds of a fit of a larger table
_MAX_SECONDS = 3_600
# seconds of the exact search for each pair of rows, and for each pair and dimension; of 250 iterations for each row of
# an embedding; for each row outside of the embedding, to find its neighbours in a space and to place it in an embedding
# (measured by `benchmarks/tsne.py` and on 50,000 rows of a generated season; the last two are rounded up)
_PER_PAIR, _PER_PAIR_AND_DIMENSION = 2.4e-9, 20e-12
_PER_EMBEDDED_ROW = 1e-3
_PER_SEARCHED_ROW, _PER_PLACED_ROW = 8e-5, 1e-5


class _Rows(NamedTuple):
    """All rows of both tables, which of them are embedded, their features and the medians that complete them."""

    table: TableView
    is_embedded: NDArray[np.bool_]
    features: NDArray[Any]
    medians: Medians

    def others(self) -> Iterator[NDArray[np.float32]]:
        """Read the features of the other rows, a batch at a time."""
        for _, block in self.table.batches(~self.is_embedded):
            yield self.medians.fill(block.astype(np.float32, copy=False))


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Choose the rows to embed, and the features, by time and memory."""
    requested = _requested(parameters)
    row_limit = parameters.get_int("ROW_LIMIT", _MAX_WHOLE, at_least=10, at_most=100_000_000)
    is_fixed = "ROW_LIMIT" in parameters or sizes.rows <= row_limit
    most = min(sizes.rows, row_limit)

    def memory(rows: int, features: int) -> float:
        return _memory(parameters, sizes, requested, rows, features)

    def use(rows: int, features: int) -> float:
        """Return the share of the memory or of the time that is used, whichever is larger."""
        limit = parameters.memory_limit
        of_memory = 0 if limit is None else memory(rows, features) / limit
        seconds = 0 if is_fixed else _seconds(parameters, sizes, requested, rows, features)
        return max(of_memory, seconds / _MAX_SECONDS)

    enough = most if is_fixed else _ENOUGH_ROWS
    features = largest(sizes.features, min(_MIN_FEATURES, sizes.features), lambda value: use(enough, value), 1)
    rows = most
    if "ROW_LIMIT" not in parameters:
        rows = largest(most, min(_MIN_ROWS, most), lambda value: use(value, features), 1)
    return Plan(rows, features, memory(rows, features))


def make(task: Task) -> TrainingSummary:
    """Compute every embedding that is not finished yet, and save what `apply` needs."""
    parameters, directory = task.parameters, task.model.path
    requested, sizes = _requested(parameters), task.sizes
    planned = plan(parameters, sizes)
    products = _product_features(parameters, sizes, requested, planned.rows, planned.features)
    task.follow(planned, None if planned.features == sizes.features else _rows_with_used_targets(task))
    rows = _read(task, planned.rows)
    features_of_space = {
        polynomial: _space_features(task, products if polynomial else planned.features)
        for polynomial in _spaces(requested)
    }
    figures: dict[str, Any] = {}
    finished: dict[Embedding, NDArray[np.float32]] = {}
    for embedding in requested:
        if outputs.is_finished(embedding.path(directory), parameters.inputs):
            task.note(f"{embedding.name}: already finished, reused")
            figures[embedding.name] = {"reused": True}
            coordinates = read_embedding(directory, embedding, rows.table)
            finished[embedding] = coordinates[rows.is_embedded]
            if not _plot(directory, embedding).is_file():
                _draw_plot(task, embedding, coordinates, rows, "finished by an earlier attempt")
    arrays: dict[str, NDArray[Any]] = {"medians": rows.medians.values}
    for polynomial, features in features_of_space.items():
        space = Space.of(rows.features, features, polynomial=polynomial)
        covariance = space.covariance(rows.features)
        index = Index.build(space, rows.features, covariance)
        unfinished = [each for each in requested if each.polynomial == polynomial and each not in finished]
        if unfinished:
            finished |= _embed(task, unfinished, rows, space, covariance, index, figures)
        arrays |= index.arrays(_prefix(polynomial))
    arrays |= {embedding.name: finished[embedding] for embedding in requested}
    saved_state.save(task.model.saved, arrays, {"embeddings": [embedding.name for embedding in requested]})
    return TrainingSummary(
        training_rows=len(rows.table),
        chosen={"iterations": _iterations(parameters), "embeddings": figures},
        libraries=("opentsne", "faiss-cpu", "scikit-learn", "scipy", "matplotlib"),
    )


def apply(task: Task) -> None:
    """Place the rows to predict in every embedding, as `make` has placed the rows outside of its sample."""
    arrays, settings = saved_state.load(task.model.saved)
    embeddings = [each for name in settings["embeddings"] if (each := Embedding.parse(name)) is not None]
    testing, parameters = task.testing, task.parameters
    live = Medians.from_values(arrays["medians"]).fill(testing.features().astype(np.float32, copy=False))
    for polynomial in _spaces(embeddings):
        index = Index.load(arrays, _prefix(polynomial), polynomial=polynomial)
        with task.progress.step(f"searching the nearest of {index.rows:,} embedded rows of {len(testing):,} rows"):
            anchors = index.search([live], len(live), parameters.threads, task.progress.update)
        for embedding in embeddings:
            if embedding.polynomial == polynomial:
                coordinates = place(anchors, arrays[embedding.name], parameters.threads)
                write_embedding(parameters.storing / LIVE, embedding, testing.ids, coordinates, parameters.inputs)


def prepare_self_test(storing: Path) -> None:
    """Write a split, which the selection of features for products needs."""
    training = Table(storing / "training.parquet")
    similarity = np.linspace(0, 1, len(training), dtype=np.float32)
    write_split(storing, training.ids, Split(similarity, similarity > 0.9), None)


def check_self_test(storing: Path) -> None:
    """Check that every embedding has all rows and an extent, and that its plot exists."""
    training, validation, live = (Table(storing / f"{name}.parquet") for name in ("training", "validation", "live"))
    fit = storing / "model"
    for embedding in STANDARD:
        coordinates = [read_embedding(fit, embedding, table) for table in (training, validation)]
        coordinates.append(read_embedding(storing / LIVE, embedding, live))
        is_point = not all(float(np.min(np.std(each, axis=0))) > 1e-3 for each in coordinates)
        if is_point or not _plot(fit, embedding).is_file():
            raise ModelFailureError(f"self-test of tsne: {embedding.name} is a single point, or has no plot.")


def _prefix(polynomial: bool) -> str:
    """Name a space in the saved state."""
    return "products" if polynomial else "features"


def _spaces(embeddings: list[Embedding]) -> list[bool]:
    """List the spaces of embeddings, by whether they have products."""
    return list(dict.fromkeys(embedding.polynomial for embedding in embeddings))


def _iterations(parameters: Parameters) -> int:
    return parameters.get_int("ITERATIONS", 250, at_least=10, at_most=100_000)


def _requested(parameters: Parameters) -> list[Embedding]:
    text = parameters.get_str("PERPLEXITIES", ",".join(map(str, PERPLEXITIES)))
    items = [item.strip() for item in text.split(",")]
    if not all(item.isdecimal() and 1 <= int(item) <= 999 for item in items) or len(set(map(int, items))) < len(items):
        raise BadParameterError(
            f"PERPLEXITIES is {text!r}: allowed are different whole numbers from 1 to 999, separated by commas, "
            f"such as {','.join(map(str, PERPLEXITIES))}. Correct it in models.yaml."
        )
    numbers = sorted(map(int, items))
    requested = [Embedding(number, polynomial) for polynomial in (False, True) for number in numbers]
    if parameters.get_str("THREE_D", "false", choices=("false", "true")) == "true":
        requested.insert(len(numbers), Embedding(_PERPLEXITY_3D, dimensions=3))
    return requested


def _seconds(parameters: Parameters, sizes: Sizes, requested: list[Embedding], rows: int, features: int) -> float:
    """Compute the processor seconds of a fit."""
    dimensions = _dimensions(parameters, sizes, requested, rows, features)
    pairs = sum(_PER_PAIR + _PER_PAIR_AND_DIMENSION * columns for columns in dimensions)
    embedding = len(requested) * _PER_EMBEDDED_ROW * _iterations(parameters) / 250
    placing = len(dimensions) * _PER_SEARCHED_ROW + len(requested) * _PER_PLACED_ROW
    return rows**2 * pairs + rows * embedding + (sizes.rows - rows) * placing


def _memory(parameters: Parameters, sizes: Sizes, requested: list[Embedding], rows: int, features: int) -> float:
    """Compute the peak memory of a fit, in MiB."""
    # the candidates of the exact search, before the neighbours of all rows are used
    candidates = rows * max(_dimensions(parameters, sizes, requested, rows, features)) * 4
    searched = (sizes.rows - rows) * NEIGHBOURS_OF_OTHERS * 8
    affinities = rows * _neighbours(rows, requested) * (_BYTES_PER_NEIGHBOUR - 8)
    return _held(sizes, requested, rows, features) + max(candidates, searched + affinities) / 2**20


def _held(sizes: Sizes, requested: list[Embedding], rows: int, features: int) -> float:
    """Compute the memory in use throughout a fit, in MiB."""
    neighbours = rows * _neighbours(rows, requested) * 8
    coordinates = sizes.rows * 2 * 4
    embedded = rows * features * sizes.value_bytes
    return _BASE_MEMORY + sizes.open_tables + (embedded + neighbours + coordinates) / 2**20


def _dimensions(
    parameters: Parameters, sizes: Sizes, requested: list[Embedding], rows: int, features: int
) -> list[int]:
    """Return the dimensions of each space."""
    products = _product_features(parameters, sizes, requested, rows, features)
    return [count(products) if polynomial else features for polynomial in _spaces(requested)]


def _product_features(
    parameters: Parameters, sizes: Sizes, requested: list[Embedding], rows: int, features: int
) -> int:
    """Compute how many features have products.

    The number depends on all embeddings, including those that an earlier attempt has finished, so that both have the
    same features.
    """
    selected = min(parameters.get_int("POLYNOMIAL_FEATURES", 50, at_least=1, at_most=1_000), features)
    if parameters.memory_limit is None:
        return selected
    free = parameters.memory_limit - _held(sizes, requested, rows, features)
    return largest(selected, 1, lambda features: 4 * rows * count(features) / 2**20, free)


def _neighbours(embedded_rows: int, embeddings: list[Embedding]) -> int:
    """Return the number of neighbours of a row that the embeddings need."""
    return min(embedded_rows - 1, 3 * max(embedding.perplexity for embedding in embeddings))


def _embed(
    task: Task,
    embeddings: list[Embedding],
    rows: _Rows,
    space: Space,
    covariance: NDArray[np.float64],
    index: Index,
    figures: dict[str, Any],
) -> dict[Embedding, NDArray[np.float32]]:
    """Compute, save and plot embeddings of a space; return the coordinates of the embedded rows."""
    embedded, others = len(rows.features), int(np.count_nonzero(~rows.is_embedded))
    perplexity = largest_perplexity(embedded)
    k, threads = _neighbours(embedded, embeddings), task.parameters.threads
    with task.progress.step(
        f"searching the {k:,} nearest neighbours of {embedded:,} rows in {space.dimensions:,} dimensions"
    ):
        own = search(space, rows.features, k, threads, task.progress.update)
    with task.progress.step(f"searching the nearest embedded rows of {others:,} others"):
        anchors = index.search(rows.others() if others else (), others, threads, task.progress.update)
    directions = principal_directions(covariance, max(embedding.dimensions for embedding in embeddings))
    components = space.project(rows.features, directions)
    finished = {}
    for embedding in embeddings:
        if embedding.perplexity > perplexity:
            task.note(f"{embedding.name}: {embedded:,} rows allow a perplexity of {perplexity:.1f}")
        positions = start(components[:, : embedding.dimensions], task.parameters.seed)
        finished[embedding], figures[embedding.name] = _compute_embedding(
            task, embedding, rows, own, anchors, positions
        )
        figures[embedding.name]["space_dimensions"] = space.dimensions
    return finished


def _read(task: Task, limit: int) -> _Rows:
    """Draw the rows of both tables to embed, and read their features."""
    table = task.for_final_fit().training
    sides = np.repeat(np.array([0, 1], dtype=np.int8), [len(task.training), len(task.validation)])
    drawn = eras.sample(table.era_numbers, sides, limit, seed=task.parameters.seed)
    if not drawn.all():
        task.note(
            f"embedding {drawn.sum():,} of {len(drawn):,} rows, drawn evenly from all eras (ROW_LIMIT); "
            f"the other {(~drawn).sum():,} are placed among their nearest"
        )
    features = table.features(drawn)
    medians = Medians(features)
    if features.dtype != np.int8:  # which has no missing values
        medians.fill(features.astype(np.float32, copy=False))
    return _Rows(table, drawn, features, medians)


def _space_features(task: Task, selected: int) -> NDArray[np.intp]:
    """Select the features of a space, and note it; indices in order, shape (selected,)."""
    names = task.training.feature_names
    if selected == len(names):
        return np.arange(selected)
    task.note(
        f"products of the {selected:,} features, of {len(names):,}, that correlate most with the target "
        "(POLYNOMIAL_FEATURES, or what fits in memory)"
    )
    found = most_correlated(task.training, _rows_with_used_targets(task), selected)
    return np.array([names.index(name) for name in found])


def _rows_with_used_targets(task: Task) -> NDArray[np.bool_]:
    """Mark the rows of the split's training part, whose targets may be used; shape (rows of the training table,)."""
    return read_split(task.parameters.storing, task.training).training


def _compute_embedding(
    task: Task,
    embedding: Embedding,
    rows: _Rows,
    own: Neighbours,
    anchors: Anchors,
    positions: NDArray[np.float64],
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Compute, save and plot an embedding; return the coordinates of the embedded rows, and figures for the report."""
    seed, threads, iterations = task.parameters.seed, task.parameters.threads, _iterations(task.parameters)
    began = time.monotonic()

    def report(iteration: int, divergence: float) -> None:
        position = f"{embedding.name}: iteration {iteration:,} of {iterations:,}, KL divergence {divergence:.4f}"
        task.progress.update(iteration / iterations, position)

    with task.progress.step(f"computing {embedding.name}"):
        optimised = optimise(own, embedding.perplexity, positions, iterations, threads, report)
    if not np.isfinite(optimised.coordinates).all():
        raise ModelFailureError(f"{embedding.name}: a coordinate is not a finite number. Please report it.")
    coordinates = np.empty((len(rows.table), embedding.dimensions), dtype=np.float32)
    coordinates[rows.is_embedded] = optimised.coordinates
    coordinates[~rows.is_embedded] = place(anchors, optimised.coordinates, threads)
    write_embedding(task.model.path, embedding, rows.table.ids, coordinates, task.parameters.inputs)
    seconds = time.monotonic() - began
    share = share_preserved(own, optimised.coordinates, k=_COMPARED_NEIGHBOURS, sample=_COMPARED_ROWS, seed=seed)
    preserved = f"{share:.1%} of the {_COMPARED_NEIGHBOURS} nearest neighbours preserved"
    quality = f"KL divergence {optimised.divergence:.4f}, {preserved}"
    task.progress.log(f"saved {embedding.name}: {quality}, {duration(seconds)}")
    _draw_plot(task, embedding, coordinates, rows, quality)
    figures = {
        "kl_divergence": optimised.divergence,
        "neighbours_preserved": share,
        "perplexity": float(optimised.perplexity),
        "iterations": iterations,
        "grown": optimised.grown,
        "seconds": seconds,
        "rows": len(rows.table),
        "embedded_rows": len(rows.features),
    }
    return optimised.coordinates, figures


def _draw_plot(task: Task, embedding: Embedding, coordinates: NDArray[np.float32], rows: _Rows, subtitle: str) -> None:
    space = "features and their products of two" if embedding.polynomial else "features"
    title = f"t-SNE of the {space}, perplexity {embedding.perplexity}"
    draw(_plot(task.model.path, embedding), coordinates, rows.table.targets, title, subtitle, task.parameters.seed)


def _plot(directory: Path, embedding: Embedding) -> Path:
    return directory / "plots" / f"tsne_{embedding.name}.png"
