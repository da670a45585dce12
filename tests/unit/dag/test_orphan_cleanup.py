"""Which containers are needed: by their claims on the data volume, and by the states of runs and tasks in Airflow."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from numerai_pipeline.containers.backend import FoundContainer
from numerai_pipeline.containers.labels import ContainerLabels
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.dag.orphan_cleanup import is_task_active, liveness_check
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.results import ResultStore

CONTAINER = FoundContainer(
    "this", ContainerLabels("volume", "deployment", "dag", "run", "svm", key="0123"), "Up", False
)


def task_instance(state: str, *, runs: int = 1) -> Any:
    """Make a task instance of an Airflow with so many active runs, in which the task has a state."""
    return SimpleNamespace(
        dag_id="dag",
        run_id="run",
        task_id="svm",
        get_dr_count=lambda **_: runs,
        get_task_states=lambda **_: {"run": {"svm": state}},
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("running", True),
        # Airflow lost this attempt for a while, and will start the next one
        ("up_for_retry", True),
        ("queued", True),
        ("restarting", False),
        ("failed", False),
        ("success", False),
        ("skipped", False),
    ],
)
def test_is_task_active_is_false_for_ended_tasks(state: str, expected: bool) -> None:
    assert is_task_active(task_instance(state)) == expected


@pytest.mark.parametrize(
    ("state", "runs", "expected"),
    [
        ("running", 1, True),
        ("up_for_retry", 1, True),
        ("up_for_reschedule", 1, True),
        ("failed", 1, False),
        ("running", 0, False),
    ],
)
def test_liveness_check_without_claim_follows_airflow(tmp_path: Path, state: str, runs: int, expected: bool) -> None:
    assert liveness_check(task_instance(state, runs=runs), tmp_path)(CONTAINER) == expected


@pytest.mark.parametrize(
    ("recorded", "expected"), [(None, True), ("", True), ("this", True), ("on another engine", False)]
)
@pytest.mark.parametrize("is_claimed", [True, False])
def test_liveness_check_container_without_its_workspace_is_not_active(
    tmp_path: Path, is_claimed: bool, recorded: str | None, expected: bool
) -> None:
    data = DataLayout(tmp_path)
    if recorded is not None:
        Workspace(data.work("svm", "0123"), {}).record_container(recorded)
    # a claimed container may be followed by another run than the one that started it
    state = "success" if is_claimed else "running"
    with ResultStore(data).claim("svm", "0123") if is_claimed else nullcontext():
        assert liveness_check(task_instance(state), tmp_path)(CONTAINER) == expected
