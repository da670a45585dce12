"""The optimizer of t-SNE (openTSNE): starts from principal components, and scales the embedding once.

Two departures from the textbook, both measured (see `tsne_operation`):

- No early exaggeration. On features without clusters, like Numerai's, it only contracts the embedding to a point.
- Most of the textbook's iterations only let an embedding that has its shape grow slowly. Here its best scale is
  searched directly once four fifths of the iterations are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from openTSNE import TSNEEmbedding
from openTSNE.affinity import PerplexityBasedNN
from openTSNE.nearest_neighbors import PrecomputedNeighbors
from openTSNE.tsne import kl_divergence_bh, kl_divergence_fft

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ._nearest_neighbors import Neighbours

_SHARE_BEFORE_SCALING = 0.8
_STEP = 1.1
# The interpolation grid: time grows with the square of the width in cells. Half as many cells as openTSNE's default
# took half the time on 25,000 rows of a practice season of size v5.3, and the divergence was .3 and .6 % higher.
_GRID = {"n_interpolation_points": 3, "min_num_intervals": 50, "ints_in_interval": 2}
_MAX_WIDTH = 250.0
# with fewer rows a tree is faster than the grid, and the default of openTSNE
_FEW_ROWS = 10_000
_MOMENTUM = 0.8
_ITERATIONS_BETWEEN_REPORTS = 10
_START_SPREAD = 1e-4


class Optimised(NamedTuple):
    """A finished embedding.

    Attributes
    ----------
    coordinates : numpy.ndarray of float32, shape (rows, axes)
    divergence : float
        The Kullback-Leibler divergence, in nats.
    perplexity : float
        The one in use, which is smaller than the requested one when there are few rows.
    grown : float
        The factor by which it was enlarged.
    """

    coordinates: NDArray[np.float32]
    divergence: float
    perplexity: float
    grown: float


def largest_perplexity(rows: int) -> float:
    """Compute the largest perplexity that so many rows, at least 2, allow: a third of a row's neighbours."""
    return max(1.0, (rows - 1) / 3)


def start(components: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Convert principal components, shape (rows, axes), to a start: very small, all positions different."""
    spread = components[:, 0].std()
    scaled = components * (_START_SPREAD / spread) if spread > 1e-9 else np.zeros_like(components)
    noise = 0.01 if spread > 1e-9 else 1.0
    return scaled + np.random.default_rng(seed).normal(0, noise * _START_SPREAD, components.shape)


def optimise(
    neighbours: Neighbours,
    perplexity: float,
    positions: NDArray[np.float64],
    iterations: int,
    threads: int,
    report: Callable[[int, float], None],
) -> Optimised:
    """Compute an embedding.

    Parameters
    ----------
    neighbours
        Those of each row, the nearest first.
    perplexity
        The requested one.
    positions
        The start, shape (rows, axes); 2 axes or 3.
    iterations
        At least 2.
    threads
        Cores to use; the same number yields the same bits.
    report
        Called every ten iterations with their number and the divergence.
    """
    perplexity = min(perplexity, largest_perplexity(len(positions)))
    k = min(neighbours.indices.shape[1], max(1, int(3 * perplexity)))
    nearest = PrecomputedNeighbors(neighbours.indices[:, :k], neighbours.distances[:, :k])
    affinities = PerplexityBasedNN(knn_index=nearest, perplexity=perplexity, n_jobs=threads)
    tree = positions.shape[1] > 2 or len(positions) < _FEW_ROWS
    before = min(iterations - 1, round(_SHARE_BEFORE_SCALING * iterations))

    def run(at: NDArray[np.float64], count: int, done: int) -> TSNEEmbedding:
        # a new one each time, since the momentum and gains of the smaller embedding do not suit the larger
        embedding = TSNEEmbedding(at, affinities, **_GRID)

        def on_iteration(iteration: int, divergence: float, _: object) -> bool:
            report(done + iteration, divergence)
            return False

        return embedding.optimize(
            count,
            inplace=True,
            negative_gradient_method="bh" if tree else "fft",
            learning_rate="auto",
            momentum=_MOMENTUM,
            n_jobs=threads,
            use_callbacks=True,
            callbacks=on_iteration,
            callbacks_every_iters=_ITERATIONS_BETWEEN_REPORTS,
        )

    formed = np.asarray(run(positions, before, 0))
    factor = _best_factor(formed, affinities.P, tree=tree, threads=threads)
    finished = run(formed * factor, iterations - before, before)
    return Optimised(np.asarray(finished, dtype=np.float32), float(finished.kl_divergence), perplexity, factor)


def _best_factor(coordinates: NDArray[np.float64], affinities: object, *, tree: bool, threads: int) -> float:
    """Find the factor by which to enlarge an embedding, in steps of a tenth, for the smallest divergence."""

    def divergence(factor: float) -> float:
        # the functions that the optimizer itself uses for the divergence it reports
        options = {"dof": 1, "should_eval_error": True, "n_jobs": threads}
        enlarged = np.ascontiguousarray(coordinates * factor)
        if tree:
            return float(kl_divergence_bh(enlarged, affinities, bh_params={"theta": 0.5}, **options)[0])
        return float(kl_divergence_fft(enlarged, affinities, fft_params=_GRID, **options)[0])

    width = float(np.max(np.ptp(coordinates, axis=0)))
    best, factor = divergence(1), 1.0
    while (tree or width * factor * _STEP <= _MAX_WIDTH) and factor < 10:
        larger = divergence(factor * _STEP)
        if not larger < best:
            break
        best, factor = larger, factor * _STEP
    return factor
