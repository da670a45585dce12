"""Maps of all rows by t-SNE: those of training, validation and tournament together, in two dimensions.

A map for each perplexity, of the features and again of the features with their products of two. Each is saved as soon
as it is finished, so that a retry takes up where the last one stopped. Parameters of its own:

``PERPLEXITIES`` (5,10,15,30,50)
    How many neighbours a row has, about. One search for neighbours serves all of a space's maps.
``THREE_D`` (false)
    Whether to draw a map in three dimensions as well, at perplexity 30. It has no grid to lean on and takes long.
``POLYNOMIAL_FEATURES`` (50)
    The most features whose products are taken; fewer where the memory is not enough. When there are more, those whose
    rank correlation with the target is largest in the split's training part.
``ITERATIONS`` (250)
    Of each map.
``ROW_LIMIT`` (400,000)
    Above it a sample is embedded that keeps each era's and either table's share, and every other row is placed among
    its 15 nearest in it.

Features are imputed by their median; columns are standardised. Neighbours are exact. What a map is drawn by, and how
it compares, see `_optimise`.
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
from numerai_contract.progress import duration
from numerai_contract.split import Split, read_split, write_split
from numerai_contract.tables import Table
from numerai_contract.task import Learned

from ._neighbours import Neighbours, kept, place, search
from ._optimise import largest_perplexity, optimise, start
from ._polynomial import count
from ._scatter import draw
from ._space import Space, impute, most_features

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"ITERATIONS": "20", "POLYNOMIAL_FEATURES": "4"}

_PERPLEXITY_3D = 30
_KEPT_OF, _KEPT_SAMPLE = 15, 2_000
# MiB of the libraries and blocks, and bytes for each neighbour of each row while affinities are made
_BASE_MEMORY, _BYTES_A_NEIGHBOUR = 700, 90


class _Rows(NamedTuple):
    """All rows of both tables, the training table's first, and those of them that are embedded."""

    ids: pa.ChunkedArray
    targets: NDArray[np.float32]
    features: NDArray[np.float32]
    embedded: NDArray[np.intp]
    others: NDArray[np.intp]


def run(task: Task) -> None:
    """Draw every map that is not there yet."""
    parameters = task.parameters
    wanted = _wanted(task)
    iterations = parameters.whole("ITERATIONS", 250, at_least=10, at_most=100_000)
    most = parameters.whole("POLYNOMIAL_FEATURES", 50, at_least=1, at_most=1_000)
    limit = parameters.whole("ROW_LIMIT", 400_000, at_least=10, at_most=100_000_000)
    figures: dict[str, Any] = {}
    unfinished = []
    for embedding in wanted:
        if outputs.is_finished(embedding.path(parameters.storing), parameters.inputs):
            task.note(f"{embedding.name}: finished before, taken as it is")
            figures[embedding.name] = {"taken_as_it_was": True}
            _draw_missing(task, embedding)
        else:
            unfinished.append(embedding)
    if unfinished:
        _embed(task, unfinished, iterations, most, limit, figures)
    task.conclude(
        Learned(
            training_rows=len(task.training),
            chosen={"iterations": iterations, "maps": figures},
            libraries=("opentsne", "faiss-cpu", "scikit-learn", "scipy", "matplotlib"),
        ),
        f"{len(wanted)} maps of {len(task.training) + len(task.tournament):,} rows in {parameters.storing}/tsne",
    )


def prepare_self_test(storing: Path) -> None:
    """Lay a split, by which features are chosen for products."""
    training = Table(storing / "training.parquet")
    likeness = np.linspace(0, 1, len(training), dtype=np.float32)
    write_split(storing, training.ids, Split(likeness, likeness > 0.9), None)


def check_self_test(storing: Path) -> None:
    """Refuse maps that lack a row or have no extent, and missing plots."""
    training = Table(storing / "training.parquet")
    tournament = Table(storing / "tournament.parquet")
    for embedding in STANDARD:
        maps = [read_embedding(storing, embedding, table) for table in (training, tournament)]
        if not float(np.min(np.std(np.vstack(maps), axis=0))) > 1e-3 or not _plot(storing, embedding).is_file():
            raise ModelFailureError(f"self-test of tsne: {embedding.name} is a single point, or has no plot.")


def _wanted(task: Task) -> list[Embedding]:
    text = task.parameters.text("PERPLEXITIES", ",".join(map(str, PERPLEXITIES)))
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 1 <= int(word) <= 999 for word in words) or len(set(map(int, words))) < len(words):
        raise BadParameterError(
            f"PERPLEXITIES is {text!r}: allowed are different whole numbers from 1 to 999 by comma, such as "
            f"{','.join(map(str, PERPLEXITIES))}. Correct it in models.yaml."
        )
    numbers = sorted(map(int, words))
    wanted = [Embedding(number, polynomial) for polynomial in (False, True) for number in numbers]
    if task.parameters.text("THREE_D", "false", choices=("false", "true")) == "true":
        wanted.insert(len(numbers), Embedding(_PERPLEXITY_3D, dimensions=3))
    return wanted


