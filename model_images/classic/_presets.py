"""The settings of boosted trees on a table: presets as Numerai and its participants use them, fitted to its rows.

Numerai's own example grows 2,000 trees (``small``), its benchmark models 20,000 (``standard``), and its deep model
30,000 (``deep``); each tree may use a tenth of the features. Trees are grown in a fixed number, on all rows: the
effects of a few held-out eras are stronger than those that last, and decide where early stopping stops.

The presets are made for millions of rows. On fewer rows as many trees would fit the noise: the number is multiplied by
the cube root of the share of `FULL_ROWS` that the table has, which is .28 at 60,000 rows. A leaf has at least 500 rows
instead of the 20 of Numerai's example: in twelve worlds of 60,000 rows (`benchmarks/worlds.py`) the mean correlation
with the law was .422 instead of .416 with 40.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from numerai_contract.parameters import Parameters

FULL_ROWS = 2_750_000
# a leaf of more rows would leave too few leaves on a small table
_MIN_LEAVES = 100
_MANY_TREES = 100_000


class Preset(NamedTuple):
    """The settings of trees.

    Attributes
    ----------
    trees : int
        Number of trees on a table of at least `FULL_ROWS` rows.
    learning_rate : float
        Shrinkage of each.
    max_depth, max_leaves : int
        Limits of each.
    min_leaf_rows : int
        Rows of a leaf, at least.
    colsample : float
        The share of the features available to each tree.
    """

    trees: int
    learning_rate: float
    max_depth: int
    max_leaves: int
    min_leaf_rows: int
    colsample: float


PRESETS = {
    "small": Preset(2_000, 0.01, 5, 31, 500, 0.1),
    "standard": Preset(20_000, 0.001, 6, 64, 500, 0.1),
    "deep": Preset(30_000, 0.001, 10, 1_024, 10_000, 0.1),
}


class TreeSettings(NamedTuple):
    """The settings of a fit.

    Attributes
    ----------
    trees : int
        Number of trees; with early stopping, the maximum.
    learning_rate, max_depth, max_leaves, min_leaf_rows, colsample
        See `Preset`.
    early_stopping : int
        Trees without a better score after which the training stops; 0 for a fixed number of trees.
    min_trees : int
        With early stopping, the trees that are kept even when fewer were better.
    """

    trees: int
    learning_rate: float
    max_depth: int
    max_leaves: int
    min_leaf_rows: int
    colsample: float
    early_stopping: int
    min_trees: int

    @classmethod
    def read(cls, parameters: Parameters, rows: int) -> TreeSettings:
        """Read PRESET and the variables that replace its settings.

        Parameters
        ----------
        parameters
            Of the operation: MAX_TREES, LEARNING_RATE, MAX_DEPTH, MAX_LEAVES, MIN_LEAF_ROWS, COLSAMPLE, EARLY_STOPPING
            and MIN_TREES.
        rows
            Rows of the final fit, which the preset is adapted to.
        """
        preset = PRESETS[parameters.get_str("PRESET", "small", tuple(PRESETS))]
        share = min(1.0, rows / FULL_ROWS)
        return cls(
            trees=parameters.get_int("MAX_TREES", max(1, round(preset.trees * share ** (1 / 3))), **_of_trees(1)),
            learning_rate=parameters.get_float("LEARNING_RATE", preset.learning_rate, at_least=1e-4, at_most=1),
            max_depth=parameters.get_int("MAX_DEPTH", preset.max_depth, at_least=1, at_most=16),
            max_leaves=parameters.get_int("MAX_LEAVES", preset.max_leaves, at_least=2, at_most=65_536),
            min_leaf_rows=parameters.get_int(
                "MIN_LEAF_ROWS", max(1, min(preset.min_leaf_rows, rows // _MIN_LEAVES)), at_least=1, at_most=10_000_000
            ),
            colsample=parameters.get_float("COLSAMPLE", preset.colsample, at_least=1e-3, at_most=1),
            early_stopping=parameters.get_int("EARLY_STOPPING", 0, **_of_trees(0)),
            min_trees=parameters.get_int("MIN_TREES", 20, **_of_trees(1)),
        )

    def reported(self) -> dict[str, float]:
        """Return the settings of a tree, for the report."""
        names = ("learning_rate", "max_depth", "max_leaves", "min_leaf_rows", "colsample")
        return {name: getattr(self, name) for name in names}


def _of_trees(at_least: int) -> dict[str, int]:
    return {"at_least": at_least, "at_most": _MANY_TREES}
