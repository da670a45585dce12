"""The requirements of every model: learn a signal, ignore noise, accept all tables, reject invalid parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from docker.types import Mount

from numerai_contract.blending import blend
from numerai_pipeline.models.registry import load_registry
from tests.images.conftest import (
    THREE_TABLES,
    Runner,
    assert_succeeded,
    binary,
    five_bins,
    graded,
    many_five_bins,
    one_class,
    with_missing_values,
    write_further_target,
)
from tests.images.models import BY_NAME, CONSTANT_LOGLOSS, FEW_CANDIDATES, MODELS, Model, SignalTest
from tests.images.split_data import few_floats, write_split_tables
from tests.samples import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

EVERY_MODEL = pytest.mark.parametrize("model", [pytest.param(model, id=model.name) for model in MODELS])


def _some(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("model", [pytest.param(BY_NAME[name], id=name) for name in names])


def test_models_table_has_every_model_of_the_registry() -> None:
    registry = load_registry(ROOT / "model_images")
    assert set(BY_NAME) == set(registry.models)


@pytest.mark.parametrize(
    ("model", "signal_test"),
    [
        pytest.param(model, signal_test, id=f"{model.name}-{number}")
        for model in MODELS
        for number, signal_test in enumerate(model.signals)
    ],
)
def test_model_known_signal_is_learned(runner: Runner, model: Model, signal_test: SignalTest) -> None:
    signal = signal_test.write(runner.directory)
    finished = assert_succeeded(model.run(runner, {"INPUTS": "0f3a", **signal_test.environment}))
    report = finished.report
    validation = report["validation"]
    assert validation["logloss"] < signal_test.max_logloss(signal)
    # not inverted
    assert validation["correlation"] > signal_test.min_correlation
    assert validation["consistency"] >= signal_test.min_consistency
    assert (model.write is write_split_tables) == (report["split"] is not None)
    if report["split"] is not None:
        assert report["split"]["logloss"] < signal_test.max_split_logloss
    assert report["rows"].items() >= signal_test.rows.items()
    assert '"inputs": "0f3a"' in (runner.directory / f"predictions/{model.name}.csv.manifest.json").read_text()
    signal_test.check(finished)
    if signal_test.again is not None:
        before = finished.predictions_bytes
        again = assert_succeeded(model.run(runner, signal_test.environment, signal_test.again))
        assert again.predictions_bytes == before


@EVERY_MODEL
def test_model_finished_fit_predicts_the_same_bytes(runner: Runner, model: Model) -> None:
    features = (few_floats,) if model.narrow else ()
    model.write(runner.directory, *features)
    directory = runner.directory / "model"
    finished = model.run(runner, model.environment | THREE_TABLES)
    assert finished.code == 0, finished.lines
    ids = pq.read_table(runner.directory / "live.parquet", columns=["id"])["id"].to_pylist()
    assert list(finished.predictions) == ids
    report = finished.report
    assert report["final"]["training_rows"] > 0
    assert report["rows"].items() >= {"validation": 800, "testing": 200}.items()
    # complete, and scored with the targets of the table
    validation = pa_csv.read_csv(directory / "validation.csv")
    table = pq.read_table(runner.directory / "validation.parquet")
    assert validation["id"].to_pylist() == table["id"].to_pylist()
    chances = np.where(table["target"].to_numpy() > 0.5, *_both_classes(validation["prediction"].to_numpy()))
    assert report["validation"]["logloss"] == pytest.approx(-np.log(chances).mean(), abs=1e-5)
    assert report["validation"]["rows"] == 800
    # without the tables of the fit, in a directory that cannot be written to
    for name in ("training", "validation", "tournament"):
        (runner.directory / f"{name}.parquet").unlink()
    mounts = [
        Mount("/data", str(runner.directory), type="bind"),
        Mount("/data/model", str(directory), type="bind", read_only=True),
    ]
    no_tables = {"TRAINING": "", "VALIDATION": ""}
    again = model.run(runner, model.environment | THREE_TABLES | no_tables, {"mounts": mounts})
    assert again.code == 0, again.lines
    assert again.predictions_bytes == finished.predictions_bytes
    assert f"using the finished fit in {THREE_TABLES['MODEL']}" in again.lines
    assert again.report["rows"] == {"testing": 200}


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(BY_NAME[spec.name], id=spec.name)
        for spec in load_registry(ROOT / "model_images")
        if spec.several_targets
    ],
)
def test_model_of_two_targets_predicts_the_mean_of_the_ranks_of_both_fits(runner: Runner, model: Model) -> None:
    further = "target_other_20"
    model.write(runner.directory, *((few_floats,) if model.narrow else ()))
    write_further_target(runner.directory, further)
    environment = {**model.environment, **THREE_TABLES, "TARGETS": further}
    finished = model.run(runner, environment)
    assert finished.code == 0, finished.lines
    directory = runner.directory / "model"
    table = pq.read_table(runner.directory / "validation.parquet")
    eras = np.array([int(era.removeprefix("era")) for era in table["era"].to_pylist()], dtype=np.int32)
    fits = {name: directory / "targets" / name for name in ("target", further)}
    expected = blend((_column(fit / "validation.csv") for fit in fits.values()), eras)
    assert _column(directory / "validation.csv") == pytest.approx(expected, abs=1e-9)
    # each fit has learned its own target
    reports = finished.report["targets"]
    assert list(reports) == list(fits)
    assert reports[further]["final"]["training_rows"] < reports["target"]["final"]["training_rows"]
    assert all(report["validation"]["correlation"] > 0.1 for report in reports.values())
    for name, other in ((further, "target"), ("target", further)):
        known = ~np.isnan(table[name].to_numpy())
        own, cross = (
            abs(np.corrcoef(_column(fits[each] / "validation.csv")[known], table[name].to_numpy()[known])[0, 1])
            for each in (name, other)
        )
        assert own > cross
    again = model.run(runner, {**model.environment, **THREE_TABLES, "TRAINING": "", "VALIDATION": ""})
    assert again.code == 0, again.lines
    assert again.predictions_bytes == finished.predictions_bytes


def _column(predictions: Path) -> Any:
    return pa_csv.read_csv(predictions)["prediction"].to_numpy()


def _both_classes(predictions: Any) -> tuple[Any, Any]:
    return predictions, 1 - predictions


@EVERY_MODEL
def test_model_shuffled_targets_are_not_learned(runner: Runner, model: Model) -> None:
    noise = model.noise
    noise.write(runner.directory)
    finished = assert_succeeded(model.run(runner, noise.environment))
    validation = finished.report["validation"]
    assert CONSTANT_LOGLOSS - noise.margin < validation["logloss"] < CONSTANT_LOGLOSS + noise.max_excess
    assert abs(validation["correlation"]) < noise.max_correlation
    noise.check(finished)


@EVERY_MODEL
def test_model_graded_five_bins_are_learned(runner: Runner, model: Model) -> None:
    model.write(runner.directory, five_bins, graded)
    finished = assert_succeeded(model.run(runner, model.environment | model.graded_environment))
    assert finished.report["target"] == "graded"
    assert finished.report["validation"]["correlation"] > model.min_correlation_graded
    if finished.report["split"] is not None:
        # classifiers as well are scored on the rows at one half
        assert finished.report["split"]["rows"] == 300
    model.check_graded(finished)


@EVERY_MODEL
def test_model_missing_and_constant_features_are_accepted(runner: Runner, model: Model) -> None:
    features = (few_floats,) if model.narrow else ()
    model.write(runner.directory, *features, modify=with_missing_values)
    finished = assert_succeeded(model.run(runner, model.environment))
    assert finished.report["validation"]["logloss"] < model.max_logloss_with_missing_values
    model.check_missing(finished)


def _check_wide_and_deep_rows(report: dict[str, Any]) -> None:
    assert report["rows"]["held_out"] == pytest.approx(600 * 0.2, abs=12)
    assert report["rows"]["training"] == pytest.approx(600 * 0.7, abs=18)
    assert "learning from 600 of 3,000 rows, drawn evenly from all eras (ROW_LIMIT)" in report["notes"]


def _check_auto_sklearn_runs(report: dict[str, Any]) -> None:
    assert report["chosen"]["runs"]["succeeded"] == 3


def _check_auto_weka_rows(report: dict[str, Any]) -> None:
    assert report["rows"]["training"] == 1_500


def _check_tpot_pipelines(report: dict[str, Any]) -> None:
    assert report["chosen"]["pipelines"]["succeeded"] == 3
    assert report["validation"]["logloss"] < 0.65


@pytest.mark.parametrize(
    ("model", "target", "environment", "features", "check"),
    [
        pytest.param(BY_NAME[name], target, environment, features, check, id=name)
        for name, target, environment, features, check in (
            ("wide_and_deep", graded, {"ROW_LIMIT": "600", "MAX_EPOCHS": "4"}, 780, _check_wide_and_deep_rows),
            # a search uses the features with the largest correlation with the target
            ("auto_sklearn", binary, {}, 100, _check_auto_sklearn_runs),
            ("auto_weka", binary, {"ROW_LIMIT": "1500"}, 100, _check_auto_weka_rows),
            ("tpot", binary, {}, 100, _check_tpot_pipelines),
        )
    ],
)
def test_model_780_features_are_accepted(
    runner: Runner,
    model: Model,
    target: Any,
    environment: dict[str, str],
    features: int,
    check: Callable[[dict[str, Any]], None],
) -> None:
    model.write(runner.directory, many_five_bins, target)
    report = assert_succeeded(model.run(runner, model.environment | environment)).report
    assert report["features"] == features
    check(report)


@_some("svm", "xgboost", "lightgbm", "wide_and_deep", "auto_weka")
def test_model_one_class_exits_with_65(runner: Runner, model: Model) -> None:
    model.write(runner.directory, target=one_class)
    finished = model.run(runner)
    assert finished.code == 65
    assert finished.lines[-1].startswith("FAILED (65, bad data): training.parquet: column 'target' ")


INVALID = {
    "svm": [
        ({"OPERATION": "svn"}, 64, "OPERATION is 'svn': this image has adversarial_validation, "),
        ({"C": "-1"}, 64, "C is '-1': allowed are different numbers from 1e-09"),
        ({"LANDMARKS": "0"}, 64, "LANDMARKS is '0': allowed is a whole number from 1 to 10,000"),
        ({"MEMORY_LIMIT": "128"}, 64, "MEMORY_LIMIT is 128 MiB, and 3,000 rows of 50 features need about "),
        (
            {"PREDICTING": "/predictions/svm.csv"},
            64,
            "/predictions/svm.csv: its directory may not be written to by uid",
        ),
        (
            {"TRAINING": "/data/none.parquet"},
            66,
            "FAILED (66, input missing): /data/none.parquet: the file does not exist",
        ),
    ],
    "xgboost": [({"PRESET": "huge"}, 64, "PRESET is 'huge': allowed are small, standard, deep")],
    "lightgbm": [({"MAX_LEAVES": "1"}, 64, "MAX_LEAVES is '1': allowed is a whole number from 2 to 65,536")],
    "wide_and_deep": [
        (
            {"WIDE_CROSSES": "51"},
            64,
            "FAILED (64, bad parameters): WIDE_CROSSES is '51': allowed is a whole number from 0 ",
        ),
        ({"DROPOUT": "1"}, 64, "FAILED (64, bad parameters): DROPOUT is '1': allowed is a number from 0 to 0.9."),
    ],
    "neural_network": [
        ({"DROPOUT": "1"}, 64, "FAILED (64, bad parameters): DROPOUT is '1': allowed is a number from 0 to 0.9."),
        (
            {"MEMORY_LIMIT": "512"},
            64,
            "FAILED (64, bad parameters): MEMORY_LIMIT is 512 MiB, and 3,000 rows of 10 features need about ",
        ),
    ],
    "pairwise_network": [
        (
            {"PARTNERS": "0"},
            64,
            "FAILED (64, bad parameters): PARTNERS is '0': allowed is a whole number from 1 to 10,000.",
        ),
        (
            {"MEMORY_LIMIT": "512"},
            64,
            "FAILED (64, bad parameters): MEMORY_LIMIT is 512 MiB, and 3,000 rows of 10 features need about ",
        ),
    ],
    "logistic_regression": [
        (
            {"C": "0.1,much"},
            64,
            "C is '0.1,much': allowed are different numbers from 1e-09 to 1,000,000, separated by commas",
        ),
        ({"C": "0.1,0.1"}, 64, "C is '0.1,0.1': allowed are different numbers"),
        ({"C": "0"}, 64, "C is '0': allowed are different numbers"),
        ({"EMBEDDINGS": "perplexity_5"}, 64, "EMBEDDINGS is 'perplexity_5': allowed are none, or different names"),
        (
            {"MEMORY_LIMIT": "256"},
            64,
            "MEMORY_LIMIT is 256 MiB, and 3,000 rows of 10 features need about",
        ),
    ],
    "pairwise_regression": [
        ({"C": "-1"}, 64, "C is '-1': allowed are different numbers"),
        ({"MEMORY_LIMIT": "256"}, 64, "MEMORY_LIMIT is 256 MiB, and 3,000 rows of 10 features need about"),
    ],
    "factorization_machines": [
        ({"RANK": "0"}, 64, "RANK is '0': allowed is a whole number from 1 to 256"),
        ({"MAX_ITERATIONS": "few"}, 64, "MAX_ITERATIONS is 'few': allowed is a whole number from 1 to 10,000"),
        ({"INITIAL_DEVIATION": "0"}, 64, "INITIAL_DEVIATION is '0': allowed is a number from 1e-06 to 1"),
        (
            {"MEMORY_LIMIT": "256"},
            64,
            "MEMORY_LIMIT is 256 MiB, and 3,000 rows of 10 features need about",
        ),
    ],
    "gradient_boosted_trees": [
        ({"MAX_DEPTH": "0"}, 64, "MAX_DEPTH is '0': allowed is a whole number from 1 to 16"),
        ({"MAX_BIN": "1000"}, 64, "MAX_BIN is '1000': allowed is a whole number from 2 to 256"),
        ({"COLSAMPLE": "0"}, 64, "COLSAMPLE is '0': allowed is a number from 0.001 to 1"),
        ({"MEMORY_LIMIT": "256"}, 64, "MEMORY_LIMIT is 256 MiB, and 3,000 rows of 10 features need about"),
    ],
    "auto_sklearn": [
        ({"TIME_LIMIT": "5"}, 64, "TIME_LIMIT is '5': auto-sklearn needs at least 20 seconds"),
        ({"RUN_LIMIT": "0"}, 64, "RUN_LIMIT is '0': allowed is a whole number from 1 to 1,000,000"),
        (
            {**FEW_CANDIDATES, "MEMORY_LIMIT": "700"},
            64,
            "MEMORY_LIMIT is 700 MiB, and 3,000 rows of 50 features need about",
        ),
    ],
    "auto_weka": [
        ({"METRIC": "auc"}, 64, "METRIC is 'auc': allowed are rmse, errorRate"),
        ({"ROW_LIMIT": "1"}, 64, "ROW_LIMIT is '1': allowed is a whole number from 100"),
        ({"MEMORY_LIMIT": "1500"}, 64, "MEMORY_LIMIT is 1,500 MiB, and 3,000 rows of 50 features need about"),
    ],
    "tpot": [
        ({"TIME_LIMIT": "5"}, 64, "TIME_LIMIT is '5': TPOT needs at least 10 seconds"),
        ({"SEARCH_SPACE": "graph"}, 64, "SEARCH_SPACE is 'graph': allowed are weak-signal, linear-light, linear"),
        ({"MEMORY_LIMIT": "600"}, 64, "MEMORY_LIMIT is 600 MiB, and 3,000 rows of 50 features need about"),
    ],
}


@pytest.mark.parametrize(
    ("model", "environment", "code", "message"),
    [
        pytest.param(BY_NAME[name], *case, id=f"{name}-{'-'.join(case[0])}-{number}")
        for name, cases in INVALID.items()
        for number, case in enumerate(cases)
    ],
)
def test_model_invalid_parameter_fails_before_the_work(
    runner: Runner, model: Model, environment: dict[str, str], code: int, message: str
) -> None:
    model.write(runner.directory)
    finished = model.run(runner, environment)
    assert finished.code == code
    assert message in finished.lines[-1]
    if message.startswith("FAILED"):
        assert finished.lines[-1].startswith(message)
    assert not any(work in line for line in finished.lines for work in ("fitting", "growing", "weights on the"))
    assert not (runner.directory / "predictions" / f"{model.name}.csv").exists()
