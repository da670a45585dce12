"""The random model that generates the rows of an era.

An era's rows are a function of the seed, the season's size and the era (and, for live rows, the day of the week), so
they can be made in any order, in batches, and again in another process. The rows of Saturday's live file are the rows
that appear for that era in later validation files, with the same ids: as on Numerai, a live prediction can be scored
once the targets are known.

Features (:mod:`practice.features`) come in correlated groups, drift, and have missing values. Targets
(:mod:`practice.effects`) follow weak lasting effects of features, beside stronger effects of single weeks, which
overlapping targets share. Standard deviations of the effects, and what follows from them:

| | default season | :data:`V53` |
|---|---|---|
| lasting effect of one of 42 features of each feature set's own | .008 | .004 |
| lasting effect of one of 8 products of two | .012 | .006 |
| effect of an era on each of these | .02 | .03 |
| correlation of the lasting law with targets: all features, small set | .09, .06 | .05, .03 |
| independent eras in the training file, for a 60-day target | 5 | 48 |
| correlation of least squares on the small set with its lasting law, for 60 and 20 days | .5, .5 | .7, .8 |

The default season has stronger lasting and weaker era effects than Numerai's data: with Numerai's, nothing could be
learned from 60 eras of 250 rows.

On request a season hides groups of rows in its features as well (:mod:`practice.hidden_groups`), and targets lean on
whether a row belongs to one. Its features then lie where the groups want them: they do not drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from practice.effects import TARGET_SHARES, Effects, weighted
from practice.features import FeatureModel
from practice.hidden_groups import MIN_FEATURES
from practice.rounds import FIRST_ROUND, SATURDAY, SeasonRound

if TYPE_CHECKING:
    from numpy.typing import NDArray

FeatureSet = Literal["small", "medium", "all"]

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
META_MODEL = "numerai_meta_model"
"""The meta model's column, by Numerai's name."""
BENCHMARK_MODELS = ("v53_lgbm_ender20", "v53_lgbm_ender60", "v53_lgbm_cyrusd20")
"""Columns of the benchmark models, by Numerai's names."""

_SHARED_NOISE = 0.6
# errors of the effects in published predictions, in lasting effects
_EXAMPLE_ERROR = 1.0
_BENCHMARK_ERROR = 0.7
# rows of the first training era and of the first validation era where rows grow, as a share of those of the last era
_GROWTH = (0.5657, 0.8645)
# streams of random numbers
_IDS, _TARGETS, _PUBLISHED, _META = 0, 2, 9, 1219


@dataclass(frozen=True)
class SeasonSize:
    """How much data a season has, and what is in it.

    Attributes
    ----------
    rows_per_era : int
        Rows of every era, the live one included; of the season's last eras where rows grow.
    train_eras, validation_eras : int
        Eras of the training file, and of the validation file in the season's first round; validation grows by an era a
        week from there.
    small, medium, all_features : int
        Features in each of the three feature sets; each holds the smaller ones.
    group_lean : float
        Correlation of the targets' latent values with belonging to a hidden group of rows, 0 to 0.9; at 0 there are
        no groups.
    lasting_effect, era_effect : float
        Standard deviations of the effects on the targets' latent values, up to .03 and .05.
    missing_share : float
        Share of missing values in the features that have any, up to .5.
    rows_grow : bool
        Whether eras have more rows from one to the next, as Numerai's: from 57 % of ``rows_per_era`` in the first one.
    generated : {"small", "medium", "all"}
        The largest feature set that the files have. Features of larger sets are listed only.
    """

    rows_per_era: int = 250
    train_eras: int = 60
    validation_eras: int = 40
    small: int = 42
    medium: int = 80
    all_features: int = 120
    group_lean: float = 0.0
    lasting_effect: float = 0.008
    era_effect: float = 0.02
    missing_share: float = 0.01
    rows_grow: bool = False
    generated: FeatureSet = "all"

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
        if not (0 <= self.lasting_effect <= 0.03 and 0 <= self.era_effect <= 0.05):
            msg = f"a lasting effect is 0 to .03, an effect of an era 0 to .05: {self}"
            raise ValueError(msg)
        if not 0 <= self.missing_share <= 0.5:
            msg = f"the share of missing values is 0 to .5: {self}"
            raise ValueError(msg)

    @property
    def first_validation_era(self) -> int:
        """Number of the first era of the validation file."""
        return SeasonRound(FIRST_ROUND).era - self.validation_eras

    def position(self, era: int) -> float:
        """Return where in the season an era lies: 0 is the first training era, 1 the first round's live era."""
        eras = self.train_eras + self.validation_eras
        return (era - self.first_validation_era + self.train_eras) / eras

    def rows_in(self, era: int) -> int:
        """Return the number of rows of an era."""
        if not self.rows_grow:
            return self.rows_per_era
        eras = (-self.train_eras, 0, self.validation_eras)
        share = np.interp(era - self.first_validation_era, eras, (*_GROWTH, 1))
        return max(1, round(self.rows_per_era * float(share)))


V53 = SeasonSize(
    rows_per_era=6_700,
    train_eras=574,
    validation_eras=658,
    small=42,
    medium=780,
    all_features=3_555,
    lasting_effect=0.004,
    era_effect=0.03,
    rows_grow=True,
    generated="small",
)
"""The size of Numerai's v5.3 in July 2026: 2.75 M training rows, 4.11 M validation rows, 6,700 live rows."""


