"""What a run submits and what it leaves alone: the step of the DAG, against a practice season's account."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from numerai_pipeline import submission_steps
from numerai_pipeline.errors import BadInputError
from numerai_pipeline.keys import find_keys
from numerai_pipeline.manifests import verified_manifest, write_manifest
from numerai_pipeline.round_sensor import RoundSensor
from numerai_pipeline.run_layout import DataLayout, RunLayout
from numerai_pipeline.settings import load_settings
from practice import accounts
from practice.faults import Fault
from practice.season import VERSION
from practice.server import PracticeServer, running
from tests.clocked_season import ClockedSeason, NumeraisRound

KEYS = ("PUBLIC-ID-OF-TESTS", "secret-key-of-tests")
NUMBER = 1335
SATURDAY = NumeraisRound(NUMBER).opens + timedelta(hours=1)
MODELS = ("svm", "xgboost")
PREDICTIONS = (*MODELS, "ensemble_selection")
NAMES = ["alpha", "beta", "svm", "nobody"]
Submit = Callable[..., dict[str, Any]]


@pytest.fixture
def season(tmp_path: Path) -> ClockedSeason:
    return ClockedSeason(tmp_path / "season", SATURDAY)


@pytest.fixture
def server(season: ClockedSeason, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    with running(season, [accounts.Account.of(":".join(KEYS), NAMES)]) as server:
        monkeypatch.setenv("NUMERAI_API_URL", server.address)
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        monkeypatch.setenv("NUMERAI_PUBLIC_ID", KEYS[0])
        monkeypatch.setenv("NUMERAI_SECRET_KEY", KEYS[1])
        set_to(monkeypatch, SUBMISSIONS="alpha=svm,beta=ensemble_selection", CONFIRMATION_SECONDS="5")
        yield server


def set_to(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"NUMERAI_{name}", value)
    load_settings.cache_clear()


@pytest.fixture
def layout(season: ClockedSeason) -> RunLayout:
    """Make a run's directory, with the tournament table and the predictions of two models and an ensemble."""
    layout = DataLayout(load_settings().data_dir).run(str(NUMBER), "0123456789ab")
    layout.directory.mkdir(parents=True)
    live, validation = (
        pq.read_table(season.file(f"{VERSION}/{name}.parquet", NUMBER), columns=["id", "data_type", "era"])
        for name in ("live", "validation")
    )
    table = pa.concat_tables([validation, live]).replace_schema_metadata(None)
    pq.write_table(table, layout.tournament)
    for place, name in enumerate(PREDICTIONS):
        values = pa.array([(row * (place + 7) % 97 + 1) / 99 for row in range(table.num_rows)])
        predict(layout, name, pa.table({"id": table["id"], "prediction": values}))
    return layout


def predict(layout: RunLayout, name: str, table: pa.Table) -> None:
    layout.predictions_directory.mkdir(exist_ok=True)
    pa.csv.write_csv(table, layout.predictions(name), pa.csv.WriteOptions(quoting_style="none"))
    write_manifest(layout.predictions(name), rows=table.num_rows)


def predicted(layout: RunLayout, name: str) -> pa.Table:
    return pa.csv.read_csv(layout.predictions(name))


@pytest.fixture
def submit(server: PracticeServer, layout: RunLayout) -> Submit:
    """Submit as the DAG's task does."""

    def attempt(run_type: str = "manual", era: int | None = None, **choices: Any) -> dict[str, Any]:
        directory = str(layout.directory.relative_to(load_settings().data_dir))
        run = {"round": str(NUMBER), "era": era, "directory": directory}
        ti: Any = SimpleNamespace(xcom_pull=lambda **_: run)
        params = {"source": "numerai", "submit": True, **choices}
        dag_run: Any = SimpleNamespace(run_type=run_type)
        return submission_steps.submit(params, dag_run, ti, PREDICTIONS, MODELS)

    return attempt


def model_id(server: PracticeServer, name: str) -> str:
    return next(model.id for model in server.desk.models() if model.name == name)


def handed_in(server: PracticeServer, name: str) -> list[pa.Table]:
    """Give the files that were handed in for a model, the newest first."""
    return [
        pa.csv.read_csv(server.desk.file(submission)) for submission in server.desk.submissions(model_id(server, name))
    ]


def uploads(server: PracticeServer) -> int:
    return len(server.requests.entries(on="upload"))


