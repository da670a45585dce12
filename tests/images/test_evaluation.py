"""The post-processing tasks: scores equal to Numerai's, the leaderboard, and ensembles with an out-of-sample gain."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
import zipfile
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from docker.types import Mount

from numerai_contract.predictions import write_predictions
from tests.images.conftest import (
    FinishedRun,
    Runner,
    assert_preprocessed,
    change_columns,
    five_bins,
    graded,
    run_program,
    with_missing_values,
    write_tables,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "evaluation"
REFERENCE = "constant_half"
ENSEMBLES = tuple(f"ensemble_{name}" for name in ("geometric_mean", "fleming", "selection", "gauss_rank"))


def write_run(directory: Path, kind: str = "binary", **options: Any) -> None:
    """Write a run's validation and live tables, with targets of this kind, binary or graded; no training table.

    Further options are those of `write_tables`.
    """
    if kind == "graded":
        write_tables(directory, five_bins, graded, **options)
    else:
        write_tables(directory, **options)
    split_tournament(directory)


def split_tournament(directory: Path) -> None:
    """Replace a run's tables by its validation and its live table."""
    table = pq.read_table(directory / "tournament.parquet")
    is_validation = np.array(table["data_type"].to_pylist()) == "validation"
    for name, rows in (("validation", is_validation), ("live", ~is_validation)):
        pq.write_table(table.filter(pa.array(rows)), directory / f"{name}.parquet")
    for name in ("training", "tournament"):
        (directory / f"{name}.parquet").unlink()


def read_rows(directory: Path) -> pa.Table:
    """Read the rows of the validation table, then the live rows."""
    return pa.concat_tables([pq.read_table(directory / f"{name}.parquet") for name in ("validation", "live")])


def set_targets(directory: Path, targets: NDArray[Any]) -> None:
    """Replace the targets of the validation table."""
    change_columns(directory / "validation.parquet", target=targets[: validation_rows(directory)])


def validation_rows(directory: Path) -> int:
    return int(pq.read_metadata(directory / "validation.parquet").num_rows)


def write_models(directory: Path, **models: NDArray[np.float64] | float) -> None:
    """Write the predictions of models for all rows; a number means the same prediction for every row."""
    ids, known = read_rows(directory)["id"], validation_rows(directory)
    for name, values in models.items():
        predictions = np.broadcast_to(values, len(ids))
        for folder, rows in (("validation", slice(known)), ("predictions", slice(known, None))):
            path = directory / folder / f"{name}.csv"
            write_predictions(path, pa.chunked_array([ids.combine_chunks()[rows]]), predictions[rows], None)
    directory.joinpath("predictions").chmod(0o777)


def read_model(directory: Path, name: str) -> NDArray[np.float64]:
    """Read a model's predictions of all rows."""
    parts = [pa_csv.read_csv(directory / folder / f"{name}.csv") for folder in ("validation", "predictions")]
    return np.concatenate([part["prediction"].to_numpy() for part in parts])


def fit(runner: Runner, operation: str, **environment: str) -> FinishedRun:
    """Run an operation as the first run of a week does, without a finished fit.

    Later operations have its predictions of the validation table, as in the pipeline.
    """
    directory = fit_directory(runner.directory, operation)
    shutil.rmtree(directory, ignore_errors=True)
    inputs = {"VALIDATION": "/data/validation.parquet", "TESTING": "/data/live.parquet"}
    finished = run_fit(runner, operation, None, **inputs | environment)
    if (directory / "validation").is_dir():
        shutil.copytree(directory / "validation", runner.directory / "validation", dirs_exist_ok=True)
    return finished


def predict(runner: Runner, operation: str, **environment: str) -> FinishedRun:
    """Run an operation as the later runs of a week do: its fit is finished, and may not be written to."""
    directory = fit_directory(runner.directory, operation)
    mounts = [
        Mount("/data", str(runner.directory), type="bind"),
        Mount(f"/data/fits/{operation}", str(directory), type="bind", read_only=True),
    ]
    inputs = {"TRAINING": "", "TESTING": "/data/live.parquet"}
    return run_fit(runner, operation, {"mounts": mounts}, **inputs | environment)


def run_fit(runner: Runner, operation: str, options: dict[str, Any] | None = None, **environment: str) -> FinishedRun:
    return runner.run(operation, options, MODEL=f"/data/fits/{operation}", PREDICTING="", **environment)


def fit_directory(directory: Path, operation: str) -> Path:
    return directory / "fits" / operation


def informed(directory: Path, weight: float, seed: int = 0) -> NDArray[np.float64]:
    """Return predictions that use the features that the target depends on; less with a smaller weight."""
    table = read_rows(directory)
    features = np.column_stack([table[f"feature{number}"].to_numpy() for number in range(1, 5)]).astype(np.float64)
    logits = features @ np.array([1, -1, 1, -1]) / np.max(features)
    noise = np.random.default_rng(seed).normal(0, 0.5, len(table))
    return np.asarray(1 / (1 + np.exp(-(weight * logits + (1 - weight) * noise))))


def read_leaderboard(directory: Path) -> dict[str, Any]:
    folder = fit_directory(directory, "evaluate")
    found: dict[str, Any] = json.loads((folder / "leaderboard.json").read_text())
    for name in ("leaderboard.json", "leaderboard.csv"):
        assert (folder / f"{name}.manifest.json").is_file()
    return found


def leaderboard_rows(directory: Path) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in read_leaderboard(directory)["models"]}


def read_report(directory: Path, model: str) -> dict[str, Any]:
    folder = fit_directory(directory, "evaluate") / "evaluation"
    found: dict[str, Any] = json.loads((folder / f"{model}.json").read_text())
    assert (folder / f"{model}.json.manifest.json").is_file()
    return found


