"""Exact nearest neighbours of rows: every distance is computed, and only the smallest are stored.

Nearly all of the time goes into the products of all rows with all others. NumPy's BLAS computes them, and faiss's heaps
select the smallest. In 1,325 dimensions this takes less than a third of the time of faiss's own search, whose BLAS is
slower on processors with wide registers (`benchmarks/neighbours.py`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ._standardized import Space

# neighbours of a row outside the embedding that determine its coordinates
_NEIGHBOURS_OF_OTHERS = 15
# further candidates, whose distances are computed again in 64 bits
_SPARE = 10
_CANDIDATES_AT_A_TIME = 4_096
# rows that a block is compared with at a time
_AT_A_TIME = 512
# rows outside the embedding that a thread searches at a time
_OTHERS_AT_A_TIME = 2_048


class Neighbours(NamedTuple):
    """Nearest neighbours, the nearest first.

    Attributes
    ----------
    indices : numpy.ndarray of int32, shape (rows, k)
        Their indices among the rows searched.
    distances : numpy.ndarray of float32, shape (rows, k)
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]


def search(
    space: Space,
    embedded: NDArray[np.intp],
    others: NDArray[np.intp],
    k: int,
    threads: int,
    report: Callable[[float, str], object],
) -> tuple[Neighbours, Neighbours]:
    """Find the neighbours of all rows among the rows to embed.

    Parameters
    ----------
    space
        The space in which distances are measured.
    embedded, others
        Positions of rows in the space.
    k
        Number of neighbours of each embedded row, less than their number; a row is not its own neighbour.
    threads
        Cores to use.
    report
        Called with the share that is done, from 0 to 1, and a description.

    Returns
    -------
    tuple of Neighbours
        Those of the embedded rows, k each, and those of the others, up to 15 each.
    """
    faiss.omp_set_num_threads(threads)
    candidates = _StoredCandidates(space, embedded)
    total = len(embedded) + len(others)
    own = Neighbours(np.empty((len(embedded), k), np.int32), np.empty((len(embedded), k), np.float32))
    for part, block in space.blocks(embedded):
        squares, found = _nearest(candidates, block, k + 1)
        own.indices[part], own.distances[part] = _without_self(squares, found, part)
        report(part.stop / total, f"row {part.stop:,} of {total:,}")

    def report_others(share: float, _text: str) -> None:
        done = len(embedded) + int(share * len(others))
        report(done / total, f"row {done:,} of {total:,}")

    return own, _search_others(candidates, space, embedded, space, others, threads, report_others)


def search_others(
    space: Space, embedded: NDArray[np.intp], placed: Space, threads: int, report: Callable[[float, str], object]
) -> Neighbours:
    """Find the neighbours of all rows of another matrix among the embedded rows, with little memory.

    Parameters
    ----------
    space
        The space of the embedding.
    embedded
        Positions of the embedded rows in the space.
    placed
        The same space with the other matrix.
    threads
        Cores to use; any number yields the same neighbours.
    report
        See `search`.

    Returns
    -------
    Neighbours
        Up to 15 each.
    """
    rows = np.arange(len(placed.matrix))
    return _search_others(_StreamedCandidates(space, embedded), space, embedded, placed, rows, threads, report)


def _search_others(
    candidates: _Candidates,
    space: Space,
    embedded: NDArray[np.intp],
    placed: Space,
    rows: NDArray[np.intp],
    threads: int,
    report: Callable[[float, str], object],
) -> Neighbours:
    """Find the neighbours of rows of `placed` among embedded rows of `space`.

    Distances in 32 bits, which depend on the processor's order of summation, only select candidates. The rows are
    distributed over threads, each with a BLAS of one thread: on a busy machine, BLAS threads that wait for each other
    make the search twice as long.
    """
    few = min(_NEIGHBOURS_OF_OTHERS, len(embedded))
    found = Neighbours(np.empty((len(rows), few), np.int32), np.empty((len(rows), few), np.float32))

    def search_part(start: int) -> None:
        part = slice(start, start + _OTHERS_AT_A_TIME)
        block = np.concatenate([columns for _, columns in placed.blocks(rows[part])])
        _, near = _nearest(candidates, block, min(few + _SPARE, len(embedded)))
        squares = _exact_squares(space, embedded, block, near)
        order = np.lexsort((near, squares), axis=1)[:, :few]
        found.indices[part] = np.take_along_axis(near, order, axis=1)
        found.distances[part] = np.sqrt(np.take_along_axis(squares, order, axis=1))

    starts = range(0, len(rows), _OTHERS_AT_A_TIME)
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool,
    ):
        for start, _ in zip(starts, pool.map(search_part, starts), strict=True):
            done = min(start + _OTHERS_AT_A_TIME, len(rows))
            report(done / len(rows), f"row {done:,} of {len(rows):,}")
    return found


