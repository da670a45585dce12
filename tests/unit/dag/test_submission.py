"""The task `submit` and the check before a run, against an account of the simulated tournament."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import Stable, StableBuilder, Submissions
from numerai_pipeline.dag import submission
from numerai_pipeline.dag.approval import SubmissionApproval
from numerai_pipeline.dag.credentials import load_credentials
from numerai_pipeline.dag.round_sensor import RoundSensor
from numerai_pipeline.numerai_api.retries import RetryPolicy
from numerai_pipeline.numerai_api.submission_files import find_predictions
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest
from numerai_pipeline.storage.task_records import remove_record
from practice import accounts
from practice.faults import Fault
from practice.server import PracticeServer, running
from tests.clocked_season import ClockedSeason, NumeraisRound
from tests.unit.submission_rig import (
    KEYS,
    MODELS,
    NUMBER,
    PREDICTIONS,
    SATURDAY,
    make_run,
    model_id,
    read_predictions,
    submitted,
    uploads,
    write_predictions,
)

pytestmark = pytest.mark.slow

NAMES = ["alpha", "beta", "svm", "unused"]
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


def stable() -> Stable:
    """Give the default stable, as the settings configure it."""
    return StableBuilder(load_settings(), MODELS, PREDICTIONS).build()[0]


@pytest.fixture
def layout(season: ClockedSeason) -> RunLayout:
    return make_run(season)


@pytest.fixture
def submit(server: PracticeServer, layout: RunLayout) -> Submit:
    """Submit as the DAG's task does."""

    def attempt(
        run_type: str = "manual",
        era: int | None = None,
        run_id: str = "first",
        dag: str = "numerai_tournament",
        approved: dict[str, Any] | None = None,
        directory: Path = layout.directory,
        **choices: Any,
    ) -> dict[str, Any]:
        directory = directory.relative_to(load_settings().data_dir)
        run = {"round": str(NUMBER), "era": era, "directory": str(directory)}
        closes = NumeraisRound(NUMBER).closes.isoformat()
        xcoms = {("unzip", None): run, ("download", None): {"closes": closes}, ("approve", "approved"): approved}
        ti: Any = SimpleNamespace(xcom_pull=lambda task_ids, key=None: xcoms[task_ids, key])
        params = {"source": "numerai", "submit": True, **choices}
        dag_run: Any = SimpleNamespace(run_type=run_type, dag_id=dag, run_id=run_id)
        return submission.submit(params, dag_run, ti, PREDICTIONS, MODELS, stable().submissions)

    return attempt


def test_submit_uploads_live_rows_only(server: PracticeServer, submit: Submit, layout: RunLayout) -> None:
    result = submit()
    for name, model in {"alpha": "svm", "beta": "ensemble_selection"}.items():
        (table,) = submitted(server, name)
        assert table["id"].to_pylist() == server.season.live_ids(NUMBER)
        assert table.equals(read_predictions(layout, model))
        (counting,) = server.store.submissions(model_id(server, name))
        record = result["submissions"][name]
        assert (record["submission"], record["round"], record["status"]) == (counting.id, NUMBER, "on-time")
        assert record["key"] == find_predictions(layout, model).key
        assert json.loads(layout.submission_record(name).read_text()) == record
        assert verified_manifest(layout.submission(name))
        assert verified_manifest(layout.submission_record(name))
    assert (result["round"], result["late"]) == (NUMBER, [])


def inverted(table: pa.Table) -> pa.Table:
    return table.set_column(1, "prediction", pc.subtract(1.0, table["prediction"]))


def test_submit_of_the_same_file_uploads_once(server: PracticeServer, submit: Submit, layout: RunLayout) -> None:
    first = submit()
    assert submit() == first
    assert uploads(server) == 2
    write_predictions(layout, "svm", inverted(read_predictions(layout, "svm")))
    submit()
    assert uploads(server) == 3
    assert (
        submitted(server, "alpha")[0]["prediction"].to_pylist()
        != submitted(server, "alpha")[1]["prediction"].to_pylist()
    )


def test_submit_of_scheduled_and_backfilled_runs_follows_the_stable(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMIT="true", SUBMISSIONS="alpha=svm")
    for run_type in ("scheduled", "backfill"):
        assert list(submit(run_type, submit=None)["submissions"]) == ["alpha"]
        with pytest.raises(AirflowSkipException):
            submit(run_type, submit=False)
    assert uploads(server) == 1