def mean_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Compute mean ranks from 1 by counting."""
    below = (values[:, np.newaxis] > values).sum(axis=1)
    return np.asarray(below + ((values[:, np.newaxis] == values).sum(axis=1) + 1) / 2)


def corr_by_definition(predictions: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    uniform = (mean_ranks(predictions) - 0.5) / len(predictions)
    normal = np.array([NormalDist().inv_cdf(value) for value in uniform])
    centred = targets - targets.mean()
    first, second = (np.sign(side) * np.abs(side) ** 1.5 for side in (normal, centred))
    return float(np.corrcoef(first, second)[0, 1])


def write_difficult_tables(directory: Path, kind: str) -> None:
    """Write tables with unknown targets, an era of one row, an era of one target; models with ties, and a constant."""
    write_run(directory, kind)
    table = read_rows(directory)
    random = np.random.default_rng(11)
    eras, targets = np.array(table["era"].to_pylist()), table["target"].to_numpy().copy()
    targets[(random.random(len(table)) < 0.1) & (eras != "eraX")] = np.nan
    alone = np.flatnonzero((eras == "era88") & ~np.isnan(targets))
    targets[alone[1:]] = np.nan
    targets[(eras == "era87") & ~np.isnan(targets)] = 1
    set_targets(directory, targets)
    tied = np.round(informed(directory, 0.5, seed=3), 1).clip(0.1, 0.9)
    write_models(
        directory, knowing=informed(directory, 0.9), guessing=informed(directory, 0.0, seed=2), tied=tied, constant=0.4
    )


def assert_equal(ours: Any, theirs: Any) -> None:
    assert ours == (None if theirs is None else pytest.approx(theirs, abs=1e-9, rel=0))


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_evaluate_scores_equal_numerai_tools_and_scikit_learn(runner: Runner, kind: str) -> None:
    directory = runner.directory
    write_difficult_tables(directory, kind)
    ids = read_rows(directory)["id"].to_pylist()
    random = np.random.default_rng(4)
    meta = {"id": ids[:700], "era": ["x"] * 700, "numerai_meta_model": random.random(700)}
    pq.write_table(pa.table(meta), directory / "meta_model.parquet")
    # in another order, and with additional rows
    benchmark = {
        "id": [*ids[::-1], "more"],
        **{name: random.random(len(ids) + 1) for name in ("v53_lgbm_ender20", "v53_lgbm_ender60")},
    }
    pq.write_table(pa.table(benchmark), directory / "benchmark_models.parquet")
    assert_preprocessed(fit(runner, "evaluate", BENCHMARK="v53_lgbm_ender60"))
    assert read_leaderboard(directory)["benchmark"] == "v53_lgbm_ender60"
    found, rows = run_program(runner, "numerai_scores.py"), leaderboard_rows(directory)
    compared = 0
    for name in ("knowing", "guessing", "tied", "constant"):
        for score in ("corr", "sharpe", "logloss", "consistency"):
            assert_equal(rows[name][score], found[name].get(score))
        report = read_report(directory, name)
        assert len(report["by_era"]) == 20
        for era in report["by_era"]:
            theirs = found[name]["eras"][f"era{era['era']}"]
            single = era["era"] in (
                87,
                88,
            )  # one target, one row: no correlation, and numerai-tools returns NaN or fails
            assert single <= (era["corr"] is None)
            names = ("corr", "mmc", "bmc", "fnc", "meta_model_correlation", "feature_exposure", "logloss")
            for score in ("logloss",) if single else names:
                # for a constant numerai-tools returns a contribution of 0
                if name != "constant" or score == "logloss":
                    assert_equal(era[score], theirs.get(score))
                    compared += era[score] is not None
            if name != "constant" and not single:
                assert era["most_exposed_to"] == theirs["most_exposed_to"]
    assert compared > (300 if kind == "binary" else 250)
    assert rows["constant"]["corr"] is None
    assert (rows["tied"]["logloss"] is None) == (kind == "graded")


@pytest.mark.parametrize("rest", [None, np.nan], ids=["null", "NaN"])
def test_evaluate_bmc_is_of_the_named_benchmark_only(runner: Runner, rest: float | None) -> None:
    directory = runner.directory
    write_difficult_tables(directory, "graded")
    ids = read_rows(directory)["id"].to_pylist()
    path, random = directory / "benchmark_models.parquet", np.random.default_rng(4)
    values, others = random.random(len(ids)), random.random(len(ids))
    found = []
    for more in ({}, {"v53_lgbm_ender20": others}, {"v6_new": pa.array([rest] * len(ids), pa.float64())}):
        pq.write_table(pa.table({"id": ids, **more, "v53_lgbm_ender60": values}), path)
        assert_preprocessed(fit(runner, "evaluate", BENCHMARK="v53_lgbm_ender60"))
        found.append({name: row["bmc"] for name, row in leaderboard_rows(directory).items()})
    assert found[0]["knowing"] is not None
    assert found[0] == found[1] == found[2]
    # a benchmark without values, one that the file does not have, and none
    finished = assert_preprocessed(fit(runner, "evaluate", BENCHMARK="v6_new"))
    assert {row["bmc"] for row in leaderboard_rows(directory).values()} == {None}
    finished = assert_preprocessed(fit(runner, "evaluate", BENCHMARK="v7_lgbm_ender60"))
    assert any("'id' and 'v7_lgbm_ender60', a column of numbers, are required" in n for n in finished.report["notes"])
    assert {row["bmc"] for row in leaderboard_rows(directory).values()} == {None}
    assert_preprocessed(fit(runner, "evaluate"))
    assert {row["bmc"] for row in leaderboard_rows(directory).values()} == {None}


def test_evaluate_scores_equal_their_definitions(runner: Runner) -> None:
    directory = runner.directory
    write_difficult_tables(directory, "binary")
    assert_preprocessed(fit(runner, "evaluate"))
    table = read_rows(directory)
    eras, targets = np.array(table["era"].to_pylist()), table["target"].to_numpy().astype(np.float64)
    for name in ("knowing", "tied"):
        predictions = read_model(directory, name)
        row, by_era = leaderboard_rows(directory)[name], read_report(directory, name)["by_era"]
        correlations, losses = [], []
        for era in by_era:
            in_era = (eras == f"era{era['era']}") & ~np.isnan(targets)
            given = np.where(targets[in_era] == 1, predictions[in_era], 1 - predictions[in_era])
            losses.append(-np.log(given))
            assert_equal(era["logloss"], losses[-1].mean())
            if era["era"] < 87:
                correlations.append(corr_by_definition(predictions[in_era], targets[in_era]))
                assert_equal(era["corr"], correlations[-1])
        rest = [era["corr"] for era in by_era if era["era"] == 89]
        series = np.array([*correlations, *rest])
        running = np.cumsum([0, *series])
        falls = [running[: place + 1].max() - running[place] for place in range(len(running))]
        assert_equal(row["corr"], series.mean())
        assert_equal(row["corr_std"], series.std())
        assert_equal(row["max_drawdown"], max(falls))
        assert_equal(row["positive_eras"], (series > 0).mean())
        assert_equal(row["logloss"], np.concatenate(losses).mean())
        assert_equal(row["consistency"], np.mean([loss.mean() < math.log(2) for loss in losses]))
        assert (row["eras"], row["rows"]) == (18, int((~np.isnan(targets)).sum()))


def test_evaluate_exposure_missing_features_count_as_the_mean(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory, modify=with_missing_values)
    write_models(directory, random=np.random.default_rng(7).uniform(0.1, 0.9, 1_000))
    assert_preprocessed(fit(runner, "evaluate"))
    table = read_rows(directory)
    features = np.column_stack([table[f"feature{number}"].to_numpy() for number in range(1, 51)]).astype(np.float64)
    predictions = read_model(directory, "random")
    for era in read_report(directory, "random")["by_era"]:
        in_era = np.array(table["era"].to_pylist()) == f"era{era['era']}"
        filled = features[in_era]
        usable = range(48)
        means = np.nanmean(filled[:, usable], axis=0)
        filled = np.where(np.isnan(filled[:, usable]), means, filled[:, usable])
        correlations = [abs(np.corrcoef(column, predictions[in_era])[0, 1]) for column in filled.T]
        assert_equal(era["feature_exposure"], max(correlations))
        assert era["most_exposed_to"] == f"feature{usable[int(np.argmax(correlations))] + 1}"


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_evaluate_leaderboard_is_sorted_with_references(runner: Runner, kind: str) -> None:
    directory = runner.directory
    write_run(directory, kind)
    write_models(
        directory,
        a_guess=informed(directory, 0.0, seed=2),
        best=informed(directory, 1.0),
        good=informed(directory, 0.7),
    )
    example = {"id": read_rows(directory)["id"].to_pylist()[:500], "probability": informed(directory, 0.8)[:500]}
    pa_csv.write_csv(pa.table(example), directory / "example_predictions.csv")
    finished = assert_preprocessed(fit(runner, "evaluate", INPUTS="0f3a"))
    found = read_leaderboard(directory)
    assert (found["target"], found["sorted_by"]) == (kind, "corr" if kind == "graded" else "logloss")
    reason = "the payout of the round is unknown"
    assert (found["ranking"]["fallback"], len(found["ranking"]["eras"])) == (reason if kind == "graded" else None, 20)
    assert any(reason in note for note in finished.report["notes"]) == (kind == "graded")
    models = [row["model"] for row in found["models"]]
    assert models[0] == "best"
    assert models.index("good") < models.index("a_guess")
    assert set(models) == {"best", "good", "a_guess", REFERENCE, "example_predictions"}
    assert [row["rank"] for row in found["models"]] == [1, 2, 3, 4, 5]
    rows = leaderboard_rows(directory)
    assert rows["example_predictions"]["kind"] == rows[REFERENCE]["kind"] == "reference"
    assert rows["example_predictions"]["rows"] == 500
    assert rows["example_predictions"]["corr"] > 0.05
    if kind == "binary":
        assert rows[REFERENCE]["logloss"] == pytest.approx(math.log(2), abs=1e-12)
        assert rows[REFERENCE]["consistency"] == 0
    assert rows["best"]["mmc"] is None is rows["best"]["bmc"]
    with (fit_directory(directory, "evaluate") / "leaderboard.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [row["model"] for row in listed] == models
    assert float(listed[0]["corr"]) == rows["best"]["corr"]
    assert listed[models.index(REFERENCE)]["corr"] == ""
    assert '"inputs": "0f3a"' in (fit_directory(directory, "evaluate") / "leaderboard.json.manifest.json").read_text()
    assert finished.report["chosen"]["best"] == "best"
    distribution = read_report(directory, "best")["distribution"]
    assert [sum(distribution[part]) for part in ("validation", "test", "live")] == [800, 150, 50]


def test_evaluate_copies_and_discordant_models_are_detected(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    model = informed(directory, 0.3, seed=1)
    copy = (0.8 * model + 0.1 + 1e-3 * informed(directory, 0.0)).clip(0.01, 0.99)
    shifted = informed(directory, 0.3, seed=5)
    shifted[800:950] = 0.5 + shifted[800:950] / 2.1
    write_models(directory, model=model, copy=copy, shifted=shifted, ensemble_of_one=model)
    assert_preprocessed(fit(runner, "evaluate"))
    rows = leaderboard_rows(directory)
    # on the scored rows, the validation table's
    by_definition = np.corrcoef(mean_ranks(model[:800].round(9)), mean_ranks(copy[:800].round(9)))[0, 1]
    assert_equal(rows["model"]["originality"], by_definition)
    assert (rows["model"]["most_like"], rows["model"]["original"]) == ("copy", False)
    assert rows["shifted"]["original"] is True
    # an ensemble is similar to its models: it is not original, but its models are not copies
    assert (rows["ensemble_of_one"]["kind"], rows["ensemble_of_one"]["original"]) == ("ensemble", False)
    assert rows["model"]["concordant"] is True
    assert rows["shifted"]["concordant"] is False
    steps = np.sort(shifted.round(9))
    parts = [
        np.searchsorted(np.sort(shifted[part].round(9)), steps, side="right") / len(shifted[part])
        for part in (slice(800), slice(800, 950), slice(950, None))
    ]
    largest = max(np.abs(parts[one] - parts[other]).max() for one, other in ((0, 1), (0, 2), (1, 2)))
    assert_equal(rows["shifted"]["concordance"], largest)
    found = read_leaderboard(directory)["rank_correlations"]
    index = {name: number for number, name in enumerate(found["models"])}
    assert_equal(found["matrix"][index["copy"]][index["model"]], by_definition)


def write_damaged_models(directory: Path) -> dict[str, str]:
    """Write predictions, each with another damage; return the reason that the leaderboard must have for each."""
    folder = directory / "validation"
    names = (
        *("unfinished", "cut", "twice", "outside", "other_header", "no_csv", "no_manifest", "empty", "no_rows"),
        *("unknown_id", "no_value", "without_first_row", "without_first_era"),
    )
    write_models(directory, **{name: informed(directory, 0.5) for name in names})
    text = (folder / "cut.csv").read_text()
    header, first, second, *_ = text.splitlines(keepends=True)

    def rewrite(name: str, content: str) -> None:
        (folder / f"{name}.csv").write_text(content)
        manifest = json.loads((folder / f"{name}.csv.manifest.json").read_text())
        digest = hashlib.sha256(content.encode()).hexdigest()
        manifest |= {"sha256": digest, "bytes": len(content.encode())}
        (folder / f"{name}.csv.manifest.json").write_text(json.dumps(manifest))

    (folder / "unfinished.csv.manifest.json").unlink()
    (folder / "cut.csv").write_text(text[: len(text) // 2])
    rewrite("twice", text.replace(second, first))
    rewrite("outside", text.replace(first.split(",")[1], "1.5\n", 1))
    rewrite("unknown_id", text.replace(first, "x" + first))
    rewrite("no_value", text.replace(first.split(",")[1], "\n", 1))
    rewrite("no_rows", header)
    rewrite("without_first_row", text.replace(first, ""))
    rewrite("without_first_era", "".join([header, *text.splitlines(keepends=True)[41:]]))
    rewrite("other_header", text.replace("prediction", "guess"))
    rewrite("no_csv", "id,prediction\na,b,c\n\0")
    rewrite("empty", "")
    (folder / "no_manifest.csv.manifest.json").write_text("{")
    return {
        "unfinished": "no manifest",
        "cut": "its content differs from its manifest",
        "twice": "each id of validation.parquet once, with a prediction (an id appears twice)",
        "unknown_id": "(1 of its ids are not in the table)",
        "no_value": "(a prediction is missing)",
        "no_rows": "800 of 800 rows of validation.parquet are missing",
        "without_first_row": "1 of 800 rows of validation.parquet are missing, not only of the newest eras",
        "without_first_era": "40 of 800 rows of validation.parquet are missing, not only of the newest eras",
        "outside": "strictly between 0 and 1",
        "other_header": "'id,guess'",
        "no_csv": "cannot be read as CSV",
        "empty": "cannot be read as CSV",
        "no_manifest": "not a manifest",
    }


def test_post_processing_damaged_predictions_are_left_out(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    expected = write_damaged_models(directory)
    write_models(directory, whole=informed(directory, 0.5))
    (directory / "validation" / ".whole.csv.0f3a.part").write_text("id,pred")
    (directory / "meta_model.parquet").write_text("no parquet")
    for operation in ("ensemble", "evaluate"):
        finished = fit(runner, operation)
        assert finished.code == 0, finished.lines
        for name, reason in expected.items():
            assert any(f"left out: {name} " in note and reason in note for note in finished.report["notes"]), name
    assert set(read_leaderboard(directory)["left_out"]) == set(expected)
    assert any("meta_model.parquet" in note for note in finished.report["notes"])
    assert set(leaderboard_rows(directory)) == {"whole", *ENSEMBLES, REFERENCE}


@pytest.mark.parametrize("operation", ["evaluate", "ensemble"])
def test_post_processing_without_models_exits_with_66(runner: Runner, operation: str) -> None:
    directory = runner.directory
    write_run(directory)
    finished = fit(runner, operation)
    assert finished.code == 66
    assert "no model has predictions (the folder is empty). Run at least one model first." in finished.lines[-1]
    write_damaged_models(directory)
    finished = fit(runner, operation)
    assert finished.code == 66
    assert "outside.csv: its predictions are not all strictly" in finished.lines[-1]


def test_post_processing_without_targets_has_no_scores(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    set_targets(directory, np.full(800, np.nan, dtype=np.float32))
    write_models(directory, svm=informed(directory, 0.5), xgboost=informed(directory, 0.9))
    ensembles = fit(runner, "ensemble")
    assert ensembles.code == 0, ensembles.lines
    selection = ensembles.report["chosen"]["ensemble_selection"]
    assert selection["weights"] == {"svm": 0.5, "xgboost": 0.5}
    assert "0 eras have known targets" in selection["equal_weights_because"]
    finished = assert_preprocessed(fit(runner, "evaluate"))
    assert any("no row has a known target" in note for note in finished.report["notes"])
    row = leaderboard_rows(directory)["svm"]
    assert {row[score] for score in ("corr", "sharpe", "logloss", "consistency", "feature_exposure")} == {None}
    assert row["concordance"] is not None
    assert (read_leaderboard(directory)["rows"], read_leaderboard(directory)["eras"]) == (0, 0)


def test_evaluate_hidden_targets_are_not_used_by_the_ensemble(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory, "graded")
    table = read_rows(directory)
    truth = np.random.default_rng(3).integers(0, 5, 200) / 4
    write_models(
        directory,
        knowing=np.concatenate([informed(directory, 0.9)[:800], 0.1 + truth * 0.8]),
        other=informed(directory, 0.8),
    )
    before = fit(runner, "ensemble").report["chosen"]
    # the hidden week with its era, and an unknown row
    ids = [*table["id"].to_pylist()[800:], "unknown_row"]
    hidden = {"id": ids, "era": ["0091"] * 201, "target": [*truth, 1.0]}
    pq.write_table(pa.table(hidden), directory / "targets.parquet")
    assert fit(runner, "ensemble").report["chosen"] == before
    assert_preprocessed(fit(runner, "evaluate"))
    # a walk-forward run is scored on its own week only
    (era,) = read_report(directory, "knowing")["by_era"]
    assert (era["era"], era["rows"]) == (91, 200)
    assert era["corr"] > 0.9


def test_evaluate_invalid_hidden_targets_exit_with_65(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    write_models(directory, svm=informed(directory, 0.5))
    pq.write_table(pa.table({"id": ["to00001"], "era": ["91"], "target": [7.0]}), directory / "targets.parquet")
    finished = fit(runner, "evaluate")
    assert finished.code == 65
    assert "targets.parquet: column 'target' has values outside [0, 1]" in finished.lines[-1]


def contents(directory: Path) -> dict[Path, bytes]:
    """Read all files of a directory except the report of the fit, which has its duration."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("report.json")]
    return {path.relative_to(directory): path.read_bytes() for path in files}


