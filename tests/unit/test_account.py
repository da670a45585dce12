"""Submissions on good and bad days, by the real numerapi and over real HTTP."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numerapi
import pandas as pd  # type: ignore[import-untyped]
import pytest
from numerapi import base_api

from numerai_pipeline import account as account_module
from numerai_pipeline.account import Account
from numerai_pipeline.downloads import Patience
from numerai_pipeline.errors import (
    CredentialsError,
    NetworkError,
    NotFoundError,
    PipelineError,
    ProtocolError,
    SubmissionError,
)
from practice import accounts
from practice.faults import Fault, Kind, Place
from practice.model import SeasonSize
from practice.season import Season
from practice.server import PracticeServer, running

SIZE = SeasonSize(rows_per_era=50, train_eras=4, validation_eras=15, small=4, medium=6, all_features=8)
QUICK = Patience(attempts=3, first_wait=0.001, longest_wait=0.002)
TODAY = datetime(2026, 8, 15, 13, 0, tzinfo=UTC)  # Saturday: round 1334 is open
KEYS = ("PUBLIC-ID-OF-TESTS", "secret-key-of-tests")
ALWAYS = 1000
CREATE, LATEST, LISTED = "create_submission(", "latestSubmissions", "submissions(modelId"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PracticeServer]:
    season = Season(tmp_path / "season", SIZE, today=TODAY)
    with running(season, [accounts.Account.of(":".join(KEYS), ["alpha", "beta"])]) as server:
        yield server


def connected(
    server: PracticeServer,
    faults: Sequence[Fault] = (),
    *,
    keys: tuple[str, str] = KEYS,
    confirm_within: float = 30,
) -> Account:
    """Connect with little patience for a server that is to be slow, and enough for one on a busy machine."""
    timeout = 0.5 if any(each.kind == "delay" for each in faults) else 10.0
    return Account(
        server.address, keys, timeout=timeout, patience=QUICK, confirm_within=confirm_within, first_look=0.001
    )


@pytest.fixture
def predictions(server: PracticeServer, tmp_path: Path) -> Path:
    rows = server.season.live_rows(1334)
    path = tmp_path / "alpha.csv"
    pd.DataFrame({"id": rows.ids.astype(str), "prediction": rows.example}).to_csv(path, index=False)
    return path


def fault(on: Place, kind: Kind, match: str = "", **options: Any) -> Fault:
    return Fault(kind=kind, on=on, match=match, **options)


def test_the_accounts_models(server: PracticeServer) -> None:
    account = connected(server)
    assert list(account.models()) == ["alpha", "beta"]
    with pytest.raises(NotFoundError, match=r"no model 'gamma' \(there are: alpha, beta\): see NUMERAI_SUBMISSIONS"):
        account.model_id("gamma")


GOOD = [
    pytest.param([], id="nothing"),
    pytest.param([fault("upload", "status", status=403)], id="the address expired"),
    pytest.param([fault("upload", "status", status=404)], id="the address is gone"),
    pytest.param([fault("upload", "status", status=503, count=2)], id="the storage is busy"),
    pytest.param([fault("upload", "delay", seconds=0.8)], id="the storage is slow"),
    pytest.param([fault("upload", "html")], id="a page of maintenance instead of the storage"),
    pytest.param([fault("graphql", "status", "submission_upload_auth")], id="no address at first"),
    pytest.param([fault("graphql", "status", CREATE, status=429)], id="too many requests"),
    pytest.param([fault("graphql", "delay", CREATE, seconds=0.8)], id="handing in is slow: two submissions"),
    pytest.param([fault("graphql", "pending", LATEST, count=4)], id="it takes a while to be checked"),
    pytest.param([fault("graphql", "status", LATEST, count=4)], id="it takes a while to be told"),
    pytest.param([fault("graphql", "html", LISTED, count=4)], id="a page of maintenance instead of an answer"),
]


@pytest.mark.parametrize("faults", GOOD)
def test_what_passes_is_waited_for(server: PracticeServer, predictions: Path, faults: list[Fault]) -> None:
    account = connected(server, faults)
    model_id = account.model_id("alpha")
    server.faults.add(*faults)
    submission = account.submit(model_id, predictions, 1334)
    assert (submission.round, submission.status, submission.is_late) == (1334, "success", False)
    assert submission.id in [entry.id for entry in server.desk.submissions(model_id)]
    # a query that was given up may have been heard all the same: then there are two submissions of the same file
    (counting,) = server.desk.counting(model_id)
    assert server.desk.file(counting).read_bytes() == predictions.read_bytes()
    assert server.faults.take("upload", "", is_range=False) == {}


BAD = [
    pytest.param([fault("upload", "status", status=403, count=ALWAYS)], NetworkError, "answered 403", id="put 403"),
    pytest.param([fault("upload", "status", status=503, count=ALWAYS)], NetworkError, "answered 503", id="put 503"),
    pytest.param([fault("upload", "status", status=307, count=ALWAYS)], ProtocolError, "answered 307", id="put moved"),
    pytest.param([fault("upload", "html", count=ALWAYS)], NetworkError, "HTML page", id="put html"),
    pytest.param(
        [fault("upload", "delay", seconds=0.8, count=ALWAYS)], NetworkError, "no answer in time", id="put slow"
    ),
    pytest.param([fault("graphql", "status", CREATE, count=ALWAYS)], NetworkError, "answered 503", id="handing in 503"),
    pytest.param(
        [fault("graphql", "status", CREATE, status=401)], CredentialsError, "keys were refused", id="handing in 401"
    ),
    pytest.param(
        [fault("graphql", "graphql_error", CREATE, message="model is archived", count=ALWAYS)],
        ProtocolError,
        "model is archived",
        id="handing in refused",
    ),
    pytest.param(
        [fault("graphql", "reject", CREATE)], SubmissionError, "refused submission .* 'failed'", id="found invalid"
    ),
    pytest.param(
        [fault("graphql", "pending", LATEST, count=ALWAYS)],
        SubmissionError,
        r"not confirmed within 0\.3 s .*'pending'",
        id="never decided",
    ),
    pytest.param(
        [fault("graphql", "html", LATEST, count=ALWAYS)],
        SubmissionError,
        r"not confirmed within 0\.3 s .*not JSON",
        id="never told",
    ),
]


@pytest.mark.parametrize(("faults", "error", "says"), BAD)
def test_what_does_not_pass_is_its_named_error(
    server: PracticeServer, predictions: Path, faults: list[Fault], error: type[PipelineError], says: str
) -> None:
    account = connected(server, faults, confirm_within=0.3)
    model_id = account.model_id("alpha")
    server.faults.add(*faults)
    with pytest.raises(error, match=says):
        account.submit(model_id, predictions, 1334)


def test_a_late_one_says_for_which_round_it_was_queued(server: PracticeServer, predictions: Path) -> None:
    account = connected(server)
    server.faults.add(fault("graphql", "late", CREATE))
    submission = account.submit(account.model_id("alpha"), predictions, 1334)
    assert (submission.round, submission.asked_for, submission.is_late) == (1335, 1334, True)


def test_an_invalid_file_is_found_out_though_one_was_accepted_before(server: PracticeServer, predictions: Path) -> None:
    account = connected(server)
    model_id = account.model_id("alpha")
    account.submit(model_id, predictions, 1334)
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(SubmissionError, match="refused"):
        account.submit(model_id, predictions, 1334)
    # the other model's submissions say nothing about this one
    predictions.write_text("id,prediction\n")
    with pytest.raises(SubmissionError, match="refused"):
        account.submit(account.model_id("beta"), predictions, 1334)


def test_a_file_that_never_arrived_is_found_out_even_if_the_storage_says_it_did(
    server: PracticeServer, predictions: Path
) -> None:
    account = connected(server)
    server.desk.receive = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(SubmissionError, match="refused submission"):
        account.submit(account.model_id("alpha"), predictions, 1334)


@pytest.mark.parametrize("keys", [("PUBLIC-ID-OF-TESTS", "wrong-key"), ("NOBODY", "secret-key-of-tests")])
def test_wrong_keys_are_told_and_not_tried_again(server: PracticeServer, keys: tuple[str, str]) -> None:
    with pytest.raises(CredentialsError, match="keys were refused") as refused:
        connected(server, keys=keys).models()
    assert len(server.requests.entries(on="graphql")) == 1
    assert not any(key in str(refused.value) for key in keys)


def test_keys_and_signed_addresses_are_never_logged(
    server: PracticeServer, predictions: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    faults = [fault("upload", "status", status=403), fault("upload", "delay", seconds=0.8)]
    account = connected(server, faults)
    server.faults.add(*faults)
    account.submit(account.model_id("alpha"), predictions, 1334)
    server.faults.add(fault("upload", "status", status=403, count=ALWAYS))
    with pytest.raises(NetworkError) as failed:
        account.submit(account.model_id("alpha"), predictions, 1334)
    # what urllib3 says of its connections at this level is not ours, and Airflow does not log it
    said = " ".join(record.getMessage() for record in caplog.records if not record.name.startswith("urllib3"))
    assert "uploaded alpha.csv" in said
    for text in (said, str(failed.value), repr(account)):
        assert not any(secret in text for secret in (*KEYS, "signature="))


def test_diagnostics(server: PracticeServer, tmp_path: Path) -> None:
    account = connected(server, confirm_within=0.3)
    known = pd.read_parquet(server.season.file("v5.3/validation.parquet", 1334))
    path = tmp_path / "validation.csv"
    known["target"].fillna(0.5).rename("prediction").clip(0.01, 0.99).to_csv(path)
    found = account.diagnose(account.model_id("alpha"), path)
    assert found["validationCorrMean"] > 0.3
    path.write_text("id,score\na,0.5\n")
    with pytest.raises(SubmissionError, match="the header is 'id,score'"):
        account.diagnose(account.model_id("alpha"), path)


def test_numerapi_still_asks_as_we_do() -> None:
    def words(text: str) -> set[str]:
        return set(re.findall(r"\w+", text))

    upload = words(inspect.getsource(numerapi.NumerAPI.upload_predictions))
    assert words(account_module._CREATE) <= upload
    diagnostics = words(inspect.getsource(base_api.Api.upload_diagnostics))
    assert words(account_module._CREATE_DIAGNOSTICS) <= diagnostics
