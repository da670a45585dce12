"""The search spaces of pipelines, and the first pipelines of a search.

A pipeline has a scaling, a selection of features, additional features derived from others, and a classifier. TPOT's
spaces include forests of fully grown trees and features expanded a hundredfold, which fit noise on a very weak signal;
the space ``weak-signal`` of this module has the same parts within narrower bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
from lightgbm import LGBMClassifier
from sklearn.cluster import FeatureAgglomeration
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import PolynomialFeatures, QuantileTransformer
from xgboost import XGBClassifier

from ._budget import OWN_SPACE
from ._library import (
    ChoicePipeline,
    EstimatorNode,
    Passthrough,
    SequentialPipeline,
    SkipTransformer,
    UnionPipeline,
    get_search_space,
    get_template_search_spaces,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

# with more features, their products of two would fill the memory
_MAX_FEATURES_TO_MULTIPLY = 100
# the learners of the first pipelines and their settings, the fast ones first so that there is a result early
_FIRST_PIPELINES: dict[type, dict[str, Any]] = {
    LogisticRegression: {"C": 0.01, "penalty": "l2"},
    LinearDiscriminantAnalysis: {"solver": "lsqr", "shrinkage": 0.1},
    LGBMClassifier: {
        "boosting_type": "gbdt",
        "class_weight": None,
        "n_estimators": 100,
        "learning_rate": 0.05,
        "num_leaves": 8,
        "max_depth": 3,
        "min_child_samples": 200,
        "colsample_bytree": 0.3,
    },
    ExtraTreesClassifier: {"max_features": 0.1, "min_samples_leaf": 50, "class_weight": None, "bootstrap": False},
}


def search_space(name: str, rows: int, features: int, seed: int) -> Any:
    """Create a search space for a table of a given size.

    Parameters
    ----------
    name
        One of TPOT's own, or `OWN_SPACE`.
    rows, features
        Size of the training data.
    seed
        Seed of every random choice in a pipeline.

    Returns
    -------
    tpot.search_spaces.SearchSpace
    """
    sizes = {"n_classes": 2, "n_samples": rows, "n_features": features, "random_state": seed}
    if name != OWN_SPACE:
        return get_template_search_spaces(name, classification=True, inner_predictors=name == "linear", **sizes)
    return SequentialPipeline(
        [
            ChoicePipeline(_scalings(seed, sizes)),
            get_search_space(["Passthrough", "SelectPercentile", "SelectFwe"], **sizes),
            UnionPipeline(
                [ChoicePipeline(_derived_features(features, seed)), get_search_space("Passthrough", **sizes)]
            ),
            ChoicePipeline(_learners(seed)),
        ]
    )


def _scalings(seed: int, sizes: dict[str, int]) -> list[Any]:
    quantiles = {
        "n_quantiles": 100,
        "output_distribution": Categorical("output_distribution", ["normal", "uniform"]),
        "random_state": seed,
    }
    return [
        *get_search_space(["Passthrough", "RobustScaler"], return_choice_pipeline=False, **sizes),
        EstimatorNode(QuantileTransformer, ConfigurationSpace(quantiles)),
    ]


def _derived_features(features: int, seed: int) -> list[Any]:
    limit = min(features, 400)
    nodes = [
        EstimatorNode(SkipTransformer, {}),
        EstimatorNode(PCA, ConfigurationSpace({"n_components": Float("n_components", (0.5, 0.999))})),
        EstimatorNode(
            FeatureAgglomeration, ConfigurationSpace({"n_clusters": Integer("n_clusters", (2, max(limit - 1, 3)))})
        ),
        EstimatorNode(
            Nystroem,
            ConfigurationSpace(
                {
                    "kernel": Categorical("kernel", ["rbf", "poly"]),
                    # features have a variance of 1: distances grow with their number
                    "gamma": Float("gamma", (0.01 / features, 1 / features), log=True),
                    "degree": 2,
                    "n_components": Integer("n_components", (50, 500), log=True),
                    "random_state": seed,
                }
            ),
        ),
    ]
    if features <= _MAX_FEATURES_TO_MULTIPLY:
        nodes.append(EstimatorNode(PolynomialFeatures, {"degree": 2, "include_bias": False, "interaction_only": True}))
    return nodes


def _learners(seed: int) -> list[Any]:
    return [
        EstimatorNode(
            LogisticRegression, ConfigurationSpace({"C": Float("C", (1e-5, 1.0), log=True), "max_iter": 300})
        ),
        EstimatorNode(
            LinearDiscriminantAnalysis,
            ConfigurationSpace({"solver": "lsqr", "shrinkage": Float("shrinkage", (0.001, 0.99))}),
        ),
        EstimatorNode(
            LGBMClassifier,
            ConfigurationSpace(
                {
                    "n_estimators": Integer("n_estimators", (30, 500), log=True),
                    "learning_rate": Float("learning_rate", (0.01, 0.1), log=True),
                    "num_leaves": Integer("num_leaves", (3, 31), log=True),
                    "min_child_samples": Integer("min_child_samples", (20, 1_000), log=True),
                    "colsample_bytree": Float("colsample_bytree", (0.1, 1.0)),
                    "reg_lambda": Float("reg_lambda", (0.01, 100.0), log=True),
                    "verbose": -1,
                    "n_jobs": 1,
                    "random_state": seed,
                }
            ),
        ),
        EstimatorNode(
            XGBClassifier,
            ConfigurationSpace(
                {
                    "n_estimators": Integer("n_estimators", (30, 500), log=True),
                    "learning_rate": Float("learning_rate", (0.01, 0.1), log=True),
                    "max_depth": Integer("max_depth", (1, 6)),
                    "min_child_weight": Integer("min_child_weight", (5, 250), log=True),
                    "colsample_bytree": Float("colsample_bytree", (0.1, 1.0)),
                    "subsample": Float("subsample", (0.5, 1.0)),
                    "max_bin": 64,
                    "n_jobs": 1,
                    "random_state": seed,
                }
            ),
        ),
        EstimatorNode(
            ExtraTreesClassifier,
            ConfigurationSpace(
                {
                    "n_estimators": 100,
                    "criterion": Categorical("criterion", ["gini", "entropy"]),
                    "max_features": Float("max_features", (0.05, 1.0)),
                    "min_samples_leaf": Integer("min_samples_leaf", (10, 500), log=True),
                    "n_jobs": 1,
                    "random_state": seed,
                }
            ),
        ),
        EstimatorNode(
            MLPClassifier,
            ConfigurationSpace(
                {
                    "hidden_layer_sizes": Integer("hidden_layer_sizes", (8, 128), log=True),
                    "alpha": Float("alpha", (0.01, 10.0), log=True),
                    "learning_rate_init": Float("learning_rate_init", (1e-4, 1e-2), log=True),
                    "early_stopping": True,
                    "max_iter": 50,
                    "random_state": seed,
                }
            ),
        ),
    ]


def individuals(space: Any, random: np.random.Generator) -> Iterator[Any]:
    """Yield individuals of a space without end: first the fixed ones, then random ones.

    A fixed individual is a learner alone, with settings known to work on weak signals, if the space has this learner.
    """
    learners = space.generate(random).pipeline[-1].search_spaces
    for learner, settings in _FIRST_PIPELINES.items():
        if any(_creates(offered, learner) for offered in learners):
            individual = space.generate(random)
            for step in individual.pipeline[:-1]:
                _disable(step, random)
            _select(individual.pipeline[-1], learner, random)
            node = individual.pipeline[-1].node
            node.hyperparameters |= {name: value for name, value in settings.items() if name in node.hyperparameters}
            yield individual
    while True:
        yield space.generate(random)


def _disable(step: Any, random: np.random.Generator) -> None:
    """Replace a step of an individual by a step without effect."""
    if hasattr(step, "pipeline"):
        for part in step.pipeline:
            _disable(part, random)
    elif hasattr(step, "search_spaces"):
        no_effect = next(
            (kind for kind in (Passthrough, SkipTransformer) if any(_creates(o, kind) for o in step.search_spaces)),
            None,
        )
        if no_effect is not None:
            _select(step, no_effect, random)


def _select(choice: Any, method: type, random: np.random.Generator) -> None:
    choice.node = next(offered for offered in choice.search_spaces if _creates(offered, method)).generate(random)


def _creates(space: Any, method: type) -> bool:
    return isinstance(space, EstimatorNode) and space.method is method
