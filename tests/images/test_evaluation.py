"""What comes after the models: scores that are Numerai's, a leaderboard, and ensembles whose gain is no hindsight."""

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
from tests.images.conftest import Runner, five_bins, graded, inside, prepared, write_tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "evaluation"
REFERENCE = "constant_half"


def change(path: Path, **columns: Any) -> None:
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, path)


def tables(directory: Path, kind: str) -> None:
    """Write tables with targets of this kind, binary or graded."""
    if kind == "graded":
        write_tables(directory, five_bins, graded)
    else:
        write_tables(directory)


def tournament(directory: Path) -> pa.Table:
    return pq.read_table(directory / "tournament.parquet")


def lay(directory: Path, **models: NDArray[np.float64] | float) -> None:
    """Lay the predictions of models; a number stands for the same prediction of every row."""
    ids = tournament(directory)["id"]
    for name, values in models.items():
        write_predictions(directory / "predictions" / f"{name}.csv", ids, np.broadcast_to(values, len(ids)), None)
    directory.joinpath("predictions").chmod(0o777)


def leaning(directory: Path, weight: float, seed: int = 0) -> NDArray[np.float64]:
    """Predictions that know what the target leans on, more or less."""
    table = tournament(directory)
    features = np.column_stack([table[f"feature{number}"].to_numpy() for number in range(1, 5)]).astype(np.float64)
    lean = features @ np.array([1, -1, 1, -1]) / np.max(features)
    noise = np.random.default_rng(seed).normal(0, 0.5, len(table))
    return np.asarray(1 / (1 + np.exp(-(weight * lean + (1 - weight) * noise))))


def board(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "leaderboard.json").read_text())
    for name in ("leaderboard.json", "leaderboard.csv"):
        assert (directory / f"{name}.manifest.json").is_file()
    return found


def rows_of(directory: Path) -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in board(directory)["models"]}


