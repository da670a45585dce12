"""Nearest neighbours of rows: exact ones of the embedded rows, those of all others by an index, and their placement.

Nearly all of the time of the exact search goes into the products of all rows with all others. NumPy's BLAS computes
them, and faiss's heaps select the smallest. In 1,325 dimensions this takes less than a third of the time of faiss's own
search, whose BLAS is slower on processors with wide registers.

The index has the embedded rows in their principal components. Above `_MAX_EXHAUSTIVE` rows it compares a row with the
rows of some clusters only, by short codes, and measures the distances of the best of these.

`benchmarks/tsne.py` measures both, and the placement. With 12,000 embedded and 6,000 placed rows of a generated season
of 42 features, the placed rows keep 95 % (features, perplexity 50) and 105 to 115 % (products) of the 15 nearest
embedded rows that they keep when all are embedded together, at 97 to 102 % of the spread. Without any structure in the
features, 95 % and 99 %; a mean of the 15 nearest, 2 % and 40 %.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
from scipy.signal import fftconvolve
from threadpoolctl import threadpool_limits

from ._standardized import Space, principal_directions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

# neighbours of a row outside the embedding that determine its coordinates
NEIGHBOURS_OF_OTHERS = 15
# principal components of the index: more find no more of the nearest neighbours among products
_COMPONENTS = 64
# names of the arrays of a saved index
_ARRAYS = ("features", "means", "scales", "directions", "index")
# embedded rows up to which the index compares a row with all of them
_MAX_EXHAUSTIVE = 10_000
# embedded rows of a cluster on average, at most so many clusters, those that a row is compared with, and candidates for
# each neighbour
_ROWS_OF_CLUSTER, _MAX_CLUSTERS, _PROBES, _CANDIDATES = 100, 1_024, 64, 16
# embedded rows that a block is compared with at a time
_AT_A_TIME = 512
# rows that a thread searches, and places, at a time
_SEARCHED_AT_A_TIME, _PLACED_AT_A_TIME = 2_048, 1_024
# perplexity of the weights of the nearest rows, as a share of their number, and steps to find it
_PERPLEXITY_SHARE, _BISECTIONS = 14 / 15, 24
# share of the last distance below which the first one is that of an equal row
_EQUAL = 0.01
# factor of the logarithm of the sum: with 1, which is t-SNE's, rows are placed too near to the centre
_REPULSION = 1.5
# steps of a placed row into the midst of its neighbours
_STEPS = 3
# cells of a grid over an embedding, along its longest axis, by the number of its axes
_CELLS = {2: 256, 3: 64}


class Neighbours(NamedTuple):
    """Nearest neighbours of embedded rows, the nearest first.

    Attributes
    ----------
    indices : numpy.ndarray of int32, shape (rows, k)
        Their indices among the embedded rows.
    distances : numpy.ndarray of float32, shape (rows, k)
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]


class Anchors(NamedTuple):
    """The nearest embedded rows of rows outside the embedding, the nearest first.

    Attributes
    ----------
    indices : numpy.ndarray of int32, shape (rows, k)
        Their indices among the embedded rows.
    weights : numpy.ndarray of float32, shape (rows, k)
        Those of t-SNE, with a perplexity of 14 of 15; the sum of a row is 1.
    """

    indices: NDArray[np.int32]
    weights: NDArray[np.float32]


