"""Gradient-boosted trees by XGBoost: a fixed number of trees on all rows, see `_tree_model` and `_presets`.

It learns the target's value as a probability (``reg:logistic``). Histograms of 6.8 million rows take 14 MiB a feature,
and a tree takes the time of all features, even if it may use only some: of 780 features, about 320 fit 6 GiB.

Environment variables:

``PRESET`` (small)
    ``small``: 2,000 trees, rate .01, depth 5, 31 leaves; ``standard``: 20,000, .001, 6, 64; ``deep``: 30,000, .001, 10,
    1,024, with at least 10,000 rows a leaf. A tree may use a tenth of the features. On less than 2.75 million rows the
    number of trees is multiplied by the cube root of their share. A tree of depth 5 took 2.2 nanoseconds of a core for
    each row and feature, one of depth 10 took 4.7: on 6.8 million rows of 42 features, both fits of `small` take about
    half an hour, of `standard` 5 hours, of `deep` 16. For the last two, raise `time_limit` in models.yaml.
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
from ._boosting import BoostedModel, BoostingParams

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.fitting import Fitted
    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes
    from numerai_contract.task import Task

SELF_TEST_PARAMETERS = {"MAX_TREES": "20"}
# on so many, both fits of 2,000 trees take four hours of one core
_MAX_VALUES = 2_500_000_000


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan as many features as memory and time allow, with all rows."""
    return _tree_model.plan(parameters, sizes, max_values=_MAX_VALUES)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Grow a fixed number of trees on all rows, or as many as are best on the last eras."""
    return _tree_model.fit(task, earlier, plan(task.parameters, task.sizes), BoostingParams.of, "xgboost-cpu")


def load(task: Task, directory: Path) -> _tree_model.TreeModel:
    """Load a saved model."""
    return _tree_model.TreeModel(BoostedModel.load(directory, task.parameters.threads))
