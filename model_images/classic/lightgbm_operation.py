"""Gradient-boosted trees by LightGBM, Numerai's own example model; see `_tree_model` and `_presets`.

With the preset `small` it has the settings of Numerai's example, with larger leaves: 2,000 trees that learn the
target's value by the squared error. A tree takes the time of the features that it may use, a tenth of them.

Environment variables:

``PRESET`` (small)
    ``small``: 2,000 trees, rate .01, depth 5, 31 leaves; ``standard``: 20,000, .001, 6, 64; ``deep``: 30,000, .001, 10,
    1,024, with at least 10,000 rows a leaf. A tree may use a tenth of the features. On less than 2.75 million rows the
    number of trees is multiplied by the cube root of their share. A tree of depth 5 took 1 nanosecond of a core for a
    value (a feature of a row), one of depth 10 took 1.8: on 6.8 million rows of 42 features, both fits of `small`
    take a quarter of an hour, of `standard` 2 hours, of `deep` 6.
``MAX_TREES``, ``LEARNING_RATE``, ``MAX_DEPTH``, ``MAX_LEAVES``, ``MIN_LEAF_ROWS``, ``COLSAMPLE`` (of the preset)
    Number of trees, shrinkage of each; maximum depth, maximum leaves, and minimum rows of a leaf; share of the features
    available to each tree.
``EARLY_STOPPING`` (0: none), ``MIN_TREES`` (20)
    Stop after so many trees without a better mean CORR on the last eras, and grow the best number again on all rows; at
    least MIN_TREES. With less than some hundreds of trees the noise of the eras decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _tree_model
from ._lightgbm import LightGBMParams, LightGBMTrees

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.fitting import Fitted
    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_TREES": "20"}
_MAX_VALUES = 6_000_000_000


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan as many features as memory and time allow, with all rows."""
    return _tree_model.plan(parameters, sizes, max_values=_MAX_VALUES)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Grow a fixed number of trees on all rows, or as many as are best on the last eras."""
    return _tree_model.fit(task, earlier, plan(task.parameters, task.sizes), LightGBMParams, "lightgbm")


def load(task: Task, directory: Path) -> _tree_model.TreeModel:
    """Load a saved model."""
    return _tree_model.TreeModel(LightGBMTrees.load(directory, task.parameters.threads))
