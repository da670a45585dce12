"""Metrics and assets of the DAG's tasks, each in a process of its own under Airflow's supervisor.

The metrics arrive at a real StatsD socket and a real OpenTelemetry address; the assets schedule a real DAG.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from numerai_pipeline.dag import metrics
from numerai_pipeline.numerai_api.submission_files import find_predictions
from numerai_pipeline.storage.layout import RunLayout
from practice.accounts import Account
from practice.server import PracticeServer, running
from tests.clocked_season import ClockedSeason
from tests.generated_results import write_json
from tests.samples import ROOT
from tests.unit.submission_rig import KEYS, NUMBER, PREDICTIONS, SATURDAY, make_run

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

DAG_ID = "numerai_tournament"
DAG_FILE = """
from datetime import UTC, datetime
from functools import partial

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import Submissions
from numerai_pipeline.dag import submission, task_reports, tasks
from numerai_pipeline.dag.assets import predictions_asset, submissions_asset

SUBMISSIONS = Submissions(load_settings().submissions, scheduled=True)

with DAG("numerai_tournament", schedule=None, params={params!r}) as dag:
    PythonOperator(
        task_id="download", python_callable=lambda: {download!r}, post_execute=task_reports.after_download
    )
    PythonOperator(task_id="unzip", python_callable=lambda: {unzip!r})
    PythonOperator(
        task_id="leaderboard",
        python_callable=tasks.write_leaderboard_page,
        outlets=[predictions_asset(dag.dag_id)],
        post_execute=partial(task_reports.after_leaderboard, submissions=SUBMISSIONS),
    )
    PythonOperator(
        task_id="submit",
        python_callable=submission.submit,
        op_kwargs={{"predictions": {predictions!r}, "models": ["svm", "xgboost"], "submissions": SUBMISSIONS}},
        outlets=[submissions_asset(dag.dag_id)],
        post_execute=task_reports.after_submit,
    )
"""
CONSUMER_FILE = """
from airflow.sdk import DAG, Asset, task

PREDICTIONS = Asset("numerai://tournament/predictions")

with DAG("consumer", schedule=[PREDICTIONS]):

    @task
    def read(triggering_asset_events):
        [event] = triggering_asset_events[PREDICTIONS]
        return event.extra

    read()
"""


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """Make a run with predictions and a leaderboard."""
    layout = make_run(ClockedSeason(tmp_path / "season", SATURDAY))
    rows = [
        {"model": "svm", "kind": "model", "rank": 2, "corr": 0.0123},
        {"model": "ensemble_selection", "kind": "ensemble", "rank": 1, "corr": 0.0234},
        {"model": "v52_lgbm_ender20", "kind": "reference", "rank": 3, "corr": 0.02},
    ]
    write_json(layout.leaderboard, {"models": rows})
    return layout


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    with running(ClockedSeason(tmp_path / "season", SATURDAY), [Account.of(":".join(KEYS), ["alpha"])]) as server:
        monkeypatch.setenv("NUMERAI_API_URL", server.address)
        monkeypatch.setenv("NUMERAI_PUBLIC_ID", KEYS[0])
        monkeypatch.setenv("NUMERAI_SECRET_KEY", KEYS[1])
        monkeypatch.setenv("NUMERAI_SUBMISSIONS", "alpha=svm")
        yield server


@pytest.fixture
def dag_run(layout: RunLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DagRun:
    """Create a run of the tournament's DAG, beside a DAG that its predictions schedule."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dag import DagModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.timetables.base import DataInterval
    from airflow.utils.db import initdb, resetdb
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType
    from pendulum import instance

    folder = tmp_path / "dags"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder))
    closes = (datetime.now(tz=UTC) + timedelta(hours=1)).isoformat()
    unzip = {"round": str(NUMBER), "directory": str(layout.directory.relative_to(tmp_path / "data")), "era": None}
    content = DAG_FILE.format(
        params={"source": "numerai", "submit": True},
        download={"round": str(NUMBER), "closes": closes},
        unzip={**unzip, "source": "numerai", "feature_set": "small", "target": "target_ender_20"},
        predictions=list(PREDICTIONS),
    )
    (folder / f"{DAG_ID}.py").write_text(content)
    (folder / "consumer.py").write_text(CONSUMER_FILE)
    resetdb()
    initdb()
    bag = DagBag(folder, bundle_name="dags-folder")
    assert bag.import_errors == {}
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)  # type: ignore[no-untyped-call]
        session.commit()
        sync_bag_to_db(bag, "dags-folder", None, session=session)
        session.commit()
        for model in session.query(DagModel):
            model.is_paused = False
        dag = SerializedDagModel.get_dag(DAG_ID, session=session)
        assert dag is not None
        now = instance(datetime.now(tz=UTC))
        run: DagRun = dag.create_dagrun(
            run_id="scheduled__1",
            logical_date=now,
            data_interval=DataInterval(now, now),
            run_after=now,
            run_type=DagRunType.SCHEDULED,
            triggered_by=DagRunTriggeredByType.TIMETABLE,
            state=DagRunState.RUNNING,
            session=session,
        )
    return run


