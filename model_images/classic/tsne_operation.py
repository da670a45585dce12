"""t-SNE embeddings of the training and validation rows together, in two dimensions.

An embedding for each perplexity, of the features and again of the features with their products of two. Each is saved as
soon as it is finished, so that a retry continues after the last finished one. The rows to predict are not used: they
are placed in the finished embeddings, each among its 15 nearest rows. Environment variables:

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
    its 15 nearest in the sample, as the rows to predict are.

Features are imputed by their median; columns are standardised. Neighbours are exact. See `_tsne_optimizer` for the
optimization and its measurements.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from numerai_contract import eras, outputs, saved_state
from numerai_contract.embeddings import LIVE, PERPLEXITIES, STANDARD, Embedding, read_embedding, write_embedding
from numerai_contract.exits import BadParameterError, ModelFailureError
from numerai_contract.imputation import Medians
from numerai_contract.progress import duration
from numerai_contract.split import Split, read_split, write_split
from numerai_contract.tables import Table
from numerai_contract.task import TrainingSummary

from ._nearest_neighbors import Neighbours, interpolate, search, search_others, share_preserved
from ._polynomial import count
from ._scatter_plot import draw
from ._standardized import Space, max_features
from ._tsne_optimizer import largest_perplexity, optimise, start

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

RESUMES = True
SELF_TEST_PARAMETERS = {"ITERATIONS": "20", "POLYNOMIAL_FEATURES": "4"}

_PERPLEXITY_3D = 30
_COMPARED_NEIGHBOURS, _COMPARED_ROWS = 15, 2_000
# MiB of libraries and blocks, and bytes for each neighbour of each row during the computation of affinities
_BASE_MEMORY, _BYTES_PER_NEIGHBOUR = 700, 90


class _Rows(NamedTuple):
    """All rows of both tables, their imputed features, and the indices of the embedded ones and of the others."""

    table: TableView
    medians: Medians
    features: NDArray[np.float32]
    embedded: NDArray[np.intp]
    others: NDArray[np.intp]


def make(task: Task) -> TrainingSummary:
    """Compute every embedding that is not finished yet, and save what `apply` needs."""
    parameters, directory = task.parameters, task.model.path
    requested = _requested(task)
    iterations = parameters.get_int("ITERATIONS", 250, at_least=10, at_most=100_000)
    most = parameters.get_int("POLYNOMIAL_FEATURES", 50, at_least=1, at_most=1_000)
    limit = parameters.get_int("ROW_LIMIT", 400_000, at_least=10, at_most=100_000_000)
    selected = _selected_count(task, requested, most, limit)
    rows = _read(task, limit)
    features_of_space = {
        polynomial: _space_features(task, rows, selected if polynomial else rows.features.shape[1])
        for polynomial in _spaces(requested)
    }
    figures: dict[str, Any] = {}
    finished: dict[Embedding, NDArray[np.float32]] = {}
    for embedding in requested:
        if outputs.is_finished(embedding.path(directory), parameters.inputs):
            task.note(f"{embedding.name}: already finished, reused")
            figures[embedding.name] = {"reused": True}
            coordinates = read_embedding(directory, embedding, rows.table)
            finished[embedding] = coordinates[rows.embedded]
            if not _plot(directory, embedding).is_file():
                _draw_plot(task, embedding, coordinates, rows, "finished by an earlier attempt")
    arrays: dict[str, NDArray[Any]] = {
        "features": rows.features[rows.embedded].astype(rows.table.feature_dtype, copy=False),
        "medians": rows.medians.values,
    }
    for polynomial, features in features_of_space.items():
        is_all = len(features) == rows.features.shape[1]
        matrix = rows.features if is_all else np.ascontiguousarray(rows.features[:, features])
        space = Space.of(matrix, polynomial=polynomial)
        unfinished = [each for each in requested if each.polynomial == polynomial and each not in finished]
        if unfinished:
            finished |= _embed(task, unfinished, rows, space, iterations, figures)
        arrays |= {_key(polynomial, "features"): features}
        arrays |= {_key(polynomial, "means"): space.means, _key(polynomial, "scales"): space.scales}
    arrays |= {embedding.name: finished[embedding] for embedding in requested}
    saved_state.save(task.model.saved, arrays, {"embeddings": [embedding.name for embedding in requested]})
    return TrainingSummary(
        training_rows=len(rows.table),
        chosen={"iterations": iterations, "embeddings": figures},
        libraries=("opentsne", "faiss-cpu", "scikit-learn", "scipy", "matplotlib"),
    )


def apply(task: Task) -> None:
    """Place the rows to predict in every embedding, as `make` has placed the rows outside of its sample."""
    arrays, settings = saved_state.load(task.model.saved)
    embeddings = [each for name in settings["embeddings"] if (each := Embedding.parse(name)) is not None]
    testing, parameters = task.testing, task.parameters
    live = Medians.from_values(arrays["medians"]).fill(testing.features().astype(np.float32, copy=False))
    embedded = np.arange(len(arrays["features"]))
    for polynomial in _spaces(embeddings):
        features = arrays[_key(polynomial, "features")]
        scaling = (polynomial, arrays[_key(polynomial, "means")], arrays[_key(polynomial, "scales")])
        space, placed = Space(arrays["features"][:, features], *scaling), Space(live[:, features], *scaling)
        with task.progress.step(
            f"placing {len(testing):,} rows among {len(embedded):,} in {space.dimensions:,} dimensions"
        ):
            nearest = search_others(space, embedded, placed, parameters.threads, task.progress.update)
        for embedding in embeddings:
            if embedding.polynomial == polynomial:
                coordinates = interpolate(nearest, arrays[embedding.name])
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


def _key(polynomial: bool, name: str) -> str:
    """Name an array of a space in the saved state."""
    return f"{'products' if polynomial else 'features'}_{name}"


def _spaces(embeddings: list[Embedding]) -> list[bool]:
    """List the spaces of embeddings, by whether they have products."""
    return list(dict.fromkeys(embedding.polynomial for embedding in embeddings))


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


def _selected_count(task: Task, requested: list[Embedding], most: int, limit: int) -> int:
    """Compute how many features have products, and check the memory.

    The number depends on all embeddings, including those that an earlier attempt has finished, so that both have the
    same features.
    """
    total, features = len(task.training) + len(task.validation), len(task.training.feature_names)
    embedded_count = min(total, limit)
    k = _neighbours(embedded_count, requested)
    held = _BASE_MEMORY + (total * features * 4 + embedded_count * k * 8) / 2**20
    affinities = embedded_count * k * (_BYTES_PER_NEIGHBOUR - 8) / 2**20
    spaces = _spaces(requested)
    selected = min(most, features)
    if True in spaces and task.parameters.memory_limit is not None:
        selected = max_features(embedded_count, at_most=selected, mebibytes=task.parameters.memory_limit - held)
    columns = max(features if False in spaces else 0, count(selected) if True in spaces else 0)
    index = embedded_count * columns * 4 / 2**20
    task.require_memory(held + max(affinities, index), f"{embedded_count:,} rows in {columns:,} dimensions")
    return selected


def _neighbours(embedded_rows: int, embeddings: list[Embedding]) -> int:
    """Return the number of neighbours of a row that the embeddings need."""
    return min(embedded_rows - 1, 3 * max(embedding.perplexity for embedding in embeddings))


def _embed(
    task: Task, embeddings: list[Embedding], rows: _Rows, space: Space, iterations: int, figures: dict[str, Any]
) -> dict[Embedding, NDArray[np.float32]]:
    """Compute, save and plot embeddings of a space; return the coordinates of the embedded rows."""
    perplexity = largest_perplexity(len(rows.embedded))
    k = _neighbours(len(rows.embedded), embeddings)
    with task.progress.step(
        f"searching the {k:,} nearest neighbours of {len(rows.embedded):,} rows in {space.dimensions:,} dimensions"
    ):
        own, theirs = search(space, rows.embedded, rows.others, k, task.parameters.threads, task.progress.update)
    components = space.principal_components(rows.embedded, max(embedding.dimensions for embedding in embeddings))
    finished = {}
    for embedding in embeddings:
        if embedding.perplexity > perplexity:
            task.note(f"{embedding.name}: {len(rows.embedded):,} rows allow a perplexity of {perplexity:.1f}")
        positions = start(components[:, : embedding.dimensions], task.parameters.seed)
        finished[embedding], figures[embedding.name] = _compute_embedding(
            task, embedding, rows, own, theirs, positions, iterations
        )
        figures[embedding.name]["space_dimensions"] = space.dimensions
    return finished


def _read(task: Task, limit: int) -> _Rows:
    """Read the rows of both tables, the training table's first, and draw those to embed."""
    table = task.for_final_fit().training
    features = np.empty((len(table), len(table.feature_names)), dtype=np.float32)
    for positions, block in table.batches():
        features[positions] = block
    medians = Medians(features)
    medians.fill(features)
    sides = np.repeat(np.array([0, 1], dtype=np.int8), [len(task.training), len(task.validation)])
    drawn = eras.sample(table.era_numbers, sides, limit, seed=task.parameters.seed)
    if not drawn.all():
        task.note(
            f"embedding {drawn.sum():,} of {len(drawn):,} rows, drawn evenly from all eras (ROW_LIMIT); "
            f"the other {(~drawn).sum():,} are placed among their nearest"
        )
    return _Rows(table, medians, features, np.flatnonzero(drawn), np.flatnonzero(~drawn))


