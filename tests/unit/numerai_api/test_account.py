"""The account against recorded answers of Numerai's API, by the real numerapi and over real HTTP."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numerapi
import pytest
from numerapi import base_api

from numerai_pipeline.core.errors import (
    CredentialsError,
    NetworkError,
    NotFoundError,
    PipelineError,
    ProtocolError,
    SubmissionError,
)
from numerai_pipeline.numerai_api import account as account_module
from numerai_pipeline.numerai_api.account import LATE, NONE, ON_TIME, QUEUED, Account, SubmissionEntry
from numerai_pipeline.numerai_api.client import ApiClient, MissingScopeError, NoOpenRoundError
from numerai_pipeline.numerai_api.retries import RetryPolicy
from tests.recorded.answers import all_recorded, latest_submissions, recorded, submission_statuses
from tests.recorded.server import RecordedServer

KEYS = ("PUBLIC-ID-OF-TESTS", "secret-key-of-tests")


@pytest.fixture
def server() -> Iterator[RecordedServer]:
    with RecordedServer().running() as server:
        yield server


@pytest.fixture
def account(server: RecordedServer) -> Account:
    policy = RetryPolicy(attempts=2, initial_delay=0.001, max_delay=0.002)
    return Account(ApiClient(server.address, timeout=10, policy=policy, keys=KEYS))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text("id,prediction\nn1,0.25\nn2,0.75\n")
    return path


def test_submission_statuses_equal_the_recorded_ones() -> None:
    assert {ON_TIME, LATE, QUEUED, NONE} == submission_statuses()


@pytest.mark.parametrize("name", [answer.name for answer in all_recorded("latest_submissions_")])
def test_latest_submissions_as_recorded_are_read(server: RecordedServer, account: Account, name: str) -> None:
    server.give("latestSubmissions", recorded(name))
    (model,) = recorded(name).data["account"]["models"]
    assert account.latest_submissions() == [
        SubmissionEntry(model["id"], entry["roundNumber"], entry["status"], entry["id"], entry["filename"])
        for entry in latest_submissions(name)
    ]


def test_latest_submissions_without_models_is_a_protocol_error(server: RecordedServer, account: Account) -> None:
    server.answers["latestSubmissions"] = {"data": {"account": {"models": [{"id": "m1"}]}}}
    with pytest.raises(ProtocolError, match="cannot read the latest submissions"):
        account.latest_submissions()


ERRORS: dict[str, tuple[type[PipelineError], str]] = {
    "error_session_not_found": (CredentialsError, r"keys were refused \(Session not found \(session_not_found\)\)"),
    "error_session_expired": (CredentialsError, "keys were refused .*wrong, expired or revoked; check the connection"),
    "error_not_authenticated": (CredentialsError, "keys were refused .*NUMERAI_PUBLIC_ID"),
    "error_missing_scope_read_submission_info": (MissingScopeError, "lack the scope read_submission_info"),
    "error_missing_scope_read_user_info": (MissingScopeError, "lack the scope read_user_info"),
    "error_missing_scope_upload_submission": (MissingScopeError, "lack the scope upload_submission"),
    "error_no_current_round": (NoOpenRoundError, "not open for submissions"),
    "error_live_ids_missing": (ProtocolError, "the server refused the query: FileNotFoundError"),
}


def test_error_table_has_every_recorded_error() -> None:
    assert set(ERRORS) == {answer.name for answer in all_recorded("error_")}


@pytest.mark.parametrize(("name", "expected"), ERRORS.items(), ids=ERRORS.keys())
def test_error_as_recorded_is_classified(
    server: RecordedServer, account: Account, name: str, expected: tuple[type[PipelineError], str]
) -> None:
    server.give("latestSubmissions", recorded(name))
    error, text = expected
    with pytest.raises(error, match=text) as raised:
        account.latest_submissions()
    assert type(raised.value) is error
    assert not any(key in str(raised.value) for key in KEYS)


@pytest.mark.parametrize("name", [name for name in ERRORS if "scope" in name or "session" in name])
def test_query_rejected_keys_are_not_retried(server: RecordedServer, account: Account, name: str) -> None:
    server.give("account", recorded(name))
    with pytest.raises(CredentialsError):
        account.models()
    assert server.requests == ["account"]


def test_model_id_of_unknown_model_lists_the_models(account: Account) -> None:
    assert account.model_id("mine") == "m1"
    with pytest.raises(NotFoundError, match=r"no model 'gamma' \(its models: mine\): correct the name"):
        account.model_id("gamma")


def tokens(*scopes: str, public_id: str = KEYS[0]) -> dict[str, Any]:
    return {"data": {"account": {"apiTokens": [{"public_id": public_id, "scopes": list(scopes)}]}}}


@pytest.mark.parametrize(
    "answer",
    [
        tokens("upload_submission", "read_user_info", "read_submission_info"),
        tokens(),
        tokens("read_user_info", public_id="ANOTHER-KEY"),
        {"data": {"account": {"apiTokens": None}}},
        {"data": {"account": {}}},
        recorded("error_missing_scope_read_user_info").answer,
        {"errors": [{"message": "Internal server error"}]},
    ],
    ids=["granted", "unknown", "not listed", "null", "absent", "not permitted", "server error"],
)
def test_check_access_without_proof_against_it_passes(
    server: RecordedServer, account: Account, answer: dict[str, Any]
) -> None:
    server.answers["apiTokens"] = answer
    account.check_access()


def test_check_access_without_the_upload_scope_names_it(server: RecordedServer, account: Account) -> None:
    server.answers["apiTokens"] = tokens("read_user_info", "read_submission_info")
    with pytest.raises(MissingScopeError, match=r"lack the scope upload_submission \(theirs: read_user_info, read_s"):
        account.check_access()


def test_check_access_without_the_status_scope_names_it(server: RecordedServer, account: Account) -> None:
    server.give("latestSubmissions", recorded("error_missing_scope_read_submission_info"))
    with pytest.raises(MissingScopeError, match="read_submission_info") as raised:
        account.check_access()
    assert raised.value.scope == "read_submission_info"


def test_not_found_while_submitting_is_transient(server: RecordedServer, account: Account, predictions: Path) -> None:
    missing = {"data": None, "errors": [{"message": "File not found: live ids"}]}
    server.answers["create_submission"] = missing
    with pytest.raises(NetworkError, match="File not found: live ids"):
        account.create_submission("m1", "predictions-AbCdEfGhIjKl.csv")
    server.answers["submission_upload_auth"] = missing
    with pytest.raises(NetworkError, match="File not found: live ids"):
        account.upload_file("m1", predictions)


def test_not_found_while_checking_the_account_is_transient(server: RecordedServer, account: Account) -> None:
    missing = {"data": None, "errors": [{"message": "File not found: models"}]}
    server.answers["latestSubmissions"] = missing
    with pytest.raises(NetworkError, match="File not found: models"):
        account.check_access()
    server.answers["account"] = missing
    with pytest.raises(NetworkError, match="File not found: models"):
        account.models()
    assert server.requests == ["latestSubmissions"] * 2 + ["account"] * 2


def test_diagnostics_as_recorded_give_the_first_entry(
    server: RecordedServer, account: Account, predictions: Path
) -> None:
    found = account.diagnose("m1", predictions)
    assert found["validationCorrMean"] == recorded("diagnostics_done").data["diagnostics"][0]["validationCorrMean"]


@pytest.mark.parametrize("pending", [None, [], [{"status": "pending"}], [None]])
def test_diagnostics_not_done_are_polled_until_the_timeout(
    server: RecordedServer, account: Account, predictions: Path, pending: Any
) -> None:
    server.answers["diagnostics"] = {"data": {"diagnostics": pending}}
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            server.give("diagnostics", recorded("diagnostics_done"))

    assert account.diagnose("m1", predictions, poll_seconds=7, sleep=sleep)["status"] == "done"
    assert slept == [7, 7]
    server.answers["diagnostics"] = {"data": {"diagnostics": pending}}
    with pytest.raises(SubmissionError, match="were not done within 0 s"):
        account.diagnose("m1", predictions, timeout_seconds=0)


def test_repr_of_client_and_account_has_no_keys(account: Account) -> None:
    assert not any(key in repr((account, account._client, replace(account._client.policy))) for key in KEYS)


def test_account_queries_equal_those_of_numerapi() -> None:
    def words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text))

    upload = words(inspect.getsource(numerapi.NumerAPI.upload_predictions))
    assert words(account_module._CREATE) <= upload
    diagnostics = words(inspect.getsource(base_api.Api.upload_diagnostics))
    assert words(account_module._CREATE_DIAGNOSTICS) <= diagnostics
    assert words(account_module._SCOPES) <= words(inspect.getsource(base_api.Api.get_account))