def supervise(dag: str, run: str, *tasks: str, **environment: str) -> str:
    """Run tasks as a worker does; return their log."""
    path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "tests.containers.supervised", dag, run, *tasks],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    ended = [line for line in done.stdout.splitlines() if line.startswith(tasks) and " is " in line]
    assert ended == [f"{task} is success" for task in tasks], done.stdout
    return done.stdout


def create_asset_triggered_runs() -> list[DagRun]:
    """Have the scheduler create the runs that assets schedule."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.sqlalchemy import prohibit_commit

    runner = SchedulerJobRunner(job=Job())  # type: ignore[no-untyped-call]
    with create_session() as session, prohibit_commit(session) as guard:  # type: ignore[no-untyped-call]
        runner._create_dagruns_for_dags(guard, session)
    with create_session() as session:
        return list(session.query(DagRun).filter_by(run_type="asset_triggered"))


def events(uri: str) -> list[dict[str, Any]]:
    """Return the facts of the events of an asset."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        return [event.extra for event in found.filter(AssetModel.uri == uri)]


def xcom(dag: str, run: str, task: str) -> Any:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        [found] = session.query(XComModel).filter_by(dag_id=dag, run_id=run, task_id=task, key="return_value")
        return XComModel.deserialize_value(found)


class StatsdReceiver:
    """A UDP socket that receives StatsD's packets."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        self.socket.setblocking(False)
        self.environment = {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self.socket.getsockname()[1]),
        }

    def gauges(self) -> dict[str, float]:
        """Return the pipeline's gauges of all packets so far: name → last value."""
        found: dict[str, float] = {}
        while True:
            try:
                packet = self.socket.recv(65_536).decode()
            except BlockingIOError:
                return found
            for line in packet.splitlines():
                name, _, value = line.rpartition(":")
                if name.startswith("airflow.numerai."):
                    number, kind = value.split("|")
                    assert kind == "g"
                    found[name.removeprefix("airflow.numerai.")] = float(number)