def test_post_processing_second_fit_is_equal_and_removes_files(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    write_models(directory, svm=informed(directory, 0.5), xgboost=informed(directory, 0.9))
    found = []
    for _ in range(2):
        for operation in ("ensemble", "evaluate"):
            assert fit(runner, operation).code == 0
        found.append(contents(directory / "fits") | contents(directory / "predictions"))
    assert found[0] == found[1]
    # an interrupted fit begins again, without the files of its earlier attempt
    (fit_directory(directory, "evaluate") / "model.json").unlink()
    (directory / "validation" / "xgboost.csv.manifest.json").unlink()
    assert run_fit(runner, "evaluate", VALIDATION="/data/validation.parquet", TESTING="").code == 0
    assert "xgboost" not in leaderboard_rows(directory)
    assert not list((fit_directory(directory, "evaluate") / "evaluation").glob("xgboost*"))


def test_post_processing_reads_neither_training_nor_live_table(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    write_models(directory, svm=informed(directory, 0.5), xgboost=0.5)
    for folder in ("predictions", "fits"):
        shutil.rmtree(directory / folder, ignore_errors=True)
    (directory / "live.parquet").unlink()
    assert {path.stem for path in directory.glob("*.parquet")} == {"validation"}
    for operation in ("ensemble", "evaluate"):
        finished = fit(runner, operation, TESTING="")
        assert finished.code == 0, finished.lines
        assert (fit_directory(directory, operation) / "model.json").is_file()
    assert set(read_report(directory, "ensemble_selection")["distribution"]) == {"edges", "validation"}
    assert leaderboard_rows(directory)["svm"]["concordance"] is None


def shorten(directory: Path, name: str, rows: int) -> None:
    """Keep the first rows of a model's predictions of the validation table, as those of an older fit."""
    path = directory / "validation" / f"{name}.csv"
    found = pa_csv.read_csv(path)
    write_predictions(path, found["id"].slice(0, rows), found["prediction"].to_numpy()[:rows], None)


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_post_processing_models_of_older_fits_are_used(runner: Runner, kind: str) -> None:
    directory = runner.directory
    write_run(directory, kind)
    same = informed(directory, 0.7)
    write_models(directory, new=same, old=same, other=informed(directory, 0.4, seed=1))
    shorten(directory, "old", 680)  # without the eras from 87 on
    note = "old: its fit is older than validation.parquet, and has no predictions of the newest 120 of 800 rows"
    ensembles = fit(runner, "ensemble")
    assert ensembles.code == 0, ensembles.lines
    left_out = "120 rows that not every model has are left out"
    assert ensembles.report["notes"][:2] == [
        note,
        f"ensembles: selected on 680 of 800 rows of validation.parquet; {left_out}",
    ]
    chosen = ensembles.report["chosen"]
    assert (chosen["left_out"], chosen["left_out_rows"]) == ([], 120)
    assert max(chosen["ensemble_selection"]["scored_on"]["eras"]) == 86
    ids = read_rows(directory)["id"].to_pylist()
    for name in ENSEMBLES:
        validation, live = read_ensemble_parts(directory, name)
        assert (list(validation), list(live)) == (ids[:680], ids[800:])
    finished = assert_preprocessed(fit(runner, "evaluate"))
    assert note in finished.report["notes"]
    rows = leaderboard_rows(directory)
    expected = {"new": (800, 20), "other": (800, 20), "old": (680, 17), "ensemble_selection": (680, 17)}
    assert {name: (rows[name]["rows"], rows[name]["eras"]) for name in expected} == expected
    assert_equal(rows["old"]["originality"], 1.0)
    new, old = (read_report(directory, name)["by_era"] for name in ("new", "old"))
    for mine, theirs in zip(new[:17], old[:17], strict=True):
        for score in ("corr", "feature_exposure", "logloss"):
            assert_equal(mine[score], theirs[score])
    assert [(era["rows"], era["corr"], era["feature_exposure"], era["logloss"]) for era in old[17:]] == [
        (0, None, None, None)
    ] * 3


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_ensemble_later_runs_combine_with_the_weights_of_the_fit(runner: Runner, kind: str) -> None:
    directory = runner.directory
    write_run(directory, kind)
    models = {f"model_{seed}": informed(directory, 0.5, seed) for seed in (1, 2, 3)}
    write_models(directory, **models)
    assert fit(runner, "ensemble").code == 0
    paths = [directory / "predictions" / f"{name}.csv" for name in ENSEMBLES]
    first = [path.read_bytes() for path in paths]
    shutil.rmtree(directory / "validation")
    (directory / "validation.parquet").unlink()
    for path in paths:
        path.unlink()
    assert_preprocessed(predict(runner, "ensemble"))
    assert [path.read_bytes() for path in paths] == first
    # other live rows, in another order; a model that the fit has not
    table = pq.read_table(directory / "live.parquet").take(pa.array(np.arange(199, 49, -1)))
    ids = pa.chunked_array([pa.array([f"next{row}" for row in range(150)])])
    pq.write_table(table.set_column(0, "id", ids), directory / "live.parquet")
    random = np.random.default_rng(8)
    live = {name: random.uniform(0.1, 0.9, 150).round(9) for name in (*models, "another")}
    for name, values in live.items():
        write_predictions(directory / "predictions" / f"{name}.csv", ids, values, None)
    assert_preprocessed(predict(runner, "ensemble"))
    kept = json.loads((fit_directory(directory, "ensemble") / "weights.json").read_text())
    assert (kept["models"], kept["combines"]) == (list(models), "ranks" if kind == "graded" else "probabilities")
    parts = np.column_stack([live[name] for name in models])
    geometric, fleming, selection, gauss_rank = (pa_csv.read_csv(path)["prediction"].to_numpy() for path in paths)
    of_one, of_zero = np.prod(parts, axis=1) ** (1 / 3), np.prod(1 - parts, axis=1) ** (1 / 3)
    assert geometric == pytest.approx(of_one / (of_one + of_zero), abs=1e-9)
    assert (fleming == geometric).all()  # none of the models is Fleming's
    data_types, ranks = np.array(table["data_type"].to_pylist()), np.empty_like(parts)
    for data_type in ("test", "live"):
        rows = data_types == data_type
        ranks[rows] = (np.column_stack([mean_ranks(column) for column in parts[rows].T]) - 0.5) / rows.sum()
    assert selection == pytest.approx((ranks if kind == "graded" else parts) @ np.array(kept["weights"]), abs=1e-9)
    assert gauss_rank == pytest.approx(normal_mean(ranks, kept["gauss_rank"]), abs=1e-9)


def test_ensemble_model_without_live_predictions_exits_with_66(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    write_models(directory, svm=informed(directory, 0.5), xgboost=informed(directory, 0.9))
    assert fit(runner, "ensemble").code == 0
    path = directory / "predictions" / "xgboost.csv"
    ids, values = read_rows(directory)["id"].slice(800), read_model(directory, "xgboost")[800:]
    path.unlink()
    finished = predict(runner, "ensemble")
    assert finished.code == 66
    assert "xgboost has no predictions of the live rows. Clear the task `xgboost`" in finished.lines[-1]
    assert "The ensembles of this fit need all of its 2 models" in finished.lines[-1]
    write_predictions(path, ids.slice(1), values[1:], None)
    finished = predict(runner, "ensemble")
    assert finished.code == 65
    assert "xgboost.csv: 1 of 200 rows of live.parquet are missing" in finished.lines[-1]


@pytest.mark.parametrize("damage", ['{"models": ["svm"]}', None])
def test_ensemble_damaged_weights_exit_with_65(runner: Runner, damage: str | None) -> None:
    directory = runner.directory
    write_run(directory)
    write_models(directory, svm=informed(directory, 0.5))
    assert fit(runner, "ensemble").code == 0
    weights = fit_directory(directory, "ensemble") / "weights.json"
    if damage is None:
        weights.with_name("weights.json.manifest.json").unlink()
    else:
        weights.write_text(damage)
    finished = predict(runner, "ensemble")
    assert finished.code == 65
    assert "the weights of this fit are missing or damaged. Start the run with force" in finished.lines[-1]


def test_evaluate_finished_fit_is_not_changed(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    write_models(directory, svm=informed(directory, 0.5))
    assert_preprocessed(fit(runner, "evaluate"))
    before = contents(directory / "fits")
    (directory / "validation.parquet").unlink()
    assert_preprocessed(predict(runner, "evaluate"))
    assert contents(directory / "fits") == before


def test_evaluate_damaged_live_predictions_are_left_out(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    write_models(directory, svm=informed(directory, 0.5), xgboost=informed(directory, 0.9))
    (directory / "predictions" / "svm.csv").write_text("id,prediction\n")
    finished = assert_preprocessed(fit(runner, "evaluate"))
    assert [note.split(" (")[0] for note in finished.report["notes"]] == ["left out: the live predictions of svm"]
    assert set(read_report(directory, "svm")["distribution"]) == {"edges", "validation"}
    assert set(read_report(directory, "xgboost")["distribution"]) == {"edges", "validation", "test", "live"}
    assert leaderboard_rows(directory)["svm"]["rows"] == 800


def normal_mean(ranks: NDArray[np.float64], weights: list[float]) -> NDArray[np.float64]:
    """Average normally distributed ranks, shape (rows, models), and transform the mean back."""
    normal = NormalDist()
    values = [sum(w * normal.inv_cdf(rank) for w, rank in zip(weights, row, strict=True)) for row in ranks.tolist()]
    return np.array([normal.cdf(value) for value in values])


def read_ensemble_parts(directory: Path, name: str) -> list[dict[str, float]]:
    """Read an ensemble's predictions of validation rows and of live rows."""
    parts = []
    for folder in (fit_directory(directory, "ensemble") / "validation", directory / "predictions"):
        assert (folder / f"{name}.csv.manifest.json").is_file()
        header, *rows = csv.reader((folder / f"{name}.csv").read_text().splitlines())
        assert header == ["id", "prediction"]
        assert all(0 < float(row[1]) < 1 for row in rows)
        parts.append({row[0]: float(row[1]) for row in rows})
    return parts


def read_ensemble(directory: Path, name: str) -> dict[str, float]:
    validation, live = read_ensemble_parts(directory, name)
    assert [*validation, *live] == read_rows(directory)["id"].to_pylist()
    return validation | live


def test_ensemble_geometric_mean_is_symmetric(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    models = [informed(directory, weight, seed).round(9) for weight, seed in ((0.2, 1), (0.5, 2), (0.9, 3))]
    write_models(directory, **{f"model_{number}": model for number, model in enumerate(models)}, ensemble_selection=0.5)
    assert fit(runner, "ensemble").code == 0
    of_one, of_zero = (np.prod(side, axis=0) ** (1 / 3) for side in (models, [1 - model for model in models]))
    found = np.array(list(read_ensemble(directory, "ensemble_geometric_mean").values()))
    assert found == pytest.approx(of_one / (of_one + of_zero), abs=1e-9)


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_ensemble_selection_prefers_informed_models(runner: Runner, kind: str) -> None:
    directory = runner.directory
    write_run(directory, kind)
    # two informed ones with different errors, both overconfident, and three uninformed ones
    odds = {seed: (1 / informed(directory, 0.4, seed) - 1) ** 4 for seed in (1, 2)}
    models = {f"knows_{seed}": 1 / (1 + against) for seed, against in odds.items()}
    write_models(directory, **models, **{f"noise_{seed}": informed(directory, 0.0, seed) for seed in (3, 4, 5)})
    finished = fit(runner, "ensemble", EMBARGO="2")
    assert finished.code == 0, finished.lines
    selection = finished.report["chosen"]["ensemble_selection"]
    assert selection["weights"]["knows_1"] + selection["weights"]["knows_2"] > 0.6
    assert selection["selected_on"]["eras"] == list(range(70, 79))
    assert selection["scored_on"]["eras"] == list(range(81, 90))
    assert selection["scored_on"]["gain"] > 0
    weights = {
        name: selection["selected"].count(name) / len(selection["selected"]) for name in set(selection["selected"])
    }
    assert {name: round(weight, 6) for name, weight in weights.items()} == {
        name: weight for name, weight in selection["weights"].items() if weight
    }
    table = read_rows(directory)
    groups = np.array(
        [f"{era} {kind}" for era, kind in zip(*(table[name].to_pylist() for name in ("era", "data_type")), strict=True)]
    )
    blend = np.zeros(1_000)
    for name, weight in weights.items():
        values = read_model(directory, name)
        if kind == "graded":
            for group in set(groups):
                in_era = groups == group
                blend[in_era] += weight * (mean_ranks(values[in_era]) - 0.5) / in_era.sum()
        else:
            blend += weight * values
    assert np.array(list(read_ensemble(directory, "ensemble_selection").values())) == pytest.approx(blend, abs=1e-9)
    assert_preprocessed(fit(runner, "evaluate"))
    rows = leaderboard_rows(directory)
    assert {rows[name]["kind"] for name in ENSEMBLES} == {"ensemble"}
    assert rows["ensemble_selection"]["rank"] < min(rows[name]["rank"] for name in rows if name.startswith("noise"))
    check_gauss_rank(directory, finished, groups, kind)


def check_gauss_rank(directory: Path, finished: FinishedRun, groups: NDArray[np.str_], kind: str) -> None:
    """Check the weights of the Gaussian ranks, by the scores of the models, and their mean."""
    weights = finished.report["chosen"]["ensemble_gauss_rank"]["weights"]
    assert sum(weights.values()) == pytest.approx(1, abs=1e-5)
    if kind == "graded":  # the logloss of these models is worse than a coin's, as they are overconfident
        assert min(weights[name] for name in weights if name.startswith("knows")) > 0.3
        assert max(weights[name] for name in weights if name.startswith("noise")) < 0.2
    kept, columns = json.loads((fit_directory(directory, "ensemble") / "weights.json").read_text()), []
    assert list(weights.values()) == pytest.approx(kept["gauss_rank"], abs=1e-6)  # the report's are rounded
    for name in weights:
        values, ranks = read_model(directory, name), np.empty(1_000)
        for group in set(groups):
            in_era = groups == group
            ranks[in_era] = (mean_ranks(values[in_era]) - 0.5) / in_era.sum()
        columns.append(ranks)
    expected = normal_mean(np.column_stack(columns), kept["gauss_rank"])
    found = np.array(list(read_ensemble(directory, "ensemble_gauss_rank").values()))
    assert found == pytest.approx(expected, abs=1e-9)


def test_ensemble_fleming_is_the_geometric_mean_of_his_four_models(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory)
    names = ("logistic_regression", "factorization_machines", "gradient_boosted_trees", "pairwise_regression")
    models = {name: informed(directory, 0.4, seed).round(9) for seed, name in enumerate(names)}
    write_models(directory, **models, svm=informed(directory, 0.9, 7), neural_network=informed(directory, 0.2, 8))
    finished = fit(runner, "ensemble")
    assert finished.code == 0, finished.lines
    assert finished.report["chosen"]["ensemble_fleming"]["models"] == sorted(names)
    of_one, of_zero = (
        np.prod(side, axis=0) ** (1 / 4) for side in (list(models.values()), [1 - model for model in models.values()])
    )
    found = np.array(list(read_ensemble(directory, "ensemble_fleming").values()))
    assert found == pytest.approx(of_one / (of_one + of_zero), abs=1e-9)
    of_all = np.array(list(read_ensemble(directory, "ensemble_geometric_mean").values()))
    assert np.abs(found - of_all).max() > 0.01
    # of those that the run has, and of all models without any of them
    for name in names[:3]:
        (directory / "validation" / f"{name}.csv").unlink()
    fit(runner, "ensemble")
    found = np.array(list(read_ensemble(directory, "ensemble_fleming").values()))
    assert found == pytest.approx(models["pairwise_regression"], abs=1e-9)
    (directory / "validation" / "pairwise_regression.csv").unlink()
    notes = fit(runner, "ensemble").report["notes"]
    assert f"ensemble_fleming: the run has none of {', '.join(names)}; it equals ensemble_geometric_mean" in notes
    assert read_ensemble(directory, "ensemble_fleming") == read_ensemble(directory, "ensemble_geometric_mean")


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_ensemble_selection_uninformed_models_have_no_gain(runner: Runner, kind: str) -> None:
    directory = runner.directory
    write_run(directory, kind)
    set_targets(directory, np.random.default_rng(6).permutation(read_rows(directory)["target"].to_numpy()[:800]))
    random = np.random.default_rng(9)
    write_models(directory, **{f"noise_{number:02}": 0.5 + 0.05 * random.uniform(-1, 1, 1_000) for number in range(16)})
    finished = fit(runner, "ensemble", EMBARGO="0")
    assert finished.code == 0, finished.lines
    selection = finished.report["chosen"]["ensemble_selection"]
    selected_on, scored_on = selection["selected_on"], selection["scored_on"]
    # 400 rows in each half: CORR of noise has a standard error of .05; the best of sixteen models has about twice that
    if kind == "graded":
        assert selected_on["score"] > 0.1
        assert abs(scored_on["score"]) < 0.1
        assert selected_on["gain"] > 0
        assert scored_on["gain"] < selected_on["gain"] / 2
    else:
        assert selected_on["score"] < math.log(2) - 0.001
        assert scored_on["score"] > math.log(2) - 0.0005
    assert not set(selected_on["eras"]) & set(scored_on["eras"])


PAYOUT = json.dumps(
    [
        {"name": "correlation", "display_name": "corr60", "days": 60, "multiplier": 3.0},
        {"name": "meta_model_contribution", "display_name": "mmc60", "days": 60, "multiplier": 15.0},
    ]
)
FORMULA = "3 x corr60 + 15 x mmc60"


def write_original_and_clone(directory: Path, rows_per_era: int = 200) -> None:
    """Write 60 eras whose target has a part that the meta model predicts, and a weaker one that it does not.

    `clone` predicts as the meta model does, with a higher CORR than `original`, which predicts the other part.
    """
    eras, features = range(1160, 1220), 6
    random = np.random.default_rng(13)
    rows = len(eras) * rows_per_era
    known, hidden = random.normal(size=(2, rows))
    latent = 0.25 * known + 0.2 * hidden + random.normal(size=rows)
    targets = np.digitize(latent, [-1.7, -0.7, 0.7, 1.7]) / 4
    table = {
        "id": [f"n{row:06}" for row in range(rows)],
        "era": np.repeat([f"{era:04}" for era in eras], rows_per_era),
        "data_type": ["validation"] * rows,
        **{f"feature{number}": random.integers(0, 5, rows, dtype=np.int8) for number in range(features)},
        "target": targets.astype(np.float32),
    }
    pq.write_table(pa.table(table), directory / "validation.parquet")
    live = {name: values[:rows_per_era] for name, values in table.items()}
    live |= {
        "id": [f"l{row:06}" for row in range(rows_per_era)],
        "era": ["1221"] * rows_per_era,
        "data_type": ["live"] * rows_per_era,
        "target": np.full(rows_per_era, np.nan, dtype=np.float32),
    }
    pq.write_table(pa.table(live), directory / "live.parquet")
    meta = {"id": table["id"], "numerai_meta_model": probabilities(known + 0.05 * random.normal(size=rows))}
    pq.write_table(pa.table(meta), directory / "meta_model.parquet")
    models = {"clone": known, "original": hidden}
    live_part = random.normal(size=(2, rows_per_era))
    write_models(
        directory,
        **{
            name: probabilities(np.concatenate([values, more]))
            for (name, values), more in zip(models.items(), live_part, strict=True)
        },
    )


def probabilities(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-values)))


def test_original_is_ranked_and_selected_above_a_clone_of_the_meta_model(runner: Runner) -> None:
    directory = runner.directory
    write_original_and_clone(directory)
    environment = {"PAYOUT": PAYOUT, "TARGET_DAYS": "60", "EMBARGO": "16"}
    finished = fit(runner, "ensemble", **environment)
    assert finished.code == 0, finished.lines
    selection = finished.report["chosen"]["ensemble_selection"]
    assert (selection["objective"], selection["fallback"]) == (f"mean payout score of the eras, {FORMULA}", None)
    assert (selection["best_model"], selection["selected"][0]) == ("original", "original")
    assert selection["weights"]["original"] > 0.6
    # the two blocks of the 60 eras, with 16 between them, and the gain on the eras without influence
    assert selection["selected_on"]["eras"] == list(range(1160, 1182))
    assert selection["scored_on"]["eras"] == list(range(1198, 1220))
    assert selection["scored_on"]["score"] > selection["scored_on"]["equal_weights_score"] > 0
    assert_preprocessed(fit(runner, "evaluate", **environment))
    board, rows = read_leaderboard(directory), leaderboard_rows(directory)
    assert board["sorted_by"] == "payout"
    assert board["ranking"] == {"formula": FORMULA, "eras": list(range(1160, 1220)), "fallback": None}
    original, clone = rows["original"], rows["clone"]
    assert original["corr"] < clone["corr"]
    assert original["mmc"] > 0.01 > abs(clone["mmc"])
    assert original["rank"] < clone["rank"]
    assert clone["meta_model_correlation"] > 0.98
    for row in (original, clone):
        assert_equal(row["payout"], 3 * row["corr"] + 15 * row["mmc"])
        assert row["payout_eras"] == 60
    by_era = read_report(directory, "original")["by_era"]
    theirs = run_program(runner, "numerai_scores.py")["original"]["eras"]
    for era in by_era:
        for score in ("corr", "mmc", "fnc", "meta_model_correlation", "feature_exposure"):
            assert era[score] is not None
            assert_equal(era[score], theirs[f"{era['era']:04}"][score])
    recent = [era for era in by_era if era["era"] >= 1168]
    assert board["recent_eras"] == len(recent) == 52
    for name in ("payout", "corr", "mmc", "fnc", "meta_model_correlation", "feature_exposure"):
        assert_equal(original[name], np.mean([era[name] for era in by_era]))
        assert_equal(original[f"{name}_52_weeks"], np.mean([era[name] for era in recent]))
    # by CORR, the clone is first, and is selected
    assert_preprocessed(fit(runner, "evaluate"))
    assert leaderboard_rows(directory)["clone"]["rank"] < leaderboard_rows(directory)["original"]["rank"]
    assert fit(runner, "ensemble").report["chosen"]["ensemble_selection"]["best_model"] == "clone"


def test_payout_score_is_of_the_eras_of_the_meta_model(runner: Runner) -> None:
    directory = runner.directory
    write_original_and_clone(directory)
    path = directory / "meta_model.parquet"
    pq.write_table(pq.read_table(path).slice(200 * 40, 200 * 10), path)
    environment = {"PAYOUT": PAYOUT, "TARGET_DAYS": "60", "EMBARGO": "2"}
    assert_preprocessed(fit(runner, "evaluate", **environment))
    eras = list(range(1200, 1210))
    assert read_leaderboard(directory)["ranking"]["eras"] == eras
    row, by_era = leaderboard_rows(directory)["original"], read_report(directory, "original")["by_era"]
    assert (row["eras"], row["payout_eras"]) == (60, 10)
    assert [era["era"] for era in by_era if era["payout"] is not None] == eras
    assert_equal(row["payout"], np.mean([3 * era["corr"] + 15 * era["mmc"] for era in by_era if era["era"] in eras]))
    selection = fit(runner, "ensemble", **environment).report["chosen"]["ensemble_selection"]
    assert {*selection["selected_on"]["eras"], *selection["scored_on"]["eras"]} < set(eras)


def without_meta_model(directory: Path) -> None:
    (directory / "meta_model.parquet").unlink()


@pytest.mark.parametrize(
    ("payout", "prepare", "reason", "of_ensemble"),
    [
        (PAYOUT, without_meta_model, "the run has no predictions of the meta model for the scored eras", "0 eras have"),
        ("", lambda _: None, "the payout of the round is unknown", None),
        ("[]", lambda _: None, "the round pays on no score", None),
        (
            PAYOUT.replace('"days": 60', '"days": 20'),
            lambda _: None,
            "the round pays on corr60, of a target that looks 20 days ahead, and the run's target looks 60 days ahead",
            None,
        ),
        (
            PAYOUT.replace("meta_model_contribution", "true_contribution"),
            lambda _: None,
            "the round pays on mmc60 (true_contribution), which is not computed here",
            None,
        ),
    ],
    ids=["meta_model", "unknown", "empty", "days", "name"],
)
def test_payout_score_that_is_not_known_falls_back_to_corr(
    runner: Runner, payout: str, prepare: Callable[[Path], None], reason: str, of_ensemble: str | None
) -> None:
    directory = runner.directory
    write_original_and_clone(directory, rows_per_era=40)
    prepare(directory)
    environment = {"PAYOUT": payout, "TARGET_DAYS": "60"}
    finished = assert_preprocessed(fit(runner, "evaluate", **environment))
    board = read_leaderboard(directory)
    assert (board["sorted_by"], board["ranking"]["fallback"]) == ("corr", reason)
    assert f"ranked by mean CORR, not by the payout score: {reason}" in finished.report["notes"]
    assert {row["payout"] for row in board["models"]} == {None}
    selection = fit(runner, "ensemble", **environment).report["chosen"]["ensemble_selection"]
    assert selection["objective"] == "mean CORR of the eras"
    assert selection["fallback"].startswith(of_ensemble or reason)


@pytest.mark.parametrize("value", ["3 x corr60", '{"name": "correlation"}', '[{"name": "correlation"}]', "[1]"])
def test_payout_score_invalid_variable_exits_with_64(runner: Runner, value: str) -> None:
    directory = runner.directory
    write_original_and_clone(directory, rows_per_era=40)
    for operation in ("evaluate", "ensemble"):
        finished = fit(runner, operation, PAYOUT=value)
        assert finished.code == 64
        assert f"PAYOUT is {value!r}: allowed is a JSON list of objects with name, display_name" in finished.lines[-1]


def test_ensemble_selection_scores_equal_numerai_tools(runner: Runner) -> None:
    found = run_program(runner, "fast_scores.py")
    assert (len(found["corr"]), len(found["mmc"])) == (200, 320)
    for ours, theirs in (*found["corr"], *found["mmc"]):
        assert ours == (None if theirs is None else pytest.approx(theirs, abs=1e-12, rel=0))
    assert sum(theirs is None for _, theirs in found["corr"]) < 80
    assert not any(theirs is None for _, theirs in found["mmc"])


def test_ensemble_selection_equals_an_exhaustive_greedy_search(runner: Runner) -> None:
    found = run_program(runner, "selections.py")
    assert len(found) == 6
    assert all(ours == expected for ours, expected in found), found
    assert any(len(set(ours)) > 1 and len(ours) > len(set(ours)) for ours, _ in found)


def hide_all_but_one_era(directory: Path) -> None:
    table = read_rows(directory)
    targets = np.where(np.array(table["era"].to_pylist()) == "era75", table["target"].to_numpy(), np.nan)
    set_targets(directory, targets)


@pytest.mark.parametrize(
    ("models", "prepare", "reason"),
    [
        ({"svm": 1.0}, lambda _: None, "svm is the only model"),
        ({"svm": 1.0, "xgboost": 0.5}, hide_all_but_one_era, "1 eras have known targets"),
    ],
)
def test_ensemble_selection_impossible_has_equal_weights(
    runner: Runner, models: dict[str, float], prepare: Callable[[Path], None], reason: str
) -> None:
    directory = runner.directory
    write_run(directory)
    prepare(directory)
    write_models(directory, **{name: informed(directory, weight) for name, weight in models.items()})
    finished = fit(runner, "ensemble")
    assert finished.code == 0, finished.lines
    selection = finished.report["chosen"]["ensemble_selection"]
    assert set(selection["weights"].values()) == {1 / len(models)}
    assert reason in selection["equal_weights_because"]
    assert any(reason in note for note in finished.report["notes"])
    assert {len(read_ensemble(directory, name)) for name in ENSEMBLES} == {1_000}


def test_post_processing_constant_models_succeed(runner: Runner) -> None:
    directory = runner.directory
    write_run(directory, "graded")
    write_models(directory, svm=0.4, xgboost=0.6)
    finished = fit(runner, "ensemble")
    assert finished.code == 0, finished.lines
    selection = finished.report["chosen"]["ensemble_selection"]
    assert selection["weights"] == {"svm": 0.5, "xgboost": 0.5}
    assert "no model has a score" in selection["equal_weights_because"]
    assert set(read_ensemble(directory, "ensemble_geometric_mean").values()) == {0.5}
    assert_preprocessed(fit(runner, "evaluate"))
    assert {row["corr"] for row in leaderboard_rows(directory).values()} == {None}


def test_post_processing_real_rows_equal_numerai_tools(runner: Runner, real_archive: Path) -> None:
    directory = runner.directory
    with zipfile.ZipFile(real_archive) as archive:
        for name in ("training", "tournament"):
            table = pa_csv.read_csv(io.BytesIO(archive.read(f"numerai_{name}_data.csv")))
            numbers = {name: pa.float32() for name in table.column_names if name.startswith(("feature", "target"))}
            schema = pa.schema([(field.name, numbers.get(field.name, field.type)) for field in table.schema])
            pq.write_table(table.cast(schema), directory / f"{name}.parquet")
    split_tournament(directory)
    rows = len(read_rows(directory))
    random = np.random.default_rng(2)
    write_models(directory, one=random.uniform(0.45, 0.55, rows), other=random.uniform(0.49, 0.51, rows))
    assert fit(runner, "ensemble").code == 0
    assert_preprocessed(fit(runner, "evaluate"))
    found, ours = run_program(runner, "numerai_scores.py"), leaderboard_rows(directory)
    for name in ("one", "other", *ENSEMBLES):
        assert (ours[name]["rows"], ours[name]["eras"]) == (382, 12)
        for score in ("logloss", "consistency", "corr"):
            assert_equal(ours[name][score], found[name][score])
