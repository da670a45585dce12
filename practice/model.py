"""The random model that generates the rows of an era.

An era's rows are a function of the seed, the season's size and the era (and, for live rows, the day of the week), so
they can be made in any order, in batches, and again in another process. The rows of Saturday's live file are the rows
that appear for that era in later validation files, with the same ids: as on Numerai, a live prediction can be scored
once the targets are known.

The signal is weak on purpose. A hidden score, part linear and part products of pairs of features, explains little of a
target: predicting the score itself gives a CORR of about 0.025 per era. Its strength changes from era to era, and is
negative in some.

On request a season hides groups of rows in its features as well (:mod:`practice.hidden_groups`), and targets lean on
whether a row belongs to one. Its features then lie where the groups want them: they do not drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from practice.hidden_groups import MIN_FEATURES, HiddenGroups, apply_signs
from practice.names import feature_names
from practice.rounds import SATURDAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGET_SHARES = (0.05, 0.20, 0.50, 0.20, 0.05)
"""Shares of the target's values 0, .25, .5, .75 and 1."""
TARGET_WEEKS = {
    "target": 12,
    "target_ender_20": 4,
    "target_ender_60": 12,
    "target_cyrusd_20": 4,
    "target_cyrusd_60": 12,
    "target_teager2b_20": 4,
    "target_teager2b_60": 12,
}
"""Every target with the weeks it looks ahead. The bare ``target`` is ``target_ender_60``, as in Numerai's v5.3."""
DEFAULT_TARGET_IS = "target_ender_60"

_STRENGTH = 0.028
_LINEAR_SHARE = 0.7
_SHARED_NOISE = 0.6
_FACTORS = 12
_SIGNAL_FEATURES = 24
_PAIRS = 6
_FIFTHS = (-0.8416212, -0.2533471, 0.2533471, 0.8416212)
"""Where the normal distribution falls into five equal parts."""


@dataclass(frozen=True)
class SeasonSize:
    """How much data a season has, and whether it hides groups.

    Attributes
    ----------
    rows_per_era : int
        Rows of every era, the live one included.
    train_eras, validation_eras : int
        Eras of the training file, and of the validation file in the season's first round; validation grows by an era a
        week from there.
    small, medium, all_features : int
        Features in each of the three feature sets; each holds the smaller ones.
    group_lean : float
        Correlation of the targets' latent values with belonging to a hidden group of rows, 0 to 0.9; at 0 there are
        no groups.
    """

    rows_per_era: int = 250
    train_eras: int = 60
    validation_eras: int = 40
    small: int = 42
    medium: int = 80
    all_features: int = 120
    group_lean: float = 0.0

    def __post_init__(self) -> None:
        if min(self.rows_per_era, self.train_eras, self.validation_eras) < 1:
            msg = f"rows and eras must be at least 1: {self}"
            raise ValueError(msg)
        if not 2 <= self.small <= self.medium <= self.all_features <= 10_000:
            msg = f"feature sets must grow (2 <= small <= medium <= all <= 10000): {self}"
            raise ValueError(msg)
        if not 0 <= self.group_lean <= 0.9:
            msg = f"targets lean on hidden groups by 0 (not at all) to 0.9: {self}"
            raise ValueError(msg)
        if self.group_lean and self.small < MIN_FEATURES:
            msg = f"hidden groups need a small feature set of at least {MIN_FEATURES} features: {self}"
            raise ValueError(msg)


@dataclass(frozen=True)
class EraRows:
    """The rows of one era.

    Attributes
    ----------
    ids : array of shape (rows,), 16 bytes each
    features : int8 array of shape (features, rows), values 0 to 4
    targets : dict
        Target → float32 array of shape (rows,), in the order of :data:`TARGET_WEEKS`.
    score : array of shape (rows,)
        The hidden score behind the targets: the prediction of an ideal model.
    example : array of shape (rows,)
        Predictions of an ordinary model, strictly between 0 and 1.
    """

    ids: NDArray[np.bytes_]
    features: NDArray[np.int8]
    targets: dict[str, NDArray[np.float32]]
    score: NDArray[np.float32]
    example: NDArray[np.float64]


