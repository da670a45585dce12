"""What Airflow's scheduler starts first, and how it ends a run that cannot start: its code, with a real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from numerai_pipeline.core.settings import load_settings
from tests.samples import ROOT

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

MODELS_POOL = "numerai_models"
SATURDAY = datetime(2026, 8, 15, 12, tzinfo=UTC)


@pytest.fixture
def session() -> Iterator[Session]:
    from airflow.utils.db import initdb, resetdb
    from airflow.utils.session import create_session

    resetdb()
    initdb()
    with create_session() as session:
        yield session


@pytest.fixture
def new_run(session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., DagRun]:
    """Return a function that creates a running run of a stable's DAG, with the states of its tasks."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dag import DagModel
    from airflow.models.serialized_dag import SerializedDagModel

    monkeypatch.setenv("NUMERAI_NOTIFY_WEBHOOK", "https://example.org/hook")
    # each task needs one slot
    monkeypatch.setenv("NUMERAI_CORES", "1")
    file = tmp_path / "stables.yaml"
    file.write_text("stables: [{name: weekday, schedule: 'tue,wed,thu,fri,sat'}]")
    monkeypatch.setenv("NUMERAI_STABLES", str(file))
    load_settings.cache_clear()
    bag = DagBag(ROOT / "dags", bundle_name="dags-folder")
    assert bag.import_errors == {}
    DagBundlesManager().sync_bundles_to_db(session=session)  # type: ignore[no-untyped-call]
    session.commit()
    sync_bag_to_db(bag, "dags-folder", None, session=session)
    session.commit()
    for model in session.query(DagModel):
        model.is_paused = False

    def create(
        kind: str, date: datetime, states: Callable[[str], str | None], dag_id: str = "numerai_tournament"
    ) -> DagRun:
        from airflow.timetables.base import DataInterval
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType
        from pendulum import instance

        dag = SerializedDagModel.get_dag(dag_id, session=session)
        assert dag is not None
        run_type = DagRunType(kind)
        end = instance(date)
        run = dag.create_dagrun(
            run_id=run_type.generate_run_id(suffix=date.isoformat()),
            logical_date=end - timedelta(days=7),
            data_interval=DataInterval(end - timedelta(days=7), end),
            run_after=end,
            conf={},
            run_type=run_type,
            triggered_by=DagRunTriggeredByType.TIMETABLE,
            state=DagRunState.RUNNING,
            session=session,
        )
        run.dag = dag
        for ti in run.get_task_instances(session=session):
            ti.set_state(states(ti.task_id), session=session)
        session.commit()
        return run

    return create


def schedule(run: DagRun, session: Session) -> list[Any]:
    """Schedule a run until nothing changes, as the scheduler's loop does; return the requests for callbacks."""
    callbacks = []
    for _ in range(20):  # a failure passes on to the next task in each loop
        if run.state != "running":
            break
        schedulable, callback = run.update_state(session=session, execute_callbacks=False)
        run.schedule_tis(schedulable, session=session)
        callbacks += [callback] if callback else []
        session.commit()
        session.expire_all()  # it was changed by statements
    return callbacks