def _exact_squares(
    space: Space, embedded: NDArray[np.intp], block: NDArray[np.float32], near: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute the squares of the distances of rows from their candidates; both of shape (rows, candidates)."""
    squares = np.empty(near.shape)
    at_a_time = max(1, _CANDIDATES_AT_A_TIME // near.shape[1])
    for start in range(0, len(block), at_a_time):
        rows = slice(start, start + at_a_time)
        of_rows = np.concatenate([columns for _, columns in space.blocks(embedded[near[rows].ravel()])])
        differences = of_rows.reshape(*near[rows].shape, -1) - block[rows, np.newaxis].astype(np.float64)
        squares[rows] = np.einsum("rkc,rkc->rk", differences, differences)
    return squares


class _Candidates(Protocol):
    """Rows of a space, arranged so that one matrix product computes their distances from other rows.

    The square of a distance is |a|² - 2ab + |b|². Each row has |b|² as a further column, and its product with (-2a, 1)
    is the square less |a|², which is the same for all of a's neighbours.
    """

    def __len__(self) -> int:
        """Return the number of rows."""

    def parts(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the index of the first row of a part, and the part, shape (rows, dimensions + 1)."""


class _StoredCandidates:
    """Candidates in memory, for many searches."""

    def __init__(self, space: Space, rows: NDArray[np.intp]) -> None:
        # not an index, which would hold twice its size while it grows
        self._columns = np.empty((len(rows), space.dimensions + 1), dtype=np.float32)
        for part, block in space.blocks(rows):
            self._columns[part, :-1], self._columns[part, -1] = block, _squares(block)

    def __len__(self) -> int:
        return len(self._columns)

    def parts(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield parts of the stored columns."""
        for start in range(0, len(self._columns), _AT_A_TIME):
            yield start, self._columns[start : start + _AT_A_TIME]


class _StreamedCandidates:
    """Candidates that are computed for each search, a block at a time."""

    def __init__(self, space: Space, rows: NDArray[np.intp]) -> None:
        self._space, self._rows = space, rows

    def __len__(self) -> int:
        return len(self._rows)

    def parts(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Compute the columns of a part."""
        for part, block in self._space.blocks(self._rows):
            columns = np.column_stack([block, _squares(block)])
            for start in range(0, len(columns), _AT_A_TIME):
                yield part.start + start, columns[start : start + _AT_A_TIME]


def _nearest(
    candidates: _Candidates, block: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the k nearest of each row of a block, the nearest first; returns squares of distances, and indices."""
    heaps = faiss.ResultHeap(len(block), k)
    sides = np.empty((len(block), block.shape[1] + 1), dtype=np.float32)
    np.multiply(block, -2, out=sides[:, :-1])
    sides[:, -1] = 1
    # one buffer for all of them: a new allocation each time takes as long as the products of 50 dimensions
    buffer = np.empty(len(block) * min(_AT_A_TIME, len(candidates)), dtype=np.float32)
    for start, some in candidates.parts():
        distances = buffer[: len(block) * len(some)].reshape(len(block), len(some))
        np.matmul(sides, some.T, out=distances)
        heaps.heaps.addn(len(some), faiss.swig_ptr(distances), start)
    heaps.finalize()
    return np.maximum(heaps.D + _squares(block)[:, np.newaxis], 0), heaps.I


def _squares(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the squares of rows' lengths; shape (rows,)."""
    lengths: NDArray[np.float32] = np.einsum("rc,rc->r", block, block)
    return lengths


def interpolate(neighbours: Neighbours, coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Place rows among their neighbours in an embedding, closer to the closer ones.

    Parameters
    ----------
    neighbours
        Those of the rows to place.
    coordinates
        Those of the embedded rows, shape (embedded rows, axes).

    Returns
    -------
    numpy.ndarray of float32, shape (rows to place, axes)
        Means weighted by 1 / distance: a row that equals an embedded row gets its coordinates.
    """
    weights = 1 / np.maximum(neighbours.distances, 1e-3)
    weights /= weights.sum(axis=1, keepdims=True)
    coordinates_of_rows: NDArray[np.float32] = np.einsum("rk,rka->ra", weights, coordinates[neighbours.indices])
    return coordinates_of_rows


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