def test_live_rows_and_nothing_else_are_handed_in(server: PracticeServer, submit: Submit, layout: RunLayout) -> None:
    result = submit()
    for name, model in {"alpha": "svm", "beta": "ensemble_selection"}.items():
        (table,) = handed_in(server, name)
        assert table["id"].to_pylist() == server.season.live_ids(NUMBER)
        mine = predicted(layout, model)
        assert table.equals(mine.filter(pc.is_in(mine["id"], table["id"])))
        (counting,) = server.desk.counting(model_id(server, name))
        record = result["submissions"][name]
        assert (record["submission"], record["round"], record["status"]) == (counting.id, NUMBER, "success")
        assert json.loads(layout.submission_record(name).read_text()) == record
        assert verified_manifest(layout.submission(name))
        assert verified_manifest(layout.submission_record(name))
    assert result["round"] == NUMBER


def test_the_same_file_is_handed_in_once(server: PracticeServer, submit: Submit, layout: RunLayout) -> None:
    first = submit()
    assert submit() == first
    assert uploads(server) == 2
    submit(force=True)
    assert uploads(server) == 4
    table = predicted(layout, "svm")
    predict(layout, "svm", table.set_column(1, "prediction", pc.subtract(1.0, table["prediction"])))
    submit()
    assert uploads(server) == 5
    assert (
        handed_in(server, "alpha")[0]["prediction"].to_pylist()
        != handed_in(server, "alpha")[1]["prediction"].to_pylist()
    )


def test_a_record_that_is_damaged_counts_for_nothing(server: PracticeServer, submit: Submit, layout: RunLayout) -> None:
    submit()
    path = layout.submission_record("alpha")
    path.write_text(path.read_text().replace("success", "failure"))
    submit()
    assert uploads(server) == 3


SKIPPED = [
    pytest.param({}, {"submit": False}, "the run's parameter 'submit' is off", id="off"),
    pytest.param({}, {"era": 1200}, "this walk-forward run has no live rows", id="walk-forward"),
    pytest.param({}, {"source": "archive", "archive": "/x.zip"}, "an archive belongs to no open round", id="archive"),
    pytest.param({"PUBLIC_ID": "", "SECRET_KEY": ""}, {}, "make an Airflow connection numerai_default", id="no keys"),
    pytest.param({}, {"source": "practice"}, "make an Airflow connection numerai_practice", id="no practice account"),
    pytest.param(
        {"SUBMISSIONS": "alpha=svm"}, {"models": ["xgboost"]}, "none was picked for this run", id="none picked"
    ),
]


@pytest.mark.parametrize(("settings", "choices", "says"), SKIPPED)
def test_what_is_skipped_says_why(
    server: PracticeServer,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    choices: dict[str, Any],
    says: str,
) -> None:
    set_to(monkeypatch, **settings)
    with pytest.raises(AirflowSkipException, match=says):
        submit(**choices)
    assert server.desk.submissions(model_id(server, "alpha")) == []
    assert uploads(server) == 0


def test_a_run_whose_data_was_not_unpacked_is_skipped(server: PracticeServer) -> None:
    nothing: Any = SimpleNamespace(xcom_pull=lambda **_: None)
    run: Any = SimpleNamespace(run_type="manual")
    with pytest.raises(AirflowSkipException, match="not unpacked"):
        submission_steps.submit({"submit": True}, run, nothing, PREDICTIONS, MODELS)


def spoilt(layout: RunLayout, change: Callable[[pa.Table], pa.Table]) -> None:
    predict(layout, "svm", change(predicted(layout, "svm")))


def live_value(value: float) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table["prediction"].to_pylist()
        return table.set_column(1, "prediction", pa.array([*values[:-1], value]))

    return change


WRONG = [
    pytest.param(lambda table: table.slice(0, table.num_rows - 1), "1 of 50 ids have no prediction", id="missing"),
    pytest.param(lambda table: pa.concat_tables([table, table.slice(table.num_rows - 1)]), "has 2 pred", id="twice"),
    pytest.param(live_value(1.0), r"has the prediction 1.*strictly between 0 and 1", id="one"),
    pytest.param(live_value(0.0), r"has the prediction 0.*strictly between 0 and 1", id="zero"),
    pytest.param(live_value(float("nan")), r"has no prediction", id="not a number"),
    pytest.param(
        lambda table: table.set_column(1, "prediction", pa.array([0.25] * table.num_rows)), "almost", id="constant"
    ),
]


