"""Scores, standings and diagnostics of the simulator, compared with numerai-tools on the season's files."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import numerapi
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import requests
from numerai_tools.scoring import numerai_corr

from practice.faults import Fault
from practice.rounds import SeasonRound
from practice.server import PracticeServer
from tests.unit.practice.simulator import SATURDAY, MovingSeason, example_predictions


@pytest.mark.parametrize(
    ("opened", "number", "target", "name", "weeks"),
    [
        (SATURDAY, 1334, "target_ender_20", "v2_corr20", 5),
        (SATURDAY + timedelta(weeks=2), 1344, "target_ender_60", "corr60", 13),
    ],
)
def test_scores_appear_once_the_paid_target_is_known(
    api: numerapi.NumerAPI,
    server: PracticeServer,
    season: MovingSeason,
    opened: datetime,
    number: int,
    target: str,
    name: str,
    weeks: int,
) -> None:
    season.clock = opened
    models = api.get_models()
    rows = season.live_rows(number)
    ids = rows.ids.astype(str)
    submitted = {
        "alpha": pd.DataFrame({"id": ids, "prediction": rows.example}),
        "beta": pd.DataFrame({"id": ids, "prediction": 1 - rows.example}),
    }
    for model, table in submitted.items():
        api.upload_predictions(model_id=models[model], df=table)
    season.clock = opened + timedelta(weeks=weeks - 1)
    assert api.submission_scores(models["alpha"]) == []
    season.clock = opened + timedelta(weeks=weeks)
    known = pd.read_parquet(season.file("v5.3/validation.parquet", season.current_round().number))
    targets = known.loc[known["era"] == f"{SeasonRound(number).era:04d}", target].astype("float64")
    expected = {
        model: numerai_corr(table.set_index("id")[["prediction"]], targets)["prediction"]
        for model, table in submitted.items()
    }
    for model, corr in expected.items():
        (score,) = api.submission_scores(models[model])
        assert score["value"] == pytest.approx(corr, abs=1e-12)
        assert (score["roundNumber"], score["resolved"], score["displayName"]) == (number, True, name)
        assert score["percentile"] == float(corr == max(expected.values()))
    assert api.submission_scores(models["alpha"], display_name="mmc") == []
    standings = requests.get(f"{server.address}/practice/standings", timeout=30).json()
    assert [model["name"] for model in standings["models"]] == sorted(expected, key=lambda model: -expected[model])
    corrs = [model["rounds"][0]["corr"] for model in standings["models"]]
    assert corrs == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-12)
    assert [model["corr"] for model in standings["models"]] == corrs
    baselines = [entry["example"] for model in standings["models"] for entry in model["rounds"]]
    assert baselines == pytest.approx([expected["alpha"]] * 2)


def test_late_submission_is_scored_for_both_rounds(
    api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason
) -> None:
    server.faults.add(Fault(kind="late", on="graphql", match="create_submission("))
    model = api.get_models()["alpha"]
    submission = api.upload_predictions(model_id=model, df=example_predictions(season, 1334))
    season.clock = SATURDAY + timedelta(weeks=20)
    scores = api.submission_scores(model)
    assert [(score["roundNumber"], score["submissionId"]) for score in scores] == [
        (1335, submission),
        (1334, submission),
    ]
    # the rows of the next round correspond by their position
    rows = season.live_rows(1335)
    predictions = pd.DataFrame({"prediction": season.live_rows(1334).example})
    targets = pd.Series(rows.targets["target_ender_20"], dtype=float, name="target")
    expected = numerai_corr(predictions, targets)["prediction"]
    assert scores[0]["value"] == pytest.approx(expected, abs=1e-12)


def test_standings_are_a_page_for_browsers(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    api.upload_predictions(model_id=api.get_models()["alpha"], df=example_predictions(server.season, 1334))
    answer = requests.get(f"{server.address}/practice/standings", headers={"Accept": "text/html"}, timeout=30)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert re.search(r"<td>alpha</td><td>1</td><td>0</td><td></td>", answer.text)
    assert "round 1334" in answer.text


def test_diagnostics_of_a_valid_file_are_a_list_with_its_corr(
    api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason
) -> None:
    model = api.get_models()["alpha"]
    known = pd.read_parquet(season.file("v5.3/validation.parquet", 1334))
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"id": known.index, "prediction": rng.uniform(0.1, 0.9, len(known))})
    diagnostics_id = api.upload_diagnostics(model_id=model, df=table)
    server.faults.add(Fault(kind="unlisted", on="graphql", match="diagnostics("))
    diagnostics: Any = api.diagnostics  # annotated with the type of an element
    assert diagnostics(model, diagnostics_id) == []
    (found,) = diagnostics(model, diagnostics_id)
    scored = known[known["target_ender_20"].notna()].assign(prediction=table.set_index("id")["prediction"])
    by_era = {
        int(era): numerai_corr(rows[["prediction"]], rows["target_ender_20"].astype("float64"))["prediction"]
        for era, rows in scored.groupby("era")
    }
    assert found["status"] == "done"
    assert {entry["era"]: entry["validationCorr"] for entry in found["perEraDiagnostics"]} == pytest.approx(by_era)
    assert found["validationCorrMean"] == pytest.approx(np.mean(list(by_era.values())))
    with pytest.raises(ValueError, match="simulator: the header is 'row,prediction'"):
        api.upload_diagnostics(model_id=model, df=table.rename(columns={"id": "row"}))
    assert diagnostics(model) == [found]  # the last one
