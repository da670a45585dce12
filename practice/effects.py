"""What targets follow: lasting effects of features, effects of single weeks, and overlapping targets.

A *term* is a driver's value, scaled to variance 1 (a missing value counts as the middle), or a product of two drivers
of the small set. Each term has

- a *lasting* effect, the same in every era: all that can be learned about the future;
- a *weekly* effect, drawn anew for every week. The effect in an era on a target that looks h weeks ahead is the sum of
  the weekly effects of these h weeks, divided by the root of h. So the era effects of eras d weeks apart correlate by
  1 - d / h, and not at all from h weeks on; targets of one era share weeks. A model that is scored on eras next to its
  training eras seems to know the future.

Targets of different kinds (ender, cyrusd, teager2b) share four fifths of the variance of the weekly effects.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from practice.features import MIDDLE, MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from practice.features import FeatureModel
    from practice.model import SeasonSize

TARGET_SHARES = (0.05, 0.20, 0.50, 0.20, 0.05)
"""Shares of the target's values 0, .25, .5, .75 and 1."""
PRODUCTS = 8
PRODUCT_STRENGTH = 1.5
"""Lasting effect of a product of two drivers, in those of a driver."""

_SHARED_WEEK = 0.8
_SQRT_2 = np.float32(np.sqrt(2))  # standard deviation of the values 0 to 4 in equal shares
_KINDS = ("ender", "cyrusd", "teager2b")
_LAYOUT, _WEEKS = 8, 5
_ALL_KINDS = len(_KINDS)


class Effects:
    """The law between features and targets.

    Parameters
    ----------
    size : SeasonSize
    features : FeatureModel
        Has the drivers.
    seed : int

    Attributes
    ----------
    lasting : float32 array of shape (terms,)
        Lasting effect of each term on the targets' latent values, whose variance is 1: drivers first, then products.
    pairs : int array of shape (products, 2)
        The drivers of each product.
    """

    def __init__(self, size: SeasonSize, features: FeatureModel, seed: int) -> None:
        self._seed = seed
        self._era_effect = size.era_effect
        self._drivers = features.drivers
        rng = np.random.default_rng([seed, _LAYOUT])
        first, second = np.triu_indices(features.small_drivers, 1)
        self.pairs = np.stack([first, second], axis=1)[rng.permutation(first.size)[:PRODUCTS]]
        self.lasting = np.concatenate(
            [
                size.lasting_effect * _scaled(rng.standard_normal(len(self._drivers))),
                PRODUCT_STRENGTH * size.lasting_effect * _scaled(rng.standard_normal(len(self.pairs))),
            ]
        ).astype(np.float32)
        lean = size.group_lean**2
        lasting = float(self.lasting @ self.lasting)
        self._unknown = np.sqrt(1 - lasting - lean)
        self.noise = np.sqrt(max(0.05, 1 - lasting - self.lasting.size * size.era_effect**2 - lean))
        """Standard deviation of the part of the latent values that belongs to single rows."""
        self._week = lru_cache(maxsize=256)(self._drawn_week)

    def terms(self, drivers: NDArray[np.int8]) -> NDArray[np.float32]:
        """Compute the terms of rows; shape (terms, rows) from drivers of shape (drivers, rows)."""
        values = drivers.astype(np.float32)
        values[drivers == MISSING] = MIDDLE
        values -= MIDDLE
        values /= _SQRT_2
        return np.concatenate([values, values[self.pairs[:, 0]] * values[self.pairs[:, 1]]])

    def of_era(self, era: int, target: str, weeks: int) -> NDArray[np.float32]:
        """Return each term's effect of an era on a target that looks so many weeks ahead; shape (terms,)."""
        kind = next((number for number, name in enumerate(_KINDS) if name in target), 0)
        drawn = [self._week(week) for week in range(era, era + weeks)]
        shared = sum(week[_ALL_KINDS] for week in drawn)
        own = sum(week[kind] for week in drawn)
        effects = (np.sqrt(_SHARED_WEEK) * shared + np.sqrt(1 - _SHARED_WEEK) * own) / np.sqrt(weeks)
        return np.asarray(effects, dtype=np.float32)

    def expected(self, latent: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn what is known of latent values into the expected target, to first order."""
        spread = float(self._unknown)
        bounds = (NormalDist().inv_cdf(share) for share in np.cumsum(TARGET_SHARES)[:-1])
        slope = sum(NormalDist(0, spread).pdf(bound) for bound in bounds) / (len(TARGET_SHARES) - 1)
        expected: NDArray[np.float32] = np.clip(np.float32(0.5) + np.float32(slope) * latent, 0, 1)
        return expected

    def expected_target(self, columns: Mapping[str, Sequence[float] | NDArray[np.generic]]) -> NDArray[np.float32]:
        """Return the expected target of rows by the lasting law: the predictions of an ideal model.

        Parameters
        ----------
        columns : mapping
            Feature → its values 0 to 4 in the rows, NaN where missing. Drivers that are not there count as unknown.

        Returns
        -------
        array of shape (rows,)
        """
        rows = len(next(iter(columns.values())))
        drivers = np.full((len(self._drivers), rows), MISSING, dtype=np.int8)
        for place, name in enumerate(self._drivers):
            if name in columns:
                values = np.asarray(columns[name], dtype=np.float32)
                drivers[place] = np.where(np.isnan(values), MISSING, values)
        return self.expected(weighted(self.lasting, self.terms(drivers)))

    def _drawn_week(self, week: int) -> NDArray[np.float64]:
        rng = np.random.default_rng([self._seed, _WEEKS, week])
        return self._era_effect * rng.standard_normal((_ALL_KINDS + 1, self.lasting.size))


def weighted(effects: NDArray[np.float32], terms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum terms with their effects; shape (rows,). The last bits do not depend on the number of cores, as with BLAS."""
    total: NDArray[np.float32] = np.einsum("t,tr->r", effects, terms)
    return total


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale values to a mean square of 1, so that seasons of all seeds have equally strong effects."""
    return values / np.sqrt(np.mean(values**2)) if values.size else values
