"""The classic image: imports, special tables, and exit codes of its models."""

from __future__ import annotations

import io
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from docker.types import Mount

from tests.images.conftest import (
    FEATURE_SETS,
    TOURNAMENT_ROWS,
    Runner,
    assert_succeeded,
    change_columns,
    five_bins,
    many_five_bins,
    plan_case,
    run_plans,
    run_program,
    write_tables,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODELS = ["svm", "xgboost", "lightgbm"]


def test_operation_without_scikit_learn_does_not_import_it(runner: Runner) -> None:
    light = ("xgboost", "lightgbm", "gradient_boosted_trees", "logistic_regression", "pairwise_regression", "svm")
    assert run_program(runner, "imports.py") == {**dict.fromkeys(light, False), "adversarial_validation": True}


@pytest.mark.parametrize("model", ["xgboost", "lightgbm"])
def test_trees_other_seed_predicts_differently(runner: Runner, model: str) -> None:
    write_tables(runner.directory)
    first = assert_succeeded(runner.run(model, MAX_TREES="30")).predictions_bytes
    assert assert_succeeded(runner.run(model, MAX_TREES="30", SEED="1")).predictions_bytes != first


@pytest.mark.parametrize("model", MODELS)
def test_model_int8_features_with_missing_values_are_accepted(runner: Runner, model: str) -> None:
    write_tables(runner.directory, five_bins)
    path = runner.directory / "tournament.parquet"
    table = pq.read_table(path)
    change_columns(path, feature1=pa.array([None, *table["feature1"].to_pylist()[1:]], type=pa.int8()))
    assert "(float32)" in assert_succeeded(runner.run(model)).lines[1]


def test_xgboost_csv_tables_predict_as_parquet(runner: Runner) -> None:
    write_tables(runner.directory)
    from_parquet = assert_succeeded(runner.run("xgboost", MAX_TREES="30")).predictions
    for name in ("training", "tournament"):
        table = pq.read_table(runner.directory / f"{name}.parquet")
        target = table.schema.get_field_index("target")
        known = pa.array(table["target"].to_numpy(), from_pandas=True)
        pa_csv.write_csv(table.set_column(target, "target", known), runner.directory / f"{name}.csv")
    csv = {"TRAINING": "/data/training.csv", "TESTING": "/data/tournament.csv"}
    from_csv = assert_succeeded(runner.run("xgboost", {}, MAX_TREES="30", **csv)).predictions
    assert from_csv == pytest.approx(from_parquet, abs=1e-6)


def test_svm_above_the_row_limit_samples_with_a_note(runner: Runner) -> None:
    write_tables(runner.directory)
    finished = assert_succeeded(runner.run("svm", ROW_LIMIT="600"))
    assert finished.report["rows"]["training"] == 600
    note = "learning from 600 of 3,000 rows, drawn evenly from all eras (ROW_LIMIT)"
    assert note in finished.lines
    assert finished.report["notes"] == [note]


def test_plans_at_the_size_of_the_tournament_fit_the_memory(runner: Runner) -> None:
    limits = {"svm": 2_560, "adversarial_validation": 6_144}
    plans = run_plans(runner, [plan_case(name, limit, value_bytes=[4]) for name, limit in limits.items()])
    assert len(plans) == len(limits) * len(FEATURE_SETS)
    for plan in plans:
        if plan.operation == "svm":
            assert (plan.rows, plan.features) == (sum(TOURNAMENT_ROWS), min(plan.of_features, 250))
            assert plan.memory < plan.limit
        else:
            assert plan.rows == 400_000 if plan.of_features < 1_000 else 100_000 < plan.rows < 200_000
            assert plan.features == plan.of_features
            assert plan.memory <= plan.limit


def test_svm_all_landmarks_equals_the_exact_machine(runner: Runner) -> None:
    write_tables(runner.directory)
    path = runner.directory / "training.parquet"
    pq.write_table(pq.read_table(path).slice(0, 300), path)
    found = run_program(runner, "svm_machine.py")
    assert found["difference"] < 0.002 * found["deviation"]


def test_svm_inverted_margins_predict_with_a_positive_slope(runner: Runner) -> None:
    write_tables(runner.directory)
    path = runner.directory / "training.parquet"
    # a fold's effects are the opposite of another's, so that the machines of the other folds predict the inverse
    targets = pq.read_table(path)["target"].to_numpy().copy()
    targets[1_000:2_000] = 1 - targets[1_000:2_000]
    targets[2_000:] = np.random.default_rng(1).permutation(targets[2_000:])
    change_columns(path, target=pa.array(targets))
    finished = assert_succeeded(runner.run("svm"))
    assert any("the sigmoid has its least slope" in note for note in finished.report["notes"])
    assert finished.report["chosen"]["slope"] > 0
    assert 1e-4 < np.std(list(finished.predictions.values())) < 5e-3


def test_svm_too_many_features_selects_and_predicts_with_them(runner: Runner) -> None:
    write_tables(runner.directory, many_five_bins)
    finished = assert_succeeded(runner.run("svm", LANDMARKS="100"))
    assert finished.report["features"] == 50
    # the first four features have an effect, and are among the selected ones
    assert finished.report["validation"]["logloss"] < 0.68


def test_model_one_era_is_accepted(runner: Runner) -> None:
    write_tables(runner.directory)
    change_columns(runner.directory / "training.parquet", era=["era1"] * 3_000)
    assert assert_succeeded(runner.run("svm")).report["validation"]["logloss"] < 0.68
    finished = assert_succeeded(runner.run("xgboost", EARLY_STOPPING="20"))
    assert any(line.startswith("one era only: held out 600") for line in finished.lines)


@pytest.mark.parametrize("model", MODELS)
def test_model_real_rows_of_2017_have_a_plausible_score(runner: Runner, real_archive: Path, model: str) -> None:
    with zipfile.ZipFile(real_archive) as archive:
        for name in ("training", "tournament"):
            table = pa_csv.read_csv(io.BytesIO(archive.read(f"numerai_{name}_data.csv")))
            numbers = {name: pa.float32() for name in table.column_names if name.startswith(("feature", "target"))}
            schema = pa.schema([(field.name, numbers.get(field.name, field.type)) for field in table.schema])
            pq.write_table(table.cast(schema), runner.directory / f"{name}.parquet")
    finished = assert_succeeded(runner.run(model))
    # too few rows to compare models: much worse or much better than a constant would both be suspicious
    assert 0.688 < finished.report["validation"]["logloss"] < 0.700
    assert finished.report["validation"]["rows"] == 382
    assert finished.report["validation"]["eras"] == 12


def test_svm_container_below_its_memory_limit_exits_with_71(runner: Runner) -> None:
    write_tables(runner.directory)
    finished = runner.run("svm", {"mem_limit": "64m", "memswap_limit": "64m"}, MEMORY_LIMIT="512")
    assert finished.code == 71
    assert "the memory of 512 MiB was not enough. Give the model more memory in models.yaml" in finished.lines[-1]


def test_svm_full_disk_exits_with_75(runner: Runner) -> None:
    write_tables(runner.directory)
    small = Mount("/small", "", type="tmpfs", tmpfs_size=8_192, tmpfs_mode=0o1777)
    mounts = [Mount("/data", str(runner.directory), type="bind"), small]
    finished = runner.run("svm", {"mounts": mounts}, PREDICTING="/small/svm.csv")
    assert finished.code == 75
    assert "/small/svm.csv: the disk is full, nothing was written." in finished.lines[-1]


@pytest.mark.parametrize(("model", "init"), [("xgboost", True), ("xgboost", False), ("lightgbm", True)])
def test_trees_stop_signal_ends_within_3_s(runner: Runner, model: str, init: bool) -> None:
    write_tables(runner.directory)
    # endless training, in native code at the signal
    container = runner.start(model, {"init": init}, MAX_TREES="100000", LEARNING_RATE="0.0001")
    next(line for line in container.logs(stream=True) if b"growing 100,000 trees" in line)
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    finished = runner.wait(container, model)
    assert finished.code == 75
    assert "stopped by SIGTERM while growing 100,000 trees" in finished.lines[-1]
    assert not (runner.directory / "predictions" / f"{model}.csv").exists()


def test_svm_other_user_succeeds(runner: Runner) -> None:
    write_tables(runner.directory)
    assert_succeeded(runner.run("svm", {"user": "54321:54321"} if os.getuid() == 0 else {}))