def test_submit_of_two_stables_with_equal_run_ids_shares_equal_predictions(
    server: PracticeServer, submit: Submit, season: ClockedSeason
) -> None:
    first = submit()
    second = make_run(season, run="fedcba987654").directory
    assert submit(directory=second, dag="numerai_weekday") == first
    assert submit(directory=second, dag="numerai_weekday", force=True) == first
    assert uploads(server) == 2


def test_submit_of_another_stable_replaces_other_predictions_only_with_replace(
    server: PracticeServer, submit: Submit, season: ClockedSeason, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMISSIONS="alpha=svm")
    submit()
    other = make_run(season, run="fedcba987654")
    write_predictions(other, "svm", inverted(read_predictions(other, "svm")))
    season.clock += timedelta(minutes=1)
    # the same run id
    with pytest.raises(AirflowFailException, match=r"of the run numerai_tournament/first, .* parameter 'replace'"):
        submit(directory=other.directory, dag="numerai_weekday")
    replaced = submit(directory=other.directory, dag="numerai_weekday", replace=True)
    assert submit(directory=other.directory, dag="numerai_weekday") == replaced
    with pytest.raises(AirflowFailException, match="of the run numerai_weekday/first"):
        submit()
    assert uploads(server) == 2
    newest, oldest = submitted(server, "alpha")
    assert not newest.equals(oldest)


@pytest.mark.parametrize(("part", "damaged", "expected"), [("on-time", "ahead-of", 2), ("{", "[", 3)])
def test_submit_with_a_damaged_record_finds_it_by_its_file_name(
    server: PracticeServer, submit: Submit, layout: RunLayout, part: str, damaged: str, expected: int
) -> None:
    submit()
    path = layout.data.submission_slot("numerai", NUMBER, model_id(server, "alpha"))
    path.write_text(path.read_text().replace(part, damaged))
    assert submit()["submissions"]["alpha"]["status"] == "on-time"
    assert uploads(server) == expected


SKIPPED = [
    pytest.param({}, {"submit": False}, "the run's parameter 'submit' is off", id="off"),
    pytest.param({"SUBMIT": "true"}, {"submit": None}, "'submit' is not set, and the schedule has not", id="manual"),
    pytest.param({}, {"submit": None, "run_type": "scheduled"}, r"do not submit \(set NUMERAI_SUBMIT", id="scheduled"),
    pytest.param({}, {"era": 1200}, "this walk-forward run has no live rows", id="walk-forward"),
    pytest.param({}, {"source": "archive", "archive": "/x.zip"}, "an archive belongs to no open round", id="archive"),
    pytest.param({"PUBLIC_ID": "", "SECRET_KEY": ""}, {}, "create an Airflow connection numerai_default", id="no keys"),
    pytest.param({}, {"source": "practice"}, "create an Airflow connection numerai_practice", id="no practice account"),
    pytest.param({"SUBMISSIONS": "alpha=svm"}, {"models": ["xgboost"]}, "is selected for this run", id="none picked"),
]


