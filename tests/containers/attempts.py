"""Single attempts of container tasks, without a scheduler: in this process, or in one that can be killed.

``python -m tests.containers.attempts`` runs the attempt of its standard input, and prints its outcome.
"""

from __future__ import annotations

import json
import logging
import os
import pkgutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, TaskDeferred

from launcher.processes import wait_until
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag import tasks
from numerai_pipeline.dag.model_operator import ModelOperator
from numerai_pipeline.models.registry import load_registry
from numerai_pipeline.storage.layout import RunLayout
from tests.samples import ROOT

DAG_ID = "numerai_tournament"
TIMEOUT_SECONDS = 120.0


class StateStore(dict[str, Any]):
    """State that Airflow keeps between the attempts of a task, in memory."""

    def set(self, key: str, value: Any) -> None:
        """Store a value."""
        self[key] = value


@dataclass(frozen=True)
class UnpackedRun:
    """A run of Airflow whose data is unpacked.

    Attributes
    ----------
    run_id : str
        Its id.
    directory : str
        Its directory, relative to the data volume.
    parameters : dict
        Its parameters.
    states : dict
        Task → state, as Airflow has it for the tasks that ran before.
    """

    run_id: str
    directory: str
    parameters: dict[str, Any]
    states: dict[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> RunLayout:
        """The paths of its files."""
        return RunLayout(load_settings().data_dir / self.directory)


def unpack(archive: Path, run_id: str, **parameters: Any) -> UnpackedRun:
    """Run `download` and `unzip` of a run."""
    chosen = {"source": "archive", "archive": str(archive), "seed": 5, "automl_minutes": 1, **parameters}
    results: dict[str, Any] = {"wait_for_round": None}
    ti: Any = SimpleNamespace(
        dag_id=DAG_ID, run_id=run_id, xcom_pull=lambda task_ids: results[task_ids], xcom_push=lambda **_: None
    )
    dag_run: Any = SimpleNamespace(run_type="manual", logical_date=None, data_interval_end=None)
    results["download"] = tasks.download(chosen, dag_run, ti)
    return UnpackedRun(run_id, tasks.unzip(chosen, ti, {})["directory"], chosen)


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attempt.

    Attributes
    ----------
    state : str
        ``success``, ``deferred`` or ``failed``.
    detail : dict or str
        The return value, the arguments of the trigger, or the message.
    output : str
        The log.
    """

    state: str
    detail: Any
    output: str

    @property
    def started(self) -> int:
        """Number of containers that it started."""
        return self.output.count("started container")


def execute(operator: ModelOperator, run: UnpackedRun, attempt: int, *, resumes: bool) -> tuple[str, Any]:
    """Run an attempt; return its state and its detail."""
    states = {run.run_id: run.states}
    ti = SimpleNamespace(
        dag_id=DAG_ID,
        run_id=run.run_id,
        task_id=operator.task_id,
        try_number=attempt,
        stats_tags={},
        xcom_pull=lambda task_ids: {"unzip": {"directory": run.directory}}[task_ids],
        get_task_states=lambda **_: states,
        get_ti_count=lambda **_: 0,
        get_dr_count=lambda **_: 1,
    )
    dag_run = SimpleNamespace(run_type="manual")
    context: Any = {"params": run.parameters, "ti": ti, "dag_run": dag_run, "task_state_store": StateStore()}
    operator.render_template_fields(context)
    try:
        method = operator.execute_again if resumes else operator.execute
        return "success", method(context)
    except TaskDeferred as deferred:
        return "deferred", {**deferred.trigger.serialize()[1], "method": deferred.method_name}
    except AirflowException as error:
        return "failed", f"{type(error).__name__}: {error}"


def operator_of(images: Path, task: str) -> ModelOperator:
    """Make the operator of a task."""
    registry = load_registry(images)
    with DAG(DAG_ID, schedule=None):
        return ModelOperator(task_id=task, spec=registry.tasks[task], registry=registry)


class Attempt:
    """An attempt in a separate process.

    Parameters
    ----------
    images : Path
        The folder of the model images.
    run : UnpackedRun
        The run.
    task : str
        The task.
    number : int
        The number of the attempt, from 1 on.
    resumes : bool
        Whether it continues after its trigger.
    log : Path
        A file for its output.
    dies_after : tuple of (str, int), optional
        ``module:function``, and after how many calls of it the process kills itself.
    """

    def __init__(
        self,
        images: Path,
        run: UnpackedRun,
        task: str,
        log: Path,
        *,
        number: int = 1,
        resumes: bool = False,
        dies_after: tuple[str, int] | None = None,
    ) -> None:
        self._log = log
        request = {
            "images": str(images),
            "run": asdict(run),
            "task": task,
            "number": number,
            "resumes": resumes,
            "dies_after": dies_after,
        }
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.containers.attempts"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/plugins", "PYTHONUNBUFFERED": "1"},
            )
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(json.dumps(request).encode())

    @property
    def output(self) -> str:
        """Its log so far."""
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until its log has a text."""
        assert wait_until(lambda: text in self.output, TIMEOUT_SECONDS, every=0.05), self.output

    def kill(self) -> None:
        """Kill the process at once, as the kernel does."""
        self.process.kill()
        self.process.wait()

    def outcome(self) -> Outcome:
        """Wait for its end."""
        self.process.wait(timeout=TIMEOUT_SECONDS)
        lines = self.output.splitlines()
        assert lines, "no output"
        assert lines[-1].startswith("OUTCOME "), self.output
        state, detail = json.loads(lines[-1].removeprefix("OUTCOME "))
        return Outcome(state, detail, self.output)


def die_after(name: str, calls: int) -> None:
    """Let this process die, as by the kernel, right after some calls of a function."""
    real, left = pkgutil.resolve_name(name), iter(range(calls))

    def dying(*arguments: Any, **more: Any) -> Any:
        result = real(*arguments, **more)
        if next(left) == calls - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    module, _, attribute = name.partition(":")
    owner, _, function = attribute.rpartition(".")
    setattr(pkgutil.resolve_name(f"{module}:{owner}" if owner else module), function, dying)


def main() -> None:
    """Run the attempt of the standard input."""
    request = json.load(sys.stdin)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    operator = operator_of(Path(request["images"]), request["task"])

    def stop(_number: int, _frame: object) -> None:
        # as Airflow does when a task is marked failed
        operator.on_kill()

    signal.signal(signal.SIGTERM, stop)
    if request["dies_after"]:
        die_after(*request["dies_after"])
    run = UnpackedRun(**request["run"])
    print("OUTCOME", json.dumps(execute(operator, run, request["number"], resumes=request["resumes"])))


if __name__ == "__main__":
    main()