@pytest.fixture
def statsd() -> Iterator[StatsdReceiver]:
    receiver = StatsdReceiver()
    yield receiver
    receiver.socket.close()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    """An OpenTelemetry collector; gives its address and the received metrics."""
    received: list[ExportMetricsServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/metrics":
                received.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", received
        http.shutdown()


def test_tasks_send_gauges_to_statsd_and_update_the_assets(
    dag_run: DagRun, layout: RunLayout, server: PracticeServer, statsd: StatsdReceiver
) -> None:
    log = supervise(DAG_ID, dag_run.run_id, "download", "unzip", "leaderboard", "submit", **statsd.environment)
    gauges = statsd.gauges()
    assert 0 < gauges.pop("submission.minutes_to_close.tournament.scheduled") < 60
    assert gauges == {
        "round.tournament.scheduled": NUMBER,
        "corr.tournament.scheduled.svm": 0.0123,
        "corr.tournament.scheduled.ensemble_selection": 0.0234,
    }
    assert "is not reported" not in log

    found = {model: find_predictions(layout, model) for model in PREDICTIONS}
    corr = {"svm": 0.0123, "ensemble_selection": 0.0234}
    [facts] = events("numerai://tournament/predictions")
    assert facts == {
        "dag": DAG_ID,
        "run_id": dag_run.run_id,
        "run_type": "scheduled",
        "round": NUMBER,
        "source": "numerai",
        "feature_set": "small",
        "target": "target_ender_20",
        "walk_forward": False,
        "submits": True,
        "directory": str(layout.directory),
        "predictions": {
            model: {
                "file": str(layout.predictions(model)),
                "key": found[model].key,
                "sha256": found[model].sha256,
                "corr": corr.get(model),
                "submitted_as": [],
            }
            for model in PREDICTIONS
        },
    }
    [submitted] = events("numerai://tournament/submissions")
    assert submitted["predictions"].pop("svm") == facts["predictions"].pop("svm") | {"submitted_as": ["alpha"]}
    assert submitted == facts


def test_dag_scheduled_by_the_asset_gets_the_facts(dag_run: DagRun, layout: RunLayout) -> None:
    assert create_asset_triggered_runs() == []
    supervise(DAG_ID, dag_run.run_id, "download", "unzip", "leaderboard")
    [run] = create_asset_triggered_runs()
    assert run.dag_id == "consumer"
    supervise("consumer", run.run_id, "read")
    [facts] = events("numerai://tournament/predictions")
    assert xcom("consumer", run.run_id, "read") == facts
    assert facts["predictions"]["svm"]["sha256"] == find_predictions(layout, "svm").sha256


def test_task_sends_gauges_with_attributes_by_opentelemetry(
    dag_run: DagRun, collector: tuple[str, list[ExportMetricsServiceRequest]]
) -> None:
    address, received = collector
    on = {"AIRFLOW__METRICS__OTEL_ON": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": address}
    supervise(DAG_ID, dag_run.run_id, "download", **on)
    points = {
        metric.name: point
        for request in received
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("airflow.numerai.")
        for point in metric.gauge.data_points
    }
    [(name, point)] = points.items()
    assert name == "airflow.numerai.round"
    assert (point.as_int or point.as_double) == NUMBER
    attributes = {each.key: each.value.string_value for each in point.attributes}
    assert attributes == {"stable": "tournament", "run_type": "scheduled"}


@pytest.mark.parametrize(
    "environment",
    [
        {"AIRFLOW__METRICS__STATSD_ON": "True", "AIRFLOW__METRICS__STATSD_HOST": "metrics.invalid"},
        {"AIRFLOW__METRICS__STATSD_ON": "True", "AIRFLOW__METRICS__STATSD_PORT": "1"},
        {"AIRFLOW__METRICS__OTEL_ON": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_task_without_a_reachable_metrics_system_succeeds(dag_run: DagRun, environment: dict[str, str]) -> None:
    supervise(DAG_ID, dag_run.run_id, "download", **environment)


@pytest.fixture
def context(statsd: StatsdReceiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give the context of a task of this process, whose metrics go to the socket."""
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

    for name, value in statsd.environment.items():
        monkeypatch.setenv(name, value)
    stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
    yield {"ti": SimpleNamespace(dag_id="numerai_my stable"), "dag_run": SimpleNamespace(run_type="manual")}
    stats.initialize(factory=NoStatsLogger, export_legacy_names=True)


def test_container_gauges_have_the_task_and_omit_missing_values(context: Any, statsd: StatsdReceiver) -> None:
    metrics.report_container(context, "svm", {"seconds": 12.5, "peak_memory_mib": 840.0})
    metrics.report_container(context, "of_2018", {"seconds": None, "peak_memory_mib": None})
    metrics.report_task_end(context, "svm", (datetime.now(tz=UTC) + timedelta(minutes=30)).isoformat())
    metrics.report_task_end(context, "xgboost", None)
    gauges = statsd.gauges()
    assert 29 < gauges.pop("task.minutes_to_close.my_stable.manual.svm") <= 30
    assert gauges == {"task.seconds.my_stable.manual.svm": 12.5, "task.peak_memory_mib.my_stable.manual.svm": 840.0}


def test_labels_are_tags_where_statsd_has_them(
    context: Any, statsd: StatsdReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")
    context["ti"] = SimpleNamespace(dag_id=DAG_ID)
    metrics.report_round(context, str(NUMBER))
    assert statsd.gauges() == {"round,stable=tournament,run_type=manual": NUMBER}


def test_round_without_a_number_has_no_gauge(context: Any, statsd: StatsdReceiver) -> None:
    metrics.report_round(context, "archive")
    assert statsd.gauges() == {}


def test_submission_after_the_close_has_negative_minutes(context: Any, statsd: StatsdReceiver) -> None:
    closes = datetime(2026, 8, 17, 14, tzinfo=UTC)
    moments = {"alpha": (closes - timedelta(minutes=9), NUMBER), "beta": (closes + timedelta(minutes=3), NUMBER + 1)}
    records: dict[str, dict[str, Any]] = {
        name: {"at": at.isoformat(), "round": number} for name, (at, number) in moments.items()
    }
    records["gamma"] = {"at": (closes + timedelta(hours=1)).isoformat(), "round": None}  # not confirmed yet
    metrics.report_submissions(context, closes.isoformat(), records)
    assert statsd.gauges() == {"submission.minutes_to_close.my_stable.manual": -3}


def test_event_of_a_run_with_damaged_predictions_has_the_others(dag_run: DagRun, layout: RunLayout) -> None:
    layout.predictions("xgboost").resolve().write_text("id,prediction\n")
    supervise(DAG_ID, dag_run.run_id, "unzip", "leaderboard")
    [facts] = events("numerai://tournament/predictions")
    assert sorted(facts["predictions"]) == ["ensemble_selection", "svm"]
