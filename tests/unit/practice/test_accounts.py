"""Accounts of the simulator: keys, scopes, models and uploads, queried with numerapi."""

from __future__ import annotations

from typing import Any

import numerapi
import pytest
import requests

from practice.accounts import SCOPES, Account
from practice.server import PracticeServer, running
from tests.recorded.answers import recorded
from tests.unit.practice.simulator import ACCOUNT, KEYS, MovingSeason, make_client

ACCOUNT_QUERY = "{ account { models { id name } } }"


def post(server: PracticeServer, query: str, *keys: str, **variables: Any) -> requests.Response:
    headers = {"Authorization": f"Token {keys[0]}${keys[1]}"} if keys else {}
    body = {"query": query, "variables": variables}
    return requests.post(server.address, json=body, headers=headers, timeout=30)


def test_account_with_models_lists_them_with_stable_ids(api: numerapi.NumerAPI) -> None:
    models = api.get_models()
    assert list(models) == ["alpha", "beta"]
    assert models == {model.name: model.id for model in Account.of("PUBLIC:another", ["alpha", "beta"]).models}
    account = api.get_account()
    assert (account["username"], account["models"][0]["name"]) == ("PUBLIC", "alpha")
    assert account["apiTokens"][0]["scopes"] == list(SCOPES)
    assert "s3cr3t" not in str(account)


@pytest.mark.parametrize("keys", [("PUBLIC", "wrong"), ("another", "s3cr3t-k3y")])
def test_keys_when_unknown_get_the_recorded_answer(server: PracticeServer, keys: tuple[str, str]) -> None:
    answer = post(server, ACCOUNT_QUERY, *keys)
    assert (answer.status_code, answer.json()) == (200, recorded("error_session_not_found").answer)
    with pytest.raises(ValueError, match=r"^$"):  # numerapi reads only an error's key message
        make_client(*keys).get_models()


def test_keys_when_missing_get_the_recorded_answer(server: PracticeServer) -> None:
    assert post(server, ACCOUNT_QUERY).json() == recorded("error_not_authenticated").answer


@pytest.mark.parametrize(
    ("query", "scope"),
    [
        (ACCOUNT_QUERY, "read_user_info"),
        ("{ account { models { latestSubmissions { id } } } }", "read_submission_info"),
        ("{ account { models { submissions { id } } } }", "read_submission_info"),
        ('{ submissions(modelId: "MODEL") { id } }', "read_submission_info"),
        ('{ diagnostics(modelId: "MODEL") { status } }', "read_submission_info"),
        ('{ submission_upload_auth(filename: "x.csv" modelId: "MODEL") { url } }', "upload_submission"),
        ('{ diagnosticsUploadAuth(filename: "x.csv" modelId: "MODEL") { url } }', "upload_submission"),
        (
            'mutation { create_submission(filename: "x" tournament: 8 modelId: "MODEL") { id } }',
            "upload_submission",
        ),
        (
            'mutation { createDiagnostics(filename: "x" tournament: 8 modelId: "MODEL") { id } }',
            "upload_submission",
        ),
    ],
)
def test_query_without_its_scope_gets_the_recorded_error(season: MovingSeason, query: str, scope: str) -> None:
    query = query.replace("MODEL", ACCOUNT.models[0].id)
    (expected,) = recorded(f"error_missing_scope_{scope}").answer["errors"]
    others = [other for other in SCOPES if other != scope]
    with running(season, [Account.of(":".join(KEYS), ["alpha"], others)]) as server:
        answer = post(server, query, *KEYS).json()
        assert [error["message"] for error in answer["errors"]] == [expected["message"]]
        assert set(answer["data"].values()) == {None}
    with running(season, [Account.of(":".join(KEYS), ["alpha"], [scope, "read_user_info"])]) as server:
        assert "Insufficient" not in post(server, query, *KEYS).text


def test_upload_address_is_signed_for_one_file_and_model(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    models = api.get_models()
    auth = api._upload_auth("submission_upload_auth", "x.csv", 8, models["alpha"])
    forged = auth["url"][:-1] + ("1" if auth["url"].endswith("0") else "0")
    assert requests.put(forged, data=b"", timeout=30).status_code == 403
    assert requests.put(f"{server.address}/uploads/x.csv", data=b"", timeout=30).status_code == 403
    assert requests.get(auth["url"], timeout=30).status_code == 405
    query = "mutation($f: String! $m: String) { create_submission(filename: $f tournament: 8 modelId: $m) { id } }"
    for filename, model in ((auth["filename"], models["beta"]), ("other.csv", models["alpha"])):
        with pytest.raises(ValueError, match="simulator: no upload of the name"):
            api.raw_query(query, {"f": filename, "m": model}, authorization=True)


def test_model_of_another_account_is_refused(server: PracticeServer) -> None:
    stranger = Account.of("OTHER:key", ["alpha"])
    query = "query($m: String) { submissions(modelId: $m) { id } }"
    answer = post(server, query, *KEYS, m=stranger.models[0].id).json()
    assert answer["errors"][0]["message"] == f"simulator: model {stranger.models[0].id} not found"


@pytest.mark.parametrize(
    ("keys", "models", "scopes", "text"),
    [
        ("PUBLIC", ["a"], SCOPES, "PUBLIC:SECRET"),
        ("PUB$LIC:x", ["a"], SCOPES, "no \\$"),
        ("PUBLIC:x", [], SCOPES, "needs models"),
        ("PUBLIC:x", ["a", "a"], SCOPES, "distinct names"),
        ("PUBLIC:x", ["../a"], SCOPES, "letters"),
        ("PUBLIC:x", ["a"], ["upload_submission", "upload"], "unknown scope upload: the scopes are"),
    ],
)
def test_account_with_invalid_parts_is_refused(keys: str, models: list[str], scopes: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Account.of(keys, models, scopes)
