from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import (
    DEPRECATED_VARIABLES,
    NUMERAI_API_URL,
    Settings,
    load_notification_settings,
    load_settings,
)


def test_settings_defaults_are_for_live_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMERAI_DATA_DIR")
    monkeypatch.setenv("AIRFLOW_HOME", "/srv/airflow")
    settings = load_settings()
    assert settings.data_dir == Path("/srv/airflow/numerai-data")
    assert settings.api_address("numerai") == NUMERAI_API_URL
    assert settings.schedule == "sat"
    assert settings.pool == "numerai_models"


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_API_URL", "http://127.0.0.1:8000/")
    monkeypatch.setenv("NUMERAI_PRACTICE_URL", "http://127.0.0.1:8001")
    monkeypatch.setenv("NUMERAI_CONTAINER_USER", "1000:1000")
    settings = load_settings()
    assert settings.api_address("numerai") == "http://127.0.0.1:8000"
    assert settings.api_address("practice") == "http://127.0.0.1:8001"
    assert settings.container_user == "1000:1000"


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("off", "off"),
        (" Off", "off"),
        ("sat, TUE,sat", "tue,sat"),
        ("wed", "wed"),
        (" All ", "tue,wed,thu,fri,sat"),
    ],
)
def test_settings_schedule_is_days_or_off(monkeypatch: pytest.MonkeyPatch, value: str, meaning: str) -> None:
    monkeypatch.setenv("NUMERAI_SCHEDULE", value)
    assert load_settings().schedule == meaning


def test_settings_constraints_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SWARM_CONSTRAINTS", "node.labels.numerai==models, node.role != manager")
    assert load_settings().swarm_constraints == ("node.labels.numerai==models", "node.role != manager")


def test_settings_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_API_URL", "")
    assert load_settings().api_url == NUMERAI_API_URL


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NUMERAI_API_URL", "ftp://somewhere", "not an http or https address"),
        ("NUMERAI_DATA_DIR", "data", "not an absolute path"),
        ("NUMERAI_CONTAINER_USER", "0:0", "should match"),
        ("NUMERAI_CONTAINER_USER", "root", "should match"),
        ("NUMERAI_HTTP_TIMEOUT_SECONDS", "soon", "valid number"),
        ("NUMERAI_IMAGE_REGISTRY", "ghcr.io/me", "should match"),
        ("NUMERAI_SCHEDULE", "tue,sun", "'sun' is not a day on which rounds open; choose from tue, wed, thu, fri, sat"),
        ("NUMERAI_SCHEDULE", "0 13 * * 6", "or 'off'"),
        ("NUMERAI_SCHEDULE", "all,sat", "'all' is not a day on which rounds open; choose from"),
        ("NUMERAI_FIT_MAX_AGE_WEEKS", "105", "less than or equal to 104"),
        ("NUMERAI_ROUND_POLL_SECONDS", "0.5", "greater than or equal to 1"),
        ("NUMERAI_ENGINE", "podman", "'docker' or 'swarm'"),
        ("NUMERAI_SWARM_CONSTRAINTS", "numerai=models", "'numerai=models' is not a placement constraint"),
        ("NUMERAI_SWARM_NETWORK", "--host", "should match"),
    ],
)
def test_settings_mistake_names_the_variable_and_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError) as caught:
        load_settings()
    assert f"{name}=" in str(caught.value)
    assert value in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "my_model=ensemble_selection,other=svm",
        " my_model = ensemble_selection , other=svm,",
        '{"my_model": "ensemble_selection", "other": "svm"}',
    ],
)
def test_settings_submissions_are_pairs_or_a_json_object(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", value)
    assert load_settings().submissions == {"my_model": "ensemble_selection", "other": "svm"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("svm", "'svm' is not of the form name=model"),
        ("a=b=c", "'a=b=c' is not of the form name=model"),
        ("a=", "a has no predictions: write a= and the name of one of our models"),
        ("../a=svm", "'../a' is not the name of a model at Numerai"),
        ("a=svm,a=xgboost", "a is listed twice"),
        ("{", "not JSON"),
        ('["a"]', "not a JSON object"),
    ],
)
def test_settings_mistake_in_submissions_names_the_reason(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", value)
    with pytest.raises(BadInputError) as caught:
        load_settings()
    assert f"NUMERAI_SUBMISSIONS='{value}': {message}" in str(caught.value)


def test_settings_default_to_no_submission() -> None:
    settings = load_settings()
    assert (settings.submit, settings.submissions, settings.diagnostics) == (False, {}, False)


def test_settings_mistakes_are_all_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_API_URL", "nowhere")
    monkeypatch.setenv("NUMERAI_HTTP_TIMEOUT_SECONDS", "-1")
    with pytest.raises(BadInputError, match=r"NUMERAI_API_URL.*; NUMERAI_HTTP_TIMEOUT_SECONDS"):
        load_settings()


def test_settings_practice_without_its_server_names_the_remedy() -> None:
    with pytest.raises(BadInputError, match="NUMERAI_PRACTICE_URL"):
        load_settings().api_address("practice")


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("engine_timeout_seconds", "300", 300.0),
        ("round_poll_seconds", "30", 30.0),
        ("http_timeout_seconds", "5", 5.0),
        ("large_queue_memory_mib", "8192", 8192),
        ("notify_events", "failed,missed", ("failed", "missed")),
        ("cores", "8", 8),
    ],
)
def test_settings_former_variable_is_read_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, field: str, text: str, value: object
) -> None:
    former, present = DEPRECATED_VARIABLES[field], f"NUMERAI_{field.upper()}"
    monkeypatch.setenv(former, text)
    load: Callable[[], object] = load_notification_settings if field == "notify_events" else load_settings
    with pytest.warns(DeprecationWarning, match=f"{former} is deprecated .* use {present}"):
        assert getattr(load(), field) == value
    assert f"{former} is deprecated and will not be read by the next release: use {present}" in caplog.messages


def test_settings_former_variable_yields_to_the_present_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUMERAI_HTTP_TIMEOUT", "5")
    monkeypatch.setenv("NUMERAI_HTTP_TIMEOUT_SECONDS", "7")
    assert load_settings().http_timeout_seconds == 7
    assert caplog.messages == []


def test_settings_empty_former_variable_is_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for former in DEPRECATED_VARIABLES.values():
        monkeypatch.setenv(former, "")
    assert load_settings() == Settings()
    assert caplog.messages == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_settings_mistake_in_a_former_variable_names_that_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_ROUND_POLL", "0.5")
    with pytest.raises(BadInputError, match=r"NUMERAI_ROUND_POLL='0\.5': .*greater than or equal to 1"):
        load_settings()
