"""The post-processing tasks: scores equal to Numerai's, the leaderboard, and ensembles with an out-of-sample gain."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import zipfile
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from numerai_contract.predictions import write_predictions
from tests.images.conftest import (
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


def write_tables_of(directory: Path, kind: str) -> None:
    """Write tables with targets of this kind, binary or graded."""
    if kind == "graded":
        write_tables(directory, five_bins, graded)
    else:
        write_tables(directory)


def read_tournament(directory: Path) -> pa.Table:
    return pq.read_table(directory / "tournament.parquet")


def write_models(directory: Path, **models: NDArray[np.float64] | float) -> None:
    """Write the predictions of models; a number means the same prediction for every row."""
    ids = read_tournament(directory)["id"]
    for name, values in models.items():
        write_predictions(directory / "predictions" / f"{name}.csv", ids, np.broadcast_to(values, len(ids)), None)
    directory.joinpath("predictions").chmod(0o777)


def informed(directory: Path, weight: float, seed: int = 0) -> NDArray[np.float64]:
    """Return predictions that use the features that the target depends on; less with a smaller weight."""
    table = read_tournament(directory)
    features = np.column_stack([table[f"feature{number}"].to_numpy() for number in range(1, 5)]).astype(np.float64)
    logits = features @ np.array([1, -1, 1, -1]) / np.max(features)
    noise = np.random.default_rng(seed).normal(0, 0.5, len(table))
    return np.asarray(1 / (1 + np.exp(-(weight * logits + (1 - weight) * noise))))


def read_leaderboard(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "leaderboard.json").read_text())
    for name in ("leaderboard.json", "leaderboard.csv"):
        assert (directory / f"{name}.manifest.json").is_file()
    return found


def leaderboard_rows(directory: Path) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in read_leaderboard(directory)["models"]}


def read_report(directory: Path, model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "reports" / "evaluation" / f"{model}.json").read_text())
    assert (directory / "reports" / "evaluation" / f"{model}.json.manifest.json").is_file()
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
    write_tables_of(directory, kind)
    table = read_tournament(directory)
    random = np.random.default_rng(11)
    eras, targets = np.array(table["era"].to_pylist()), table["target"].to_numpy().copy()
    targets[(random.random(len(table)) < 0.1) & (eras != "eraX")] = np.nan
    alone = np.flatnonzero((eras == "era88") & ~np.isnan(targets))
    targets[alone[1:]] = np.nan
    targets[(eras == "era87") & ~np.isnan(targets)] = 1
    change_columns(directory / "tournament.parquet", target=targets)
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
    ids = read_tournament(directory)["id"].to_pylist()
    random = np.random.default_rng(4)
    meta = {"id": ids[:700], "era": ["x"] * 700, "numerai_meta_model": random.random(700)}
    pq.write_table(pa.table(meta), directory / "meta_model.parquet")
    # in another order, and with additional rows
    benchmark = {"id": [*ids[::-1], "more"], "v5_lgbm": random.random(len(ids) + 1)}
    pq.write_table(pa.table(benchmark), directory / "benchmark_models.parquet")
    assert_preprocessed(runner.run("evaluate"))
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
            for score in ("logloss",) if single else ("corr", "mmc", "bmc", "feature_exposure", "logloss"):
                # for a constant numerai-tools returns a contribution of 0
                if name != "constant" or score == "logloss":
                    assert_equal(era[score], theirs.get(score))
                    compared += era[score] is not None
            if name != "constant" and not single:
                assert era["most_exposed_to"] == theirs["most_exposed_to"]
    assert compared > (250 if kind == "binary" else 200)
    assert rows["constant"]["corr"] is None
    assert (rows["tied"]["logloss"] is None) == (kind == "graded")


@pytest.mark.parametrize("rest", [None, np.nan], ids=["null", "NaN"])
def test_evaluate_benchmark_without_values_does_not_change_bmc(runner: Runner, rest: float | None) -> None:
    directory = runner.directory
    write_difficult_tables(directory, "graded")
    ids = read_tournament(directory)["id"].to_pylist()
    path, values = directory / "benchmark_models.parquet", np.random.default_rng(4).random(len(ids))
    found = []
    for more in ({}, {"v6_new": pa.array([rest] * len(ids), pa.float64())}):
        pq.write_table(pa.table({"id": ids, "v5_lgbm": values, **more}), path)
        assert_preprocessed(runner.run("evaluate"))
        found.append({name: row["bmc"] for name, row in leaderboard_rows(directory).items()})
    assert found[0]["knowing"] is not None
    assert found[0] == found[1]
    pq.write_table(pa.table({"id": ids, "v6_new": pa.array([rest] * len(ids), pa.float64())}), path)
    assert_preprocessed(runner.run("evaluate"))
    assert {row["bmc"] for row in leaderboard_rows(directory).values()} == {None}


def test_evaluate_scores_equal_their_definitions(runner: Runner) -> None:
    directory = runner.directory
    write_difficult_tables(directory, "binary")
    assert_preprocessed(runner.run("evaluate"))
    table = read_tournament(directory)
    eras, targets = np.array(table["era"].to_pylist()), table["target"].to_numpy().astype(np.float64)
    for name in ("knowing", "tied"):
        path = directory / "predictions" / f"{name}.csv"
        predictions = pa_csv.read_csv(path)["prediction"].to_numpy()
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
    write_tables(directory, modify=with_missing_values)
    write_models(directory, random=np.random.default_rng(7).uniform(0.1, 0.9, 1_000))
    assert_preprocessed(runner.run("evaluate"))
    table = read_tournament(directory)
    features = np.column_stack([table[f"feature{number}"].to_numpy() for number in range(1, 51)]).astype(np.float64)
    predictions = pa_csv.read_csv(directory / "predictions" / "random.csv")["prediction"].to_numpy()
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
    write_tables_of(directory, kind)
    write_models(
        directory,
        a_guess=informed(directory, 0.0, seed=2),
        best=informed(directory, 1.0),
        good=informed(directory, 0.7),
    )
    example = {"id": read_tournament(directory)["id"].to_pylist()[:500], "probability": informed(directory, 0.8)[:500]}
    pa_csv.write_csv(pa.table(example), directory / "example_predictions.csv")
    finished = assert_preprocessed(runner.run("evaluate", INPUTS="0f3a"))
    found = read_leaderboard(directory)
    assert (found["target"], found["sorted_by"]) == (kind, "corr" if kind == "graded" else "logloss")
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
    with (directory / "leaderboard.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [row["model"] for row in listed] == models
    assert float(listed[0]["corr"]) == rows["best"]["corr"]
    assert listed[models.index(REFERENCE)]["corr"] == ""
    assert '"inputs": "0f3a"' in (directory / "leaderboard.json.manifest.json").read_text()
    assert finished.report["chosen"]["best"] == "best"
    distribution = read_report(directory, "best")["distribution"]
    assert [sum(distribution[part]) for part in ("validation", "test", "live")] == [800, 150, 50]


def test_evaluate_copies_and_discordant_models_are_detected(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    model = informed(directory, 0.3, seed=1)
    copy = (0.8 * model + 0.1 + 1e-3 * informed(directory, 0.0)).clip(0.01, 0.99)
    shifted = informed(directory, 0.3, seed=5)
    shifted[800:950] = 0.5 + shifted[800:950] / 2.1
    write_models(directory, model=model, copy=copy, shifted=shifted, ensemble_of_one=model)
    assert_preprocessed(runner.run("evaluate"))
    rows = leaderboard_rows(directory)
    by_definition = np.corrcoef(mean_ranks(model.round(9)), mean_ranks(copy.round(9)))[0, 1]
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
    folder = directory / "predictions"
    names = ("unfinished", "cut", "twice", "outside", "other_header", "no_csv", "no_manifest", "empty")
    write_models(directory, **{name: informed(directory, 0.5) for name in names})
    text = (folder / "cut.csv").read_text()
    first, second = text.splitlines()[1:3]

    def rewrite(name: str, content: str) -> None:
        (folder / f"{name}.csv").write_text(content)
        manifest = json.loads((folder / f"{name}.csv.manifest.json").read_text())
        digest = hashlib.sha256(content.encode()).hexdigest()
        manifest |= {"sha256": digest, "bytes": len(content.encode())}
        (folder / f"{name}.csv.manifest.json").write_text(json.dumps(manifest))

    (folder / "unfinished.csv.manifest.json").unlink()
    (folder / "cut.csv").write_text(text[: len(text) // 2])
    rewrite("twice", text.replace(second, first))
    rewrite("outside", text.replace(first.split(",")[1], "1.5", 1))
    rewrite("other_header", text.replace("prediction", "guess"))
    rewrite("no_csv", "id,prediction\na,b,c\n\0")
    rewrite("empty", "")
    (folder / "no_manifest.csv.manifest.json").write_text("{")
    return {
        "unfinished": "no manifest",
        "cut": "its content differs from its manifest",
        "twice": "each id of tournament.parquet once",
        "outside": "strictly between 0 and 1",
        "other_header": "'id,guess'",
        "no_csv": "cannot be read as CSV",
        "empty": "cannot be read as CSV",
        "no_manifest": "not a manifest",
    }


def test_post_processing_damaged_predictions_are_left_out(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    expected = write_damaged_models(directory)
    write_models(directory, whole=informed(directory, 0.5))
    (directory / "predictions" / ".whole.csv.0f3a.part").write_text("id,pred")
    (directory / "meta_model.parquet").write_text("no parquet")
    for operation in ("ensemble", "evaluate"):
        finished = runner.run(operation)
        assert finished.code == 0, finished.lines
        for name, reason in expected.items():
            assert any(f"left out: {name} " in note and reason in note for note in finished.report["notes"]), name
    assert set(read_leaderboard(directory)["left_out"]) == set(expected)
    assert any("meta_model.parquet" in note for note in finished.report["notes"])
    assert set(leaderboard_rows(directory)) == {"whole", "ensemble_geometric_mean", "ensemble_selection", REFERENCE}


@pytest.mark.parametrize("operation", ["evaluate", "ensemble"])
def test_post_processing_without_models_exits_with_66(runner: Runner, operation: str) -> None:
    directory = runner.directory
    write_tables(directory)
    finished = runner.run(operation)
    assert finished.code == 66
    assert "no model has predictions (the folder is empty). Run at least one model first." in finished.lines[-1]
    write_damaged_models(directory)
    finished = runner.run(operation)
    assert finished.code == 66
    assert "outside.csv: its predictions are not all strictly" in finished.lines[-1]


def test_post_processing_without_targets_has_no_scores(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    change_columns(directory / "tournament.parquet", target=np.full(1_000, np.nan, dtype=np.float32))
    write_models(directory, svm=informed(directory, 0.5), xgboost=informed(directory, 0.9))
    ensembles = runner.run("ensemble")
    assert ensembles.code == 0, ensembles.lines
    selection = ensembles.report["chosen"]["ensemble_selection"]
    assert selection["weights"] == {"svm": 0.5, "xgboost": 0.5}
    assert "0 eras have known targets" in selection["equal_weights_because"]
    finished = assert_preprocessed(runner.run("evaluate"))
    assert any("no row has a known target" in note for note in finished.report["notes"])
    row = leaderboard_rows(directory)["svm"]
    assert {row[score] for score in ("corr", "sharpe", "logloss", "consistency", "feature_exposure")} == {None}
    assert row["concordance"] is not None
    assert (read_leaderboard(directory)["rows"], read_leaderboard(directory)["eras"]) == (0, 0)


def test_evaluate_hidden_targets_are_not_used_by_the_ensemble(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory, five_bins, graded)
    table = read_tournament(directory)
    truth = np.random.default_rng(3).integers(0, 5, 200) / 4
    write_models(
        directory,
        knowing=np.concatenate([informed(directory, 0.9)[:800], 0.1 + truth * 0.8]),
        other=informed(directory, 0.8),
    )
    before = runner.run("ensemble").report["chosen"]
    # the hidden week with its era, an unknown row, and one validation row with another target
    ids = [*table["id"].to_pylist()[800:], "unknown_row", table["id"].to_pylist()[0]]
    hidden = {"id": ids, "era": ["0091"] * 201 + ["era70"], "target": [*truth, 1.0, 0.25]}
    pq.write_table(pa.table(hidden), directory / "targets.parquet")
    assert runner.run("ensemble").report["chosen"] == before
    assert_preprocessed(runner.run("evaluate"))
    eras = {era["era"]: era for era in read_report(directory, "knowing")["by_era"]}
    assert (eras[91]["rows"], eras[70]["rows"], len(eras)) == (200, 40, 21)
    assert eras[91]["corr"] > 0.9
    in_era = np.array(table["era"].to_pylist()) == "era70"
    targets = table["target"].to_numpy()[in_era].astype(np.float64)
    targets[0] = 0.25
    predictions = pa_csv.read_csv(directory / "predictions/knowing.csv")["prediction"].to_numpy()[in_era]
    assert_equal(eras[70]["corr"], corr_by_definition(predictions, targets))


def test_evaluate_invalid_hidden_targets_exit_with_65(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    write_models(directory, svm=informed(directory, 0.5))
    pq.write_table(pa.table({"id": ["to00001"], "era": ["91"], "target": [7.0]}), directory / "targets.parquet")
    finished = runner.run("evaluate")
    assert finished.code == 65
    assert "targets.parquet: column 'target' has values outside [0, 1]" in finished.lines[-1]


def test_post_processing_second_run_is_equal_and_removes_reports(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    write_models(directory, svm=informed(directory, 0.5), xgboost=informed(directory, 0.9))
    for operation in ("ensemble", "evaluate"):
        assert runner.run(operation).code == 0
    files = [
        path
        for path in directory.rglob("*")
        if path.suffix in (".json", ".csv") and path.stem not in ("ensemble", "evaluate")
    ]
    before = {path: path.read_bytes() for path in files if not path.name.startswith(("ensemble.", "evaluate."))}
    for operation in ("ensemble", "evaluate"):
        assert runner.run(operation).code == 0
    assert {path: path.read_bytes() for path in before} == before
    (directory / "predictions" / "xgboost.csv.manifest.json").unlink()
    assert runner.run("evaluate").code == 0
    assert "xgboost" not in leaderboard_rows(directory)
    assert not list((directory / "reports" / "evaluation").glob("xgboost*"))


def read_ensemble(directory: Path, name: str) -> dict[str, float]:
    header, *rows = csv.reader((directory / "predictions" / f"ensemble_{name}.csv").read_text().splitlines())
    assert header == ["id", "prediction"]
    assert [row[0] for row in rows] == read_tournament(directory)["id"].to_pylist()
    assert all(0 < float(row[1]) < 1 for row in rows)
    return {row[0]: float(row[1]) for row in rows}


def test_ensemble_geometric_mean_is_symmetric(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    models = [informed(directory, weight, seed).round(9) for weight, seed in ((0.2, 1), (0.5, 2), (0.9, 3))]
    write_models(directory, **{f"model_{number}": model for number, model in enumerate(models)}, ensemble_selection=0.5)
    assert runner.run("ensemble").code == 0
    of_one, of_zero = (np.prod(side, axis=0) ** (1 / 3) for side in (models, [1 - model for model in models]))
    found = np.array(list(read_ensemble(directory, "geometric_mean").values()))
    assert found == pytest.approx(of_one / (of_one + of_zero), abs=1e-9)


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_ensemble_selection_prefers_informed_models(runner: Runner, kind: str) -> None:
    directory = runner.directory
    write_tables_of(directory, kind)
    # two informed ones with different errors, both overconfident, and three uninformed ones
    odds = {seed: (1 / informed(directory, 0.4, seed) - 1) ** 4 for seed in (1, 2)}
    models = {f"knows_{seed}": 1 / (1 + against) for seed, against in odds.items()}
    write_models(directory, **models, **{f"noise_{seed}": informed(directory, 0.0, seed) for seed in (3, 4, 5)})
    finished = runner.run("ensemble")
    assert finished.code == 0, finished.lines
    selection = finished.report["chosen"]["ensemble_selection"]
    assert selection["weights"]["knows_1"] + selection["weights"]["knows_2"] > 0.6
    assert selection["selected_on"]["eras"] == list(range(70, 90, 2))
    assert selection["scored_on"]["eras"] == list(range(71, 90, 2))
    assert selection["scored_on"]["gain"] > 0
    weights = {
        name: selection["selected"].count(name) / len(selection["selected"]) for name in set(selection["selected"])
    }
    assert {name: round(weight, 6) for name, weight in weights.items()} == {
        name: weight for name, weight in selection["weights"].items() if weight
    }
    table = read_tournament(directory)
    groups = np.array(
        [f"{era} {kind}" for era, kind in zip(*(table[name].to_pylist() for name in ("era", "data_type")), strict=True)]
    )
    blend = np.zeros(1_000)
    for name, weight in weights.items():
        values = pa_csv.read_csv(directory / "predictions" / f"{name}.csv")["prediction"].to_numpy()
        if kind == "graded":
            for group in set(groups):
                in_era = groups == group
                blend[in_era] += weight * (mean_ranks(values[in_era]) - 0.5) / in_era.sum()
        else:
            blend += weight * values
    assert np.array(list(read_ensemble(directory, "selection").values())) == pytest.approx(blend, abs=1e-9)
    assert_preprocessed(runner.run("evaluate"))
    rows = leaderboard_rows(directory)
    assert rows["ensemble_selection"]["kind"] == "ensemble"
    assert rows["ensemble_selection"]["rank"] < min(rows[name]["rank"] for name in rows if name.startswith("noise"))


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_ensemble_selection_uninformed_models_have_no_gain(runner: Runner, kind: str) -> None:
    directory = runner.directory
    write_tables_of(directory, kind)
    change_columns(
        directory / "tournament.parquet",
        target=np.random.default_rng(6).permutation(read_tournament(directory)["target"].to_numpy()[:800]).tolist()
        + [math.nan] * 200,
    )
    random = np.random.default_rng(9)
    write_models(directory, **{f"noise_{number:02}": 0.5 + 0.05 * random.uniform(-1, 1, 1_000) for number in range(16)})
    finished = runner.run("ensemble")
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


def test_ensemble_selection_equals_an_exhaustive_greedy_search(runner: Runner) -> None:
    found = run_program(runner, "selections.py")
    assert len(found) == 4
    assert all(ours == expected for ours, expected in found), found
    assert any(len(set(ours)) > 1 and len(ours) > len(set(ours)) for ours, _ in found)


def hide_all_but_one_era(directory: Path) -> None:
    table = read_tournament(directory)
    targets = np.where(np.array(table["era"].to_pylist()) == "era75", table["target"].to_numpy(), np.nan)
    change_columns(directory / "tournament.parquet", target=targets)


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
    write_tables(directory)
    prepare(directory)
    write_models(directory, **{name: informed(directory, weight) for name, weight in models.items()})
    finished = runner.run("ensemble")
    assert finished.code == 0, finished.lines
    selection = finished.report["chosen"]["ensemble_selection"]
    assert set(selection["weights"].values()) == {1 / len(models)}
    assert reason in selection["equal_weights_because"]
    assert any(reason in note for note in finished.report["notes"])
    assert len(read_ensemble(directory, "selection")) == len(read_ensemble(directory, "geometric_mean")) == 1_000


def test_post_processing_constant_models_succeed(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory, five_bins, graded)
    write_models(directory, svm=0.4, xgboost=0.6)
    finished = runner.run("ensemble")
    assert finished.code == 0, finished.lines
    selection = finished.report["chosen"]["ensemble_selection"]
    assert selection["weights"] == {"svm": 0.5, "xgboost": 0.5}
    assert "no model has a score" in selection["equal_weights_because"]
    assert set(read_ensemble(directory, "geometric_mean").values()) == {0.5}
    assert_preprocessed(runner.run("evaluate"))
    assert {row["corr"] for row in leaderboard_rows(directory).values()} == {None}


def test_post_processing_real_rows_equal_numerai_tools(runner: Runner, real_archive: Path) -> None:
    directory = runner.directory
    with zipfile.ZipFile(real_archive) as archive:
        for name in ("training", "tournament"):
            table = pa_csv.read_csv(io.BytesIO(archive.read(f"numerai_{name}_data.csv")))
            numbers = {name: pa.float32() for name in table.column_names if name.startswith(("feature", "target"))}
            schema = pa.schema([(field.name, numbers.get(field.name, field.type)) for field in table.schema])
            pq.write_table(table.cast(schema), directory / f"{name}.parquet")
    rows = len(read_tournament(directory))
    random = np.random.default_rng(2)
    write_models(directory, one=random.uniform(0.45, 0.55, rows), other=random.uniform(0.49, 0.51, rows))
    assert runner.run("ensemble").code == 0
    assert_preprocessed(runner.run("evaluate"))
    found, ours = run_program(runner, "numerai_scores.py"), leaderboard_rows(directory)
    for name in ("one", "other", "ensemble_geometric_mean", "ensemble_selection"):
        assert (ours[name]["rows"], ours[name]["eras"]) == (382, 12)
        for score in ("logloss", "consistency", "corr"):
            assert_equal(ours[name][score], found[name][score])
