"""Reading of run directories: finished, unfinished, damaged and hostile ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from numerai_pipeline.leaderboard.maps import MOST_ROWS, EmbeddingError, embedding_points, embedding_rows, tables_of
from numerai_pipeline.leaderboard.run_view import MEANS, MOST_BINS, read_run
from numerai_pipeline.leaderboard.runs import find_run, list_runs, run_of_dag_run
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.task_records import remove_record
from numerai_pipeline.storage.used_objects import RunRef
from tests.generated_results import add_task, write_json
from tests.generated_run import DAG_RUN, ENSEMBLES, FORMULA, FOUR_MAPS, MODELS, make_run


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def row_of(board: dict[str, Any], model: str) -> dict[str, Any]:
    return next(row for row in board["models"] if row["model"] == model)


def test_list_runs_newest_round_comes_first(tmp_path: Path) -> None:
    small: dict[str, Any] = {"tables": False, "models": ("svm",)}
    for name in ("999", "1335", "archive"):
        make_run(tmp_path, name, **small)
    older = make_run(tmp_path, "1335", seed=5, **small)
    for path in (older.run_metadata, older.leaderboard):
        os.utime(path, (1, 1))
    listed = list_runs(tmp_path)
    assert [run["round"] for run in listed] == ["1335", "1335", "999", "archive"]
    assert listed[1]["run"] == older.directory.name
    assert listed[0]["models"] == 6
    assert listed[1]["best"] == json.loads(older.leaderboard.read_text())["models"][0]["model"]
    assert listed[0]["source"] == "practice"


def test_list_runs_and_board_name_the_stable(tmp_path: Path) -> None:
    names = {"numerai_tournament": "tournament", "numerai_weekday": "weekday"}
    layouts: dict[RunLayout, str | None] = {
        make_run(tmp_path, tables=False, seed=seed, dag_run=RunRef(dag, DAG_RUN.run)): stable
        for seed, (dag, stable) in enumerate(names.items())
    }
    layouts[make_run(tmp_path, tables=False, seed=5, former=True)] = None
    assert {run["run"]: run["stable"] for run in list_runs(tmp_path)} == {
        layout.directory.name: stable for layout, stable in layouts.items()
    }
    for layout, stable in layouts.items():
        assert read_run(layout)["metadata"]["stable"] == stable
    # equal run ids are no obstacle
    for dag, stable in names.items():
        found = run_of_dag_run(tmp_path, dag, DAG_RUN.run)
        assert found is not None
        assert layouts[found] == stable


def test_list_runs_changed_leaderboard_is_read_again(tmp_path: Path) -> None:
    layout = make_run(tmp_path, evaluated=False, tables=False)
    assert list_runs(tmp_path)[0]["models"] is None
    layout.leaderboard.write_text(json.dumps({"models": [{"model": "svm"}]}))
    assert list_runs(tmp_path)[0]["best"] == "svm"


def test_list_runs_without_runs_is_empty(tmp_path: Path) -> None:
    assert list_runs(tmp_path) == []


@pytest.mark.parametrize(
    ("round_name", "run"),
    [
        ("..", "f09bf676d967"),
        ("1335/../1335", "f09bf676d967"),
        (".", "f09bf676d967"),
        ("1335", ".."),
        ("1335", "f09bf676d967/predictions"),
        ("1335", "f09bf676d967\n"),
        ("1335", "F09BF676D967"),
        ("1335", "f09bf676d96"),
        ("", ""),
        ("1335\0", "f09bf676d967"),
        ("१३३५", "f09bf676d967"),
    ],
)
def test_find_run_invalid_name_is_none(tmp_path: Path, round_name: str, run: str) -> None:
    assert make_run(tmp_path, tables=False).directory.name == "f09bf676d967"
    assert find_run(tmp_path, "1335", "f09bf676d967") is not None
    assert find_run(tmp_path, round_name, run) is None


def test_find_run_symbolic_link_is_ignored(tmp_path: Path) -> None:
    layout = make_run(tmp_path / "elsewhere", tables=False)
    rounds = tmp_path / "data" / "rounds"
    (rounds / "1").mkdir(parents=True)
    (rounds / "1" / layout.directory.name).symlink_to(layout.directory)
    (rounds / "2").symlink_to(layout.directory.parent)
    for round_name in ("1", "2"):
        assert find_run(tmp_path / "data", round_name, layout.directory.name) is None
    assert list_runs(tmp_path / "data") == []


def test_run_of_dag_run_is_found_by_its_metadata(tmp_path: Path) -> None:
    mine = make_run(tmp_path, tables=False)
    make_run(tmp_path, seed=5, tables=False, dag_run=RunRef("numerai_tournament", "another"))
    assert run_of_dag_run(tmp_path, DAG_RUN.dag, DAG_RUN.run) == mine
    assert run_of_dag_run(tmp_path, DAG_RUN.dag, "unknown") is None


def test_read_run_finished_has_every_part(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    board = read_run(layout)
    assert board["missing"] == board["problems"] == []
    assert board["evaluated"] is True
    assert [row["rank"] for row in board["models"]] == list(range(1, 14))
    written = json.loads(layout.leaderboard.read_text())["models"]
    assert [row["model"] for row in board["models"]] == [row["model"] for row in written]
    assert board["models"][0]["corr"] == pytest.approx(written[0]["corr"], rel=1e-5)
    assert board["models"][-1]["corr"] is None  # a constant has none
    report = json.loads(layout.report("svm").read_text())
    assert row_of(board, "svm")["seconds"] == pytest.approx(report["seconds"], rel=1e-5)
    assert row_of(board, "svm")["image"].startswith("numerai-classic:")
    assert row_of(board, "svm")["notes"] == report["notes"]
    assert board["metadata"]["features"] == 42
    assert board["metadata"]["training"] == {"rows": 4_800, "eras": 120, "missing": None, "without_target": None}
    assert board["metadata"]["validation"]["rows"] == 6_000
    assert {row["model"] for row in board["other_tasks"]} == {"adversarial_validation", "tsne", "ensemble", "evaluate"}


def test_read_run_ranked_by_the_payout_score_has_its_formula_and_eras(tmp_path: Path) -> None:
    layout = make_run(tmp_path, tables=False, binary=False)
    board = read_run(layout)
    assert (board["sorted_by"], board["benchmark"], board["recent_eras"]) == ("payout", "v53_lgbm_ender60", 52)
    assert board["ranking"] == {"formula": FORMULA, "eras": 30, "first": 151, "last": 180, "fallback": None}
    written = json.loads(layout.leaderboard.read_text())["models"]
    for name in MEANS:
        for score in (name, f"{name}_52_weeks"):
            assert board["models"][0][score] == pytest.approx(written[0][score], rel=1e-5)
    assert board["models"][0]["payout_eras"] == 30
    assert board["ensemble"]["objective"] == f"mean payout score of the eras, {FORMULA}"


def test_read_run_not_ranked_by_the_payout_score_has_the_reason(tmp_path: Path) -> None:
    layout = make_run(tmp_path, tables=False, binary=False)
    reason = "the payout of the round is unknown"
    change(
        layout.leaderboard, sorted_by="corr", ranking={"formula": "mean CORR", "eras": [5, None], "fallback": reason}
    )
    found = read_run(layout)["ranking"]
    assert found == {"formula": "mean CORR", "eras": 1, "first": 5, "last": 5, "fallback": reason}
    # of an earlier release, and of a hostile container
    damaged: tuple[Any, ...] = (None, [], {"formula": [1], "eras": "all", "fallback": {}})
    for ranking in damaged:
        change(layout.leaderboard, ranking=ranking)
        unknown = {"formula": None, "eras": 0, "first": None, "last": None, "fallback": None}
        assert read_run(layout)["ranking"] == unknown


def test_read_run_scores_are_in_the_order_of_the_eras(tmp_path: Path) -> None:
    layout = make_run(tmp_path, tables=False)
    evaluation = layout.evaluation("svm")
    by_era = json.loads(evaluation.read_text())["by_era"]
    for path in evaluation.parent.glob("*.json"):
        change(path, by_era=json.loads(path.read_text())["by_era"][::-1])
    change(evaluation, by_era=[by_era[1], by_era[0]])
    series = read_run(layout)["series"]
    assert series["eras"] == list(range(121, 181))
    assert series["corr"]["svm"][:2] == pytest.approx([by_era[0]["corr"], by_era[1]["corr"]], rel=1e-5)
    assert series["corr"]["svm"][2:] == [None] * 58
    assert None not in series["corr"]["xgboost"]


def test_read_run_many_bins_are_merged_without_losing_rows(tmp_path: Path) -> None:
    layout = make_run(tmp_path, tables=False)
    evaluation = layout.evaluation("svm")
    change(evaluation, distribution={"edges": list(range(131)), "live": [1] * 130})
    content = read_run(layout)["distributions"]["svm"]
    assert len(content["live"]) <= MOST_BINS
    assert sum(content["live"]) == 130
    assert (content["edges"][0], content["edges"][-1]) == (0, 130)
    assert len(content["edges"]) == len(content["live"]) + 1
    change(evaluation, distribution={"edges": [0, 1], "live": [1, 2]})
    assert "svm" not in read_run(layout)["distributions"]


def test_read_run_searches_have_their_results(tmp_path: Path) -> None:
    searches = {search["model"]: search for search in read_run(make_run(tmp_path, tables=False))["searches"]}
    assert set(searches) == {"auto_sklearn", "auto_weka", "tpot"}
    sklearn, weka, tpot = (searches[name] for name in ("auto_sklearn", "auto_weka", "tpot"))
    assert [(found["learner"], found["weight"]) for found in sklearn["found"]] == [
        ("gradient_boosting", 0.7),
        ("mlp", 0.3),
    ]
    assert sklearn["measure"] == "held-out logloss"
    assert sklearn["trajectory"][-1] == [40.2, 0.69129]
    assert ["timed out", 2.0] in sklearn["counts"]
    assert len(sklearn["tried"]) == 4
    assert weka["found"][0]["learner"] == "weka.classifiers.bayes.BayesNet"
    assert weka["measure"] == "rmse"
    assert ["failed runs", 1.0] in weka["counts"]
    assert tpot["found"][0]["learner"] == "SelectPercentile → LogisticRegression"
    assert tpot["found"][0]["settings"] == "SelectPercentile(percentile=33.8) → LogisticRegression(C=0.01, penalty=l2)"
    assert tpot["found"][0]["score"] == 0.69177


def test_read_run_without_evaluation_has_report_scores_and_missing_results(tmp_path: Path) -> None:
    layout = make_run(tmp_path, evaluated=False, tables=False, models=("svm", "tpot"))
    board = read_run(layout)
    assert board["evaluated"] is False
    assert [row["model"] for row in board["models"]] == ["svm", "tpot"]
    assert board["models"][0]["logloss"] is not None
    assert board["models"][0]["corr"] is None
    by = {task for _, task in board["missing"]}
    assert by == {"unzip", "adversarial_validation", "tsne", "ensemble", "evaluate"}
    assert board["problems"] == []
    layout.predictions("xgboost").write_text("id,pre")  # unfinished, or of a failed model
    assert "xgboost" not in {row["model"] for row in read_run(layout)["models"]}


def test_read_run_lists_comparisons_that_are_unavailable(tmp_path: Path) -> None:
    layout = make_run(tmp_path, tables=False)
    assert read_run(layout)["unavailable_comparisons"] == {}
    reasons = {"meta_model": "meta_model.parquet: 404 Not Found", "benchmark_models": None, "example_live": ["x"]}
    change(layout.run_metadata, unavailable_comparisons=reasons)
    board = read_run(layout)
    assert board["unavailable_comparisons"] == {"meta_model": "meta_model.parquet: 404 Not Found"}
    assert board["problems"] == []


def test_read_run_just_started_lists_missing_results(tmp_path: Path) -> None:
    directory = tmp_path / "rounds" / "1335" / "0123456789ab"
    directory.mkdir(parents=True)
    board = read_run(RunLayout(directory))
    assert board["models"] == []
    assert ("predictions", "the models") in board["missing"]
    assert board["metadata"]["source"] is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"models": 5}',
        b'{"models": [null, 1, {"model": null}]}',
        b"[" * 100_000,
    ],
)
def test_read_run_damaged_files_are_named_and_the_rest_is_shown(tmp_path: Path, content: bytes) -> None:
    layout = make_run(tmp_path, tables=False)
    damaged = [layout.leaderboard, layout.run_metadata, layout.evaluation("svm"), layout.task_record("svm")]
    damaged += [layout.report("adversarial_validation"), layout.report("ensemble"), layout.report("auto_weka")]
    for path in damaged:
        path.write_bytes(content)
    board = read_run(layout)
    json.dumps(board, allow_nan=False)
    assert list_runs(tmp_path)[0]["run"] == layout.directory.name
    named = " ".join(board["problems"])
    is_object = content.startswith(b'{"')
    assert all((path.name in named) != is_object for path in damaged)
    assert {search["model"] for search in board["searches"]} == {"auto_sklearn", "tpot"}
    assert set(board["series"]["corr"]) >= {"xgboost", "tpot"}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "true", '"0.3"', "{}", "[]", "1e999", "9" * 500])
def test_read_run_values_that_are_not_numbers_are_none(tmp_path: Path, value: str) -> None:
    layout = make_run(tmp_path, tables=False, models=("svm", "auto_sklearn"))
    board = json.loads(layout.leaderboard.read_text())
    for row in board["models"]:
        row |= {"corr": "VALUE", "rank": "VALUE", "sharpe": "VALUE"}
    layout.leaderboard.write_text(json.dumps(board).replace('"VALUE"', value))
    report = json.dumps({"chosen": {"trajectory": [{"seconds": "VALUE", "logloss": 1}], "weights": "VALUE"}})
    layout.report("auto_sklearn").write_text(report.replace('"VALUE"', value))
    read = read_run(layout)
    json.dumps(read, allow_nan=False)
    assert {row["corr"] for row in read["models"]} == {None}
    assert read["searches"][0]["trajectory"] == []


def test_read_run_link_out_of_results_is_not_followed(tmp_path: Path) -> None:
    layout = make_run(tmp_path / "data", tables=False)
    secret = tmp_path / "secret.json"
    elsewhere = layout.data.datasets_root / "secret.json"
    for path in (secret, elsewhere):
        write_json(path, {"seconds": 42.5, "validation": {}})
    for path, target in ((layout.report("svm"), secret), (layout.evaluation("svm"), elsewhere)):
        path.unlink()
        path.symlink_to(target)
    board = read_run(layout)
    assert row_of(board, "svm")["seconds"] is None
    assert [problem.partition(": ")[2] for problem in board["problems"]] == [
        "a link to a file that is neither in the run's directory nor a result"
    ] * 2


def test_read_run_broken_link_is_a_problem(tmp_path: Path) -> None:
    layout = make_run(tmp_path, tables=False)
    record = json.loads(layout.task_record("svm").read_text())
    shutil.rmtree(layout.data.result("svm", record["fit"]))
    board = read_run(layout)
    assert board["problems"] == ["reports/svm.json: a broken link: the result that it leads to was removed"]
    assert row_of(board, "svm")["corr"] is not None


def test_embeddings_share_the_sampled_rows_by_id(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    layout = make_run(tmp_path, binary=False)
    board = read_run(layout)
    assert board["embeddings"] == ["perplexity_05", "perplexity_30", "perplexity_50", "perplexity_30_polynomial"]
    rows = embedding_rows(layout)
    assert 0.99 * MOST_ROWS <= len(rows["era"]) <= MOST_ROWS
    assert rows["parts"] == ["training", "validation split", "validation", "test", "live"]
    assert rows["eras"] == [f"{era:04}" for era in range(1, 190)]
    # the first row is the training table's first; the embedding has it at another index
    training, validation, live = tables_of(layout)
    assert training.parent == validation.parent == layout.data.datasets_root / training.parent.name
    assert live == layout.live
    first = pq.read_table(training).slice(0, 1).to_pylist()[0]
    assert rows["eras"][rows["era"][0]] == first["era"]
    assert rows["target"][0] == first["target"]
    for name in FOUR_MAPS:
        points = embedding_points(layout, name)
        table = pq.read_table(layout.directory / "tsne" / f"{name}.parquet").to_pylist()
        place, own = next((place, row) for place, row in enumerate(table) if row["id"] == first["id"])
        assert place != 0
        assert points["x"][0] == pytest.approx(own["x"], abs=1e-3)
        assert points["y"][0] == pytest.approx(own["y"], abs=1e-3)
        assert len(points["x"]) == len(rows["era"])
        assert None not in points["x"]  # the live rows are in a file of their own
    parts = [rows["parts"][part] for part in rows["part"]]
    unknown = {part for part, target in zip(parts, rows["target"], strict=True) if target is None}
    assert unknown == {"test", "live"}


@pytest.mark.parametrize("name", ["../training", "training", "perplexity_99", "perplexity_30.parquet", ""])
def test_embedding_points_unknown_name_raises(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmbeddingError, match="does not exist"):
        embedding_points(make_run(tmp_path), name)


def test_embeddings_damaged_file_is_named(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    (layout.directory / "live" / "tsne" / "perplexity_05.parquet").write_bytes(b"PAR1 is all there is PAR1")
    with pytest.raises(EmbeddingError, match=r"perplexity_05\.parquet"):
        embedding_points(layout, "perplexity_05")
    tables_of(layout)[1].unlink()
    with pytest.raises(EmbeddingError, match=r"validation\.parquet"):
        embedding_rows(layout)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_embeddings_table_that_is_a_link_is_not_read(tmp_path: Path, number: int) -> None:
    layout = make_run(tmp_path)
    table = tables_of(layout)[number]
    table.rename(tmp_path / table.name)
    table.symlink_to(tmp_path / table.name)
    with pytest.raises(EmbeddingError, match=rf"{table.name}: a link"):
        embedding_rows(layout)


@pytest.mark.parametrize("folder", ["tsne", "live/tsne", "."])
def test_embeddings_link_out_of_results_is_not_read(tmp_path: Path, folder: str) -> None:
    layout = make_run(tmp_path)
    path = layout.directory / folder / ("split.parquet" if folder == "." else "perplexity_05.parquet")
    (tmp_path / path.name).write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / path.name)
    with pytest.raises(EmbeddingError, match=rf"{path.name}: a link to a file that is neither"):
        embedding_points(layout, "perplexity_05")


def test_embeddings_of_an_older_fit_have_the_rows_of_its_dataset(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    rows = embedding_rows(layout)
    change(layout.run_metadata, dataset="0ther0ther00")
    assert embedding_rows(layout) == rows


def test_read_run_shows_fit_and_its_age_at_the_time_of_the_run(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    board = read_run(layout)
    key = json.loads(layout.task_record("svm").read_text())["fit"][:8]
    assert row_of(board, "svm")["fit"] == f"{key}… of round 1334, 5 days before this run"
    ensemble = json.loads(layout.task_record("ensemble").read_text())["fit"][:8]
    assert row_of(board, "ensemble_selection")["fit"].startswith(f"{ensemble}… of round 1334")
    tsne = next(row for row in board["other_tasks"] if row["model"] == "tsne")
    assert tsne["fit"].endswith("5 days before this run")


@pytest.mark.parametrize(
    ("fitted_at", "created_at", "expected"),
    [
        ("2026-08-15T15:00:00+00:00", "2026-08-15T15:30:00+00:00", ", less than an hour before this run"),
        ("2026-08-15T14:00:00+00:00", "2026-08-15T15:30:00+00:00", ", 1 hour before this run"),
        ("2026-08-14T14:00:00+00:00", "2026-08-15T15:30:00+00:00", ", 1 day before this run"),
        ("2026-08-15T16:00:00+00:00", "2026-08-15T15:30:00+00:00", ", made during this run"),
        ("2026-08-15T16:00:00", "2026-08-15T15:30:00+00:00", ""),
        ("yesterday", "2026-08-15T15:30:00+00:00", ""),
        (None, "2026-08-15T15:30:00+00:00", ""),
        ("2026-08-15T16:00:00+00:00", None, ""),
    ],
)
def test_read_run_shows_age_of_fit_where_both_times_are_known(
    tmp_path: Path, fitted_at: str | None, created_at: str | None, expected: str
) -> None:
    layout = make_run(tmp_path, tables=False)
    change(layout.run_metadata, created_at=created_at)
    change(layout.task_record("svm"), fitted_at=fitted_at)
    assert str(row_of(read_run(layout), "svm")["fit"]).endswith(f"of round 1334{expected}")


def test_read_run_after_another_run_changed_its_results_is_the_same(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    before = read_run(layout)
    other = make_run(tmp_path, "1336")
    remove_record(other, "svm")
    add_task(other, "svm", fit=lambda folder: write_json(folder / "report.json", {"seconds": 1.5}), variant="forced")
    assert row_of(read_run(other), "svm")["seconds"] == 1.5
    assert read_run(layout) == before


def test_read_run_of_an_earlier_release_has_everything(tmp_path: Path) -> None:
    new, former = make_run(tmp_path / "new"), make_run(tmp_path / "former", former=True)
    assert former.tournament.is_file()
    assert not former.tasks_directory.exists()
    board, expected = read_run(former), read_run(new)
    assert board["missing"] == board["problems"] == []
    assert {row["fit"] for row in board["models"]} == {None}
    assert row_of(board, "svm")["image"] == row_of(expected, "svm")["image"]
    assert board["metadata"]["tournament"]["rows"] == 6_900
    for name in ("models", "other_tasks"):
        for row, other in zip(board[name], expected[name], strict=True):
            ignored = {"fit", "image"}
            assert {key: row[key] for key in row.keys() - ignored} == {key: other[key] for key in row.keys() - ignored}
    for name in ("series", "distributions", "drift", "searches", "ensemble", "correlations", "embeddings"):
        assert board[name] == expected[name]
    rows = embedding_rows(former)
    assert {name: rows[name] for name in ("eras", "parts")} == {
        name: embedding_rows(new)[name] for name in ("eras", "parts")
    }
    points = embedding_points(former, FOUR_MAPS[0])
    assert len(points["x"]) == len(rows["era"]) > 0.99 * MOST_ROWS
    assert None not in points["x"]


def test_read_run_of_all_models_has_every_row(tmp_path: Path) -> None:
    board = read_run(make_run(tmp_path, models=MODELS, tables=False))
    assert len(board["models"]) == len(MODELS) + len(ENSEMBLES) + 1
    assert len(board["correlations"]["matrix"]) == len(MODELS) + len(ENSEMBLES)