def picked(session: Session, *, slots: int) -> list[tuple[str, str]]:
    """Have the scheduler choose the tasks to start now; return kind of run and task, in its order."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.pool import Pool

    Pool.create_or_update_pool(MODELS_POOL, slots=slots, description="", include_deferred=False, session=session)
    session.commit()
    runner = SchedulerJobRunner(job=Job())  # type: ignore[no-untyped-call]
    chosen = runner._executable_task_instances_to_queued(max_tis=64, session=session)
    return [(ti.run_id.split("__")[0], ti.task_id) for ti in chosen]


def set_state(run: DagRun, task: str, state: str, session: Session) -> None:
    ti = run.get_task_instance(task, session=session)
    assert ti is not None
    ti.set_state(state, session=session)
    session.commit()


def finished_until(*names: str) -> Callable[[str], str | None]:
    return lambda task: "success" if task in names else None


UNPACKED = finished_until("wait_for_round", "deadline", "download", "unzip")
LATER = ("ensemble", "evaluate", "leaderboard", "submit", "exploring", "models_ended", "model_succeeded")


def test_scheduler_live_ensemble_starts_before_backfilled_models(
    session: Session, new_run: Callable[..., DagRun]
) -> None:
    runs = [new_run("backfill", SATURDAY - timedelta(weeks=weeks), UNPACKED) for weeks in (2, 1)]
    runs.append(new_run("scheduled", SATURDAY, lambda task: None if task in LATER else "success"))
    for run in runs:
        schedule(run, session)
    assert picked(session, slots=1) == [("scheduled", "ensemble")]


def test_scheduler_orders_runs_scheduled_manual_backfilled(session: Session, new_run: Callable[..., DagRun]) -> None:
    weeks = {"backfill": 3, "manual": 2, "scheduled": 1}
    for kind, age in weeks.items():
        schedule(new_run(kind, SATURDAY - timedelta(weeks=age), UNPACKED), session)
    kinds = [kind for kind, _ in picked(session, slots=99)]
    assert kinds == sorted(kinds, key=["scheduled", "manual", "backfill"].index)
    assert set(kinds) == set(weeks)


def test_scheduler_stables_with_equal_run_ids_are_scheduled_beside_each_other(
    session: Session, new_run: Callable[..., DagRun]
) -> None:
    dags = ("numerai_tournament", "numerai_weekday")
    first, second = (new_run("scheduled", SATURDAY, UNPACKED, dag) for dag in dags)
    backfilled = new_run("backfill", SATURDAY - timedelta(weeks=1), UNPACKED, dags[1])
    assert first.run_id == second.run_id
    for run in (backfilled, first, second):
        schedule(run, session)
    # both live runs come before the backfill of either
    chosen = picked(session, slots=99)
    kinds = [kind for kind, _ in chosen]
    assert kinds == sorted(kinds, key=["scheduled", "backfill"].index)
    assert chosen.count(("scheduled", "svm")) == 2
    # the end of one run does not touch the other
    set_state(first, "adversarial_validation", "failed", session)
    schedule(first, session)
    instances = [run.get_task_instance("tsne", session=session) for run in (first, second)]
    assert [ti.state for ti in instances if ti is not None] == ["upstream_failed", None]


def test_scheduler_starts_the_longest_chain_of_a_run_first(session: Session, new_run: Callable[..., DagRun]) -> None:
    schedule(new_run("scheduled", SATURDAY, UNPACKED), session)
    names = [task for _, task in picked(session, slots=99)]
    assert names[0] == "adversarial_validation"
    assert len(names) == 7
    schedule(
        new_run(
            "manual",
            SATURDAY - timedelta(weeks=1),
            finished_until("wait_for_round", "deadline", "download", "unzip", *names[:1]),
        ),
        session,
    )
    assert next(task for kind, task in picked(session, slots=99) if kind == "manual") == "tsne"


def test_scheduler_nearest_task_to_submit_comes_first(session: Session, new_run: Callable[..., DagRun]) -> None:
    run = new_run("scheduled", SATURDAY, UNPACKED)
    weights = {ti.task_id: ti.priority_weight or 0 for ti in run.get_task_instances(session=session)}
    line = ("submit", "leaderboard", "evaluate", "ensemble", "wait_for_round", "download", "unzip", "tsne", "svm")
    assert sorted(line, key=lambda name: -weights[name]) == list(line)
    assert max(weights.values()) < 2**31


@pytest.mark.parametrize("failing", ["wait_for_round", "download", "unzip"])
def test_run_with_failed_start_ends_at_once_without_a_slot(
    session: Session, new_run: Callable[..., DagRun], failing: str
) -> None:
    start = ["wait_for_round", "download", "unzip"]
    states = dict.fromkeys(start[: start.index(failing)], "success") | {failing: "failed"}
    run = new_run("scheduled", SATURDAY, states.get)
    callbacks = schedule(run, session)
    if failing != "wait_for_round":
        # it ends itself when `submit` has ended
        assert picked(session, slots=0) == [("scheduled", "deadline")]
        set_state(run, "deadline", "success", session)
        callbacks += schedule(run, session)
    assert run.state == "failed"
    assert {ti.state for ti in run.get_task_instances(session=session)} <= {"success", "failed", "upstream_failed"}
    [callback] = callbacks
    assert (callback.is_failure_callback, callback.run_id) == (True, run.run_id)


def test_run_whose_models_all_failed_ends_without_a_slot(session: Session, new_run: Callable[..., DagRun]) -> None:
    unselected = ("svm", "tsne")
    run = new_run(
        "scheduled",
        SATURDAY,
        lambda task: UNPACKED(task) or (None if task in LATER else "skipped" if task in unselected else "failed"),
    )
    schedule(run, session)
    assert run.state == "failed"
    ended = {ti.task_id: ti.state for ti in run.get_task_instances(session=session)}
    assert {ended[name] for name in ("ensemble", "evaluate", "leaderboard", "submit")} == {"upstream_failed"}


def test_tasks_after_the_models_run_when_one_model_succeeded(session: Session, new_run: Callable[..., DagRun]) -> None:
    others = {"svm": "failed", "tsne": "skipped", "xgboost": None}
    run = new_run("scheduled", SATURDAY, lambda task: others.get(task, None if task in LATER else "success"))
    schedule(run, session)
    # a model is not finished
    assert [task for _, task in picked(session, slots=9)] == ["xgboost"]
    for name, state, following in [
        ("xgboost", "success", "ensemble"),
        ("ensemble", "failed", "evaluate"),
        ("evaluate", "failed", "leaderboard"),
        ("leaderboard", "failed", "submit"),
    ]:
        set_state(run, name, state, session)
        schedule(run, session)
        assert [task for _, task in picked(session, slots=9)] == [following]


def test_deadline_alarm_needs_neither_triggerer_nor_pool(session: Session, new_run: Callable[..., DagRun]) -> None:
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.trigger import Trigger

    run = new_run("scheduled", SATURDAY, lambda task: None if task in LATER else "success")
    schedule(run, session)
    ti = run.get_task_instance("deadline", session=session)
    assert ti is not None
    trigger = Trigger("airflow.providers.standard.triggers.external_task.WorkflowTrigger", {})
    session.add(trigger)
    session.flush()
    ti.trigger_id, ti.trigger_timeout, ti.next_method = trigger.id, SATURDAY, "submit_ended"
    set_state(run, "deadline", "deferred", session)
    runner = SchedulerJobRunner(job=Job())  # type: ignore[no-untyped-call]
    runner.check_trigger_timeouts(session=session)
    session.commit()
    assert picked(session, slots=0) == [("scheduled", "deadline")]


@pytest.mark.parametrize(
    ("schedule_of_days", "now", "runs_before", "expected"),
    [
        # a new deployment on a Wednesday evening: the rounds of Saturday and of the day are over
        ("sat", datetime(2026, 8, 19, 18, tzinfo=UTC), [], datetime(2026, 8, 22, 12, tzinfo=UTC)),
        ("all", datetime(2026, 8, 19, 18, tzinfo=UTC), [], datetime(2026, 8, 20, 12, tzinfo=UTC)),
        # on a Sunday morning the round is open
        ("sat", datetime(2026, 8, 16, 9, tzinfo=UTC), [], SATURDAY),
        # a deployment that was down on Saturday has missed a round, and its run reports that
        ("sat", datetime(2026, 8, 19, 18, tzinfo=UTC), [SATURDAY - timedelta(weeks=1)], SATURDAY),
    ],
)
def test_first_start_schedules_no_run_of_a_closed_round(
    session: Session,
    new_run: Callable[..., DagRun],
    monkeypatch: pytest.MonkeyPatch,
    schedule_of_days: str,
    now: datetime,
    runs_before: list[datetime],
    expected: datetime,
) -> None:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dag import DagModel

    for date in runs_before:
        new_run("scheduled", date, lambda _: "success")
    monkeypatch.setattr("numerai_pipeline.dag.timetable._now", lambda: now)
    monkeypatch.setenv("NUMERAI_SCHEDULE", schedule_of_days)
    load_settings.cache_clear()
    # each pass of the DAG processor reads the stored references of assets again
    session.expire_all()
    # as the DAG processor does: it stores the next run, which the scheduler creates from then on
    sync_bag_to_db(DagBag(ROOT / "dags", bundle_name="dags-folder"), "dags-folder", None, session=session)
    session.commit()
    session.expire_all()
    model = session.get(DagModel, "numerai_tournament")
    assert model is not None
    assert model.next_dagrun_create_after == expected