@pytest.mark.parametrize(("change", "says"), WRONG)
def test_what_numerai_would_refuse_is_not_uploaded_and_the_others_are(
    server: PracticeServer, submit: Submit, layout: RunLayout, change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    spoilt(layout, change)
    with pytest.raises(AirflowFailException, match=rf"(?s)failed: alpha \(submitted: beta\)\. alpha: .*{says}"):
        submit()
    assert handed_in(server, "alpha") == []
    assert len(handed_in(server, "beta")) == 1


def test_predictions_that_are_missing_are_named_and_the_others_go_out(
    server: PracticeServer, submit: Submit, layout: RunLayout
) -> None:
    layout.predictions("svm").unlink()
    with pytest.raises(AirflowFailException, match=r"svm left no predictions .* did its task fail"):
        submit()
    assert len(handed_in(server, "beta")) == 1


def test_what_was_not_picked_is_left_out(server: PracticeServer, submit: Submit) -> None:
    assert list(submit(models=["xgboost"])["submissions"]) == ["beta"]


def test_a_model_that_the_account_does_not_have_is_named(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMISSIONS="gamma=svm,alpha=xgboost")
    with pytest.raises(AirflowFailException, match=r"no model 'gamma' \(there are: alpha, beta, svm, nobody\)"):
        submit()
    assert len(handed_in(server, "alpha")) == 1


def test_without_the_setting_there_is_nothing_to_submit_to_numerai(
    submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMISSIONS="")
    with pytest.raises(AirflowFailException, match="set NUMERAI_SUBMISSIONS"):
        submit()


def test_a_practice_season_has_an_account_of_its_own_and_models_called_as_ours(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMISSIONS="", PUBLIC_ID="ANOTHER-ID", SECRET_KEY="another-key")
    connection = {"conn_type": "generic", "login": KEYS[0], "password": KEYS[1]}
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_PRACTICE", json.dumps(connection))
    assert list(submit(source="practice")["submissions"]) == ["svm"]
    assert len(handed_in(server, "svm")) == 1


TRIED_AGAIN = [
    pytest.param([Fault(kind="reject", on="graphql", match="create_submission(")], "refused submission", id="refused"),
    pytest.param(
        [Fault(kind="pending", on="graphql", match="latestSubmissions", count=1000)], "not confirmed", id="unconfirmed"
    ),
    pytest.param([Fault(kind="status", on="upload", status=403, count=5)], "answered 403", id="lost"),
]


@pytest.mark.parametrize(("faults", "says"), TRIED_AGAIN)
def test_what_went_wrong_is_tried_again_and_what_went_well_is_not(
    server: PracticeServer,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[Fault],
    says: str,
) -> None:
    set_to(monkeypatch, CONFIRMATION_SECONDS="0.5")
    monkeypatch.setattr("numerai_pipeline.downloads.Patience.first_wait", 0.001)
    server.faults.add(*faults)
    with pytest.raises(AirflowException, match=says) as failed:
        submit()
    assert not isinstance(failed.value, AirflowFailException)
    server.faults.clear()
    server.requests.clear()
    assert set(submit()["submissions"]) == {"alpha", "beta"}
    assert uploads(server) == (2 if faults[0].kind == "pending" else 1)


def test_wrong_keys_fail_at_once(server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SECRET_KEY", "wrong-key")
    with pytest.raises(AirflowFailException, match="keys were refused"):
        submit()


def test_nothing_is_uploaded_for_a_round_that_is_over(
    server: PracticeServer, submit: Submit, season: ClockedSeason
) -> None:
    season.clock = NumeraisRound(NUMBER + 1).opens + timedelta(minutes=5)
    with pytest.raises(AirflowFailException, match=r"round 1335 is over, and round 1336 .* nothing was uploaded"):
        submit("scheduled")
    with pytest.raises(AirflowSkipException, match="this is a backfilled run"):
        submit("backfill")
    assert uploads(server) == 0


def test_what_was_accepted_in_time_still_is_after_the_round(
    server: PracticeServer, submit: Submit, season: ClockedSeason
) -> None:
    first = submit()
    season.clock = NumeraisRound(NUMBER + 1).opens + timedelta(minutes=5)
    assert submit() == first


def test_a_late_one_is_told_with_the_round_it_waits_for(
    server: PracticeServer, submit: Submit, season: ClockedSeason, layout: RunLayout
) -> None:
    season.clock = NumeraisRound(NUMBER).closes + timedelta(minutes=5)
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"too late for round 1335: Numerai queued .* for round 1336"):
            submit()
    assert uploads(server) == 2  # not again
    assert json.loads(layout.submission_record("alpha").read_text())["round"] == NUMBER + 1


def test_validation_rows_are_diagnosed_once_if_asked_for(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch, layout: RunLayout
) -> None:
    set_to(monkeypatch, DIAGNOSTICS="true", SUBMISSIONS="alpha=svm")
    found = submit()["submissions"]["alpha"]["diagnostics"]
    assert found["erasAcceptedCount"] == 3  # of the others the bare target, 60 days ahead, is not known yet
    assert -1 < found["validationCorrMean"] < 1
    assert submit()["submissions"]["alpha"]["diagnostics"] == found
    assert uploads(server) == 2
    assert pa.csv.read_csv(layout.diagnostics_csv("alpha")).num_rows > len(server.season.live_ids(NUMBER))


def test_diagnostics_that_fail_are_told_after_all_submissions_went_out(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, DIAGNOSTICS="true", CONFIRMATION_SECONDS="0.5")
    server.faults.add(Fault(kind="pending", on="graphql", match="diagnostics(", count=1000))
    with pytest.raises(AirflowException, match=r"failed: diagnostics of alpha, .* \(submitted: alpha, beta\)"):
        submit()


def test_no_secret_is_logged_or_kept(
    submit: Submit, layout: RunLayout, server: PracticeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.faults.add(Fault(kind="status", on="upload", status=403))
    told = json.dumps(submit())
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "accepted for round 1335" in said
    kept = [path.read_text() for path in (layout.directory / "submissions").rglob("*") if path.is_file()]
    assert kept
    for text in (told, said, *kept):
        assert not any(secret in text for secret in (*KEYS, "signature="))


@pytest.fixture
def begin(server: PracticeServer) -> Callable[..., Any]:
    """Begin a run as the DAG's first task does."""

    def attempt(run_type: str = "manual", **choices: Any) -> Any:
        run = SimpleNamespace(run_type=run_type, logical_date=None, data_interval_end=SATURDAY)
        context: Any = {"dag_run": run, "params": {"source": "numerai", "submit": True, **choices}}
        return RoundSensor(task_id="wait_for_round").execute(context)

    return attempt


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"SECRET_KEY": "wrong-key"}, "keys were refused"),
        ({"SECRET_KEY": ""}, "both are needed"),
        ({"SUBMISSIONS": "gamma=svm"}, "no model 'gamma'"),
    ],
)
def test_what_would_keep_a_run_from_submitting_is_told_before_it_begins(
    begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], says: str
) -> None:
    set_to(monkeypatch, **settings)
    with pytest.raises(AirflowFailException, match=says):
        begin()
    assert begin(submit=False) is None
    assert begin("backfill") is None