def search(
    space: Space, matrix: NDArray[Any], k: int, threads: int, report: Callable[[float, str], object]
) -> Neighbours:
    """Find the exact neighbours of all embedded rows among each other.

    Parameters
    ----------
    space
        The space in which distances are measured.
    matrix
        The features of the embedded rows, shape (rows, features).
    k
        Number of neighbours of each row, less than the number of rows; a row is not its own neighbour.
    threads
        Cores to use; any number yields the same neighbours.
    report
        Called with the share that is done, from 0 to 1, and a description.
    """
    # The square of a distance is |a|² - 2ab + |b|². Each row has |b|² as a further column, and its product with
    # (-2a, 1) is the square less |a|², which is the same for all of a's neighbours. Not an index of faiss, which would
    # hold twice its size while it grows.
    candidates = np.empty((len(matrix), space.dimensions + 1), dtype=np.float32)
    for part, block in space.blocks(matrix):
        candidates[part, :-1], candidates[part, -1] = block, _squares(block)
    found = Neighbours(np.empty((len(matrix), k), np.int32), np.empty((len(matrix), k), np.float32))

    def search_part(start: int) -> int:
        part = slice(start, min(start + _SEARCHED_AT_A_TIME, len(matrix)))
        squares, near = _nearest(candidates, space.columns(matrix[part]), k + 1)
        found.indices[part], found.distances[part] = _without_self(squares, near, part)
        return part.stop

    with _one_thread_each(), _pool(threads) as pool:
        for done in pool.map(search_part, range(0, len(matrix), _SEARCHED_AT_A_TIME)):
            report(done / len(matrix), f"row {done:,} of {len(matrix):,}")
    return found


