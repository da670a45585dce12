"""Notifications about runs: by Airflow's callbacks, to a real web server and a real mail server."""

from __future__ import annotations

import json
import selectors
import socketserver
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseNotifier

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.notifications import check_channels
from tests.samples import ROOT

SECRET = "services/T0/B0/s3cr3t"


@dataclass
class Receiver:
    """A web server that stores the bodies of its requests, and sends these status codes."""

    answers: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.paths.append(self.path)
            received.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(received.answers.pop(0) if received.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.address = f"http://127.0.0.1:{server.server_port}/{SECRET}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield received
        server.shutdown()


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """A mail server; gives its port and the lines that it received."""
    lines: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 ready\r\n")
            in_data = False
            for raw in self.rfile:
                line = raw.decode().rstrip("\r\n")
                lines.append(line)
                if in_data:
                    in_data = line != "."
                    if in_data:
                        continue
                elif line.upper() == "DATA":
                    in_data = True
                    self.wfile.write(b"354 continue\r\n")
                    continue
                self.wfile.write(b"250 ok\r\n")
                if line.upper() == "QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], lines
        server.shutdown()


@pytest.fixture(scope="module")
def airflow_database() -> None:
    from airflow.utils.db import initdb

    initdb()


DAG_FILE = """
from datetime import UTC, datetime

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from numerai_pipeline.dag.notifications import MISSED, dag_callbacks, task_callbacks

FAILING, LATE, IS_MISSED = {failing!r}, {late!r}, {missed!r}

def step(ti):
    if ti.task_id == FAILING:
        if IS_MISSED:
            ti.xcom_push(key=MISSED, value={{"round": 1335, "reason": "it closed"}})
        raise ValueError("a division by zero")
    return {{"round": "1335", "late": LATE}}


with DAG(
    "numerai_tournament",
    schedule=None,
    start_date=datetime(2024, 1, 6, tzinfo=UTC),
    default_args=task_callbacks(),
    **dag_callbacks(),
):
    names = ("wait_for_round", "download", "unzip", "submit", "svm")
    tasks = [PythonOperator(task_id=name, python_callable=step) for name in names]
    tasks[0] >> tasks[1] >> tasks[2] >> tasks[3:]
"""


@dataclass
class Ended:
    """A run that has ended, and the log of the DAG processor that called the callbacks."""

    run: str
    state: str
    log: str


@pytest.fixture
def run_dag(
    tmp_path: Path, airflow_database: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run a DAG with the task ids and callbacks of the pipeline's, and have the DAG processor call the callbacks."""

    def run(
        failing: str | None = None, late: list[str] | None = None, *, missed: bool = False, **variables: str
    ) -> Ended:
        from airflow.dag_processing.dagbag import DagBag

        for name, value in variables.items():
            monkeypatch.setenv(f"NUMERAI_{name}", value)
        load_settings.cache_clear()
        file = tmp_path / f"dags_{failing}" / "numerai_tournament.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(DAG_FILE.format(failing=failing, late=late or [], missed=missed))
        bag = DagBag(file, bundle_name="dags-folder")
        assert bag.import_errors == {}
        dag = bag.dags["numerai_tournament"]
        on_failure, on_success = dag.on_failure_callback, dag.on_success_callback
        dag.on_failure_callback = dag.on_success_callback = None
        ended = dag.test(logical_date=None)
        dag.on_failure_callback, dag.on_success_callback = on_failure, on_success
        request = callback_request(ended, on_failure if failing else on_success, failing=bool(failing))
        capfd.readouterr()
        log = process(file, request, tmp_path / "processor.log") if request else ""
        return Ended(ended.run_id, str(ended.state), log + "".join(capfd.readouterr()))

    return run


def callback_request(run: Any, callbacks: Any, *, failing: bool) -> Any:
    """Return the scheduler's request to the DAG processor at the end of a run; None without callbacks."""
    from airflow.callbacks.callback_requests import DagCallbackRequest, DagRunContext

    if callbacks is None:
        return None
    state = "failed" if failing else "success"
    instances = [instance for instance in run.get_task_instances() if instance.state == state]
    return DagCallbackRequest(
        filepath="numerai_tournament.py",
        dag_id=run.dag_id,
        run_id=run.run_id,
        bundle_name="dags-folder",
        bundle_version=None,
        context_from_server=DagRunContext(dag_run=run, last_ti=max(instances, key=lambda ti: ti.end_date)),
        is_failure_callback=failing,
        msg="task_failure" if failing else "success",
    )


def process(file: Path, request: Any, log_path: Path) -> str:
    """Have a process of Airflow's DAG processor handle a request; return its log."""
    import structlog
    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
    from airflow.dag_processing.processor import DagFileProcessorProcess
    from airflow.sdk.api.client import Client
    from airflow.sdk.log import logging_processors

    client = Client(base_url=None, token="", dry_run=True, transport=InProcessExecutionAPI().transport)
    client.base_url = "http://in-process.invalid./"
    selector = selectors.DefaultSelector()
    with log_path.open("ab") as log_file:
        processors = logging_processors(json_output=True)
        child = DagFileProcessorProcess.start(
            id=uuid.uuid4(),
            path=file,
            bundle_path=file.parent,
            bundle_name="dags-folder",
            dag_file_rel_path=file.name,
            callbacks=[request],
            selector=selector,
            logger=structlog.wrap_logger(structlog.BytesLogger(log_file), processors=processors).bind(),
            logger_filehandle=log_file,
            client=client,
        )
        while not child.is_ready:
            for key, _ in selector.select(timeout=0.1):
                handle, on_close = key.data
                try:
                    more = handle(key.fileobj)
                except (BrokenPipeError, ConnectionResetError):
                    more = False
                if not more:
                    on_close(key.fileobj)
    return log_path.read_text()


def test_webhook_finished_run_has_round_and_link(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    ended = run_dag(NOTIFY_WEBHOOK=receiver.address)
    assert ended.state == "success"
    assert receiver.paths == [f"/{SECRET}"]
    [body] = receiver.bodies
    run = ended.run
    assert body.pop("link").endswith(f"/dags/numerai_tournament/runs/{run.replace(':', '%3A').replace('+', '%2B')}")
    assert body == {
        "event": "finished",
        "text": "numerai_tournament: round 1335 finished",
        "dag": "numerai_tournament",
        "run": run,
        "round": "1335",
        "state": "success",
        "failed": [],
        "late": [],
        "reason": None,
    }


def test_notification_of_a_late_submission_names_the_models(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    assert run_dag(late=["alpha", "beta"], NOTIFY_WEBHOOK=receiver.address).state == "success"
    [body] = receiver.bodies
    assert (body["event"], body["state"], body["late"]) == ("late", "success", ["alpha", "beta"])
    text = "numerai_tournament: round 1335 was submitted after its close (alpha, beta queued for the next round)"
    assert body["text"] == text


def test_notification_of_a_failed_run_names_late_submissions(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    assert run_dag(failing="svm", late=["alpha"], NOTIFY_WEBHOOK=receiver.address).state == "failed"
    body = receiver.bodies[-1]
    assert (body["event"], body["state"], body["late"]) == ("failed", "failed", ["alpha"])
    assert body["text"].endswith("failed (svm) and was submitted after its close (alpha queued for the next round)")


@pytest.mark.parametrize(("events", "sent"), [("finished", 1), ("late", 1), ("failed,missed", 0)])
def test_notification_of_a_late_submission_follows_the_setting(
    receiver: Receiver, run_dag: Callable[..., Ended], events: str, sent: int
) -> None:
    run_dag(late=["alpha"], NOTIFY_WEBHOOK=receiver.address, NOTIFY_EVENTS=events)
    assert len(receiver.bodies) == sent


@pytest.mark.parametrize(
    ("failing", "text"),
    [
        ("unzip", "numerai_tournament: round 1335 failed (unzip)"),
        ("download", "numerai_tournament: round 1335 failed (download)"),
        # of wrong keys or parameters, for instance
        ("wait_for_round", "numerai_tournament: a round failed (wait_for_round)"),
    ],
)
def test_webhook_failed_run_names_tasks(
    receiver: Receiver, run_dag: Callable[..., Ended], failing: str, text: str
) -> None:
    receiver.answers = [503]  # busy: the request is repeated
    assert run_dag(failing, NOTIFY_WEBHOOK=receiver.address, NOTIFY_EVENTS="failed,missed").state == "failed"
    body, again = receiver.bodies
    assert body == again
    assert (body["event"], body["text"], body["state"], body["failed"]) == ("failed", text, "failed", [failing])


def test_webhook_missed_round_is_a_single_event(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    assert run_dag("wait_for_round", missed=True, NOTIFY_WEBHOOK=receiver.address).state == "failed"
    [body] = receiver.bodies
    assert (body["event"], body["text"]) == ("missed", "numerai_tournament: round 1335 was missed")
    assert body["reason"] == "it closed"


@pytest.mark.parametrize("failing", ["wait_for_round", "download", "unzip", "submit", "svm"])
def test_failed_task_notifies_at_once_with_its_error(
    receiver: Receiver, run_dag: Callable[..., Ended], failing: str
) -> None:
    run_dag(failing, NOTIFY_WEBHOOK=receiver.address)
    task, run = receiver.bodies
    assert (task["event"], task["state"], task["failed"]) == ("task_failed", "running", [failing])
    assert task["text"].endswith(f": {failing} failed")
    assert task["reason"] == "a division by zero"
    assert run["event"] == "failed"


def test_webhook_other_events_are_not_sent(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    for failing in ("unzip", None):
        run_dag(failing, NOTIFY_WEBHOOK=receiver.address, NOTIFY_EVENTS="missed")
    assert receiver.bodies == []


def test_webhook_rejection_is_logged_without_the_secret(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    receiver.answers = [403] * 9
    log = run_dag(NOTIFY_WEBHOOK=receiver.address).log
    assert len(receiver.bodies) == 3
    assert "NUMERAI_NOTIFY_WEBHOOK: 127.0.0.1 answered 403" in log
    assert "s3cr3t" not in log


def test_webhook_unreachable_server_is_logged_without_the_secret(run_dag: Callable[..., Ended]) -> None:
    log = run_dag(NOTIFY_WEBHOOK=f"http://127.0.0.1:1/{SECRET}").log
    assert "NUMERAI_NOTIFY_WEBHOOK: 127.0.0.1 is unreachable (ConnectionError)" in log
    assert "s3cr3t" not in log


class Diary(BaseNotifier):
    """A notifier of another package."""

    template_fields = ("text",)

    def __init__(self, path: str, text: str) -> None:
        super().__init__()
        self.path = path
        self.text = text

    def notify(self, context: Any) -> None:  # noqa: ARG002 - the base's signature
        with Path(self.path).open("a") as file:
            file.write(f"{self.text}\n")


@pytest.mark.parametrize(
    "variable",
    ["event", pytest.param("news", marks=pytest.mark.filterwarnings("ignore:.*'news' is deprecated:FutureWarning"))],
)
def test_notifier_templates_have_the_event(run_dag: Callable[..., Ended], tmp_path: Path, variable: str) -> None:
    text = f"{{{{ {variable}.event }}}}: {{{{ {variable}.round }}}} {{{{ {variable}.failed }}}}"
    arguments = {"path": str(tmp_path / "diary"), "text": text}
    for failing in (None, "unzip"):
        run_dag(failing, NOTIFIER=f"{__name__}.Diary", NOTIFIER_ARGUMENTS=json.dumps(arguments))
    assert (tmp_path / "diary").read_text() == (
        "finished: 1335 []\ntask_failed: 1335 ['unzip']\nfailed: 1335 ['unzip']\n"
    )


def test_notifier_arguments_with_news_warn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMERAI_NOTIFIER", f"{__name__}.Diary")

    def configure(text: str) -> None:
        monkeypatch.setenv("NUMERAI_NOTIFIER_ARGUMENTS", json.dumps({"path": str(tmp_path), "text": text}))
        check_channels()

    with pytest.warns(FutureWarning, match="the template variable 'news' is deprecated: rename it to 'event'"):
        configure("{% if news.failed %}x{% endif %}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure("the news of {{ event.round }}")


MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"NOTIFIER": "nowhere.Notifier"}, "NUMERAI_NOTIFIER: nowhere.Notifier cannot be imported"),
    ({"NOTIFIER": "json.Notifier"}, "NUMERAI_NOTIFIER: json.Notifier cannot be imported"),
    ({"NOTIFIER": "json.JSONDecoder"}, "json.JSONDecoder is not a notifier"),
    ({"NOTIFIER": f"{__name__}.Diary"}, "rejects its arguments"),
    ({"NOTIFIER": "Diary"}, "NUMERAI_NOTIFIER='Diary': String should match"),
    ({"NOTIFIER_ARGUMENTS": "{"}, "NUMERAI_NOTIFIER_ARGUMENTS=…: not JSON"),
    ({"NOTIFY_EVENTS": "lost"}, "NUMERAI_NOTIFY_EVENTS='lost'"),
    ({"NOTIFY_EVENTS": ","}, "is an empty list"),
    ({"NOTIFY_EMAIL": "me"}, "NUMERAI_NOTIFY_EMAIL='me'"),
    ({"NOTIFY_WEBHOOK": f"ftp://{SECRET}"}, "NUMERAI_NOTIFY_WEBHOOK=…: not an http or https address"),
    ({"ALARM_MINUTES": "0"}, "NUMERAI_ALARM_MINUTES='0'"),
]


@pytest.mark.parametrize(("variables", "message"), MISTAKES)
def test_wrong_channel_is_logged_once_and_fails_no_dag(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str], message: str
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    for name, value in variables.items():
        monkeypatch.setenv(f"NUMERAI_{name}", value)
    load_settings.cache_clear()
    bag = DagBag(ROOT / "dags", bundle_name="dags-folder")
    assert (bag.import_errors, len(bag.dags)) == ({}, 2)
    # by `wait_for_round`, the first task
    check_channels()
    [record] = [each for each in caplog.records if each.name == "numerai_pipeline.dag.notifications"]
    assert record.levelname == "ERROR"
    assert message in record.message
    assert "s3cr3t" not in caplog.text


def test_wrong_channel_does_not_affect_the_run_or_others(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    ended = run_dag(NOTIFY_WEBHOOK=receiver.address, NOTIFIER="nowhere.Notifier")
    assert ended.state == "success"
    assert [body["event"] for body in receiver.bodies] == ["finished"]
    ended = run_dag(NOTIFIER="nowhere.Notifier", NOTIFY_EVENTS="finished")
    assert "NUMERAI_NOTIFIER: nowhere.Notifier cannot be imported" in ended.log


def test_apprise_sends_by_the_services_of_its_connection(
    receiver: Receiver, run_dag: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = receiver.address.replace("http://", "json://")
    connection = {"conn_type": "apprise", "extra": {"config": {"path": address, "tag": "all"}}}
    monkeypatch.setenv("AIRFLOW_CONN_ALARMS", json.dumps(connection))
    # first in the process of the DAG processor, to which Apprise's threads would not pass on
    ended = run_dag("svm", NOTIFY_APPRISE="alarms", NOTIFY_EVENTS="failed")
    run_dag("svm", NOTIFY_EVENTS="task_failed")
    run, task = receiver.bodies
    assert (task["type"], task["title"]) == ("failure", "numerai_tournament")
    assert task["message"].startswith("numerai_tournament: round 1335: svm failed\na division by zero\nhttp://")
    assert run["message"].startswith("numerai_tournament: round 1335 failed (svm)\nhttp://")
    assert "s3cr3t" not in ended.log


def test_email_is_sent_by_airflows_smtp_connection(
    run_dag: Callable[..., Ended], mailbox: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, lines = mailbox
    extra = {"from_email": "airflow@example.org", "disable_ssl": True, "disable_tls": True}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    run_dag("unzip", NOTIFY_EMAIL="me@example.org")
    assert "Subject: numerai_tournament: round 1335 failed (unzip)" in lines
    assert any("me@example.org" in line for line in lines if line.startswith("rcpt"))


def test_serialized_dag_has_callbacks_without_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    def serialised() -> tuple[bool, bool, str]:
        load_settings.cache_clear()
        bag = DagBag(ROOT / "dags" / "numerai_tournament.py", bundle_name="dags-folder")
        assert bag.import_errors == {}
        content = DagSerialization.to_dict(bag.dags["numerai_tournament"])
        dag = DagSerialization.from_dict(content)
        return dag.has_on_failure_callback, dag.has_on_success_callback, json.dumps(content)

    assert serialised()[:2] == (False, False)
    monkeypatch.setenv("NUMERAI_NOTIFY_WEBHOOK", f"https://example.org/{SECRET}")
    failure, success, content = serialised()
    assert (failure, success) == (True, True)
    assert "s3cr3t" not in content
    monkeypatch.setenv("NUMERAI_NOTIFIER_ARGUMENTS", "{")  # reported when an event occurs
    assert serialised()[:2] == (True, True)