def test_a_run_begins_though_the_account_cannot_be_looked_at(
    begin: Callable[..., Any], server: PracticeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.add(Fault(kind="status", on="graphql", match="account"))
    assert begin() is None
    assert "cannot be looked at just now" in caplog.text
    set_to(monkeypatch, PUBLIC_ID="", SECRET_KEY="")
    assert begin() is None
    assert "nothing will be submitted: make an Airflow connection numerai_default" in caplog.text


def test_a_connection_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_PUBLIC_ID", "id-of-the-environment")
    monkeypatch.setenv("NUMERAI_SECRET_KEY", "key-of-the-environment")
    assert find_keys("numerai") == ("id-of-the-environment", "key-of-the-environment")
    assert find_keys("practice") is None
    connection = {"conn_type": "generic", "login": "id-of-the-connection", "password": "key-of-the-connection"}
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_DEFAULT", json.dumps(connection))
    assert find_keys("numerai") == ("id-of-the-connection", "key-of-the-connection")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"NUMERAI_PUBLIC_ID": "x-public-id"}, "NUMERAI_PUBLIC_ID is there and NUMERAI_SECRET_KEY is not"),
        ({"NUMERAI_SECRET_KEY": "x-secret-key"}, "NUMERAI_SECRET_KEY is there and NUMERAI_PUBLIC_ID is not"),
        (
            {"AIRFLOW_CONN_NUMERAI_DEFAULT": '{"conn_type": "generic", "login": "x-public-id"}'},
            "the login of numerai_default is there and the password of numerai_default is not",
        ),
    ],
)
def test_half_of_the_keys_is_told(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError, match=says) as told:
        find_keys("numerai")
    assert "x-" not in str(told.value)


def test_keys_that_were_found_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    monkeypatch.setenv("NUMERAI_PUBLIC_ID", "id-that-is-masked")
    monkeypatch.setenv("NUMERAI_SECRET_KEY", "key-that-is-masked")
    find_keys("numerai")
    assert redact("id-that-is-masked and key-that-is-masked") == "*** and ***"


def test_the_setting_is_checked_against_the_registry() -> None:
    submission_steps.check_submissions({"alpha": "svm"}, PREDICTIONS)
    with pytest.raises(
        BadInputError, match="alpha=tpot: there is no model or ensemble 'tpot'; there are: svm, xgboost"
    ):
        submission_steps.check_submissions({"alpha": "tpot"}, PREDICTIONS)
