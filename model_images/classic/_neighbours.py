"""The nearest neighbours of rows, exactly: every distance is computed, and none is kept but the smallest.

Nearly all of the time goes into the products of all rows with all others. NumPy's BLAS makes them, and faiss's heaps
keep the smallest. In 1,325 dimensions that takes less than a third of the time of faiss's own search, whose BLAS is
slower on wide processors (`benchmarks/nearest_neighbors.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import faiss
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ._space import Space

# a row that is not in a map is placed among so many that are
_PLACED_AMONG = 15
# distances computed at a time, beside each of the rows of a block
_AT_A_TIME = 2_048


class Neighbours(NamedTuple):
    """Nearest neighbours, the nearest first.

    Attributes
    ----------
    places : numpy.ndarray of int32, shape (rows, k)
        Which rows they are, counted among the rows searched.
    distances : numpy.ndarray of float32, shape (rows, k)
    """

    places: NDArray[np.int32]
    distances: NDArray[np.float32]


def search(
    space: Space,
    embedded: NDArray[np.intp],
    others: NDArray[np.intp],
    k: int,
    threads: int,
    follow: Callable[[float, str], object],
) -> tuple[Neighbours, Neighbours]:
    """Find neighbours among the rows to embed: of these themselves, and of the others.

    Parameters
    ----------
    space
        What distance is measured in.
    embedded, others
        Positions of rows in the space.
    k
        How many neighbours of each embedded row, fewer than there are such rows; a row is not its own.
    threads
        Cores to use.
    follow
        Told the share that is done, from 0 to 1, and where it is.

    Returns
    -------
    tuple of Neighbours
        Of the embedded rows, k each; of the others, up to 15 each.
    """
    faiss.omp_set_num_threads(threads)
    among = _Among(space, embedded)
    total = len(embedded) + len(others)
    own = Neighbours(np.empty((len(embedded), k), np.int32), np.empty((len(embedded), k), np.float32))
    for places, block in space.blocks(embedded):
        squares, found = among.nearest(block, k + 1)
        own.places[places], own.distances[places] = _without_self(squares, found, places)
        follow(places.stop / total, f"row {places.stop:,} of {total:,}")
    few = min(_PLACED_AMONG, len(embedded))
    theirs = Neighbours(np.empty((len(others), few), np.int32), np.empty((len(others), few), np.float32))
    for places, block in space.blocks(others):
        squares, theirs.places[places] = among.nearest(block, few)
        theirs.distances[places] = np.sqrt(squares)
        done = len(embedded) + places.stop
        follow(done / total, f"row {done:,} of {total:,}")
    return own, theirs


class _Among:
    """Rows of a space, laid out so that one product gives how far they are from others.

    The square of a distance is |a|² - 2ab + |b|²: beside each row stands |b|², and the product of (-2a, 1) with it is
    the square but for |a|², which is the same for all of a's neighbours.
    """

    def __init__(self, space: Space, rows: NDArray[np.intp]) -> None:
        # not an index, which would hold twice its size while it grows
        self._columns = np.empty((len(rows), space.dimensions + 1), dtype=np.float32)
        for places, block in space.blocks(rows):
            self._columns[places, :-1], self._columns[places, -1] = block, _squares(block)

    def nearest(self, block: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k nearest of each row of a block, the nearest first; gives squares of distances, and places."""
        heaps = faiss.ResultHeap(len(block), k)
        sides = np.empty((len(block), block.shape[1] + 1), dtype=np.float32)
        np.multiply(block, -2, out=sides[:, :-1])
        sides[:, -1] = 1
        # one room for all of them: to get a new one each time takes as long as the products of 50 dimensions
        room = np.empty(len(block) * min(_AT_A_TIME, len(self._columns)), dtype=np.float32)
        for start in range(0, len(self._columns), _AT_A_TIME):
            some = self._columns[start : start + _AT_A_TIME]
            distances = room[: len(block) * len(some)].reshape(len(block), len(some))
            np.matmul(sides, some.T, out=distances)
            heaps.heaps.addn(len(some), faiss.swig_ptr(distances), start)
        heaps.finalize()
        return np.maximum(heaps.D + _squares(block)[:, np.newaxis], 0), heaps.I


def _squares(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the squares of rows' lengths; shape (rows,)."""
    lengths: NDArray[np.float32] = np.einsum("rc,rc->r", block, block)
    return lengths


def place(neighbours: Neighbours, coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put rows among their neighbours on a map, nearer to the nearer ones.

    Parameters
    ----------
    neighbours
        Of the rows to place.
    coordinates
        Of the rows on the map, shape (rows on the map, axes).

    Returns
    -------
    numpy.ndarray of float32, shape (rows to place, axes)
        Means weighted by 1 / distance: a row that equals one on the map comes to lie where that one is.
    """
    weights = 1 / np.maximum(neighbours.distances, 1e-3)
    weights /= weights.sum(axis=1, keepdims=True)
    placed: NDArray[np.float32] = np.einsum("rk,rka->ra", weights, coordinates[neighbours.places])
    return placed


def kept(neighbours: Neighbours, coordinates: NDArray[np.float32], *, k: int, sample: int, seed: int) -> float:
    """Measure how many of a row's nearest neighbours are its nearest on the map as well; the mean share, in [0, 1].

    Parameters
    ----------
    neighbours
        Of all rows on the map, at least one each.
    coordinates
        Of the same, shape (rows, axes).
    k
        How many neighbours of a row are looked at, if it has as many.
    sample, seed
        How many rows are looked at, and the seed they are drawn by.
    """
    k = min(k, neighbours.places.shape[1])
    drawn = np.random.default_rng(seed).permutation(len(coordinates))[:sample]
    _, near = faiss.knn(coordinates[drawn], coordinates, k + 1)
    common = [
        len(np.intersect1d(neighbours.places[row, :k], found[found != row][:k]))
        for row, found in zip(drawn, near, strict=True)
    ]
    return float(np.mean(common)) / k


def _without_self(
    squares: NDArray[np.float32], found: NDArray[np.int64], places: slice
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Leave each row itself out; the last one where it is not among its own nearest, as among many equal rows."""
    selves = found == np.arange(places.start, places.stop)[:, None]
    selves[~selves.any(axis=1), -1] = True
    shape = (len(found), found.shape[1] - 1)
    return found[~selves].reshape(shape), np.sqrt(squares[~selves].reshape(shape))
