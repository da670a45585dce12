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

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.notifications import dag_callbacks
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


@pytest.fixture
def callbacks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return the callbacks for some settings."""

    def configured(**variables: str) -> dict[str, Any]:
        for name, value in variables.items():
            monkeypatch.setenv(f"NUMERAI_{name}", value)
        load_settings.cache_clear()
        return dag_callbacks(load_settings())

    return configured


@pytest.fixture(scope="module")
def airflow_database() -> None:
    from airflow.utils.db import initdb

    initdb()


DAG_FILE = """
from datetime import UTC, datetime

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from numerai_pipeline.dag.notifications import dag_callbacks
from numerai_pipeline.core.settings import load_settings

FAILING, LATE = {failing!r}, {late!r}

def step(ti):
    if ti.task_id == FAILING:
        raise ValueError("a division by zero")
    return {{"round": "1335", "late": LATE}}


with DAG(
    "numerai_tournament", schedule=None, start_date=datetime(2024, 1, 6, tzinfo=UTC), **dag_callbacks(load_settings())
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

    def run(failing: str | None = None, late: list[str] | None = None, **variables: str) -> Ended:
        from airflow.dag_processing.dagbag import DagBag

        for name, value in variables.items():
            monkeypatch.setenv(f"NUMERAI_{name}", value)
        load_settings.cache_clear()
        file = tmp_path / f"dags_{failing}" / "numerai_tournament.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(DAG_FILE.format(failing=failing, late=late or []))
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
    }


def test_notification_of_a_late_submission_names_the_models(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    assert run_dag(late=["alpha", "beta"], NOTIFY_WEBHOOK=receiver.address).state == "success"
    [body] = receiver.bodies
    assert (body["event"], body["state"], body["late"]) == ("late", "success", ["alpha", "beta"])
    text = "numerai_tournament: round 1335 was submitted after its close (alpha, beta queued for the next round)"
    assert body["text"] == text


def test_notification_of_a_failed_run_names_late_submissions(receiver: Receiver, run_dag: Callable[..., Ended]) -> None:
    assert run_dag(failing="svm", late=["alpha"], NOTIFY_WEBHOOK=receiver.address).state == "failed"
    [body] = receiver.bodies
    assert (body["event"], body["state"], body["late"]) == ("failed", "failed", ["alpha"])
    assert body["text"].endswith("failed (svm) and was submitted after its close (alpha queued for the next round)")


@pytest.mark.parametrize(("events", "sent"), [("finished", 1), ("late", 1), ("failed,missed", 0)])
def test_notification_of_a_late_submission_follows_the_setting(
    receiver: Receiver, run_dag: Callable[..., Ended], events: str, sent: int
) -> None:
    run_dag(late=["alpha"], NOTIFY_WEBHOOK=receiver.address, NOTIFY_EVENTS=events)
    assert len(receiver.bodies) == sent


@pytest.mark.parametrize(
    ("failing", "event", "text"),
    [
        ("unzip", "failed", "numerai_tournament: round 1335 failed (unzip)"),
        ("download", "failed", "numerai_tournament: a round failed (download)"),
        ("wait_for_round", "missed", "numerai_tournament: a round was missed"),
    ],
)
def test_webhook_failed_run_names_tasks_or_missed_round(
    receiver: Receiver, run_dag: Callable[..., Ended], failing: str, event: str, text: str
) -> None:
    receiver.answers = [503]  # busy: the request is repeated
    assert run_dag(failing, NOTIFY_WEBHOOK=receiver.address, NOTIFY_EVENTS=event).state == "failed"
    body, again = receiver.bodies
    assert body == again
    assert (body["event"], body["text"], body["state"], body["failed"]) == (event, text, "failed", [failing])


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
    assert (tmp_path / "diary").read_text() == "finished: 1335 []\nfailed: 1335 ['unzip']\n"


def test_notifier_arguments_with_news_warn(callbacks: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def configure(text: str) -> None:
        callbacks(NOTIFIER=f"{__name__}.Diary", NOTIFIER_ARGUMENTS=json.dumps({"path": str(tmp_path), "text": text}))

    with pytest.warns(FutureWarning, match="the template variable 'news' is deprecated: rename it to 'event'"):
        configure("{% if news.failed %}x{% endif %}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure("the news of {{ event.round }}")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
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
    ],
)
def test_run_callbacks_wrong_setting_raises_when_parsed(
    callbacks: Callable[..., dict[str, Any]], variables: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        callbacks(**variables)
    assert message in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


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
    monkeypatch.setenv("NUMERAI_NOTIFY_EVENTS", "failed")
    assert serialised()[:2] == (True, False)
