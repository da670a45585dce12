"""Small worlds whose law is known: the tables of a run, and the part of each live row's target that lasts.

Effects of single eras are six times as strong as the effects that last, as in Numerai's data: a model that follows the
eras of its training table predicts the live rows badly, however well it fits. The live rows follow the lasting effects
alone, and a score is the correlation of predictions with them: it has no noise of a test.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURES, PRODUCTS = 42, 8
ERAS, ROWS_PER_ERA, LIVE_ROWS = 120, 500, 20_000
# the last fifth is the validation table; the final fit has all eras
VALIDATION_ERAS = 24
_LASTING_FEATURES, _LASTING_PRODUCTS, _OF_AN_ERA, _NOISE = 0.005, 0.006, 0.03, 1.0
# shares of the rows of an era with a target of at most 0, 1/4, 1/2, 3/4
_CUTS = (0.05, 0.25, 0.75, 0.95)
_SEED = 18_000
LAW = "law.npy"
"""The file with the lasting part of the live rows' targets."""


class Law(NamedTuple):
    """The effects of features and of their products on the target that last through all eras.

    Attributes
    ----------
    features : numpy.ndarray of float64, shape (features,)
        Of standardised features.
    pairs : numpy.ndarray of int, shape (products, 2)
        The features of each product.
    products : numpy.ndarray of float64, shape (products,)
    """

    features: NDArray[np.float64]
    pairs: NDArray[np.intp]
    products: NDArray[np.float64]

    @classmethod
    def draw(cls, random: np.random.Generator) -> Law:
        """Draw the effects of a world."""
        every_pair = np.column_stack(np.triu_indices(FEATURES, 1))
        return cls(
            random.normal(0, _LASTING_FEATURES, FEATURES),
            random.choice(every_pair, PRODUCTS, replace=False),
            random.normal(0, _LASTING_PRODUCTS, PRODUCTS),
        )

    def __call__(self, features: NDArray[np.int8]) -> NDArray[np.float64]:
        """Return the lasting part of the target of rows, shape (rows, features); shape (rows,)."""
        lasting: NDArray[np.float64] = self.terms(features) @ np.concatenate([self.features, self.products])
        return lasting

    def terms(self, features: NDArray[np.int8]) -> NDArray[np.float64]:
        """Return the standardised features of rows, followed by the products; shape (rows, features + products)."""
        standard = (features - 2.0) / np.sqrt(2.0)
        return np.hstack([standard, standard[:, self.pairs[:, 0]] * standard[:, self.pairs[:, 1]]])


class World(NamedTuple):
    """The rows of a world.

    Attributes
    ----------
    features : numpy.ndarray of int8, shape (eras * rows per era, features)
        From 0 to 4, of the known rows, one era after the other.
    targets : numpy.ndarray of float32, shape (eras * rows per era,)
        0, 1/4, 1/2, 3/4 or 1.
    live : numpy.ndarray of int8, shape (live rows, features)
    law : numpy.ndarray of float64, shape (live rows,)
        The lasting part of the live rows' targets.
    """

    features: NDArray[np.int8]
    targets: NDArray[np.float32]
    live: NDArray[np.int8]
    law: NDArray[np.float64]


def draw_world(number: int, *, eras: int = ERAS, rows_per_era: int = ROWS_PER_ERA, live_rows: int = LIVE_ROWS) -> World:
    """Draw a world; the same number and sizes draw the same world."""
    random = np.random.default_rng(_SEED + number)
    law = Law.draw(random)
    features = random.integers(0, 5, (eras * rows_per_era, FEATURES), dtype=np.int8)
    targets = np.empty(len(features), dtype=np.float32)
    lasting = np.concatenate([law.features, law.products])
    for first in range(0, len(features), rows_per_era):
        rows = slice(first, first + rows_per_era)
        effects = lasting + random.normal(0, _OF_AN_ERA, len(lasting))
        values = law.terms(features[rows]) @ effects + random.normal(0, _NOISE, rows_per_era)
        targets[rows] = five_bins(values)
    live = random.integers(0, 5, (live_rows, FEATURES), dtype=np.int8)
    return World(features, targets, live, law(live))


def five_bins(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the targets of the rows of an era, by the ranks of their values."""
    shares = (np.argsort(np.argsort(values)) + 0.5) / len(values)
    return (np.searchsorted(_CUTS, shares) / 4).astype(np.float32)


def write_world(number: int, directory: Path) -> None:
    """Write the three tables of a world, as a run has them, and its law into a new directory."""
    world = draw_world(number)
    directory.parent.mkdir(parents=True, exist_ok=True)
    # its own, since two benchmarks may write the same world
    part = Path(tempfile.mkdtemp(prefix=f"{directory.name}.", dir=directory.parent))
    eras = [f"{era:04}" for era in range(1, ERAS + 1) for _ in range(ROWS_PER_ERA)]
    first = (ERAS - VALIDATION_ERAS) * ROWS_PER_ERA
    for name, data_type, rows in (
        ("training", "train", slice(first)),
        ("validation", "validation", slice(first, None)),
    ):
        _write(part / f"{name}.parquet", data_type, eras[rows], world.features[rows], world.targets[rows])
    unknown = np.full(len(world.live), np.nan, dtype=np.float32)
    _write(part / "live.parquet", "live", ["eraX"] * len(world.live), world.live, unknown)
    np.save(part / LAW, world.law)
    part.chmod(0o755)
    try:
        part.rename(directory)
    except OSError:
        shutil.rmtree(part)
        if not directory.is_dir():
            raise


def _write(
    path: Path, data_type: str, eras: list[str], features: NDArray[np.int8], targets: NDArray[np.float32]
) -> None:
    columns = {
        "id": [f"{data_type}{row:06}" for row in range(len(eras))],
        "era": eras,
        "data_type": [data_type] * len(eras),
        **{f"feature_{column + 1:02}": features[:, column] for column in range(features.shape[1])},
        "target": targets,
    }
    pq.write_table(pa.table(columns), path)