def _space_features(task: Task, rows: _Rows, selected: int) -> NDArray[np.intp]:
    """Select the features of a space, and note it; indices in order, shape (selected,)."""
    features = rows.features.shape[1]
    if selected == features:
        return np.arange(features)
    task.note(
        f"products of the {selected:,} features, of {features:,}, that correlate most with the target "
        "(POLYNOMIAL_FEATURES, or what fits in memory)"
    )
    return _most_informative(task, rows, selected)


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
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Compute, save and plot an embedding; return the coordinates of the embedded rows, and figures for the report."""
    seed = task.parameters.seed
    began = time.monotonic()

    def report(iteration: int, divergence: float) -> None:
        position = f"{embedding.name}: iteration {iteration:,} of {iterations:,}, KL divergence {divergence:.4f}"
        task.progress.update(iteration / iterations, position)

    with task.progress.step(f"computing {embedding.name}"):
        optimised = optimise(own, embedding.perplexity, positions, iterations, task.parameters.threads, report)
    if not np.isfinite(optimised.coordinates).all():
        raise ModelFailureError(f"{embedding.name}: a coordinate is not a finite number. Please report it.")
    coordinates = np.empty((len(rows.table), embedding.dimensions), dtype=np.float32)
    coordinates[rows.embedded] = optimised.coordinates
    coordinates[rows.others] = interpolate(theirs, optimised.coordinates)
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
        "embedded_rows": len(rows.embedded),
    }
    return optimised.coordinates, figures


def _draw_plot(task: Task, embedding: Embedding, coordinates: NDArray[np.float32], rows: _Rows, subtitle: str) -> None:
    space = "features and their products of two" if embedding.polynomial else "features"
    title = f"t-SNE of the {space}, perplexity {embedding.perplexity}"
    draw(_plot(task.model.path, embedding), coordinates, rows.table.targets, title, subtitle, task.parameters.seed)


def _plot(directory: Path, embedding: Embedding) -> Path:
    return directory / "plots" / f"tsne_{embedding.name}.png"
