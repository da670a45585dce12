"""The simulator answers in the words and structure of Numerai's recorded answers."""

from __future__ import annotations

import ast
import typing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numerapi
import pandas as pd  # type: ignore[import-untyped]
import pytest
import requests
from graphql import GraphQLError

import practice
from practice import errors
from practice.accounts import SCOPES
from practice.faults import Fault
from practice.payouts import paid_corr
from practice.protocol import SCHEMA
from practice.rounds import SeasonRound
from practice.server import PracticeServer
from practice.submission_store import Status
from tests.recorded.answers import (
    all_recorded,
    diagnostics_statuses,
    error_texts,
    recorded,
    score_names,
    shape,
    submission_statuses,
)
from tests.unit.practice.simulator import KEYS, SATURDAY, MovingSeason, example_predictions

UNPUBLISHED_SCOPES = {"download_submission"}
"""Scopes that no query of the simulator needs."""


def post(server: PracticeServer, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Token {KEYS[0]}${KEYS[1]}"}
    body = {"query": query, "variables": variables}
    answer: dict[str, Any] = requests.post(server.address, json=body, headers=headers, timeout=30).json()
    return answer


def query_as_recorded(server: PracticeServer, name: str, **variables: Any) -> dict[str, Any]:
    """Send the query of a recorded answer, with variables of the simulator's."""
    found = recorded(name)
    return post(server, found.query, {**found.variables, **variables})


def test_every_recorded_answer_has_a_source_and_a_query_of_the_schema() -> None:
    names = {answer.name for answer in all_recorded()}
    assert len(names) > 15
    for answer in all_recorded():
        assert all(answer.source), answer.name
        assert answer.answer.keys() <= {"data", "errors"}
        fields = set(answer.data or {}) or {""}
        roots = SCHEMA.type_map["Query"], SCHEMA.type_map["Mutation"]
        known = {name for root in roots for name in root.fields}  # type: ignore[attr-defined]
        assert fields <= known, answer.name


def test_submission_statuses_are_the_recorded_ones() -> None:
    assert set(typing.get_args(Status)) == submission_statuses()


def test_error_texts_are_recorded_or_marked_as_the_simulators() -> None:
    own: list[GraphQLError] = [errors.session_not_found(), errors.not_authenticated()]
    own += [errors.missing_scope(scope) for scope in SCOPES if scope not in UNPUBLISHED_SCOPES]
    assert {error.message for error in own} <= error_texts()
    assert errors.SimulatorError("x").message == "simulator: x"


def test_resolvers_raise_errors_of_the_errors_module_only() -> None:
    for path in Path(practice.__file__).parent.glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert "GraphQLError" not in names or path.name == "errors.py", path


@pytest.mark.parametrize("case", ["on_time", "none", "late_and_queued", "queued_after_on_time"])
def test_latest_submissions_have_the_recorded_structure(
    api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason, case: str
) -> None:
    late = Fault(kind="late", on="graphql", match="create_submission(")
    model = api.get_models()["alpha"]
    faults: dict[str, list[list[Fault]]] = {"on_time": [[]], "none": [], "late_and_queued": [[late]]}
    for added in faults.get(case, [[], [late]]):
        server.faults.add(*added)
        api.upload_predictions(model_id=model, df=example_predictions(season, 1334))
    expected = recorded(f"latest_submissions_{case}")
    answer = query_as_recorded(server, expected.name)
    entries, wanted = (
        found["data"]["account"]["models"][0]["latestSubmissions"] for found in (answer, expected.answer)
    )
    assert [entry["status"] for entry in entries][: len(wanted)] == [entry["status"] for entry in wanted]
    assert shape(answer["data"]["account"]["models"][0]) == shape(expected.data["account"]["models"][0])
    ids = {entry["status"]: entry["id"] for entry in entries}
    assert (ids.get("queued") == ids.get("late")) == (case != "queued_after_on_time")


def test_submission_queries_have_the_recorded_structure(
    api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason
) -> None:
    model = api.get_models()["alpha"]
    auth = query_as_recorded(server, "submission_upload_auth", modelId=model)
    assert shape(auth) == shape(recorded("submission_upload_auth").answer)
    upload = auth["data"]["submission_upload_auth"]
    content = example_predictions(season, 1334).to_csv(index=False).encode()
    requests.put(upload["url"], data=content, timeout=30).raise_for_status()
    created = query_as_recorded(server, "create_submission", modelId=model, filename=upload["filename"])
    assert shape(created) == shape(recorded("create_submission").answer)
    listed = query_as_recorded(server, "submissions", modelId=model)
    assert shape(listed) == shape(recorded("submissions").answer)


def test_diagnostics_have_the_recorded_structure(
    api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason
) -> None:
    model = api.get_models()["alpha"]
    known = pd.read_parquet(season.file("v5.3/validation_example_preds.parquet", 1334)).reset_index()
    found = api.upload_diagnostics(model_id=model, df=known)
    answer = query_as_recorded(server, "diagnostics_done", modelId=model, id=found)
    assert shape(answer) == shape(recorded("diagnostics_done").answer)
    assert {entry["status"] for entry in answer["data"]["diagnostics"]} <= diagnostics_statuses()


@pytest.mark.parametrize("case", ["to_2025", "2026", "from_1343"])
def test_round_score_configs_are_the_recorded_ones(server: PracticeServer, season: MovingSeason, case: str) -> None:
    season.clock = SATURDAY + timedelta(weeks=3)
    name = f"round_score_configs_{case}"
    assert query_as_recorded(server, name) == recorded(name).answer


def test_submission_scores_have_recorded_display_names() -> None:
    assert {paid_corr(SeasonRound(number)).display_name for number in range(1000, 1400)} < score_names()