class SeasonModel:
    """Everything about a season's data that is the same in every era.

    Parameters
    ----------
    size : SeasonSize
    seed : int
        Two models with the same size and seed make the same rows.
    """

    def __init__(self, size: SeasonSize, seed: int) -> None:
        self.size = size
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        count = size.all_features
        self.feature_names = feature_names(count, rng)
        medium = np.sort(rng.permutation(count)[: size.medium])
        small = np.sort(rng.permutation(medium)[: size.small])
        self.feature_sets = {
            "small": [self.feature_names[index] for index in small],
            "medium": [self.feature_names[index] for index in medium],
            "all": list(self.feature_names),
        }
        self._id_offset = int(rng.integers(0, 2**60))
        # each feature follows one hidden factor of the market, so features come in correlated groups
        self._factor = rng.integers(0, _FACTORS, count)
        self._loading = rng.uniform(0.2, 0.7, (count, 1)).astype(np.float32)
        # the signal lies in the small set, so that a run on any feature set can find it
        chosen = rng.permutation(small)[:_SIGNAL_FEATURES]
        self._linear = np.zeros(count, dtype=np.float32)
        self._linear[chosen] = rng.choice([-1.0, 1.0], chosen.size) / np.sqrt(1 + np.arange(chosen.size))
        self._pairs = [rng.choice(small, 2, replace=False) for _ in range(_PAIRS)]
        self._phases = rng.uniform(0, 2 * np.pi, 2 + _FACTORS)
        self._groups = self._hidden_groups(small, medium) if size.group_lean else None

    def era(self, era: int, weekday: int = SATURDAY) -> EraRows:
        """Make the rows of an era as Saturday's round saw them, or those of an earlier round of its week."""
        rng = np.random.default_rng([self.seed, 1, era, weekday])
        rows = self.size.rows_per_era
        features = self._features(era, rows, rng)
        grouped = np.zeros(rows, dtype=np.float32)
        if self._groups:
            drawn = self._groups.draw(rows, np.random.default_rng([self.seed, 4, era, weekday]))
            features = apply_signs(features, 2, drawn.signs)
            grouped = _standardized(drawn.grouped.astype(np.float32))
        score, linear = self._scores(features)
        targets = self._targets(era, score, grouped, rng)
        if self._groups:
            score = _standardized(_STRENGTH * score + np.float32(self.size.group_lean) * grouped)
        example = _percentiles(linear + 0.7 * rng.standard_normal(rows, dtype=np.float32))
        return EraRows(self._ids(era, weekday, rows), features, targets, score, example)

    def strength(self, era: int) -> float:
        """Correlation of the hidden score with the targets' latent values in an era."""
        wave = np.sin(2 * np.pi * era / 52 + self._phases[0]) + np.sin(2 * np.pi * era / 17 + self._phases[1])
        surprise = np.random.default_rng([self.seed, 2, era]).standard_normal()
        return float(np.clip(_STRENGTH * (1 + 0.6 * wave + 0.4 * surprise), -0.1, 0.15))

    def _hidden_groups(self, small: NDArray[np.intp], medium: NDArray[np.intp]) -> HiddenGroups:
        # a separate random stream: the draws of a season without groups do not change
        rng = np.random.default_rng([self.seed, 3])
        every = np.arange(self.size.all_features)
        parts = (small, np.setdiff1d(medium, small), np.setdiff1d(every, medium))
        return HiddenGroups(np.concatenate([rng.permutation(part) for part in parts]), rng)

    def _ids(self, era: int, weekday: int, rows: int) -> NDArray[np.bytes_]:
        # counting, then mixing within 60 bits by steps that can be undone: no two rows of a season share an id
        number = np.arange(rows, dtype=np.uint64) + np.uint64((era * 8 + weekday) << 28)
        mask = np.uint64(2**60 - 1)
        mixed = (number + np.uint64(self._id_offset)) & mask
        for factor in (0x9E3779B97F4A7C1, 0xBF58476D1CE4E5B):
            mixed = (mixed * np.uint64(factor)) & mask
            mixed ^= mixed >> np.uint64(31)
        text = np.frombuffer(mixed.astype(">u8").tobytes().hex().encode(), dtype=np.uint8).reshape(rows, 16).copy()
        text[:, 0] = ord("n")  # the first of 16 hexadecimal digits is 0: it gives way to Numerai's letter
        return text.view("S16")[:, 0]

    def _features(self, era: int, rows: int, rng: np.random.Generator) -> NDArray[np.int8]:
        count = self.size.all_features
        # the market drifts: each factor's mean changes slowly, so that late eras differ a little from early ones
        drift = 0.15 * np.sin(2 * np.pi * era / 90 + self._phases[2:]).astype(np.float32)
        factors = rng.standard_normal((_FACTORS, rows), dtype=np.float32) + drift[:, None]
        latent = rng.standard_normal((count, rows), dtype=np.float32)
        latent *= np.sqrt(1 - self._loading**2)
        latent += self._loading * factors[self._factor]
        features = np.zeros((count, rows), dtype=np.int8)
        for bound in _FIFTHS:
            features += latent > np.float32(bound)
        return features

    def _scores(self, features: NDArray[np.int8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        used = np.flatnonzero(self._linear)
        linear = _standardized(self._linear[used] @ (features[used].astype(np.float32) - 2))
        products = np.zeros(features.shape[1], dtype=np.float32)
        for first, second in self._pairs:
            products += (features[first].astype(np.float32) - 2) * (features[second].astype(np.float32) - 2)
        mixed = np.sqrt(_LINEAR_SHARE) * linear + np.sqrt(1 - _LINEAR_SHARE) * _standardized(products)
        return _standardized(mixed), linear

    def _targets(
        self, era: int, score: NDArray[np.float32], grouped: NDArray[np.float32], rng: np.random.Generator
    ) -> dict[str, NDArray[np.float32]]:
        strength, lean = self.strength(era), self.size.group_lean
        known = strength * score + np.float32(lean) * grouped
        shared = rng.standard_normal(score.size, dtype=np.float32)
        targets = {}
        for name in TARGET_WEEKS:
            own = rng.standard_normal(score.size, dtype=np.float32)
            noise = np.sqrt(_SHARED_NOISE) * shared + np.sqrt(1 - _SHARED_NOISE) * own
            targets[name] = _in_shares(known + np.sqrt(1 - strength**2 - lean**2) * noise)
        targets["target"] = targets[DEFAULT_TARGET_IS]
        return targets


def _standardized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else np.zeros_like(values)


def _percentiles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rank of every value within its era, between 0 and 1 and never either."""
    return (values.argsort(kind="stable").argsort(kind="stable") + 0.5) / values.size


def _in_shares(latent: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn latent values into 0, .25, .5, .75 and 1 by their rank, in the shares of Numerai's targets."""
    bounds = np.cumsum(TARGET_SHARES)[:-1]
    return (np.searchsorted(bounds, _percentiles(latent)) / 4).astype(np.float32)
