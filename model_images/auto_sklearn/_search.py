"""Auto-sklearn at work: what it may look for, what it starts with, and what it tells of every candidate."""

from __future__ import annotations

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

    from numpy.typing import NDArray

    from ._plan import Plan

# learners that find a signal this weak without drowning in the noise, each with the settings it is first tried with.
# In the order of their first tries: the cheap ones first, so that there is something to fall back on at once.
_FIRST_TRIES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
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
# what may be done to the features; the others need time or memory that grows with the square of the rows
_PREPROCESSORS = ("no_preprocessing", "pca", "nystroem_sampler", "kitchen_sinks", "feature_agglomeration")
_SELECTORS = {
    "classifier": ("select_percentile_classification", "select_rates_classification"),
    "regressor": ("select_percentile_regression", "select_rates_regression"),
}
_MANY_FEATURES = 100
# seconds before the deadline in which no fit may run any more: what is left is for ending well
_ENDING = 1.0
# SMAC starts nothing in the last seconds of what it believes to have
_SMAC_RESERVE = 5.0


def metric_of(kind: str) -> Any:
    """Look up what a search tries to make small."""
    return log_loss if kind == "classifier" else mean_squared_error


def search(
    plan: Plan,
    features: NDArray[Any],
    labels: NDArray[Any],
    learning_rows: int,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """Search until the deadline or the run limit.

    Parameters
    ----------
    plan
        What may be used.
    features, labels
        Rows to learn from, then the held-out ones.
    learning_rows
        How many of them are to learn from.
    tell
        Is told of every candidate: `number`, `status`, `cut_short`, `cost`, `seconds`, `configuration`.
    """
    # as many candidates as cores: each has one
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    learner = AutoSklearnClassifier if plan.kind == "classifier" else AutoSklearnRegressor
    automl = learner(
        time_left_for_this_task=max(30, int(plan.deadline - time.monotonic())),
        per_run_time_limit=plan.seconds_per_fit,
        initial_configurations_via_metalearning=0,
        # ours is built beside the search, where a constant that wins is no reason to throw the models away
        ensemble_class=None,
        seed=plan.seed,
        memory_limit=plan.memory.part,
        include=_include(plan.kind, features.shape[1]),
        resampling_strategy="holdout-iterative-fit",
        # unshuffled, auto-sklearn learns from the first rows and holds out the rest; it rounds down, hence the half
        resampling_strategy_arguments={"shuffle": False, "train_size": (learning_rows + 0.5) / len(labels)},
        tmp_folder=str(plan.directory),
        delete_tmp_folder_after_terminate=False,
        n_jobs=plan.memory.jobs,
        # given a client, it forks candidates from a clean process even when there is one at a time; forked from this
        # one they would inherit its threads' locks, and its address space, of which they have little
        dask_client=SingleThreadedClient() if plan.memory.jobs == 1 else None,
        metric=metric_of(plan.kind),
        # it would draw rows without regard to eras; whoever calls has done so already
        dataset_compression=False,
        load_models=False,
        get_smac_object_callback=lambda **smac: _smac(plan, smac),
        get_trials_callback=lambda _smbo, run, result, _left: _tell_of(run, result, tell),
        logging_config=_quiet(),
    )
    automl.automl_ = automl.build_automl()
    # it would wait 5 s for its log server to leave, and that one ends with this process anyway
    automl.automl_._clean_logger = lambda: None
    automl.fit(features, labels)


def _include(kind: str, features: int) -> dict[str, list[str]]:
    preprocessors = [*_PREPROCESSORS, *_SELECTORS[kind]]
    if features <= _MANY_FEATURES:
        preprocessors.append("polynomial")
    return {kind: [name for name, _ in _FIRST_TRIES[kind]], "feature_preprocessor": preprocessors}


def _smac(plan: Plan, smac: dict[str, Any]) -> Any:
    """Make the optimizer: with our clock, our run limit and our first tries in place of those of other data sets."""
    scenario = smac["scenario_dict"]
    scenario["wallclock_limit"] = max(1.0, plan.deadline - time.monotonic() - _ENDING + _SMAC_RESERVE)
    if plan.run_limit is not None:
        scenario["runcount_limit"] = plan.run_limit
    first_tries = _first_tries(plan.kind, scenario["cs"])[: plan.run_limit]
    # it adds its own default, a forest grown to the last leaf, and puts it first
    made = get_smac_object(**{**smac, "metalearning_configurations": first_tries[1:]})
    made.solver.initial_design.configs = first_tries
    return made


def _first_tries(kind: str, space: Any) -> list[Any]:
    tries = []
    for name, settings in _FIRST_TRIES[kind]:
        values = {parameter.name: parameter.default_value for parameter in space.get_hyperparameters()}
        values[f"{kind}:__choice__"] = name
        values.update({f"{kind}:{name}:{setting}": value for setting, value in settings.items()})
        configuration = deactivate_inactive_hyperparameters(values, space)
        configuration.origin = "first try"
        tries.append(configuration)
    return tries


def _tell_of(run: Any, result: Any, tell: Callable[[dict[str, Any]], None]) -> None:
    # STOP: not started, as the time was up
    if result.status in (StatusType.STOP, StatusType.RUNNING):
        return
    status = result.status.name
    information = result.additional_info or {}
    if status == "CRASHED" and _memory_ran_out(information):
        status = "MEMOUT"
    tell(
        {
            # the constant, which comes before all others, has number 1
            "number": run.config.config_id + 1,
            "status": status,
            "cut_short": status == "SUCCESS" and "info" in information,
            "cost": float(result.cost),
            "seconds": float(result.time),
            "configuration": run.config.get_dictionary(),
        }
    )


def _memory_ran_out(information: Mapping[str, Any]) -> bool:
    """Tell a lack of memory that a native library took for a crash."""
    said = str(information).lower()
    # -9: killed by the system, -6: aborted by a library that could not go on
    return information.get("exitcode") in (-9, -6) or any(
        words in said for words in ("bad_alloc", "memoryerror", "unable to allocate", "cannot allocate memory")
    )


def _quiet() -> dict[str, Any]:
    """Make auto-sklearn log what went wrong, to a file, and nothing else."""
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