def report_of(directory: Path, model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "reports" / "evaluation" / f"{model}.json").read_text())
    assert (directory / "reports" / "evaluation" / f"{model}.json.manifest.json").is_file()
    return found


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean ranks from 1, counted one by one."""
    below = (values[:, np.newaxis] > values).sum(axis=1)
    return np.asarray(below + ((values[:, np.newaxis] == values).sum(axis=1) + 1) / 2)


def corr_by_definition(predictions: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    uniform = (ranks(predictions) - 0.5) / len(predictions)
    normal = np.array([NormalDist().inv_cdf(value) for value in uniform])
    centred = targets - targets.mean()
    first, second = (np.sign(side) * np.abs(side) ** 1.5 for side in (normal, centred))
    return float(np.corrcoef(first, second)[0, 1])


def hard_tables(directory: Path, kind: str) -> None:
    """Tables with unknown targets, an era of one row, one of a single target; models with ties, and a constant one."""
    tables(directory, kind)
    table = tournament(directory)
    random = np.random.default_rng(11)
    eras, targets = np.array(table["era"].to_pylist()), table["target"].to_numpy().copy()
    targets[(random.random(len(table)) < 0.1) & (eras != "eraX")] = np.nan
    alone = np.flatnonzero((eras == "era88") & ~np.isnan(targets))
    targets[alone[1:]] = np.nan
    targets[(eras == "era87") & ~np.isnan(targets)] = 1
    change(directory / "tournament.parquet", target=targets)
    tied = np.round(leaning(directory, 0.5, seed=3), 1).clip(0.1, 0.9)
    lay(directory, knowing=leaning(directory, 0.9), guessing=leaning(directory, 0.0, seed=2), tied=tied, constant=0.4)


def assert_as_found(ours: Any, theirs: Any) -> None:
    assert ours == (None if theirs is None else pytest.approx(theirs, abs=1e-9, rel=0))


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_scores_are_those_of_numerai_tools_and_scikit_learn(runner: Runner, kind: str) -> None:
    directory = runner.directory
    hard_tables(directory, kind)
    ids = tournament(directory)["id"].to_pylist()
    random = np.random.default_rng(4)
    meta = {"id": ids[:700], "era": ["x"] * 700, "numerai_meta_model": random.random(700)}
    pq.write_table(pa.table(meta), directory / "meta_model.parquet")
    # in another order, and with rows nobody asked for
    benchmark = {"id": [*ids[::-1], "more"], "v5_lgbm": random.random(len(ids) + 1)}
    pq.write_table(pa.table(benchmark), directory / "benchmark_models.parquet")
    prepared(runner.run("evaluate"))
    found, rows = inside(runner, "numerai_scores.py"), rows_of(directory)
    compared = 0
    for name in ("knowing", "guessing", "tied", "constant"):
        for score in ("corr", "sharpe", "logloss", "consistency"):
            assert_as_found(rows[name][score], found[name].get(score))
        report = report_of(directory, name)
        assert len(report["by_era"]) == 20
        for era in report["by_era"]:
            theirs = found[name]["eras"][f"era{era['era']}"]
            single = era["era"] in (87, 88)  # one target, one row: no correlation, and numerai-tools has NaN or fails
            assert single <= (era["corr"] is None)
            for score in ("logloss",) if single else ("corr", "mmc", "bmc", "feature_exposure", "logloss"):
                # of a constant numerai-tools says that it contributes 0
                if name != "constant" or score == "logloss":
                    assert_as_found(era[score], theirs.get(score))
                    compared += era[score] is not None
            if name != "constant" and not single:
                assert era["most_exposed_to"] == theirs["most_exposed_to"]
    assert compared > (250 if kind == "binary" else 200)
    assert rows["constant"]["corr"] is None
    assert (rows["tied"]["logloss"] is None) == (kind == "graded")


@pytest.mark.parametrize("rest", [None, np.nan], ids=["null", "NaN"])
def test_evaluate_benchmark_without_values_does_not_change_bmc(runner: Runner, rest: float | None) -> None:
    directory = runner.directory
    hard_tables(directory, "graded")
    ids = tournament(directory)["id"].to_pylist()
    path, values = directory / "benchmark_models.parquet", np.random.default_rng(4).random(len(ids))
    found = []
    for more in ({}, {"v6_new": pa.array([rest] * len(ids), pa.float64())}):
        pq.write_table(pa.table({"id": ids, "v5_lgbm": values, **more}), path)
        prepared(runner.run("evaluate"))
        found.append({name: row["bmc"] for name, row in rows_of(directory).items()})
    assert found[0]["knowing"] is not None
    assert found[0] == found[1]
    pq.write_table(pa.table({"id": ids, "v6_new": pa.array([rest] * len(ids), pa.float64())}), path)
    prepared(runner.run("evaluate"))
    assert {row["bmc"] for row in rows_of(directory).values()} == {None}


def test_scores_are_what_they_are_defined_to_be(runner: Runner) -> None:
    directory = runner.directory
    hard_tables(directory, "binary")
    prepared(runner.run("evaluate"))
    table = tournament(directory)
    eras, targets = np.array(table["era"].to_pylist()), table["target"].to_numpy().astype(np.float64)
    for name in ("knowing", "tied"):
        path = directory / "predictions" / f"{name}.csv"
        predictions = pa_csv.read_csv(path)["prediction"].to_numpy()
        row, by_era = rows_of(directory)[name], report_of(directory, name)["by_era"]
        correlations, losses = [], []
        for era in by_era:
            mine = (eras == f"era{era['era']}") & ~np.isnan(targets)
            given = np.where(targets[mine] == 1, predictions[mine], 1 - predictions[mine])
            losses.append(-np.log(given))
            assert_as_found(era["logloss"], losses[-1].mean())
            if era["era"] < 87:
                correlations.append(corr_by_definition(predictions[mine], targets[mine]))
                assert_as_found(era["corr"], correlations[-1])
        rest = [era["corr"] for era in by_era if era["era"] == 89]
        series = np.array([*correlations, *rest])
        running = np.cumsum([0, *series])
        falls = [running[: place + 1].max() - running[place] for place in range(len(running))]
        assert_as_found(row["corr"], series.mean())
        assert_as_found(row["corr_std"], series.std())
        assert_as_found(row["max_drawdown"], max(falls))
        assert_as_found(row["positive_eras"], (series > 0).mean())
        assert_as_found(row["logloss"], np.concatenate(losses).mean())
        assert_as_found(row["consistency"], np.mean([loss.mean() < math.log(2) for loss in losses]))
        assert (row["eras"], row["rows"]) == (18, int((~np.isnan(targets)).sum()))


def test_exposure_counts_missing_features_as_their_mean(runner: Runner) -> None:
    def spoil(matrix: NDArray[Any]) -> NDArray[Any]:
        holed = matrix.copy()
        holed[np.random.default_rng(1).random(matrix.shape) < 0.2] = np.nan
        holed[:, 10], holed[:, 11] = 0.3, np.nan
        return holed

    directory = runner.directory
    write_tables(directory, spoil=spoil)
    lay(directory, random=np.random.default_rng(7).uniform(0.1, 0.9, 1_000))
    prepared(runner.run("evaluate"))
    table = tournament(directory)
    features = np.column_stack([table[f"feature{number}"].to_numpy() for number in range(1, 51)]).astype(np.float64)
    predictions = pa_csv.read_csv(directory / "predictions" / "random.csv")["prediction"].to_numpy()
    for era in report_of(directory, "random")["by_era"]:
        mine = np.array(table["era"].to_pylist()) == f"era{era['era']}"
        filled = features[mine]
        usable = [column for column in range(50) if column not in (10, 11)]
        means = np.nanmean(filled[:, usable], axis=0)
        filled = np.where(np.isnan(filled[:, usable]), means, filled[:, usable])
        correlations = [abs(np.corrcoef(column, predictions[mine])[0, 1]) for column in filled.T]
        assert_as_found(era["feature_exposure"], max(correlations))
        assert era["most_exposed_to"] == f"feature{usable[int(np.argmax(correlations))] + 1}"


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_the_best_comes_first_and_references_take_part(runner: Runner, kind: str) -> None:
    directory = runner.directory
    tables(directory, kind)
    lay(directory, a_guess=leaning(directory, 0.0, seed=2), best=leaning(directory, 1.0), good=leaning(directory, 0.7))
    example = {"id": tournament(directory)["id"].to_pylist()[:500], "probability": leaning(directory, 0.8)[:500]}
    pa_csv.write_csv(pa.table(example), directory / "example_predictions.csv")
    ended = prepared(runner.run("evaluate", INPUTS="0f3a"))
    found = board(directory)
    assert (found["target"], found["sorted_by"]) == (kind, "corr" if kind == "graded" else "logloss")
    models = [row["model"] for row in found["models"]]
    assert models[0] == "best"
    assert models.index("good") < models.index("a_guess")
    assert set(models) == {"best", "good", "a_guess", REFERENCE, "example_predictions"}
    assert [row["rank"] for row in found["models"]] == [1, 2, 3, 4, 5]
    rows = rows_of(directory)
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
    assert ended.report["chosen"]["best"] == "best"
    distribution = report_of(directory, "best")["distribution"]
    assert [sum(distribution[part]) for part in ("validation", "test", "live")] == [800, 150, 50]


def test_copies_and_models_that_do_not_agree_with_themselves_are_found(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    model = leaning(directory, 0.3, seed=1)
    copy = (0.8 * model + 0.1 + 1e-3 * leaning(directory, 0.0)).clip(0.01, 0.99)
    shifted = leaning(directory, 0.3, seed=5)
    shifted[800:950] = 0.5 + shifted[800:950] / 2.1
    lay(directory, model=model, copy=copy, shifted=shifted, ensemble_of_one=model)
    prepared(runner.run("evaluate"))
    rows = rows_of(directory)
    by_definition = np.corrcoef(ranks(model.round(9)), ranks(copy.round(9)))[0, 1]
    assert_as_found(rows["model"]["originality"], by_definition)
    assert (rows["model"]["most_like"], rows["model"]["original"]) == ("copy", False)
    assert rows["shifted"]["original"] is True
    # an ensemble of models is like them: that makes it no original, and them no copies
    assert (rows["ensemble_of_one"]["kind"], rows["ensemble_of_one"]["original"]) == ("ensemble", False)
    assert rows["model"]["concordant"] is True
    assert rows["shifted"]["concordant"] is False
    steps = np.sort(shifted.round(9))
    parts = [
        np.searchsorted(np.sort(shifted[part].round(9)), steps, side="right") / len(shifted[part])
        for part in (slice(800), slice(800, 950), slice(950, None))
    ]
    largest = max(np.abs(parts[one] - parts[other]).max() for one, other in ((0, 1), (0, 2), (1, 2)))
    assert_as_found(rows["shifted"]["concordance"], largest)
    found = board(directory)["rank_correlations"]
    place = {name: number for number, name in enumerate(found["models"])}
    assert_as_found(found["matrix"][place["copy"]][place["model"]], by_definition)


def damage(directory: Path) -> dict[str, str]:
    """Lay predictions, each damaged in another way; what the leaderboard should say of each."""
    folder = directory / "predictions"
    names = ("unfinished", "cut", "twice", "outside", "other_words", "no_csv", "no_manifest", "empty")
    lay(directory, **{name: leaning(directory, 0.5) for name in names})
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
    rewrite("other_words", text.replace("prediction", "guess"))
    rewrite("no_csv", "id,prediction\na,b,c\n\0")
    rewrite("empty", "")
    (folder / "no_manifest.csv.manifest.json").write_text("{")
    return {
        "unfinished": "no manifest",
        "cut": "its content is not what its manifest",
        "twice": "each id of tournament.parquet once",
        "outside": "strictly between 0 and 1",
        "other_words": "'id,guess'",
        "no_csv": "cannot be read as CSV",
        "empty": "cannot be read as CSV",
        "no_manifest": "not a manifest",
    }


def test_damaged_predictions_are_left_out_and_named(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    expected = damage(directory)
    lay(directory, whole=leaning(directory, 0.5))
    (directory / "predictions" / ".whole.csv.0f3a.part").write_text("id,pred")
    (directory / "meta_model.parquet").write_text("no parquet")
    for operation in ("ensemble", "evaluate"):
        ended = runner.run(operation)
        assert ended.code == 0, ended.lines
        for name, why in expected.items():
            assert any(f"left out: {name} " in note and why in note for note in ended.report["notes"]), name
    assert set(board(directory)["left_out"]) == set(expected)
    assert any("meta_model.parquet" in note for note in ended.report["notes"])
    assert set(rows_of(directory)) == {"whole", "ensemble_geometric_mean", "ensemble_selection", REFERENCE}


@pytest.mark.parametrize("operation", ["evaluate", "ensemble"])
def test_without_a_model_there_is_nothing_to_do(runner: Runner, operation: str) -> None:
    directory = runner.directory
    write_tables(directory)
    ended = runner.run(operation)
    assert ended.code == 66
    assert "no model has left predictions (the folder is empty). Run at least one model first." in ended.lines[-1]
    damage(directory)
    ended = runner.run(operation)
    assert ended.code == 66
    assert "outside.csv: its predictions do not all lie" in ended.lines[-1]


def test_without_known_targets_there_are_no_scores_and_it_says_so(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    change(directory / "tournament.parquet", target=np.full(1_000, np.nan, dtype=np.float32))
    lay(directory, svm=leaning(directory, 0.5), xgboost=leaning(directory, 0.9))
    ensembles = runner.run("ensemble")
    assert ensembles.code == 0, ensembles.lines
    selection = ensembles.report["chosen"]["ensemble_selection"]
    assert selection["weights"] == {"svm": 0.5, "xgboost": 0.5}
    assert "0 eras have known targets" in selection["equal_weights_because"]
    ended = prepared(runner.run("evaluate"))
    assert any("no row has a known target" in note for note in ended.report["notes"])
    row = rows_of(directory)["svm"]
    assert {row[score] for score in ("corr", "sharpe", "logloss", "consistency", "feature_exposure")} == {None}
    assert row["concordance"] is not None
    assert (board(directory)["rows"], board(directory)["eras"]) == (0, 0)


def test_hidden_targets_are_for_the_evaluation_alone(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory, five_bins, graded)
    table = tournament(directory)
    truth = np.random.default_rng(3).integers(0, 5, 200) / 4
    lay(
        directory,
        knowing=np.concatenate([leaning(directory, 0.9)[:800], 0.1 + truth * 0.8]),
        other=leaning(directory, 0.8),
    )
    before = runner.run("ensemble").report["chosen"]
    # the hidden week, told its era; and one row of validation, told otherwise
    ids = [*table["id"].to_pylist()[800:], "somebody_elses", table["id"].to_pylist()[0]]
    hidden = {"id": ids, "era": ["0091"] * 201 + ["era70"], "target": [*truth, 1.0, 0.25]}
    pq.write_table(pa.table(hidden), directory / "targets.parquet")
    assert runner.run("ensemble").report["chosen"] == before
    prepared(runner.run("evaluate"))
    eras = {era["era"]: era for era in report_of(directory, "knowing")["by_era"]}
    assert (eras[91]["rows"], eras[70]["rows"], len(eras)) == (200, 40, 21)
    assert eras[91]["corr"] > 0.9
    mine = np.array(table["era"].to_pylist()) == "era70"
    targets = table["target"].to_numpy()[mine].astype(np.float64)
    targets[0] = 0.25
    predictions = pa_csv.read_csv(directory / "predictions/knowing.csv")["prediction"].to_numpy()[mine]
    assert_as_found(eras[70]["corr"], corr_by_definition(predictions, targets))


def test_hidden_targets_that_are_no_targets_are_bad_data(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    lay(directory, svm=leaning(directory, 0.5))
    pq.write_table(pa.table({"id": ["to00001"], "era": ["91"], "target": [7.0]}), directory / "targets.parquet")
    ended = runner.run("evaluate")
    assert ended.code == 65
    assert "targets.parquet: column 'target' has values outside [0, 1]" in ended.lines[-1]


def test_the_same_twice_and_without_what_is_gone(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    lay(directory, svm=leaning(directory, 0.5), xgboost=leaning(directory, 0.9))
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
    assert "xgboost" not in rows_of(directory)
    assert not list((directory / "reports" / "evaluation").glob("xgboost*"))


def ensemble_of(directory: Path, name: str) -> dict[str, float]:
    header, *rows = csv.reader((directory / "predictions" / f"ensemble_{name}.csv").read_text().splitlines())
    assert header == ["id", "prediction"]
    assert [row[0] for row in rows] == tournament(directory)["id"].to_pylist()
    assert all(0 < float(row[1]) < 1 for row in rows)
    return {row[0]: float(row[1]) for row in rows}


def test_the_geometric_mean_treats_both_outcomes_alike(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory)
    models = [leaning(directory, weight, seed).round(9) for weight, seed in ((0.2, 1), (0.5, 2), (0.9, 3))]
    lay(directory, **{f"model_{number}": model for number, model in enumerate(models)}, ensemble_selection=0.5)
    assert runner.run("ensemble").code == 0
    of_one, of_zero = (np.prod(side, axis=0) ** (1 / 3) for side in (models, [1 - model for model in models]))
    found = np.array(list(ensemble_of(directory, "geometric_mean").values()))
    assert found == pytest.approx(of_one / (of_one + of_zero), abs=1e-9)


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_the_selection_prefers_who_knows_and_gains(runner: Runner, kind: str) -> None:
    directory = runner.directory
    tables(directory, kind)
    # two that know and err differently, both too sure of themselves, and three that know nothing
    odds = {seed: (1 / leaning(directory, 0.4, seed) - 1) ** 4 for seed in (1, 2)}
    models = {f"knows_{seed}": 1 / (1 + against) for seed, against in odds.items()}
    lay(directory, **models, **{f"noise_{seed}": leaning(directory, 0.0, seed) for seed in (3, 4, 5)})
    ended = runner.run("ensemble")
    assert ended.code == 0, ended.lines
    told = ended.report["chosen"]["ensemble_selection"]
    assert told["weights"]["knows_1"] + told["weights"]["knows_2"] > 0.6
    assert told["chosen_on"]["eras"] == list(range(70, 90, 2))
    assert told["scored_on"]["eras"] == list(range(71, 90, 2))
    assert told["scored_on"]["gain"] > 0
    weights = {name: told["picked"].count(name) / len(told["picked"]) for name in set(told["picked"])}
    assert {name: round(weight, 6) for name, weight in weights.items()} == {
        name: weight for name, weight in told["weights"].items() if weight
    }
    table = tournament(directory)
    groups = np.array(
        [f"{era} {kind}" for era, kind in zip(*(table[name].to_pylist() for name in ("era", "data_type")), strict=True)]
    )
    blend = np.zeros(1_000)
    for name, weight in weights.items():
        values = pa_csv.read_csv(directory / "predictions" / f"{name}.csv")["prediction"].to_numpy()
        if kind == "graded":
            for group in set(groups):
                mine = groups == group
                blend[mine] += weight * (ranks(values[mine]) - 0.5) / mine.sum()
        else:
            blend += weight * values
    assert np.array(list(ensemble_of(directory, "selection").values())) == pytest.approx(blend, abs=1e-9)
    prepared(runner.run("evaluate"))
    rows = rows_of(directory)
    assert rows["ensemble_selection"]["kind"] == "ensemble"
    assert rows["ensemble_selection"]["rank"] < min(rows[name]["rank"] for name in rows if name.startswith("noise"))


@pytest.mark.parametrize("kind", ["graded", "binary"])
def test_among_models_that_know_nothing_the_reported_gain_is_about_nothing(runner: Runner, kind: str) -> None:
    directory = runner.directory
    tables(directory, kind)
    change(
        directory / "tournament.parquet",
        target=np.random.default_rng(6).permutation(tournament(directory)["target"].to_numpy()[:800]).tolist()
        + [math.nan] * 200,
    )
    random = np.random.default_rng(9)
    lay(directory, **{f"noise_{number:02}": 0.5 + 0.05 * random.uniform(-1, 1, 1_000) for number in range(16)})
    ended = runner.run("ensemble")
    assert ended.code == 0, ended.lines
    told = ended.report["chosen"]["ensemble_selection"]
    chosen_on, scored_on = told["chosen_on"], told["scored_on"]
    # 400 rows a half: CORR of noise has a standard error of .05; sixteen models have hindsight of about twice that
    if kind == "graded":
        assert chosen_on["score"] > 0.1
        assert abs(scored_on["score"]) < 0.1
        assert chosen_on["gain"] > 0
        assert scored_on["gain"] < chosen_on["gain"] / 2
    else:
        assert chosen_on["score"] < math.log(2) - 0.001
        assert scored_on["score"] > math.log(2) - 0.0005
    assert not set(chosen_on["eras"]) & set(scored_on["eras"])


def test_selection_is_that_of_trying_every_addition(runner: Runner) -> None:
    found = inside(runner, "selections.py")
    assert len(found) == 4
    assert all(ours == plainly for ours, plainly in found), found
    assert any(len(set(ours)) > 1 and len(ours) > len(set(ours)) for ours, _ in found)


def keep_one_era(directory: Path) -> None:
    table = tournament(directory)
    targets = np.where(np.array(table["era"].to_pylist()) == "era75", table["target"].to_numpy(), np.nan)
    change(directory / "tournament.parquet", target=targets)


@pytest.mark.parametrize(
    ("models", "prepare", "says"),
    [
        ({"svm": 1.0}, lambda _: None, "svm is the only model"),
        ({"svm": 1.0, "xgboost": 0.5}, keep_one_era, "1 eras have known targets"),
    ],
)
def test_where_nothing_can_be_chosen_weights_are_equal_and_it_says_why(
    runner: Runner, models: dict[str, float], prepare: Callable[[Path], None], says: str
) -> None:
    directory = runner.directory
    write_tables(directory)
    prepare(directory)
    lay(directory, **{name: leaning(directory, weight) for name, weight in models.items()})
    ended = runner.run("ensemble")
    assert ended.code == 0, ended.lines
    told = ended.report["chosen"]["ensemble_selection"]
    assert set(told["weights"].values()) == {1 / len(models)}
    assert says in told["equal_weights_because"]
    assert any(says in note for note in ended.report["notes"])
    assert len(ensemble_of(directory, "selection")) == len(ensemble_of(directory, "geometric_mean")) == 1_000


def test_constant_models_make_constant_ensembles_and_no_trouble(runner: Runner) -> None:
    directory = runner.directory
    write_tables(directory, five_bins, graded)
    lay(directory, svm=0.4, xgboost=0.6)
    ended = runner.run("ensemble")
    assert ended.code == 0, ended.lines
    told = ended.report["chosen"]["ensemble_selection"]
    assert told["weights"] == {"svm": 0.5, "xgboost": 0.5}
    assert "no model has a score" in told["equal_weights_because"]
    assert set(ensemble_of(directory, "geometric_mean").values()) == {0.5}
    prepared(runner.run("evaluate"))
    assert {row["corr"] for row in rows_of(directory).values()} == {None}


def test_on_real_rows_of_2017(runner: Runner, real_archive: Path) -> None:
    directory = runner.directory
    with zipfile.ZipFile(real_archive) as archive:
        for name in ("training", "tournament"):
            table = pa_csv.read_csv(io.BytesIO(archive.read(f"numerai_{name}_data.csv")))
            numbers = {name: pa.float32() for name in table.column_names if name.startswith(("feature", "target"))}
            schema = pa.schema([(field.name, numbers.get(field.name, field.type)) for field in table.schema])
            pq.write_table(table.cast(schema), directory / f"{name}.parquet")
    rows = len(tournament(directory))
    random = np.random.default_rng(2)
    lay(directory, one=random.uniform(0.45, 0.55, rows), other=random.uniform(0.49, 0.51, rows))
    assert runner.run("ensemble").code == 0
    prepared(runner.run("evaluate"))
    found, ours = inside(runner, "numerai_scores.py"), rows_of(directory)
    for name in ("one", "other", "ensemble_geometric_mean", "ensemble_selection"):
        assert (ours[name]["rows"], ours[name]["eras"]) == (382, 12)
        for score in ("logloss", "consistency", "corr"):
            assert_as_found(ours[name][score], found[name][score])