@pytest.mark.parametrize(("settings", "choices", "says"), SKIPPED)
def test_submit_skipped_logs_the_reason(
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
    assert server.store.submissions(model_id(server, "alpha")) == []
    assert uploads(server) == 0


def test_submit_without_unpacked_data_is_skipped(server: PracticeServer) -> None:
    nothing: Any = SimpleNamespace(xcom_pull=lambda **_: None)
    run: Any = SimpleNamespace(run_type="manual")
    with pytest.raises(AirflowSkipException, match="not unpacked"):
        submission.submit({"submit": True}, run, nothing, PREDICTIONS, MODELS, Submissions())


def change_predictions(layout: RunLayout, change: Callable[[pa.Table], pa.Table]) -> None:
    write_predictions(layout, "svm", change(read_predictions(layout, "svm")))


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
def test_submit_of_invalid_predictions_uploads_the_others(
    server: PracticeServer, submit: Submit, layout: RunLayout, change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    change_predictions(layout, change)
    with pytest.raises(AirflowFailException, match=rf"(?s)failed: alpha \(submitted: beta\)\. alpha: .*{says}"):
        submit()
    assert submitted(server, "alpha") == []
    assert len(submitted(server, "beta")) == 1


def test_submit_without_predictions_uploads_the_others(
    server: PracticeServer, submit: Submit, layout: RunLayout
) -> None:
    remove_record(layout, "svm")
    with pytest.raises(AirflowFailException, match=r"svm has no predictions .*see its task's log"):
        submit()
    assert len(submitted(server, "beta")) == 1


def test_submit_of_damaged_result_uploads_the_others(server: PracticeServer, submit: Submit, layout: RunLayout) -> None:
    path = find_predictions(layout, "svm").live
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(AirflowFailException, match=r"svm has no predictions .* is missing or damaged"):
        submit()
    assert submitted(server, "alpha") == []
    assert len(submitted(server, "beta")) == 1


def test_submit_after_force_in_another_run_uploads_its_own_bytes(
    server: PracticeServer, submit: Submit, season: ClockedSeason, layout: RunLayout
) -> None:
    other = make_run(season, run="fedcba987654")
    assert find_predictions(other, "svm") == replace(
        find_predictions(layout, "svm"), validation=other.validation_predictions("svm")
    )
    before = find_predictions(layout, "svm").live.read_bytes()
    # `force` in the other run removes its record and makes a new result
    remove_record(other, "svm")
    write_predictions(other, "svm", inverted(read_predictions(layout, "svm")))
    submit()
    assert layout.submission("alpha").read_bytes() == before
    submit(directory=other.directory, run_id="other", replace=True)
    assert submitted(server, "alpha")[0].equals(inverted(submitted(server, "alpha")[1]))


def approved_now(layout: RunLayout) -> dict[str, Any]:
    chosen = {"alpha": "svm", "beta": "ensemble_selection"}
    return {name: submission.approval_of(find_predictions(layout, model)) for name, model in chosen.items()}


def test_submit_of_approved_results_uploads_them(
    server: PracticeServer, submit: Submit, layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, APPROVE_SUBMISSIONS="true")
    assert set(submit(approved=approved_now(layout))["submissions"]) == {"alpha", "beta"}


def test_approve_pushes_what_submit_then_accepts(
    server: PracticeServer, submit: Submit, layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, APPROVE_SUBMISSIONS="true", SUBMISSIONS="alpha=svm,beta=xgboost")
    remove_record(layout, "xgboost")
    pushed: dict[str, Any] = {}
    run = {"round": str(NUMBER), "era": None, "directory": str(layout.directory.relative_to(layout.data.root))}
    xcoms = {"unzip": run, "download": {}}
    ti = SimpleNamespace(
        xcom_pull=lambda task_ids: xcoms[task_ids], xcom_push=lambda key, value: pushed.update({key: value})
    )
    monkeypatch.setattr("airflow.providers.standard.operators.hitl.ApprovalOperator.execute", lambda *_: None)
    approve = SubmissionApproval(
        task_id="approve", predictions=PREDICTIONS, models=MODELS, submissions=stable().submissions, subject="?"
    )
    dag_run = SimpleNamespace(run_type="manual")
    context: Any = {"params": {"source": "numerai", "submit": True}, "ti": ti, "dag_run": dag_run}
    waiting: list[Any] = []
    monkeypatch.setattr("numerai_pipeline.dag.approval.approval_waits", waiting.append)
    approve.execute(context)
    assert waiting == [context]
    (approved,) = pushed.values()
    assert list(approved) == ["alpha"]
    assert f"| alpha | svm | {approved['alpha']['sha256'][:12]} |" in str(approve.body)
    assert "| beta | xgboost | no predictions |" in str(approve.body)
    set_to(monkeypatch, SUBMISSIONS="alpha=svm")
    assert set(submit(approved=pushed[submission.APPROVED])["submissions"]) == {"alpha"}


@pytest.mark.parametrize("change", ["key", "sha256", "model", None])
def test_submit_of_unapproved_result_uploads_the_others(
    server: PracticeServer, submit: Submit, layout: RunLayout, monkeypatch: pytest.MonkeyPatch, change: str | None
) -> None:
    set_to(monkeypatch, APPROVE_SUBMISSIONS="true")
    approved = approved_now(layout)
    present = approved["alpha"]["key"]
    was = approved.pop("alpha")
    if change:
        approved["alpha"] = {**was, change: "another"}
    expected = "approved: none for it" if change is None else "result another" if change == "key" else "another"
    with pytest.raises(AirflowFailException, match=rf"alpha: not submitted.*{expected}.*{present}.*clear `approve`"):
        submit(approved=approved)
    assert submitted(server, "alpha") == []
    assert len(submitted(server, "beta")) == 1


def test_submit_after_a_new_result_is_refused_until_approved_again(
    server: PracticeServer, submit: Submit, layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, APPROVE_SUBMISSIONS="true", SUBMISSIONS="alpha=svm")
    approved = approved_now(layout)
    write_predictions(layout, "svm", inverted(read_predictions(layout, "svm")))
    with pytest.raises(AirflowFailException, match="the approval is of other predictions"):
        submit(approved=approved)
    assert uploads(server) == 0
    submit(approved=approved_now(layout))
    assert uploads(server) == 1


def test_submit_leaves_out_models_not_selected(server: PracticeServer, submit: Submit) -> None:
    assert list(submit(models=["xgboost"])["submissions"]) == ["beta"]


def test_submit_to_an_unknown_model_uploads_the_others(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMISSIONS="gamma=svm,alpha=xgboost")
    with pytest.raises(AirflowFailException, match=r"no model 'gamma' \(its models: alpha, beta, svm, unused\)"):
        submit()
    assert len(submitted(server, "alpha")) == 1


def test_submit_to_numerai_without_the_setting_fails(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(monkeypatch, SUBMISSIONS="")
    with pytest.raises(AirflowFailException, match="NUMERAI_SUBMISSIONS is empty"):
        submit()


def test_submit_to_the_simulator_matches_models_by_name(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMISSIONS="", PUBLIC_ID="ANOTHER-ID", SECRET_KEY="another-key")
    connection = {"conn_type": "generic", "login": KEYS[0], "password": KEYS[1]}
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_PRACTICE", json.dumps(connection))
    assert list(submit(source="practice")["submissions"]) == ["svm"]
    assert len(submitted(server, "svm")) == 1


RETRIED = [
    pytest.param([Fault(kind="reject", on="graphql", match="create_submission(", count=5)], "refused", 2, id="refused"),
    pytest.param([Fault(kind="status", on="upload", status=403, count=5)], "answered 403", 1, id="upload lost"),
    pytest.param(
        [Fault(kind="status", on="graphql", match="latestSubmissions", count=1000)],
        "not confirmed",
        0,
        id="unconfirmed",
    ),
]


@pytest.mark.parametrize(("faults", "says", "more_uploads"), RETRIED)
def test_submit_retried_after_a_failure_uploads_only_the_missing(
    server: PracticeServer,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[Fault],
    says: str,
    more_uploads: int,
) -> None:
    set_to(monkeypatch, CONFIRMATION_SECONDS="0.5", SUBMISSIONS="alpha=svm")
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.001)
    server.faults.add(*faults)
    with pytest.raises(AirflowException, match=says) as failed:
        submit()
    assert not isinstance(failed.value, AirflowFailException)
    server.faults.clear()
    server.requests.clear()
    assert set(submit()["submissions"]) == {"alpha"}
    assert uploads(server) == min(more_uploads, 1)
    assert len(server.store.submissions(model_id(server, "alpha"))) == 1


@pytest.mark.parametrize("late", ["queue", "refuse"])
def test_plan_client_repeats_calls_as_long_as_an_upload_helps(monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    set_to(monkeypatch, LATE=late, PUBLIC_ID="an-id", SECRET_KEY="a-key")
    closes = NumeraisRound(NUMBER).closes
    run = {"round": str(NUMBER), "era": None, "directory": "x"}
    xcoms = {"unzip": run, "download": {"closes": closes.isoformat()}}
    ti: Any = SimpleNamespace(xcom_pull=lambda task_ids: xcoms[task_ids])
    dag_run: Any = SimpleNamespace(run_type="manual")
    plan = submission.plan_submission({"source": "numerai", "submit": True}, dag_run, ti, Submissions())
    next_opening = closes.replace(hour=12, minute=0) + timedelta(days=1)
    assert plan.client().policy.deadline == (next_opening if late == "queue" else closes)


def test_submit_with_wrong_keys_fails_at_once(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMERAI_SECRET_KEY", "wrong-key")
    with pytest.raises(AirflowFailException, match="keys were refused"):
        submit()


def test_submit_after_the_next_opening_uploads_nothing(
    server: PracticeServer, submit: Submit, season: ClockedSeason
) -> None:
    season.clock = NumeraisRound(NUMBER + 1).opens + timedelta(minutes=5)
    with pytest.raises(AirflowFailException, match=r"round 1334 is closed and round 1335 .* nothing was uploaded"):
        submit("scheduled")
    with pytest.raises(AirflowSkipException, match="this is a backfilled run"):
        submit("backfill")
    assert uploads(server) == 0


def test_submit_repeated_after_the_round_keeps_its_records(
    server: PracticeServer, submit: Submit, season: ClockedSeason
) -> None:
    first = submit()
    season.clock = NumeraisRound(NUMBER + 1).opens + timedelta(minutes=5)
    assert submit() == first


def test_submit_late_succeeds_and_names_the_models(
    server: PracticeServer, submit: Submit, season: ClockedSeason, layout: RunLayout
) -> None:
    season.clock = NumeraisRound(NUMBER).closes + timedelta(minutes=5)
    for _ in range(2):
        result = submit("scheduled")
        assert result["late"] == ["alpha", "beta"]
        assert result["submissions"]["alpha"]["round"] == NUMBER + 1
    assert uploads(server) == 2  # not again


def test_submit_late_with_the_setting_refuse_fails(
    server: PracticeServer, submit: Submit, season: ClockedSeason, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, LATE="refuse")
    season.clock = NumeraisRound(NUMBER).closes + timedelta(minutes=5)
    with pytest.raises(AirflowFailException, match="NUMERAI_LATE=refuse"):
        submit("scheduled")
    assert uploads(server) == 0


def test_diagnostics_of_the_same_rows_are_requested_once(
    server: PracticeServer, submit: Submit, monkeypatch: pytest.MonkeyPatch, layout: RunLayout
) -> None:
    set_to(monkeypatch, DIAGNOSTICS="true", SUBMISSIONS="alpha=svm")
    found = submit()["submissions"]["alpha"]["diagnostics"]
    assert found["erasAcceptedCount"] == 3  # of the others the bare target, 60 days ahead, is not known yet
    assert -1 < found["validationCorrMean"] < 1
    assert submit()["submissions"]["alpha"]["diagnostics"] == found
    assert uploads(server) == 2
    assert pa.csv.read_csv(layout.diagnostics_csv("alpha")).num_rows > len(server.season.live_ids(NUMBER))


DIAGNOSTICS_FAULTS = [
    pytest.param(Fault(kind="unlisted", on="graphql", match="diagnostics(", count=1000), id="never done"),
    pytest.param(Fault(kind="status", on="graphql", match="diagnosticsUploadAuth", status=401, count=1000), id="401"),
    pytest.param(Fault(kind="html", on="graphql", match="createDiagnostics", count=1000), id="maintenance"),
    pytest.param(
        Fault(kind="graphql_error", on="graphql", match="diagnostics(", message="x not found", count=1000), id="missing"
    ),
]


@pytest.mark.parametrize("fault", DIAGNOSTICS_FAULTS)
def test_diagnostics_failing_leave_the_submissions_as_they_are(
    server: PracticeServer,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
) -> None:
    set_to(monkeypatch, DIAGNOSTICS="true", CONFIRMATION_SECONDS="0.5")
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.001)
    server.faults.add(fault)
    records = submit()["submissions"]
    assert {record["status"] for record in records.values()} == {"on-time"}
    assert "diagnostics" not in records["alpha"]
    assert "alpha: no diagnostics: " in caplog.text
    assert "beta: no diagnostics: " in caplog.text


def test_diagnostics_are_not_repeated_until_the_round_closes(submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[Any] = []

    def diagnose(account: Any, *_: Any, **__: Any) -> dict[str, Any]:
        deadlines.append(account._client.policy.deadline)
        return {}

    set_to(monkeypatch, DIAGNOSTICS="true")
    monkeypatch.setattr("numerai_pipeline.numerai_api.account.Account.diagnose", diagnose)
    submit()
    assert deadlines == [None, None]


def test_diagnostics_with_a_bug_leave_the_submissions_as_they_are(
    submit: Submit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        msg = "'list' object has no attribute 'get'"
        raise AttributeError(msg)

    set_to(monkeypatch, DIAGNOSTICS="true")
    monkeypatch.setattr("numerai_pipeline.numerai_api.account.Account.diagnose", broken)
    assert submit()["submissions"]["beta"]["status"] == "on-time"
    assert "no diagnostics: 'list' object has no attribute 'get'" in caplog.text


def test_submit_logs_and_stores_no_secret(
    submit: Submit, layout: RunLayout, server: PracticeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.faults.add(Fault(kind="status", on="upload", status=403))
    result = json.dumps(submit())
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert f"accepted for round {NUMBER}" in logged
    stored = [path.read_text() for path in (layout.directory / "submissions").rglob("*") if path.is_file()]
    assert stored
    for text in (result, logged, *stored):
        assert not any(secret in text for secret in (*KEYS, "signature="))


@pytest.fixture
def begin(server: PracticeServer) -> Callable[..., Any]:
    """Begin a run as the DAG's first task does."""

    def attempt(run_type: str = "manual", **choices: Any) -> Any:
        run = SimpleNamespace(run_type=run_type, logical_date=None, data_interval_end=SATURDAY)
        context: Any = {"dag_run": run, "params": {"source": "numerai", "submit": True, **choices}}
        return RoundSensor(task_id="wait_for_round", stable=stable()).execute(context)

    return attempt


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"SECRET_KEY": "wrong-key"}, "keys were refused"),
        ({"SECRET_KEY": ""}, "set both"),
        ({"SUBMISSIONS": "gamma=svm"}, "NUMERAI_SUBMISSIONS: the account has no model 'gamma'"),
        ({"SUBMISSIONS": ""}, "NUMERAI_SUBMISSIONS is empty"),
    ],
)
def test_preflight_check_fails_before_the_run_starts(
    begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], says: str
) -> None:
    set_to(monkeypatch, **settings)
    with pytest.raises(AirflowFailException, match=says):
        begin()
    assert begin(submit=False) is None
    assert begin("backfill") is None


def test_preflight_check_of_a_scheduled_run_follows_the_stable(
    begin: Callable[..., Any], server: PracticeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMISSIONS="gamma=svm", SUBMIT="true")
    with pytest.raises(AirflowFailException, match="no model 'gamma'"):
        begin("scheduled", submit=None)
    assert begin("manual", submit=None) is None


def test_wait_for_round_reports_a_stale_name_in_the_submissions(
    begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to(monkeypatch, SUBMISSIONS="alpha=smv")
    with pytest.raises(AirflowFailException, match="NUMERAI_SUBMISSIONS: alpha=smv: no model or ensemble 'smv'"):
        begin(submit=False)


@pytest.mark.parametrize("scope", ["upload_submission", "read_submission_info", "read_user_info"])
def test_preflight_check_without_a_scope_names_it(
    season: ClockedSeason, begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    scopes = [other for other in accounts.SCOPES if other != scope]
    with running(season, [accounts.Account.of(":".join(KEYS), NAMES, scopes)]) as server:
        set_to(monkeypatch, API_URL=server.address)
        with pytest.raises(AirflowFailException, match=f"the Numerai keys lack the scope {scope}"):
            begin()


def test_preflight_check_with_an_unreachable_server_passes(
    begin: Callable[..., Any], server: PracticeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.add(Fault(kind="status", on="graphql", match="account"))
    assert begin() is None
    assert "cannot be checked at present" in caplog.text
    caplog.clear()
    server.faults.add(Fault(kind="graphql_error", on="graphql", match="latestSubmissions", message="file not found"))
    assert begin() is None
    assert "cannot be checked at present" in caplog.text
    set_to(monkeypatch, PUBLIC_ID="", SECRET_KEY="")
    assert begin() is None
    assert "nothing will be submitted: create an Airflow connection numerai_default" in caplog.text


def test_credentials_of_a_connection_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_PUBLIC_ID", "id-of-the-environment")
    monkeypatch.setenv("NUMERAI_SECRET_KEY", "key-of-the-environment")
    assert load_credentials("numerai") == ("id-of-the-environment", "key-of-the-environment")
    assert load_credentials("practice") is None
    connection = {"conn_type": "generic", "login": "id-of-the-connection", "password": "key-of-the-connection"}
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_DEFAULT", json.dumps(connection))
    assert load_credentials("numerai") == ("id-of-the-connection", "key-of-the-connection")


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"NUMERAI_PUBLIC_ID": "x-public-id"}, "NUMERAI_PUBLIC_ID is set and NUMERAI_SECRET_KEY is not"),
        ({"NUMERAI_SECRET_KEY": "x-secret-key"}, "NUMERAI_SECRET_KEY is set and NUMERAI_PUBLIC_ID is not"),
        (
            {"AIRFLOW_CONN_NUMERAI_DEFAULT": '{"conn_type": "generic", "login": "x-public-id"}'},
            "the login of numerai_default is set and the password of numerai_default is not",
        ),
    ],
)
def test_credentials_incomplete_name_the_missing_half(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError, match=says) as raised:
        load_credentials("numerai")
    assert "x-" not in str(raised.value)


def test_credentials_loaded_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk._shared.secrets_masker import redact

    monkeypatch.setenv("NUMERAI_PUBLIC_ID", "id-that-is-masked")
    monkeypatch.setenv("NUMERAI_SECRET_KEY", "key-that-is-masked")
    load_credentials("numerai")
    assert redact("id-that-is-masked and key-that-is-masked") == "*** and ***"