def _embed(
    task: Task, unfinished: list[Embedding], iterations: int, most: int, limit: int, figures: dict[str, Any]
) -> None:
    training, tournament = task.training, task.tournament
    total, features = len(training) + len(tournament), len(training.feature_names)
    embedded_count = min(total, limit)
    k = min(embedded_count - 1, 3 * max(embedding.perplexity for embedding in unfinished))
    held = _BASE_MEMORY + (total * features * 4 + embedded_count * k * 8) / 2**20
    affinities = embedded_count * k * (_BYTES_A_NEIGHBOUR - 8) / 2**20
    spaces = list(dict.fromkeys(embedding.polynomial for embedding in unfinished))
    chosen = min(most, features)
    if True in spaces and task.parameters.memory_limit is not None:
        chosen = most_features(embedded_count, at_most=chosen, mebibytes=task.parameters.memory_limit - held)
    columns = max(features if False in spaces else 0, count(chosen) if True in spaces else 0)
    index = embedded_count * columns * 4 / 2**20
    task.need_memory(held + max(affinities, index), f"{embedded_count:,} rows in {columns:,} dimensions")

    rows = _read(task, limit)
    perplexity = largest_perplexity(len(rows.embedded))
    for polynomial in spaces:
        part = [embedding for embedding in unfinished if embedding.polynomial == polynomial]
        matrix = rows.features
        if polynomial and chosen < features:
            matrix = np.ascontiguousarray(matrix[:, _most_informative(task, rows, chosen)])
            task.note(
                f"products of the {chosen:,} features, of {features:,}, that correlate most with the target "
                "(POLYNOMIAL_FEATURES, or what fits in memory)"
            )
        space = Space.of(matrix, polynomial=polynomial)
        what = f"{len(rows.embedded):,} rows in {space.dimensions:,} dimensions"
        with task.progress.step(f"searching the {k:,} nearest neighbours of {what}"):
            own, theirs = search(space, rows.embedded, rows.others, k, task.parameters.threads, task.progress.update)
        components = space.principal_components(rows.embedded, max(embedding.dimensions for embedding in part))
        for embedding in part:
            if embedding.perplexity > perplexity:
                task.note(f"{embedding.name}: {len(rows.embedded):,} rows allow a perplexity of {perplexity:.1f}")
            positions = start(components[:, : embedding.dimensions], task.parameters.seed)
            figures[embedding.name] = _draw_map(task, embedding, rows, own, theirs, positions, iterations)
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
    impute(features)
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


def _most_informative(task: Task, rows: _Rows, wanted: int) -> NDArray[np.intp]:
    """Choose the features whose rank correlation with the target is largest; positions in order, shape (wanted,)."""
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
    return np.sort(np.argsort(-strengths, kind="stable")[:wanted])


def _draw_map(
    task: Task,
    embedding: Embedding,
    rows: _Rows,
    own: Neighbours,
    theirs: Neighbours,
    positions: NDArray[np.float64],
    iterations: int,
) -> dict[str, Any]:
    """Draw, save and plot a map; return its figures for the report."""
    seed, storing = task.parameters.seed, task.parameters.storing
    began = time.monotonic()

    def follow(iteration: int, divergence: float) -> None:
        where = f"{embedding.name}: iteration {iteration:,} of {iterations:,}, KL divergence {divergence:.4f}"
        task.progress.update(iteration / iterations, where)

    with task.progress.step(f"drawing {embedding.name}"):
        drawn = optimise(own, embedding.perplexity, positions, iterations, task.parameters.threads, follow)
    if not np.isfinite(drawn.coordinates).all():
        raise ModelFailureError(f"{embedding.name}: a coordinate is not a finite number. Please report it.")
    coordinates = np.empty((len(rows.ids), embedding.dimensions), dtype=np.float32)
    coordinates[rows.embedded] = drawn.coordinates
    coordinates[rows.others] = place(theirs, drawn.coordinates)
    write_embedding(storing, embedding, rows.ids, coordinates, task.parameters.inputs)
    seconds = time.monotonic() - began
    share = kept(own, drawn.coordinates, k=_KEPT_OF, sample=_KEPT_SAMPLE, seed=seed)
    said = f"KL divergence {drawn.divergence:.4f}, {share:.1%} of the {_KEPT_OF} nearest neighbours kept"
    task.progress.say(f"saved {embedding.name}: {said}, {duration(seconds)}")
    _picture(task, embedding, coordinates, rows.targets, said)
    return {
        "kl_divergence": drawn.divergence,
        "neighbours_kept": share,
        "perplexity": float(drawn.perplexity),
        "iterations": iterations,
        "grown": drawn.grown,
        "seconds": seconds,
        "rows": len(rows.ids),
        "embedded_rows": len(rows.embedded),
    }


def _draw_missing(task: Task, embedding: Embedding) -> None:
    """Draw the plot of a finished map if a try ended between the two."""
    storing = task.parameters.storing
    if not _plot(storing, embedding).is_file():
        maps = [read_embedding(storing, embedding, table) for table in (task.training, task.tournament)]
        targets = np.concatenate([task.training.targets, task.tournament.targets])
        _picture(task, embedding, np.vstack(maps), targets, "finished by an earlier try")


def _picture(
    task: Task, embedding: Embedding, coordinates: NDArray[np.float32], targets: NDArray[np.float32], about: str
) -> None:
    space = "features and their products of two" if embedding.polynomial else "features"
    title = f"t-SNE of the {space}, perplexity {embedding.perplexity}"
    draw(_plot(task.parameters.storing, embedding), coordinates, targets, title, about, task.parameters.seed)


def _plot(storing: Path, embedding: Embedding) -> Path:
    return storing / "plots" / f"tsne_{embedding.name}.png"
