"""The parts of auto-sklearn that are used here, imported in an order that works and without warnings."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # of pkg_resources, which this version of auto-sklearn needs
    warnings.simplefilter("ignore")
    from autosklearn.classification import AutoSklearnClassifier
    from autosklearn.constants import BINARY_CLASSIFICATION, REGRESSION
    from autosklearn.ensembles.ensemble_selection import EnsembleSelection
    from autosklearn.metrics import log_loss, mean_squared_error
    from autosklearn.regression import AutoSklearnRegressor
    from autosklearn.smbo import get_smac_object
    from autosklearn.util.single_thread_client import SingleThreadedClient
    from ConfigSpace.util import deactivate_inactive_hyperparameters
    from smac.tae import StatusType

__all__ = [
    "BINARY_CLASSIFICATION",
    "REGRESSION",
    "AutoSklearnClassifier",
    "AutoSklearnRegressor",
    "EnsembleSelection",
    "SingleThreadedClient",
    "StatusType",
    "deactivate_inactive_hyperparameters",
    "get_smac_object",
    "log_loss",
    "mean_squared_error",
]
