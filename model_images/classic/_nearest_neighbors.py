"""Nearest neighbours of rows: exact ones of the embedded rows, those of all others by an index, and their placement.

Nearly all of the time of the exact search goes into the products of all rows with all others. NumPy's BLAS computes
them, and faiss's heaps select the smallest. In 1,325 dimensions this takes less than a third of the time of faiss's own
search, whose BLAS is slower on processors with wide registers.

The index has the embedded rows in their principal components. Above `_MAX_EXHAUSTIVE` rows it compares a row with the
rows of some clusters only, by short codes, and measures the distances of the best of these.
`benchmarks/tsne.py` measures both, and the placement.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import faiss
import numpy as np
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
# rows outside the embedding that a thread searches, and places, at a time
_SEARCHED_AT_A_TIME, _PLACED_AT_A_TIME = 2_048, 1_024
# steps of a placed row to a density's maximum
_STEPS = 3


class Neighbours(NamedTuple):
    """Nearest neighbours, the nearest first.

    Attributes
    ----------
    indices : numpy.ndarray of int32, shape (rows, k)
        Their indices among the embedded rows.
    distances : numpy.ndarray of float32, shape (rows, k)
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]

    @classmethod
    def empty(cls, rows: int, k: int) -> Neighbours:
        """Reserve the memory for the neighbours of rows."""
        return cls(np.empty((rows, k), np.int32), np.empty((rows, k), np.float32))


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
        Cores to use.
    report
        Called with the share that is done, from 0 to 1, and a description.
    """
    faiss.omp_set_num_threads(threads)
    # The square of a distance is |a|² - 2ab + |b|². Each row has |b|² as a further column, and its product with
    # (-2a, 1) is the square less |a|², which is the same for all of a's neighbours. Not an index of faiss, which would
    # hold twice its size while it grows.
    candidates = np.empty((len(matrix), space.dimensions + 1), dtype=np.float32)
    for part, block in space.blocks(matrix):
        candidates[part, :-1], candidates[part, -1] = block, _squares(block)
    found = Neighbours.empty(len(matrix), k)
    for part, block in space.blocks(matrix):
        squares, near = _nearest(candidates, block, k + 1)
        found.indices[part], found.distances[part] = _without_self(squares, near, part)
        report(part.stop / len(matrix), f"row {part.stop:,} of {len(matrix):,}")
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
    ) -> Neighbours:
        """Find the neighbours of rows outside the embedding.

        Parameters
        ----------
        blocks
            Their features without missing values, a block at a time, each of shape (rows of the block, features).
        rows
            Number of rows in all blocks.
        threads
            Cores to use; any number yields the same neighbours.
        report
            See `search`.

        Returns
        -------
        Neighbours
            15 each, or all embedded rows when there are fewer.
        """
        found = Neighbours.empty(rows, min(NEIGHBOURS_OF_OTHERS, self.rows))
        done = 0

        def search_part(part: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            squares, indices = self._index.search(self._space.columns(part) @ self._directions, found.indices.shape[1])
            return squares, indices

        with _one_thread_each(), _pool(threads) as pool:
            for block in blocks:
                starts = range(0, len(block), _SEARCHED_AT_A_TIME)
                parts = [block[start : start + _SEARCHED_AT_A_TIME] for start in starts]
                for squares, indices in pool.map(search_part, parts):
                    at = slice(done, done + len(indices))
                    found.indices[at], found.distances[at] = indices, np.sqrt(np.maximum(squares, 0))
                    done = at.stop
                report(done / rows, f"row {done:,} of {rows:,}")
        return found


def place(neighbours: Neighbours, coordinates: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """Place rows in an embedding, each where the density of its neighbours is the largest.

    The density is that of t-SNE: a neighbour at a distance d in the embedding adds log(1 + d²), and the sum is to be
    small. It is evaluated at each of the neighbours, and a few steps lead from the best to a maximum nearby. A mean of
    the neighbours would lie between the parts of an embedding, where no row is.

    Parameters
    ----------
    neighbours
        Those of the rows to place.
    coordinates
        Those of the embedded rows, shape (embedded rows, axes).
    threads
        Cores to use; any number yields the same coordinates.

    Returns
    -------
    numpy.ndarray of float32, shape (rows to place, axes)
        Neighbours are weighted by 1 / distance: a row that equals an embedded row gets its coordinates.
    """
    placed = np.empty((len(neighbours.indices), coordinates.shape[1]), dtype=np.float32)

    def place_part(start: int) -> None:
        part = slice(start, start + _PLACED_AT_A_TIME)
        weights = 1 / np.maximum(neighbours.distances[part], 1e-3)
        weights /= weights.sum(axis=1, keepdims=True)
        # an array for each axis, shape (rows, neighbours)
        near = [np.ascontiguousarray(axis) for axis in np.moveaxis(coordinates[neighbours.indices[part]], 2, 0)]
        squares = sum(np.square(axis[:, :, np.newaxis] - axis[:, np.newaxis]) for axis in near)
        best = np.einsum("rck,rk->rc", np.log(1 + squares), weights).argmin(axis=1)
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