class Index:
    """An index of the embedded rows in their principal components.

    Parameters
    ----------
    space
        The space in which distances are measured.
    directions
        The principal components, float32, shape (dimensions, components).
    index
        The index of faiss, which has the rows.
    """

    def __init__(self, space: Space, directions: NDArray[np.float32], index: Any) -> None:
        self._space, self._directions, self._index = space, directions, index

    @classmethod
    def build(cls, space: Space, matrix: NDArray[Any], covariance: NDArray[np.float64]) -> Index:
        """Build the index of the rows of a matrix, shape (rows, features); any number of threads builds the same."""
        # an even number, since a code stands for two components
        components = min(_COMPONENTS, space.dimensions + space.dimensions % 2)
        directions = principal_directions(covariance, components).astype(np.float32)
        rows = space.project(matrix, directions)
        is_exhaustive = len(rows) <= _MAX_EXHAUSTIVE
        clusters = min(_MAX_CLUSTERS, len(rows) // _ROWS_OF_CLUSTER)
        kind = "Flat" if is_exhaustive else f"IVF{clusters},PQ{components // 2}x4fs,RFlat"
        with _one_thread_each():
            index = faiss.index_factory(components, kind)
            if not is_exhaustive:
                faiss.extract_index_ivf(index.base_index).nprobe = _PROBES
                index.k_factor = _CANDIDATES
                index.train(rows)
            index.add(rows)
        return cls(space, directions, index)

    @property
    def rows(self) -> int:
        """Number of embedded rows."""
        return int(self._index.ntotal)

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays that `load` needs, with names that begin with a prefix."""
        values = [*self._space[1:], self._directions, faiss.serialize_index(self._index)]
        return {f"{prefix}_{name}": value for name, value in zip(_ARRAYS, values, strict=True)}

    @classmethod
    def load(cls, arrays: dict[str, NDArray[Any]], prefix: str, *, polynomial: bool) -> Index:
        """Load an index from its `arrays`."""
        *of_space, directions, index = (arrays[f"{prefix}_{name}"] for name in _ARRAYS)
        return cls(Space(polynomial, *of_space), directions, faiss.deserialize_index(index))

    def search(
        self,
        blocks: Iterable[NDArray[Any]],
        rows: int,
        threads: int,
        report: Callable[[float, str], object],
    ) -> Anchors:
        """Find the nearest embedded rows of rows outside the embedding.

        Parameters
        ----------
        blocks
            Their features without missing values, a block at a time, each of shape (rows of the block, features).
        rows
            Number of rows in all blocks.
        threads
            Cores to use; any number yields the same result.
        report
            See `search`.

        Returns
        -------
        Anchors
            15 each, or all embedded rows when there are fewer.
        """
        k = min(NEIGHBOURS_OF_OTHERS, self.rows)
        found = Anchors(np.empty((rows, k), np.int32), np.empty((rows, k), np.float32))
        done = 0

        def search_part(part: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            squares, indices = self._index.search(self._space.columns(part) @ self._directions, k)
            return indices, _weights(np.maximum(squares, 0))

        with _one_thread_each(), _pool(threads) as pool:
            for block in blocks:
                starts = range(0, len(block), _SEARCHED_AT_A_TIME)
                parts = [block[start : start + _SEARCHED_AT_A_TIME] for start in starts]
                for indices, weights in pool.map(search_part, parts):
                    at = slice(done, done + len(indices))
                    found.indices[at], found.weights[at] = indices, weights
                    done = at.stop
                report(done / rows, f"row {done:,} of {rows:,}")
        return found


def _weights(squares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the weights of the nearest rows from the squares of their distances, shape (rows, k)."""
    target = np.log(max(1.0, _PERPLEXITY_SHARE * squares.shape[1]))
    excess = squares - squares[:, :1]
    lowest, factor = np.zeros((len(squares), 1), np.float32), 1 / np.maximum(excess.mean(axis=1, keepdims=True), 1e-6)
    highest = np.full_like(lowest, np.inf)
    for _ in range(_BISECTIONS):
        weights = np.exp(-factor * excess)
        total = weights.sum(axis=1, keepdims=True)
        entropy = np.log(total) + factor * (weights * excess).sum(axis=1, keepdims=True) / total
        lowest, highest = np.where(entropy > target, factor, lowest), np.where(entropy > target, highest, factor)
        factor = np.where(np.isinf(highest), 2 * factor, (lowest + highest) / 2)
    # a row that equals an embedded one, to the precision of its distance
    is_equal = squares[:, 0] < _EQUAL**2 * squares[:, -1]
    weights[is_equal] = np.arange(squares.shape[1]) == 0
    normalised: NDArray[np.float32] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def place(anchors: Anchors, coordinates: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """Place rows in an embedding, each near the one of its nearest rows where its divergence is the smallest.

    A row's part of t-SNE's divergence is the weighted mean of log(1 + d²) over its nearest rows at the distances d in
    the embedding, plus the logarithm of the sum of 1 / (1 + d²) over all rows. It is evaluated at each of the nearest
    rows, and a few steps lead from the best one into the midst of those nearby. A mean of all of them would lie between
    the parts of an embedding, where no row is.

    Parameters
    ----------
    anchors
        Those of the rows to place.
    coordinates
        Those of the embedded rows, shape (embedded rows, axes).
    threads
        Cores to use; any number yields the same coordinates.

    Returns
    -------
    numpy.ndarray of float32, shape (rows to place, axes)
        A row that equals an embedded row gets its coordinates.
    """
    placed = np.empty((len(anchors.indices), coordinates.shape[1]), dtype=np.float32)
    repulsion = _REPULSION * _log_sums(coordinates)

    def place_part(start: int) -> None:
        part = slice(start, start + _PLACED_AT_A_TIME)
        indices, weights = anchors.indices[part], anchors.weights[part]
        # an array for each axis, shape (rows, neighbours)
        near = [np.ascontiguousarray(axis) for axis in np.moveaxis(coordinates[indices], 2, 0)]
        squares = sum(np.square(axis[:, :, np.newaxis] - axis[:, np.newaxis]) for axis in near)
        best = (np.einsum("rck,rk->rc", np.log(1 + squares), weights) + repulsion[indices]).argmin(axis=1)
        at = [axis[np.arange(len(best)), best] for axis in near]
        for _ in range(_STEPS):
            squares = sum(np.square(axis - own[:, np.newaxis]) for axis, own in zip(near, at, strict=True))
            pulls = weights / (1 + squares)
            total = pulls.sum(axis=1)
            at = [(pulls * axis).sum(axis=1) / total for axis in near]
        placed[part] = np.column_stack(at)

    with _pool(threads) as pool:
        for _ in pool.map(place_part, range(0, len(placed), _PLACED_AT_A_TIME)):
            pass
    return placed


def _log_sums(coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute log of the sum of 1 / (1 + d²) over all rows at a distance d, on a grid, for each row; shape (rows,)."""
    axes = coordinates.shape[1]
    low = coordinates.min(axis=0)
    width = float(np.max(coordinates.max(axis=0) - low))
    cell = width / _CELLS[axes] or 1.0
    at = tuple(((coordinates - low) / cell).astype(np.intp).T)
    counts = np.zeros([int(axis.max()) + 1 for axis in at])
    np.add.at(counts, at, 1)
    offsets = np.meshgrid(*(cell * np.arange(1 - cells, cells) for cells in counts.shape), indexing="ij", sparse=True)
    kernel = 1 / (1 + sum(np.square(offset) for offset in offsets))
    sums = fftconvolve(kernel, counts, mode="valid")
    logarithms: NDArray[np.float32] = np.log(sums[at]).astype(np.float32)
    return logarithms


def share_preserved(
    neighbours: Neighbours, coordinates: NDArray[np.float32], *, k: int, sample: int, seed: int
) -> float:
    """Measure the mean share of a row's nearest neighbours that are its nearest in the embedding; in [0, 1].

    Parameters
    ----------
    neighbours
        Those of all embedded rows, at least one each.
    coordinates
        Those of the same rows, shape (rows, axes).
    k
        Number of neighbours of a row that are compared, if it has as many.
    sample, seed
        Number of rows in the sample, and its seed.
    """
    k = min(k, neighbours.indices.shape[1])
    drawn = np.random.default_rng(seed).permutation(len(coordinates))[:sample]
    _, near = faiss.knn(coordinates[drawn], coordinates, k + 1)
    common = [
        len(np.intersect1d(neighbours.indices[row, :k], found[found != row][:k]))
        for row, found in zip(drawn, near, strict=True)
    ]
    return float(np.mean(common)) / k


def _without_self(
    squares: NDArray[np.float32], found: NDArray[np.int64], part: slice
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Remove each row from its neighbours; the last one where it is not among them, as with equal rows."""
    selves = found == np.arange(part.start, part.stop)[:, None]
    selves[~selves.any(axis=1), -1] = True
    shape = (len(found), found.shape[1] - 1)
    return found[~selves].reshape(shape), np.sqrt(squares[~selves].reshape(shape))


def _nearest(
    candidates: NDArray[np.float32], block: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the k nearest of each row of a block, the nearest first; returns squares of distances, and indices."""
    heaps = faiss.ResultHeap(len(block), k)
    sides = np.empty((len(block), block.shape[1] + 1), dtype=np.float32)
    np.multiply(block, -2, out=sides[:, :-1])
    sides[:, -1] = 1
    # one buffer for all of them: a new allocation each time takes as long as the products of 50 dimensions
    buffer = np.empty(len(block) * min(_AT_A_TIME, len(candidates)), dtype=np.float32)
    for start in range(0, len(candidates), _AT_A_TIME):
        some = candidates[start : start + _AT_A_TIME]
        distances = buffer[: len(block) * len(some)].reshape(len(block), len(some))
        np.matmul(sides, some.T, out=distances)
        heaps.heaps.addn(len(some), faiss.swig_ptr(distances), start)
    heaps.finalize()
    return np.maximum(heaps.D + _squares(block)[:, np.newaxis], 0), heaps.I


def _squares(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the squares of rows' lengths; shape (rows,)."""
    lengths: NDArray[np.float32] = np.einsum("rc,rc->r", block, block)
    return lengths


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit BLAS and faiss to one thread, so that results do not depend on the number of threads.

    Rows are distributed over threads instead: BLAS threads that wait for each other make a search twice as long on a
    busy machine.
    """
    with threadpool_limits(1):
        yield


def _pool(threads: int) -> ThreadPoolExecutor:
    """Create threads, each with one thread of faiss."""
    return ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,))
