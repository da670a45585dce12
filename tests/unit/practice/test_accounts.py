"""An account of a practice season, by the real numerapi: models, uploads, submissions, diagnostics, scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numerapi
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import requests
from numerai_tools.scoring import numerai_corr
from numerapi import base_api

from practice.accounts import Account
from practice.faults import Fault, Kind
from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season
from practice.server import PracticeServer, running

SIZE = SeasonSize(rows_per_era=200, train_eras=3, validation_eras=15, small=4, medium=6, all_features=8)
SATURDAY = datetime(2026, 8, 15, 13, 0, tzinfo=UTC)  # round 1334 is open
ACCOUNT = Account.of("PUBLIC:s3cr3t-k3y", ["alpha", "beta"])


class MovingSeason(Season):
    """A season whose clock a test moves."""

    clock = SATURDAY

    def now(self) -> datetime:
        return self.clock


@pytest.fixture
def season(tmp_path: Path) -> MovingSeason:
    return MovingSeason(tmp_path / "season", SIZE)


@pytest.fixture
def server(season: MovingSeason) -> Iterator[PracticeServer]:
    with running(season, [ACCOUNT]) as server:
        yield server


@pytest.fixture
def client(server: PracticeServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., numerapi.NumerAPI]:
    monkeypatch.setattr(base_api, "API_TOURNAMENT_URL", server.address)

    def make(*keys: str) -> numerapi.NumerAPI:
        kind: Any = numerapi.NumerAPI  # its constructor is not annotated
        made: numerapi.NumerAPI = kind(*(keys or ("PUBLIC", "s3cr3t-k3y")), show_progress_bars=False)
        return made

    return make


@pytest.fixture
def api(client: Callable[..., numerapi.NumerAPI]) -> numerapi.NumerAPI:
    return client()


def example(season: Season, round_number: int) -> pd.DataFrame:
    rows = season.live_rows(round_number)
    return pd.DataFrame({"id": rows.ids.astype(str), "prediction": rows.example})


def latest(api: numerapi.NumerAPI, name: str = "alpha") -> list[tuple[int, str]]:
    query = "query { account { models { name latestSubmissions { roundNumber status } } } }"
    models = api.raw_query(query, authorization=True)["data"]["account"]["models"]
    found = next(model for model in models if model["name"] == name)
    return [(entry["roundNumber"], entry["status"]) for entry in found["latestSubmissions"]]


def test_an_account_has_its_models(api: numerapi.NumerAPI) -> None:
    models = api.get_models()
    assert list(models) == ["alpha", "beta"]
    assert models == {model.name: model.id for model in Account.of("PUBLIC:another", ["alpha", "beta"]).models}
    account = api.get_account()
    assert (account["username"], account["models"][0]["name"]) == ("PUBLIC", "alpha")
    assert "s3cr3t" not in str(account)


@pytest.mark.parametrize("keys", [("PUBLIC", "wrong"), ("nobody", "s3cr3t-k3y")])
def test_other_keys_are_answered_401(
    server: PracticeServer, client: Callable[..., numerapi.NumerAPI], keys: tuple[str, str]
) -> None:
    with pytest.raises(KeyError, match="data"):  # what numerapi makes of it
        client(*keys).get_models()
    header = {"Authorization": f"Token {keys[0]}${keys[1]}"}
    query = {"query": "{ account { id } }"}
    assert requests.post(server.address, json=query, headers=header, timeout=30).status_code == 401
    assert requests.post(server.address, json=query, timeout=30).json()["errors"][0]["message"] == "Not authenticated"


def test_predictions_are_handed_in(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    model = api.get_models()["alpha"]
    submission = api.upload_predictions("my model.csv", model_id=model, df=example(server.season, 1334))
    assert latest(api) == [(1334, "success")]
    assert latest(api, "beta") == []
    listed = api.submission_ids(model)
    assert [entry["id"] for entry in listed] == [submission]
    kept = server.desk.file(server.desk.submissions(model)[0])
    pd.testing.assert_frame_equal(pd.read_csv(kept), example(server.season, 1334))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda table: table.rename(columns={"prediction": "score"}), "invalid_submission_headers"),
        (lambda table: table.iloc[1:], "invalid_submission_ids"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "invalid_submission_ids"),
        (lambda table: table.assign(prediction=0.5), "invalid_submission_values"),
        (lambda table: table.assign(prediction=table["prediction"].where(table.index > 0)), "NaNs"),
        (lambda table: table.assign(prediction=table["prediction"].where(table.index > 0, 1.0)), "exclusive"),
        (lambda table: table.assign(prediction=table["prediction"] * 2), "invalid_submission_values"),
        (lambda table: table.assign(prediction="high"), "Invalid comparison"),
        (lambda table: table.iloc[:0], "invalid_submission_ids"),
    ],
)
def test_an_invalid_file_is_a_failed_submission(
    api: numerapi.NumerAPI, server: PracticeServer, spoil: Callable[[pd.DataFrame], pd.DataFrame], says: str
) -> None:
    model = api.get_models()["alpha"]
    api.upload_predictions(model_id=model, df=spoil(example(server.season, 1334)))
    assert latest(api) == [(1334, "failed")]
    assert says in server.desk.submissions(model)[0].message
    assert server.desk.counting(model) == []


def test_the_last_valid_one_counts(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    model = api.get_models()["alpha"]
    good = example(server.season, 1334)
    first, second = (api.upload_predictions(model_id=model, df=table) for table in (good, good.assign(prediction=0.5)))
    assert latest(api) == [(1334, "failed")]
    assert [entry["id"] for entry in api.submission_ids(model)] == [second, first]
    assert [submission.id for submission in server.desk.counting(model)] == [first]


def test_a_put_that_failed_goes_unnoticed_by_numerapi_and_leaves_a_failed_submission(
    api: numerapi.NumerAPI, server: PracticeServer
) -> None:
    server.faults.add(Fault(kind="status", on="upload", status=403))
    model = api.get_models()["alpha"]
    assert api.upload_predictions(model_id=model, df=example(server.season, 1334))
    assert latest(api) == [(1334, "failed")]
    assert server.desk.submissions(model)[0].message == "no file was uploaded"


@pytest.mark.parametrize(
    ("kind", "match", "expected"),
    [
        ("late", "create_submission(", (1335, "success")),
        ("reject", "create_submission(", (1334, "failed")),
        ("pending", "latestSubmissions", (1334, "pending")),
    ],
)
def test_misbehaviour_on_request(
    api: numerapi.NumerAPI, server: PracticeServer, kind: Kind, match: str, expected: tuple[int, str]
) -> None:
    server.faults.add(Fault(kind=kind, on="graphql", match=match))
    api.upload_predictions(model_id=api.get_models()["alpha"], df=example(server.season, 1334))
    assert latest(api) == [expected]


def test_addresses_are_good_for_what_they_were_given_out_for(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    models = api.get_models()
    auth = api._upload_auth("submission_upload_auth", "x.csv", 8, models["alpha"])
    forged = auth["url"][:-1] + ("1" if auth["url"].endswith("0") else "0")
    assert requests.put(forged, data=b"", timeout=30).status_code == 403
    assert requests.put(f"{server.address}/uploads/x.csv", data=b"", timeout=30).status_code == 403
    assert requests.get(auth["url"], timeout=30).status_code == 405
    query = "mutation($f: String! $m: String) { create_submission(filename: $f tournament: 8 modelId: $m) { id } }"
    for filename, model in ((auth["filename"], models["beta"]), ("other.csv", models["alpha"])):
        with pytest.raises(ValueError, match="No upload of the name"):
            api.raw_query(query, {"f": filename, "m": model}, authorization=True)


def test_a_submission_is_scored_once_the_targets_are_known(
    api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason
) -> None:
    models = api.get_models()
    rows = season.live_rows(1334)
    ids = rows.ids.astype(str)
    handed_in = {
        "alpha": pd.DataFrame({"id": ids, "prediction": rows.example}),
        "beta": pd.DataFrame({"id": ids, "prediction": 1 - rows.example}),
    }
    for name, table in handed_in.items():
        api.upload_predictions(model_id=models[name], df=table)
    season.clock = SATURDAY + timedelta(weeks=4)
    assert api.submission_scores(models["alpha"]) == []
    season.clock = SATURDAY + timedelta(weeks=5)
    # what anybody can compute from the season's own files by then
    known = pd.read_parquet(season.file("v5.3/validation.parquet", season.current_round().number))
    targets = known.loc[known["era"] == f"{SeasonRound(1334).era:04d}", "target_ender_20"].astype("float64")
    expected = {
        name: numerai_corr(table.set_index("id")[["prediction"]], targets)["prediction"]
        for name, table in handed_in.items()
    }
    for name, corr in expected.items():
        (score,) = api.submission_scores(models[name])
        assert score["value"] == pytest.approx(corr, abs=1e-12)
        assert (score["roundNumber"], score["resolved"], score["displayName"]) == (1334, True, "CORR20V2")
        assert score["percentile"] == float(corr == max(expected.values()))
    assert api.submission_scores(models["alpha"], display_name="MMC") == []
    standings = requests.get(f"{server.address}/practice/standings", timeout=30).json()
    assert [model["name"] for model in standings["models"]] == sorted(expected, key=lambda name: -expected[name])
    best = standings["models"][0]
    assert best["corr"] == pytest.approx(max(expected.values()), abs=1e-12)
    assert standings["models"][best["name"] == "alpha"]["rounds"][0]["corr"] == pytest.approx(min(expected.values()))
    yardsticks = [entry["example"] for model in standings["models"] for entry in model["rounds"]]
    assert yardsticks == pytest.approx([expected["alpha"]] * 2)


def test_what_was_handed_in_outlives_the_server(season: MovingSeason, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = numerapi.NumerAPI
    with running(season, [ACCOUNT]) as server:
        monkeypatch.setattr(base_api, "API_TOURNAMENT_URL", server.address)
        api = kind("PUBLIC", "s3cr3t-k3y")
        api.upload_predictions(model_id=api.get_models()["alpha"], df=example(season, 1334))
    season.clock = SATURDAY + timedelta(weeks=20)
    season.prepare()  # old files go, submissions stay
    with running(season, [ACCOUNT]) as server:
        model = requests.get(f"{server.address}/practice/standings", timeout=30).json()["models"][0]
    assert (model["name"], model["submitted"], model["scored"]) == ("alpha", 1, 1)


def test_the_standings_are_a_page_for_browsers(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    api.upload_predictions(model_id=api.get_models()["alpha"], df=example(server.season, 1334))
    answer = requests.get(f"{server.address}/practice/standings", headers={"Accept": "text/html"}, timeout=30)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert re.search(r"<td>alpha</td><td>1</td><td>0</td><td></td>", answer.text)
    assert "round 1334" in answer.text


def test_diagnostics(api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason) -> None:
    model = api.get_models()["alpha"]
    known = pd.read_parquet(season.file("v5.3/validation.parquet", 1334))
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"id": known.index, "prediction": rng.uniform(0.1, 0.9, len(known))})
    diagnostics_id = api.upload_diagnostics(model_id=model, df=table)
    server.faults.add(Fault(kind="pending", on="graphql", match="diagnostics("))
    assert api.diagnostics(model, diagnostics_id)["status"] == "pending"
    found = api.diagnostics(model, diagnostics_id)
    scored = known[known["target_ender_20"].notna()].assign(prediction=table.set_index("id")["prediction"])
    by_era = {
        int(era): numerai_corr(rows[["prediction"]], rows["target_ender_20"].astype("float64"))["prediction"]
        for era, rows in scored.groupby("era")
    }
    assert found["status"] == "done"
    assert {entry["era"]: entry["validationCorr"] for entry in found["perEraDiagnostics"]} == pytest.approx(by_era)
    assert found["validationCorrMean"] == pytest.approx(np.mean(list(by_era.values())))
    failed = api.upload_diagnostics(model_id=model, df=table.rename(columns={"id": "row"}))
    assert "header" in api.diagnostics(model, failed)["message"]
    assert api.diagnostics(model)["status"] == "failed"  # the last one


@pytest.mark.parametrize(
    ("keys", "models", "says"),
    [
        ("PUBLIC", ["a"], "PUBLIC:SECRET"),
        ("PUB$LIC:x", ["a"], "no \\$"),
        ("PUBLIC:x", [], "needs models"),
        ("PUBLIC:x", ["a", "a"], "another name"),
        ("PUBLIC:x", ["../a"], "letters"),
    ],
)
def test_a_wrong_account_is_refused(keys: str, models: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Account.of(keys, models)
