"""Auto-sklearn's search: its space, its first candidates, and a message for every candidate."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from numerai_contract.parameters import THREAD_VARIABLES

from ._library import (
    AutoSklearnClassifier,
    AutoSklearnRegressor,
    SingleThreadedClient,
    StatusType,
    deactivate_inactive_hyperparameters,
    get_smac_object,
    log_loss,
    mean_squared_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._budget import SearchPlan
    from ._training_data import TrainingData

# learners that suit such a weak signal, with the settings of their first candidate.
# In the order of the first candidates: the fast ones first, so that there is a result early.
_FIRST_CANDIDATES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "classifier": (
        ("lda", {}),
        ("sgd", {"alpha": 0.01, "average": "True"}),
        (
            "gradient_boosting",
            {"early_stop": "valid", "learning_rate": 0.05, "max_leaf_nodes": 15, "min_samples_leaf": 100},
        ),
        ("extra_trees", {"min_samples_leaf": 20}),
        ("mlp", {"alpha": 0.1, "num_nodes_per_layer": 32}),
        ("random_forest", {"min_samples_leaf": 20}),
    ),
    "regressor": (
        ("sgd", {"alpha": 0.01, "average": "True"}),
        (
            "gradient_boosting",
            {"early_stop": "valid", "learning_rate": 0.05, "max_leaf_nodes": 15, "min_samples_leaf": 100},
        ),
        ("extra_trees", {"min_samples_leaf": 20, "max_features": 0.3}),
        ("mlp", {"alpha": 0.1, "num_nodes_per_layer": 32}),
        ("random_forest", {"min_samples_leaf": 20, "max_features": 0.3}),
    ),
}
# preprocessors of the features; all others need time or memory that grows with the square of the rows
_PREPROCESSORS = ("no_preprocessing", "pca", "nystroem_sampler", "kitchen_sinks", "feature_agglomeration")
_SELECTORS = {
    "classifier": ("select_percentile_classification", "select_rates_classification"),
    "regressor": ("select_percentile_regression", "select_rates_regression"),
}
_MANY_FEATURES = 100
# seconds before the deadline in which no fit may run any more: the search needs them to end regularly
_ENDING = 1.0
# SMAC starts no candidate in the last seconds of its time limit
_SMAC_RESERVE = 5.0


def metric_of(kind: str) -> Any:
    """Return the metric that a search minimises."""
    return log_loss if kind == "classifier" else mean_squared_error


def search(plan: SearchPlan, data: TrainingData, send: Callable[[dict[str, Any]], None]) -> None:
    """Search until the deadline or the run limit.

    Parameters
    ----------
    plan, data
        Of the search.
    send
        Called with a message for every candidate: `number`, `status`, `cut_short`, `cost`, `seconds`, `configuration`.
    """
    # as many candidates as cores: each has one core
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    learner = AutoSklearnClassifier if plan.kind == "classifier" else AutoSklearnRegressor
    automl = learner(
        time_left_for_this_task=max(30, int(plan.deadline - time.monotonic())),
        per_run_time_limit=plan.seconds_per_fit,
        initial_configurations_via_metalearning=0,
        # `_ensemble` builds the ensemble, and does not drop the models when the constant is best
        ensemble_class=None,
        seed=plan.seed,
        memory_limit=plan.budget.memory,
        include=_include(plan.kind, data.features.shape[1]),
        resampling_strategy="holdout-iterative-fit",
        # unshuffled, auto-sklearn trains on the first rows and holds out the rest; it rounds down, hence the half
        resampling_strategy_arguments={
            "shuffle": False,
            "train_size": (data.training_rows + 0.5) / len(data.labels),
        },
        tmp_folder=str(plan.directory),
        delete_tmp_folder_after_terminate=False,
        n_jobs=plan.budget.jobs,
        # with a client, it forks candidates from a clean process even when there is one at a time; forked from this
        # process they would inherit its threads' locks, and its address space, which counts against their limit
        dask_client=SingleThreadedClient() if plan.budget.jobs == 1 else None,
        metric=metric_of(plan.kind),
        # it would sample rows without regard to eras; `_training_data` has sampled them already
        dataset_compression=False,
        load_models=False,
        get_smac_object_callback=lambda **smac: _smac(plan, smac),
        get_trials_callback=lambda _smbo, run, result, _left: _send_candidate(run, result, send),
        logging_config=_quiet(),
    )
    automl.automl_ = automl.build_automl()
    # it would wait 5 s for the end of its log server, which ends with this process
    automl.automl_._clean_logger = lambda: None
    automl.fit(data.features, data.labels)


def _include(kind: str, features: int) -> dict[str, list[str]]:
    preprocessors = [*_PREPROCESSORS, *_SELECTORS[kind]]
    if features <= _MANY_FEATURES:
        preprocessors.append("polynomial")
    return {kind: [name for name, _ in _FIRST_CANDIDATES[kind]], "feature_preprocessor": preprocessors}


def _smac(plan: SearchPlan, smac: dict[str, Any]) -> Any:
    """Create the optimizer with the plan's clock and run limit, and our first candidates instead of metalearning's."""
    scenario = smac["scenario_dict"]
    scenario["wallclock_limit"] = max(1.0, plan.deadline - time.monotonic() - _ENDING + _SMAC_RESERVE)
    if plan.run_limit is not None:
        scenario["runcount_limit"] = plan.run_limit
    first_candidates = _first_candidates(plan.kind, scenario["cs"])[: plan.run_limit]
    # it adds its default, a forest of fully grown trees, as the first candidate
    optimizer = get_smac_object(**{**smac, "metalearning_configurations": first_candidates[1:]})
    optimizer.solver.initial_design.configs = first_candidates
    return optimizer


def _first_candidates(kind: str, space: Any) -> list[Any]:
    candidates = []
    for name, settings in _FIRST_CANDIDATES[kind]:
        values = {parameter.name: parameter.default_value for parameter in space.get_hyperparameters()}
        values[f"{kind}:__choice__"] = name
        values.update({f"{kind}:{name}:{setting}": value for setting, value in settings.items()})
        configuration = deactivate_inactive_hyperparameters(values, space)
        configuration.origin = "first candidate"
        candidates.append(configuration)
    return candidates


def _send_candidate(run: Any, result: Any, send: Callable[[dict[str, Any]], None]) -> None:
    # STOP: not started, as the time was over
    if result.status in (StatusType.STOP, StatusType.RUNNING):
        return
    status = result.status.name
    information = result.additional_info or {}
    if status == "CRASHED" and _memory_ran_out(information):
        status = "MEMOUT"
    send(
        {
            # the constant, the first of all, has number 1
            "number": run.config.config_id + 1,
            "status": status,
            "cut_short": status == "SUCCESS" and "info" in information,
            "cost": float(result.cost),
            "seconds": float(result.time),
            # as JSON has them: without numpy's types
            "configuration": json.loads(json.dumps(run.config.get_dictionary(), default=_to_builtin)),
        }
    )


def _to_builtin(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _memory_ran_out(information: Mapping[str, Any]) -> bool:
    """Detect a lack of memory that is reported as a crash."""
    text = str(information).lower()
    # -9: killed by the system, -6: a library aborted
    return information.get("exitcode") in (-9, -6) or any(
        message in text for message in ("bad_alloc", "memoryerror", "unable to allocate", "cannot allocate memory")
    )


def _quiet() -> dict[str, Any]:
    """Return a logging configuration with errors only, written to files."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"simple": {"format": "[%(levelname)s] [%(asctime)s:%(name)s] %(message)s"}},
        "handlers": {
            "file_handler": {
                "class": "logging.FileHandler",
                "level": "ERROR",
                "formatter": "simple",
                "filename": "autosklearn.log",
            },
            "distributed_logfile": {
                "class": "logging.FileHandler",
                "level": "ERROR",
                "formatter": "simple",
                "filename": "distributed.log",
            },
        },
        "root": {"level": "ERROR", "handlers": ["file_handler"]},
        "loggers": {"distributed": {"level": "ERROR", "handlers": ["distributed_logfile"], "propagate": False}},
    }
