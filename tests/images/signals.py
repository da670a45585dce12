"""Tables with a signal that is known: how well any model can do on them is computed, not guessed.

The target is drawn with a chance that leans on ten features, one by one (linear) and six of them in pairs as well
(interactions, which no linear model sees); the other 40 are noise. Every era follows the same law, so that what a model
gains on held-out eras is what it has learned of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FEATURES = 50
TRAINING_ERAS = 100
# eras between the training table's last and the tournament's first, as between real ones
_GAP = 8
_VALIDATION_ERAS = 20
# logits that one standard deviation of a feature, or of a product of two, is worth
_LINEAR = 0.15 * np.array([1, -1] * 5)
_INTERACTIONS = 0.3 * np.array([1, -1, 1])
_SQRT_12 = np.sqrt(12)  # makes the variance of a uniform feature 1


@dataclass(frozen=True)
class KnownSignal:
    """What can be learned from the tables.

    Attributes
    ----------
    coin_toss : float
        Logloss of a constant 0.5, in nats.
    linear : float
        Logloss on the validation rows of one who knows the linear part of the law.
    best : float
        Logloss on the validation rows of one who knows all of it: nobody does better, but by luck.
    """

    coin_toss: float
    linear: float
    best: float


def write_known_signal(directory: Path, rows: int = 50_000, *, shuffled: bool = False, seed: int = 11) -> KnownSignal:
    """Write a run's tables with 50 features between 0 and 1 and a target of 0 and 1.

    Parameters
    ----------
    directory
        Where ``training.parquet`` and ``tournament.parquet`` go.
    rows
        Rows of the training table, over 100 eras. The tournament table has a fifth as many validation rows, over 20
        eras, and 100 live ones.
    shuffled
        Whether the training table's targets are drawn from a hat: then there is nothing to learn.
    seed
        Of everything that is random.
    """
    random = np.random.default_rng(seed)
    features = random.random((rows, FEATURES), dtype=np.float32)
    targets = _drawn(_chances(features), random)
    if shuffled:
        targets = random.permutation(targets)
    eras = [f"era{1 + row * TRAINING_ERAS // rows}" for row in range(rows)]
    _write(directory / "training.parquet", features, eras, ["train"] * rows, targets)

    validation = rows // 5
    features = random.random((validation + 100, FEATURES), dtype=np.float32)
    targets = _drawn(_chances(features), random)
    targets[validation:] = np.nan
    first = TRAINING_ERAS + _GAP + 1
    eras = [f"era{first + row * _VALIDATION_ERAS // validation}" for row in range(validation)] + ["eraX"] * 100
    data_types = ["validation"] * validation + ["live"] * 100
    _write(directory / "tournament.parquet", features, eras, data_types, targets)

    known, drawn = features[:validation], targets[:validation]
    return KnownSignal(
        coin_toss=float(np.log(2)),
        linear=_logloss(_chances(known, interactions=False), drawn),
        best=_logloss(_chances(known), drawn),
    )


def _chances(features: NDArray[np.float32], *, interactions: bool = True) -> NDArray[np.float64]:
    """Compute the chance of a target of 1, shape (rows,)."""
    standardised = (features - 0.5) * _SQRT_12
    logits = standardised[:, :10] @ _LINEAR
    if interactions:
        logits = logits + (standardised[:, 0:3] * standardised[:, 3:6]) @ _INTERACTIONS
    chances: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return chances


def _drawn(chances: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    return (random.random(len(chances)) < chances).astype(np.float32)


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
