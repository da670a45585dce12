"""Hidden groups of rows: structure that nearest neighbours show, and that products of two features do not.

Half of the rows belong to one of 16 groups of equal size, the others to none. Each feature follows one of 15 hidden
signs: a row's value lies below or above the feature's middle according to the row's sign. The rows of a group have the
signs of its codeword, a row of a 16 x 16 Hadamard matrix (Sylvester's, without its constant column); each of the other
rows has random signs.

Any two columns of such a matrix agree in exactly half of its rows. So rows in a group and rows in none have the same
mean of every feature and of every product of two: a sum of such terms cannot separate them. The rows of
a group are close to each other, though, because any two codewords differ in 8 of the 15 signs. A t-SNE map shows the
groups as islands, most of them around the crowd of all other rows, so that even a quadratic function of its two
coordinates is informative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUPS = 16
SIGNS = GROUPS - 1
MIN_FEATURES = 2 * SIGNS
"""Two for each sign: with fewer, noise blurs which rows are close."""

_EITHER = np.array([-1, 1], dtype=np.int8)


class DrawnRows(NamedTuple):
    """The hidden structure of some rows.

    Attributes
    ----------
    grouped : array of shape (rows,)
        Whether the row belongs to a group.
    signs : int8 array of shape (features, rows), -1 or 1
        The side of its feature's middle on which each value lies.
    """

    grouped: NDArray[np.bool_]
    signs: NDArray[np.int8]


class HiddenGroups:
    """The groups of one data set.

    Parameters
    ----------
    order : array of shape (features,)
        Every feature's index once. The features follow the 15 signs in turn in this order, so that all signs show in
        any 15 features that stand together in it.
    rng : Generator
        Draws which features are the other way round.
    """

    def __init__(self, order: NDArray[np.intp], rng: np.random.Generator) -> None:
        rows, columns = np.arange(GROUPS)[:, None], np.arange(1, GROUPS)
        self._codewords = _EITHER[np.bitwise_count(rows & columns) % 2]
        self._follows = np.empty_like(order)
        self._follows[order] = np.arange(order.size) % SIGNS
        self._polarity = rng.choice(_EITHER, (order.size, 1))

    def draw(self, rows: int, rng: np.random.Generator) -> DrawnRows:
        """Draw the hidden structure of some rows."""
        grouped = rng.random(rows) < 0.5
        codewords = self._codewords[rng.integers(0, GROUPS, rows)]
        own = rng.choice(_EITHER, (rows, SIGNS))
        signs = np.where(grouped[:, None], codewords, own)
        return DrawnRows(grouped, self._polarity * signs.T[self._follows])


def apply_signs(values: NDArray[Any], middle: float, signs: NDArray[np.int8]) -> NDArray[Any]:
    """Mirror each value to its sign's side of the middle, at the same distance and in the same data type."""
    centre = values.dtype.type(middle)
    mirrored: NDArray[Any] = centre + signs * np.abs(values - centre)
    return mirrored
