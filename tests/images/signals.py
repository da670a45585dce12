"""Tables with a known signal, for which the best possible logloss is computed.

The probability of the target depends on ten features separately (linear), and on a part that is not linear:

- :func:`write_known_signal`: on six of the ten in pairs as well (interactions)
- :func:`write_hidden_structure`: on whether a row belongs to a hidden group (:mod:`practice.hidden_groups`), which no
  product of two features shows, but a t-SNE embedding of all rows does

All other features are noise to the target. Every era follows the same law, so that a model's gain on held-out eras is
exactly the signal that it has learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from practice.hidden_groups import HiddenGroups, apply_signs
from tests.images.conftest import divide_tournament

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

FEATURES = 50
TRAINING_ERAS = 100
# eras between the training table's last and the tournament's first, as between real ones
_GAP = 8
_VALIDATION_ERAS = 20
# logits for one standard deviation of a feature, or of a product of two
_LINEAR = 0.15 * np.array([1, -1] * 5)
_LINEAR_WITH_GROUPS = 0.1 * np.array([1, -1] * 5)
_INTERACTIONS = 0.3 * np.array([1, -1, 1])
_SQRT_12 = np.sqrt(12)  # makes the variance of a uniform feature 1


@dataclass(frozen=True)
class KnownSignal:
    """The signal of the tables.

    Attributes
    ----------
    coin_toss : float
        Logloss of a constant 0.5, in nats.
    linear : float
        Logloss on the validation rows of the linear part of the law.
    best : float
        Logloss on the validation rows of the whole law: the minimum, except by chance.
    """

    coin_toss: float
    linear: float
    best: float


def write_known_signal(directory: Path, rows: int = 50_000, *, shuffled: bool = False, seed: int = 11) -> KnownSignal:
    """Write a run's tables with 50 features between 0 and 1 and a target of 0 and 1.

    Parameters
    ----------
    directory
        Directory of ``training.parquet`` and ``tournament.parquet``.
    rows
        Rows of the training table, over 100 eras. The tournament table has a fifth as many validation rows, over 20
        eras, and 100 live ones.
    shuffled
        Whether the training table's targets are shuffled: then there is nothing to learn.
    seed
        Seed of all random values.
    """
    random = np.random.default_rng(seed)

    def drawn(count: int) -> _Rows:
        features = random.random((count, FEATURES), dtype=np.float32)
        standardised = _standardised(features)
        linear = standardised[:, :10] @ _LINEAR
        return _Rows(features, linear, linear + (standardised[:, 0:3] * standardised[:, 3:6]) @ _INTERACTIONS)

    return _write_both(directory, rows, drawn, random, shuffled=shuffled)


def write_hidden_structure(directory: Path, rows: int = 10_000, *, lean: float = 0.4, seed: int = 11) -> KnownSignal:
    """Write a run's tables with 50 features between 0 and 1, groups hidden in them, and a target of 0 and 1.

    Parameters
    ----------
    directory
        Directory of ``training.parquet`` and ``tournament.parquet``.
    rows
        Rows of the training table; those of the tournament table as in :func:`write_known_signal`.
    lean
        Logits by which the target's probability is higher for rows of a hidden group, and lower for all others.
    seed
        Seed of all random values.
    """
    random = np.random.default_rng(seed)
    groups = HiddenGroups(random.permutation(FEATURES), random)

    def drawn(count: int) -> _Rows:
        hidden = groups.draw(count, random)
        features = apply_signs(random.random((count, FEATURES), dtype=np.float32), 0.5, hidden.signs.T)
        linear = _standardised(features)[:, :10] @ _LINEAR_WITH_GROUPS
        return _Rows(features, linear, linear + np.where(hidden.grouped, lean, -lean))

    return _write_both(directory, rows, drawn, random)


class _Rows(NamedTuple):
    """Features, shape (rows, features), with the logits of the law's linear part and of the whole law."""

    features: NDArray[np.float32]
    linear: NDArray[np.float64]
    logits: NDArray[np.float64]


def _standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    standardised: NDArray[np.float32] = (features - 0.5) * _SQRT_12
    return standardised


def _write_both(
    directory: Path,
    rows: int,
    drawn: Callable[[int], _Rows],
    random: np.random.Generator,
    *,
    shuffled: bool = False,
) -> KnownSignal:
    training = drawn(rows)
    targets = _draw_targets(training.logits, random)
    if shuffled:
        targets = random.permutation(targets)
    eras = [f"era{1 + row * TRAINING_ERAS // rows}" for row in range(rows)]
    _write(directory / "training.parquet", training.features, eras, ["train"] * rows, targets)

    validation = rows // 5
    tournament = drawn(validation + 100)
    targets = _draw_targets(tournament.logits, random)
    targets[validation:] = np.nan
    first = TRAINING_ERAS + _GAP + 1
    eras = [f"era{first + row * _VALIDATION_ERAS // validation}" for row in range(validation)] + ["eraX"] * 100
    data_types = ["validation"] * validation + ["live"] * 100
    _write(directory / "tournament.parquet", tournament.features, eras, data_types, targets)
    divide_tournament(directory)

    known = slice(validation)
    return KnownSignal(
        coin_toss=float(np.log(2)),
        linear=_logloss(_chances(tournament.linear[known]), targets[known]),
        best=_logloss(_chances(tournament.logits[known]), targets[known]),
    )


def _chances(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the probability of a target of 1, shape (rows,)."""
    chances: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return chances


def _draw_targets(logits: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    return (random.random(len(logits)) < _chances(logits)).astype(np.float32)


def _logloss(chances: NDArray[np.float64], targets: NDArray[np.float32]) -> float:
    return float(-np.mean(np.log(np.where(targets > 0.5, chances, 1 - chances))))


def _write(
    path: Path, features: NDArray[np.float32], eras: list[str], data_types: list[str], targets: NDArray[np.float32]
) -> None:
    columns = {
        "id": [f"{path.stem[:2]}{row:06}" for row in range(len(eras))],
        "era": eras,
        "data_type": data_types,
        **{f"feature{column + 1}": features[:, column] for column in range(features.shape[1])},
        "target": targets,
    }
    pq.write_table(pa.table(columns), path)