SIZES = {"default": SeasonSize(), "v5.3": V53}
"""The sizes by name."""


@dataclass(frozen=True)
class EraRows:
    """The rows of one era.

    Attributes
    ----------
    ids : array of shape (rows,), 16 bytes each
    features : int8 array of shape (generated features, rows), values 0 to 4, -1 where missing
        In the files' order; without features when the rows were made without.
    targets : dict
        Target → float32 array of shape (rows,), in the order of :data:`TARGET_WEEKS`.
    expected : array of shape (rows,)
        Expected target by the lasting law: the prediction of an ideal model.
    example : array of shape (rows,)
        Predictions of an ordinary model, strictly between 0 and 1.
    """

    ids: NDArray[np.bytes_]
    features: NDArray[np.int8]
    targets: dict[str, NDArray[np.float32]]
    expected: NDArray[np.float32]
    example: NDArray[np.float64]


class SeasonModel:
    """Everything about a season's data that is the same in every era.

    Parameters
    ----------
    size : SeasonSize
    seed : int
        Two models with the same size and seed make the same rows. Ids, targets, and each feature are the same
        whichever feature sets are generated.

    Attributes
    ----------
    features : FeatureModel
    effects : Effects
        Has the lasting law; ``effects.expected_target`` applies it to the rows of a file.
    """

    def __init__(self, size: SeasonSize, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.features = FeatureModel(size, seed)
        self.effects = Effects(size, self.features, seed)
        rng = np.random.default_rng([seed, _PUBLISHED])
        self._id_offset = int(rng.integers(0, 2**60))
        lasting, small = self.effects.lasting, self.features.small_drivers
        errors = size.lasting_effect * rng.standard_normal((1 + len(BENCHMARK_MODELS), lasting.size))
        linear_small = np.arange(lasting.size) < small
        self._example = np.where(linear_small, lasting + _EXAMPLE_ERROR * errors[0], 0).astype(np.float32)
        self._benchmarks = (lasting + _BENCHMARK_ERROR * errors[1:]).astype(np.float32)

    def era(self, era: int, weekday: int = SATURDAY, *, features: bool = True) -> EraRows:
        """Make the rows of an era as Saturday's round saw them, or those of an earlier round of its week.

        Without ``features`` it takes little time at any number of features.
        """
        rows = self.size.rows_in(era)
        drawn, drivers, grouped = self.features.draw(era, weekday, rows, drivers_only=not features)
        terms = self.effects.terms(drivers)
        leaning = np.float32(self.size.group_lean) * (_standardized(grouped) if self.size.group_lean else grouped)
        known = weighted(self.effects.lasting, terms) + leaning
        targets = self._targets(era, weekday, known, terms)
        example = _percentiles(weighted(self._example, terms))
        return EraRows(self._ids(era, weekday, rows), drawn, targets, self.effects.expected(known), example)

    def published(self, era: int) -> tuple[NDArray[np.bytes_], dict[str, NDArray[np.float64]]]:
        """Make the published predictions of an era's rows, as Saturday's round saw them.

        Returns
        -------
        ids : array of shape (rows,), 16 bytes each
        predictions : dict
            ``example``, :data:`BENCHMARK_MODELS` and :data:`META_MODEL` → predictions of shape (rows,), strictly
            between 0 and 1: of an ordinary model, of good ones, and of a mean of all these and of noise.
        """
        rows = self.size.rows_in(era)
        terms = self.effects.terms(self.features.draw(era, SATURDAY, rows, drivers_only=True)[1])
        weights = dict(zip(("example", *BENCHMARK_MODELS), (self._example, *self._benchmarks), strict=True))
        predictions = {name: _percentiles(weighted(effects, terms)) for name, effects in weights.items()}
        noise = np.random.default_rng([self.seed, _META, era]).random(rows)
        mixed = np.sum([*predictions.values(), len(predictions) * noise], axis=0)
        return self._ids(era, SATURDAY, rows), predictions | {META_MODEL: _percentiles(mixed)}

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

    def _targets(
        self, era: int, weekday: int, known: NDArray[np.float32], terms: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        rng = np.random.default_rng([self.seed, _TARGETS, era, weekday])
        shared = rng.standard_normal(known.size, dtype=np.float32)
        targets = {}
        for name, weeks in TARGET_WEEKS.items():
            if name == "target":
                targets[name] = known  # keeps its position
                continue
            own = rng.standard_normal(known.size, dtype=np.float32)
            noise = np.sqrt(_SHARED_NOISE) * shared + np.sqrt(1 - _SHARED_NOISE) * own
            latent = (
                known + weighted(self.effects.of_era(era, name, weeks), terms) + np.float32(self.effects.noise) * noise
            )
            targets[name] = _in_shares(latent)
        targets["target"] = targets[DEFAULT_TARGET_IS]
        return targets


def _standardized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else np.zeros_like(values)


def _percentiles(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Rank of every value within its era, between 0 and 1 and never either."""
    ranks = np.empty(values.size)
    ranks[values.argsort(kind="stable")] = np.arange(values.size) + 0.5
    return ranks / values.size


def _in_shares(latent: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn latent values into 0, .25, .5, .75 and 1 by their rank, in the shares of Numerai's targets."""
    bounds = np.cumsum(TARGET_SHARES)[:-1]
    return (np.searchsorted(bounds, _percentiles(latent)) / 4).astype(np.float32)
