"""Uploads and confirmations on good and bad days: the simulator over real HTTP, on a clock that the test moves."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from numerai_pipeline.core.errors import (
    BadInputError,
    CredentialsError,
    NetworkError,
    PipelineError,
    RoundClosedError,
    SubmissionError,
)
from numerai_pipeline.numerai_api import submissions
from numerai_pipeline.numerai_api.account import Account
from numerai_pipeline.numerai_api.client import ApiClient, MissingScopeError
from numerai_pipeline.numerai_api.retries import RetryPolicy
from numerai_pipeline.numerai_api.submissions import SubmissionBatch, SubmissionRecord
from numerai_pipeline.numerai_api.tournament import Tournament
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.locks import file_lock, lock_path
from numerai_pipeline.storage.manifests import write_manifest
from numerai_pipeline.storage.used_objects import RunRef
from practice import accounts
from practice.faults import Fault
from practice.server import PracticeServer, running
from practice.submission_store import RoundEntry
from tests.clocked_season import ClockedSeason, NumeraisRound, TimeMachine
from tests.recorded.answers import recorded, submission_statuses
from tests.unit.submission_rig import (
    KEYS,
    NUMBER,
    SATURDAY,
    TUESDAY_ROUND,
    entries,
    find_all,
    make_run,
    model_id,
    read_predictions,
    uploads,
    write_predictions,
)

pytestmark = pytest.mark.slow

CHOSEN = {"alpha": "svm", "beta": "ensemble_selection"}
CLOSES = NumeraisRound(NUMBER).closes
CREATE, LATEST = "create_submission(", "latestSubmissions"
ALWAYS = 100_000
Batch = Callable[..., SubmissionBatch]


@pytest.fixture
def season(tmp_path: Path) -> ClockedSeason:
    return ClockedSeason(tmp_path / "season", SATURDAY)


@pytest.fixture
def server(season: ClockedSeason) -> Iterator[PracticeServer]:
    with running(season, [accounts.Account.of(":".join(KEYS), ["alpha", "beta"])]) as server:
        yield server


@pytest.fixture
def time(season: ClockedSeason) -> TimeMachine:
    return TimeMachine(season)


@pytest.fixture
def layout(season: ClockedSeason) -> RunLayout:
    return make_run(season)


@pytest.fixture
def make_batch(server: PracticeServer, layout: RunLayout, time: TimeMachine) -> Batch:
    """Build the batch of an attempt, as the task does."""

    def build(number: int = NUMBER, *, keys: tuple[str, str] = KEYS, **options: Any) -> SubmissionBatch:
        client = ApiClient(server.address, timeout=10, policy=RetryPolicy(attempts=1), keys=keys)
        policy = RetryPolicy(attempts=5, clock=time.now, sleep=time.block)
        options = {"closes": NumeraisRound(number).closes, "layout": layout, **options}
        run = RunRef("numerai_tournament", options["layout"].directory.name)
        options = {"run": run, "source": "numerai", "round_number": number, "policy": policy, **options}
        return SubmissionBatch(Account(client), Tournament(client), **options)

    return build


def submit(batch: SubmissionBatch) -> tuple[dict[str, SubmissionRecord], dict[str, PipelineError]]:
    return batch.submit(find_all(batch._layout, CHOSEN))


def confirmed(batch: SubmissionBatch) -> dict[str, SubmissionRecord]:
    records, errors = submit(batch)
    assert errors == {}
    assert set(records) == set(CHOSEN)
    return records


def failures(batch: SubmissionBatch) -> dict[str, PipelineError]:
    return submit(batch)[1]


def graphql(kind: Any, match: str, **options: Any) -> Fault:
    return Fault(kind=kind, on="graphql", match=match, **options)


def listed(server: PracticeServer, name: str) -> str | None:
    """Return the id of the submission that a model has for its newest round."""
    submission = entries(server, name)[0].submission
    return submission.id if submission else None


def change_predictions(layout: RunLayout) -> None:
    """Give the run other predictions of `svm`, and so of the model `alpha`."""
    table = read_predictions(layout, "svm")
    write_predictions(layout, "svm", table.set_column(1, "prediction", pc.subtract(1.0, table["prediction"])))


def stored_record(layout: RunLayout, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(layout.submission_record(name).read_text())
    return content


def test_submit_in_time_is_confirmed_as_on_time(server: PracticeServer, make_batch: Batch, layout: RunLayout) -> None:
    records = confirmed(make_batch())
    for name in CHOSEN:
        (submission,) = server.store.submissions(model_id(server, name))
        record = records[name]
        assert (record.submission, record.round, record.status) == (submission.id, NUMBER, "on-time")
        assert not record.is_late
        assert stored_record(layout, name)["status"] == "on-time"
        assert {entry.status for entry in entries(server, name)} <= submission_statuses()


def test_submit_uploads_all_before_it_confirms(server: PracticeServer, make_batch: Batch) -> None:
    confirmed(make_batch())
    log = [entry.get("query", "PUT") for entry in server.requests.entries()]
    steps = [next((step for step in (CREATE, LATEST, "PUT") if step in query), "") for query in log]
    assert [step for step in steps if step] == ["PUT", CREATE, "PUT", CREATE, LATEST]


TRANSIENT = [
    pytest.param([Fault(kind="status", on="upload", status=403)], id="upload address expired"),
    pytest.param([Fault(kind="status", on="upload", status=404)], id="upload address gone"),
    pytest.param([Fault(kind="status", on="upload", count=3)], id="storage busy"),
    pytest.param([Fault(kind="html", on="upload")], id="storage under maintenance"),
    pytest.param([graphql("status", "submission_upload_auth")], id="no upload address"),
    pytest.param([graphql("status", CREATE, status=429)], id="too many requests"),
    pytest.param([graphql("graphql_error", CREATE, message="File not found: live ids")], id="live ids missing"),
    pytest.param(
        [graphql("graphql_error", CREATE, message=recorded("error_live_ids_missing").answer["errors"][0]["message"])],
        id="live ids missing as recorded",
    ),
    pytest.param([graphql("unlisted", LATEST, count=4)], id="listed late"),
    pytest.param([graphql("status", LATEST, count=4)], id="status unavailable"),
    pytest.param([graphql("graphql_error", LATEST, message="models not found", count=4)], id="status not found"),
    pytest.param([graphql("html", "rounds(", count=3)], id="round unavailable"),
    pytest.param([graphql("graphql_error", "rounds(", message="round not found", count=3)], id="round not found"),
]


@pytest.mark.parametrize("faults", TRANSIENT)
def test_submit_after_transient_errors_is_confirmed_once(
    server: PracticeServer, make_batch: Batch, faults: list[Fault]
) -> None:
    server.faults.add(*faults)
    confirmed(make_batch())
    for name in CHOSEN:
        assert len(server.store.submissions(model_id(server, name))) == 1
    assert server.faults.take("upload", "", is_range=False) == {}


def test_submit_with_one_failing_model_confirms_the_others_first(
    server: PracticeServer, make_batch: Batch, layout: RunLayout, time: TimeMachine
) -> None:
    server.faults.add(Fault(kind="status", on="upload", match="alpha", count=ALWAYS))
    time.at(SATURDAY + timedelta(minutes=30), server.faults.clear)
    beta: list[str] = []
    time.at(SATURDAY + timedelta(minutes=1), lambda: beta.append(stored_record(layout, "beta")["status"]))
    confirmed(make_batch())
    assert beta == ["on-time"]


def test_submit_in_an_outage_of_25_minutes_is_on_time_once(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, time: TimeMachine
) -> None:
    opens = NumeraisRound(TUESDAY_ROUND).opens
    season.clock = opens + timedelta(minutes=20)
    server.faults.add(Fault(kind="status", on="graphql", match=CREATE, count=ALWAYS))
    time.at(season.clock + timedelta(minutes=25), server.faults.clear)
    records = confirmed(make_batch(TUESDAY_ROUND, layout=make_run(season, TUESDAY_ROUND)))
    for name, record in records.items():
        assert (record.round, record.status) == (TUESDAY_ROUND, "on-time")
        assert len(server.store.submissions(model_id(server, name))) == 1
    assert season.clock < NumeraisRound(TUESDAY_ROUND).closes
    assert max(time.sleeps) <= 61


def test_submit_in_an_outage_of_the_status_is_confirmed_after_it(
    server: PracticeServer, make_batch: Batch, time: TimeMachine
) -> None:
    server.faults.add(graphql("status", LATEST, count=ALWAYS))
    time.at(SATURDAY + timedelta(minutes=40), server.faults.clear)
    confirmed(make_batch(confirmation_seconds=120))
    assert uploads(server) == len(CHOSEN)


@pytest.mark.parametrize("match", [CREATE, "rounds(", ""], ids=["create", "rounds", "everything"])
def test_submit_in_an_outage_beyond_the_close_is_queued_once(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, time: TimeMachine, match: str
) -> None:
    closes = NumeraisRound(TUESDAY_ROUND).closes
    season.clock = closes - timedelta(minutes=30)
    batch = make_batch(TUESDAY_ROUND, layout=make_run(season, TUESDAY_ROUND))
    batch._account.models()
    server.faults.add(Fault(kind="status", on="graphql", match=match, count=ALWAYS))
    time.at(closes + timedelta(hours=2), server.faults.clear)
    for name, record in confirmed(batch).items():
        assert (record.round, record.status, record.is_late) == (TUESDAY_ROUND + 1, "queued", True)
        assert len(server.store.submissions(model_id(server, name))) == 1


def test_submit_in_an_outage_until_the_next_opening_gives_up(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, time: TimeMachine
) -> None:
    season.clock = NumeraisRound(TUESDAY_ROUND).closes
    batch = make_batch(TUESDAY_ROUND, layout=make_run(season, TUESDAY_ROUND))
    server.faults.add(Fault(kind="status", on="graphql", match=CREATE, count=ALWAYS))
    errors = failures(batch)
    assert all(isinstance(error, NetworkError) for error in errors.values())
    day_after = NumeraisRound(TUESDAY_ROUND + 1).opens.replace(hour=12, minute=0)
    assert timedelta(0) <= season.clock - day_after < timedelta(minutes=11)


def test_submit_late_is_queued_for_the_next_round_and_logged(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, caplog: pytest.LogCaptureFixture
) -> None:
    season.clock = CLOSES + timedelta(minutes=5)
    records = confirmed(make_batch())
    assert {(record.round, record.status, record.is_late) for record in records.values()} == {
        (NUMBER + 1, "queued", True)
    }
    assert f"svm came after the close of round {NUMBER}: Numerai lists it as 'queued' for round {NUMBER + 1}" in (
        caplog.text
    )
    assert confirmed(make_batch()) == records
    assert uploads(server) == 2


def test_submit_late_and_never_queued_is_reported_as_late(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = server.store.latest

    def without_queued(*arguments: Any, **options: Any) -> list[RoundEntry]:
        return [entry for entry in real(*arguments, **options) if entry.status != "queued"]

    monkeypatch.setattr(server.store, "latest", without_queued)
    season.clock = late = CLOSES + timedelta(minutes=5)
    for record in confirmed(make_batch(confirmation_seconds=60)).values():
        assert (record.round, record.status, record.is_late) == (NUMBER, "late", True)
    assert season.clock - late == timedelta(seconds=60)


def test_submit_late_after_an_on_time_submission_is_queued(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason
) -> None:
    confirmed(make_batch())
    season.clock = CLOSES + timedelta(minutes=5)
    other = make_run(season, run="fedcba987654")
    change_predictions(other)
    record = confirmed(make_batch(replace_others=True, layout=other))["alpha"]
    assert (record.round, record.status) == (NUMBER + 1, "queued")


def test_submit_late_with_refuse_uploads_nothing(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason
) -> None:
    season.clock = CLOSES + timedelta(minutes=5)
    errors = failures(make_batch(late="refuse"))
    assert all(isinstance(error, RoundClosedError) for error in errors.values())
    assert "closed at Mon 2026-08-17 13:12 UTC: nothing was uploaded (NUMERAI_LATE=refuse)" in str(errors["alpha"])
    assert uploads(server) == 0


@pytest.mark.parametrize("late", ["queue", "refuse"])
def test_submit_with_the_next_round_open_uploads_nothing(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, late: str
) -> None:
    season.clock = NumeraisRound(NUMBER + 1).opens + timedelta(minutes=5)
    errors = failures(make_batch(late=late))
    assert all(isinstance(error, RoundClosedError) for error in errors.values())
    assert f"round {NUMBER} is closed and round {NUMBER + 1}" in str(errors["alpha"])
    assert uploads(server) == 0


class KilledError(BaseException):
    """The process ends here."""


def killed(*_: Any, **__: Any) -> Any:
    raise KilledError


@pytest.mark.parametrize("step", ["create_submission", "latest_submissions"])
def test_submit_killed_before_confirmation_uploads_nothing_twice(
    server: PracticeServer, make_batch: Batch, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    batch = make_batch()
    real = getattr(batch._account, step)

    def answer_and_kill(*arguments: Any) -> Any:
        real(*arguments)  # the server has the submission; its answer never arrives
        raise KilledError

    monkeypatch.setattr(batch._account, step, answer_and_kill)
    with pytest.raises(KilledError):
        submit(batch)
    confirmed(make_batch())
    for name in CHOSEN:
        assert len(server.store.submissions(model_id(server, name))) == 1


def test_submit_killed_before_creation_uploads_again(
    server: PracticeServer, make_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch()
    monkeypatch.setattr(batch._account, "create_submission", killed)
    with pytest.raises(KilledError):
        submit(batch)
    confirmed(make_batch())
    assert len(server.store.submissions(model_id(server, "alpha"))) == 1


@pytest.mark.parametrize("write", range(1, 13))
def test_submit_killed_while_a_record_is_written_creates_it_once(
    server: PracticeServer, make_batch: Batch, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    written: list[Path] = []

    def kill_at_nth(path: Path) -> Any:
        written.append(path)
        return killed() if len(written) == write else write_manifest(path)

    monkeypatch.setattr(submissions, "write_manifest", kill_at_nth)
    with pytest.raises(KilledError):
        submit(make_batch())
    monkeypatch.undo()
    confirmed(make_batch())
    for name in CHOSEN:
        assert len(server.store.submissions(model_id(server, name))) == 1


def test_submit_same_predictions_of_another_run_are_confirmed_only(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, layout: RunLayout
) -> None:
    first = confirmed(make_batch())
    second = make_run(season, run="2" * 12)
    for replace_others in (False, True):
        assert confirmed(make_batch(layout=second, replace_others=replace_others)) == first
    assert uploads(server) == 2
    # a copy for people, of the record of the run that uploaded
    assert stored_record(second, "alpha") == stored_record(layout, "alpha")
    assert first["alpha"].run == RunRef("numerai_tournament", layout.directory.name)


@pytest.mark.parametrize("dag", ["numerai_tournament", "numerai_weekday"])
def test_submit_other_predictions_of_another_run_are_refused_without_replace(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, layout: RunLayout, dag: str
) -> None:
    first = confirmed(make_batch())
    # a stable's run has the same id, and a directory of its own
    name = "2" * 12 if dag == "numerai_tournament" else layout.directory.name
    other = make_run(season, run="2" * 12)
    change_predictions(other)
    run = RunRef(dag, name)
    records, errors = submit(make_batch(layout=other, run=run))
    assert set(records) == {"beta"}
    assert str(errors["alpha"]) == (
        f"round {NUMBER} has submission {first['alpha'].submission} (svm) of the run"
        f" numerai_tournament/{layout.directory.name}, which has other predictions: nothing was uploaded. To replace"
        " it, start a run with the parameter 'replace' (REPLACE=1)"
    )
    assert isinstance(errors["alpha"], BadInputError)
    assert not other.submission_record("alpha").exists()
    assert uploads(server) == 2

    for _ in range(2):  # a retry of the run replaces nothing
        replaced = confirmed(make_batch(layout=other, run=run, replace_others=True))
        assert uploads(server) == 3
    assert replaced["alpha"].run == run
    assert replaced["beta"] == first["beta"]
    assert listed(server, "alpha") == replaced["alpha"].submission
    # now the slot is the other run's; the copy of the first run's record stays
    assert set(failures(make_batch())) == {"alpha"}
    assert stored_record(layout, "alpha")["submission"] == first["alpha"].submission


def test_submit_run_replaces_its_own_other_predictions(
    server: PracticeServer, make_batch: Batch, layout: RunLayout
) -> None:
    first = confirmed(make_batch())
    change_predictions(layout)
    again = confirmed(make_batch())
    assert again["alpha"].submission != first["alpha"].submission
    assert again["beta"] == first["beta"]
    assert uploads(server) == 3


@pytest.mark.parametrize("is_created", [True, False])
def test_submit_other_predictions_of_a_killed_run_count_if_the_server_has_them(
    server: PracticeServer,
    make_batch: Batch,
    season: ClockedSeason,
    monkeypatch: pytest.MonkeyPatch,
    is_created: bool,
) -> None:
    batch = make_batch()
    real = batch._account.create_submission

    def create_and_die(*arguments: Any) -> Any:
        if is_created:
            real(*arguments)
        raise KilledError

    monkeypatch.setattr(batch._account, "create_submission", create_and_die)
    with pytest.raises(KilledError):
        submit(batch)
    other = make_run(season, run="2" * 12)
    change_predictions(other)
    # it is unknown for a while
    server.faults.add(graphql("status", LATEST), graphql("graphql_error", LATEST, message="models not found"))
    records, errors = submit(make_batch(layout=other))
    assert set(errors) == ({"alpha"} if is_created else set())
    assert len(server.store.submissions(model_id(server, "alpha"))) == 1
    assert ("alpha" in records) == (not is_created)


def test_submit_with_replace_repeats_predictions_that_were_replaced_by_hand(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, layout: RunLayout
) -> None:
    first = confirmed(make_batch())
    by_hand = Account(ApiClient(server.address, timeout=10, keys=KEYS))
    filename = by_hand.upload_file(model_id(server, "alpha"), layout.submission("beta"))
    by_hand.create_submission(model_id(server, "alpha"), filename)
    records = confirmed(make_batch(layout=make_run(season, run="2" * 12), replace_others=True))
    assert records["alpha"].submission == listed(server, "alpha") != first["alpha"].submission
    assert records["beta"].submission == first["beta"].submission
    assert uploads(server) == 4


def test_submit_other_predictions_after_the_next_opening_name_the_closed_round(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason
) -> None:
    confirmed(make_batch())
    season.clock = NumeraisRound(NUMBER + 1).opens + timedelta(minutes=5)
    other = make_run(season, run="2" * 12)
    change_predictions(other)
    assert isinstance(failures(make_batch(layout=other))["alpha"], RoundClosedError)


def test_submit_slot_is_one_source_and_round(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, layout: RunLayout
) -> None:
    confirmed(make_batch())
    alpha = model_id(server, "alpha")
    assert layout.data.submission_slot("numerai", NUMBER, alpha).is_file()
    assert not layout.data.submission_slot("practice", NUMBER, alpha).exists()
    other = make_run(season, run="2" * 12)
    change_predictions(other)
    assert set(confirmed(make_batch(layout=other, source="practice"))) == {"alpha", "beta"}


def test_submit_waits_for_another_run_at_the_same_slot_without_delaying_others(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, layout: RunLayout, time: TimeMachine
) -> None:
    slot = layout.data.submission_slot("numerai", NUMBER, model_id(server, "alpha"))
    other = make_run(season, run="2" * 12)
    change_predictions(other)
    with ExitStack() as held:
        assert held.enter_context(file_lock(lock_path(slot)))
        beta: list[str] = []
        time.at(SATURDAY + timedelta(minutes=1), lambda: beta.append(stored_record(layout, "beta")["status"]))
        # the other run ends its work on the slot, and a third one submits there
        time.at(SATURDAY + timedelta(minutes=2), held.close)
        time.at(SATURDAY + timedelta(minutes=2), lambda: submit(make_batch(layout=other)))
        records, errors = submit(make_batch())
    assert beta == ["on-time"]
    assert set(errors) == {"alpha"}
    assert set(records) == {"beta"}
    assert len(server.store.submissions(model_id(server, "alpha"))) == 1


def test_submit_adopts_the_record_of_the_release_before(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, layout: RunLayout
) -> None:
    confirmed(make_batch())
    for name in CHOSEN:  # it had no slots, and named no DAG
        layout.data.submission_slot("numerai", NUMBER, model_id(server, name)).unlink()
        record = stored_record(layout, name)
        del record["dag"], record["numerai_model"]
        layout.submission_record(name).write_text(json.dumps(record))
        write_manifest(layout.submission_record(name))
    confirmed(make_batch())
    other = make_run(season, run="2" * 12)
    change_predictions(other)
    assert set(failures(make_batch(layout=other))) == {"alpha"}
    assert uploads(server) == 2


def test_submission_slot_of_a_hostile_id_stays_in_its_folder(layout: RunLayout) -> None:
    folder = layout.data.submissions_root / "numerai" / str(NUMBER)
    assert layout.data.submission_slot("numerai", NUMBER, "../../x").parent == folder
    assert layout.data.submission_slot("numerai", NUMBER, "a-b").name == "a-b.json"


def test_submit_with_one_creation_unknown_uploads_the_others(
    server: PracticeServer, make_batch: Batch, layout: RunLayout, time: TimeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch()
    monkeypatch.setattr(batch._account, "create_submission", killed)
    with pytest.raises(KilledError):
        submit(batch)
    server.faults.add(graphql("status", LATEST, count=ALWAYS))
    time.at(SATURDAY + timedelta(minutes=30), server.faults.clear)
    beta: list[str] = []
    time.at(SATURDAY + timedelta(minutes=1), lambda: beta.append(stored_record(layout, "beta")["status"]))
    confirmed(make_batch())
    assert beta == ["uploaded"]


def test_submit_with_a_lost_reply_of_creation_finds_it(
    server: PracticeServer, make_batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch()
    real = batch._account.create_submission
    lost: list[str] = []

    def lose_first_reply(*arguments: Any) -> str:
        created = real(*arguments)
        if not lost:
            lost.append(created)
            msg = "no answer in time"
            raise NetworkError(msg)
        return created

    monkeypatch.setattr(batch._account, "create_submission", lose_first_reply)
    assert confirmed(batch)["alpha"].submission == lost[0]
    assert len(server.store.submissions(model_id(server, "alpha"))) == 1


def test_submit_never_listed_fails_after_the_confirmation_time(
    server: PracticeServer, make_batch: Batch, season: ClockedSeason, layout: RunLayout
) -> None:
    server.faults.add(graphql("unlisted", LATEST, count=ALWAYS))
    errors = failures(make_batch(confirmation_seconds=120))
    assert season.clock - SATURDAY == timedelta(seconds=120)
    assert all(type(error).__base__ is SubmissionError for error in errors.values())
    assert "was not confirmed within 120 s (NUMERAI_CONFIRMATION_SECONDS): Numerai lists no submission" in str(
        errors["alpha"]
    )
    # Numerai has none for the round: the next attempt uploads it again
    server.faults.clear()
    assert not layout.submission_record("alpha").exists()
    confirmed(make_batch())
    assert uploads(server) == 4


def test_submit_with_an_unknown_status_shows_it_and_uploads_once(
    server: PracticeServer, make_batch: Batch, layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from practice import submission_store

    real = submission_store._entry

    def renamed(*arguments: Any) -> Any:
        entry = real(*arguments)
        return entry if entry.status == "none" else replace(entry, status="under-review")  # type: ignore[arg-type]

    monkeypatch.setattr(submission_store, "_entry", renamed)
    for _ in range(2):
        errors = failures(make_batch(confirmation_seconds=30))
        assert f"Numerai reports 'under-review' for round {NUMBER}; check the model's page" in str(errors["alpha"])
        assert stored_record(layout, "alpha")["status"] == "uploaded"
    assert uploads(server) == 2
    monkeypatch.undo()
    confirmed(make_batch())
    assert uploads(server) == 2


def test_submit_replaced_by_another_submission_is_not_repeated(
    server: PracticeServer, make_batch: Batch, layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch()
    monkeypatch.setattr(batch._account, "latest_submissions", killed)
    with pytest.raises(KilledError):
        submit(batch)
    by_hand = Account(ApiClient(server.address, timeout=10, keys=KEYS))
    filename = by_hand.upload_file(model_id(server, "alpha"), layout.submission("beta"))
    newer = by_hand.create_submission(model_id(server, "alpha"), filename)
    records, errors = submit(make_batch(confirmation_seconds=30))
    assert set(records) == {"beta"}
    assert f"Numerai lists submission {newer} for the round instead" in str(errors["alpha"])
    assert uploads(server) == 3


def test_submit_with_revoked_keys_fails_at_once(server: PracticeServer, make_batch: Batch, time: TimeMachine) -> None:
    with pytest.raises(CredentialsError, match="Session not found"):
        submit(make_batch(keys=(KEYS[0], "revoked")))
    assert (time.sleeps, uploads(server)) == ([], 0)


def test_submit_without_the_status_scope_names_the_uploads(
    season: ClockedSeason, layout: RunLayout, time: TimeMachine, make_batch: Batch
) -> None:
    scopes = ("upload_submission", "read_user_info")
    with running(season, [accounts.Account.of(":".join(KEYS), list(CHOSEN), scopes)]) as server:
        client = ApiClient(server.address, timeout=10, policy=RetryPolicy(attempts=1), keys=KEYS)
        policy = RetryPolicy(clock=time.now, sleep=time.block)
        run = RunRef("numerai_tournament", "a-run")
        batch = SubmissionBatch(Account(client), Tournament(client), layout, run, "numerai", NUMBER, policy=policy)
        with pytest.raises(CredentialsError, match=r"uploaded, but not confirmed: alpha \(.*lack the scope read_subm"):
            submit(batch)
        assert stored_record(layout, "alpha")["status"] == "uploaded"
        with pytest.raises(MissingScopeError, match="read_submission_info"):
            Account(client).check_access()


def test_submit_logs_and_stores_no_secret(
    server: PracticeServer, make_batch: Batch, layout: RunLayout, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults.add(Fault(kind="status", on="upload", status=403))
    confirmed(make_batch())
    server.faults.add(Fault(kind="status", on="upload", status=403, count=ALWAYS))
    # urllib3's lines at this level are not ours, and Airflow does not log them
    texts = [record.getMessage() for record in caplog.records if not record.name.startswith("urllib3")]
    assert any("uploaded alpha.csv" in text for text in texts)
    texts += [path.read_text() for path in (layout.directory / "submissions").rglob("*") if path.is_file()]
    for text in texts:
        assert not any(secret in text for secret in (*KEYS, "signature="))
