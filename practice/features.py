"""The features of a season: five values in equal shares, in groups and families, with drift and missing values.

- **Groups and families.** A feature's latent value is the sum of a factor that its group shares, one that its family of
  five shares, and a part of its own. Two features of a family correlate by about .55, two of a group by about .2.
- **Drift.** The mean of every group moves in a slow wave, and a quarter of the features have a trend over the season:
  features correlate with the era.
- **Missing values**, in Numerai's two forms. One feature in 20 does not exist before an era of its own in the first
  half of the season: until then all its values are 2. One in 40 lacks single values in all eras (null in the files).
  The small set has at least one of each.

Features are drawn in three parts: the small set, the features that the medium set adds, and all others. The first 42
features of each part are its *drivers*, the only ones with an effect on targets. Drivers are drawn first, so that
targets, and each feature, are the same whichever feature sets are generated.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from practice.hidden_groups import HiddenGroups, apply_signs
from practice.names import feature_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from practice.model import SeasonSize

MISSING = -1
"""Stands for a missing value among the int8 values 0 to 4."""
MIDDLE = 2
DRIVERS = 42
"""At most so many features of each part have an effect on targets."""

_GROUPS = 12
_FAMILY = 5
_GROUP_LOADING = (0.3, 0.6)
_FAMILY_LOADING = (0.45, 0.7)
_WAVE = 0.15
_WAVE_ERAS = 90
_TREND = (0.2, 0.6)
_TREND_EVERY = 4
_LATE_EVERY = 20
_LATE_START = (0.05, 0.4)
_GAPS_EVERY = 40
_FEATURES_AT_ONCE = 10 * _FAMILY
_FIFTHS = np.array((-0.8416212, -0.2533471, 0.2533471, 0.8416212), dtype=np.float32)
"""Where the normal distribution falls into five equal parts."""
_LEVELS = 2**16

# streams of random numbers
_LAYOUT, _FACTORS, _VALUES, _GAPS = 0, 6, 1, 7
_GROUP_LAYOUT, _GROUP_ROWS = 3, 4


class FeatureModel:
    """Names, sets and values of a season's features.

    Parameters
    ----------
    size : SeasonSize
    seed : int

    Attributes
    ----------
    names : list of str
        All features, in the files' order.
    sets : dict
        Feature set → its features, in the files' order.
    generated : list of str
        The features that the files have.
    drivers : list of str
        The features with an effect on targets, those of the small set first.
    small_drivers : int
        How many of them the small set has.
    groups : dict
        Feature → the number of its group.
    late, gaps, trending : list of str
        The features that begin late, that lack single values, and that have a trend.
    """

    def __init__(self, size: SeasonSize, seed: int) -> None:
        self._size = size
        self._seed = seed
        rng = np.random.default_rng([seed, _LAYOUT])
        count = size.all_features
        self.names = feature_names(count, rng)
        medium = np.sort(rng.permutation(count)[: size.medium])
        small = np.sort(rng.permutation(medium)[: size.small])
        self.sets = {
            "small": [self.names[index] for index in small],
            "medium": [self.names[index] for index in medium],
            "all": list(self.names),
        }
        self.generated = self.sets[size.generated]
        parts = (small, np.setdiff1d(medium, small), np.setdiff1d(np.arange(count), medium))
        self._order = np.concatenate([rng.permutation(part) for part in parts])
        bounds = np.cumsum([0, *(part.size for part in parts)]).tolist()
        wanted = {"small": 1, "medium": 2, "all": 3}[size.generated]
        every = [(part, _blocks(first, end)) for part, (first, end) in _parts(bounds)]
        # of a part that is not generated, only the drivers are drawn
        self._blocks = [(part, blocks if part < wanted else blocks[:1]) for part, blocks in every]
        drivers = [first + place for _, (first, end) in _parts(bounds) for place in range(min(DRIVERS, end - first))]
        self.drivers = [self.names[self._order[place]] for place in drivers]
        self.small_drivers = min(DRIVERS, size.small)
        position = {name: place for place, name in enumerate(self.generated)}
        self._column = np.array([position.get(self.names[index], -1) for index in self._order])

        # from here on arrays follow the order in which features are drawn
        self._group = np.empty(count, dtype=np.int64)
        for block in (block for _, blocks in every for block in blocks):
            families = rng.integers(0, _GROUPS, -(-(block.stop - block.start) // _FAMILY))
            self._group[block] = np.repeat(families, _FAMILY)[: block.stop - block.start]
        self.groups = {self.names[index]: int(group) for index, group in zip(self._order, self._group, strict=True)}
        self._group_loading = rng.uniform(*_GROUP_LOADING, (count, 1)).astype(np.float32)
        self._family_loading = rng.uniform(*_FAMILY_LOADING, (count, 1)).astype(np.float32)
        self._own_loading = np.sqrt(1 - self._group_loading**2 - self._family_loading**2)
        self._phases = rng.uniform(0, 2 * np.pi, _GROUPS)
        self._trend = np.zeros((count, 1), dtype=np.float32)
        self._start = np.full(count, -np.inf)
        self._has_gaps = np.zeros(count, dtype=bool)
        for part, (first, end) in _parts(bounds):
            places = first + rng.permutation(end - first)
            late = max((end - first) // _LATE_EVERY, int(part == 0))
            gaps = max((end - first) // _GAPS_EVERY, int(part == 0))
            trending = max((end - first) // _TREND_EVERY, int(part == 0))
            self._start[places[:late]] = rng.uniform(*_LATE_START, late)
            self._has_gaps[places[late : late + gaps]] = True
            trends = rng.uniform(*_TREND, (trending, 1)) * rng.choice([-1, 1], (trending, 1))
            self._trend[places[places.size - trending :]] = trends
        self.late = self._names_where(np.isfinite(self._start))
        self.gaps = self._names_where(self._has_gaps)
        self.trending = self._names_where(self._trend[:, 0] != 0)
        self._hidden = None
        if size.group_lean:
            # a separate random stream: the other draws are those of a season without groups
            groups_rng = np.random.default_rng([seed, _GROUP_LAYOUT])
            self._hidden = HiddenGroups(np.concatenate([groups_rng.permutation(part) for part in parts]), groups_rng)

    def _names_where(self, marks: NDArray[np.bool_]) -> list[str]:
        return [self.names[index] for index in self._order[marks]]

    def draw(
        self, era: int, weekday: int, rows: int, *, drivers_only: bool = False
    ) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.float32]]:
        """Draw the features of an era's rows.

        Returns
        -------
        features : int8 array of shape (generated features, rows)
            0 to 4, or :data:`MISSING`; without features when only drivers are drawn.
        drivers : int8 array of shape (drivers, rows)
        grouped : float32 array of shape (rows,)
            1 for a row of a hidden group, else 0.
        """
        features = np.empty((0 if drivers_only else len(self.generated), rows), dtype=np.int8)
        drivers = []
        factors = _normal(np.random.default_rng([self._seed, _FACTORS, era, weekday]), _GROUPS, rows)
        factors += _WAVE * np.sin(2 * np.pi * era / _WAVE_ERAS + self._phases).astype(np.float32)[:, None]
        grouped, signs = np.zeros(rows, dtype=np.float32), None
        if self._hidden:
            hidden = self._hidden.draw(rows, np.random.default_rng([self._seed, _GROUP_ROWS, era, weekday]))
            grouped, signs = hidden.grouped.astype(np.float32), hidden.signs
        position = self._size.position(era)
        for part, blocks in self._blocks:
            rng, gaps_rng = (
                np.random.default_rng([self._seed, stream, era, weekday, part]) for stream in (_VALUES, _GAPS)
            )
            for number, block in enumerate(blocks[:1] if drivers_only else blocks):
                values = self._block(block, factors, position, rng)
                if signs is not None:
                    values = apply_signs(values, MIDDLE, signs[self._order[block]])
                values[position < self._start[block]] = MIDDLE
                for place in np.flatnonzero(self._has_gaps[block]):
                    values[place, gaps_rng.random(rows) < self._size.missing_share] = MISSING
                if number == 0:
                    drivers.append(values)
                if not drivers_only and self._column[block.start] >= 0:
                    features[self._column[block]] = values
        return features, np.concatenate(drivers), grouped

    def _block(
        self, block: slice, factors: NDArray[np.float32], position: float, rng: np.random.Generator
    ) -> NDArray[np.int8]:
        count, rows = block.stop - block.start, factors.shape[1]
        families = np.repeat(_normal(rng, -(-count // _FAMILY), rows), _FAMILY, axis=0)[:count]
        families *= self._family_loading[block]
        latent = _normal(rng, count, rows)
        latent *= self._own_loading[block]
        latent += families
        np.multiply(factors[self._group[block]], self._group_loading[block], out=families)
        latent += families
        shift = self._trend[block] * np.float32(position - 0.5)
        values = np.zeros((count, rows), dtype=np.int8)
        above = np.empty((count, rows), dtype=bool)
        for bound in _FIFTHS:
            np.greater(latent, bound - shift, out=above)
            values += above.view(np.int8)
        return values


def _parts(bounds: list[int]) -> list[tuple[int, tuple[int, int]]]:
    """List the parts that have features: the number of each, the position of its first feature and of its end."""
    return [(part, pair) for part, pair in enumerate(pairwise(bounds)) if pair[0] < pair[1]]


def _blocks(first: int, end: int) -> list[slice]:
    """Cut a part into pieces that are drawn at once; the first one has the drivers."""
    rest = min(first + DRIVERS, end)
    starts = range(rest, end, _FEATURES_AT_ONCE)
    return [slice(first, rest), *(slice(start, min(start + _FEATURES_AT_ONCE, end)) for start in starts)]


@lru_cache(maxsize=1)
def _quantiles() -> NDArray[np.float32]:
    normal = NormalDist()
    return np.array([normal.inv_cdf((level + 0.5) / _LEVELS) for level in range(_LEVELS)], dtype=np.float32)


def _normal(rng: np.random.Generator, count: int, rows: int) -> NDArray[np.float32]:
    """Draw normal values from 65,536 levels, several times as fast as numpy's; shape (count, rows)."""
    drawn = np.empty((count, rows), dtype=np.float32)
    np.take(_quantiles(), rng.integers(0, _LEVELS, (count, rows), dtype=np.uint16), out=drawn, mode="clip")
    return drawn
