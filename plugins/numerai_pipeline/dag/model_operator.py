"""The operator of the container tasks: a ``DockerOperator`` for one entry of ``models.yaml``.

It translates between Airflow and the pipeline: the entry becomes the arguments of a ``DockerOperator``; the attempt of
a task becomes a container (``containers/runner.py``) with its inputs and outputs (``model_task.py``); the outcome is a
return value or one of Airflow's exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import ResumableJobMixin, TriggerRule
from airflow.sdk.exceptions import AirflowSkipException

from numerai_pipeline.containers import runner as container_runner
from numerai_pipeline.containers.backend import ContainerRequest
from numerai_pipeline.containers.data_volume import container_user, installation_id
from numerai_pipeline.containers.labels import ContainerLabels
from numerai_pipeline.containers.model_task import ModelTask
from numerai_pipeline.containers.mounts import workspace_mount, workspace_mounts
from numerai_pipeline.containers.platforms import runner_backend
from numerai_pipeline.containers.runner import ContainerRunner
from numerai_pipeline.core.parameters import LONGEST_SEARCH, parse_parameters
from numerai_pipeline.core.settings import Settings, load_settings
from numerai_pipeline.dag import docker_connection
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.leaderboard_links import LeaderboardLink
from numerai_pipeline.storage.layout import CONTAINER_RUN, RunLayout
from numerai_pipeline.storage.locks import exclusive_lock
from numerai_pipeline.storage.reports import summary_of
from numerai_pipeline.storage.run_directory import TEMPLATE, RunDirectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from numerai_pipeline.core.parameters import RunParameters
    from numerai_pipeline.models.registry import ModelSpec, Registry

RETRIES = 3
LARGE_QUEUE, DEFAULT_QUEUE = "big-memory", "cpu"
"""Celery queues for workers on machines of different sizes; other executors have no queues."""


@dataclass(frozen=True)
class TaskRun:
    """One attempt of a container task.

    Attributes
    ----------
    context : Context
        Airflow's context of the attempt.
    settings : Settings
        The deployment's settings.
    layout : RunLayout
        The run's directory.
    parameters : RunParameters
        The run's parameters.
    inputs : str
        Fingerprint of image, environment and inputs.
    """

    context: Context
    settings: Settings
    layout: RunLayout
    parameters: RunParameters
    inputs: str


def contract_environment(spec: ModelSpec) -> dict[str, str]:
    """Return the contract's variables (``docs/contract.md``) of a task; seed and search time are templates."""
    run = CONTAINER_RUN
    training, tournament = run.tables(spec.tables)
    environment = {
        "OPERATION": spec.operation,
        "TRAINING": str(training),
        "TESTING": str(tournament),
        "STORING": str(run.directory),
        "REPORTING": str(run.report(spec.name)),
        "THREADS": str(spec.cores),
        "MEMORY_LIMIT": str(spec.memory),
        "SEED": "{{ params.seed }}",
    }
    if spec.predicts:
        environment["PREDICTING"] = str(run.predictions(spec.name))
    if spec.search_parts:
        environment["TIME_LIMIT"] = "{{ params.automl_minutes * 60 }}"
        environment["TIME_LIMIT_PART"] = f"{{{{ params.automl_minutes * 60 // {spec.search_parts} }}}}"
    return environment | spec.parameters


class ModelOperator(ResumableJobMixin, DockerOperator):
    """Runs one entry of the registry in its container.

    Of ``DockerOperator`` it uses the arguments and the connection (address, TLS, registry login). The container itself
    is the runner's: hard limits instead of weights, a sandbox, labels instead of a name, a log that is followed again
    after its stream breaks, and reattachment to the container of an earlier attempt.

    Parameters
    ----------
    spec : ModelSpec
        The entry.
    registry : Registry
        Its registry.
    """

    template_fields: Sequence[str] = (
        "run_directory",
        "image",
        "environment",
        "mounts",
        "mem_limit",
        "cpus",
        "auto_remove",
        "docker_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"environment": "json", "mounts": "json"}
    template_ext: Sequence[str] = ()
    ui_color = "#d7eaf3"
    operator_extra_links = (LeaderboardLink(),)
    external_id_key = container_runner.STATE_KEY

    def __init__(self, *, spec: ModelSpec, registry: Registry, **kwargs: Any) -> None:
        settings = load_settings()
        if settings.large_queue_memory_mib is not None:
            kwargs["queue"] = LARGE_QUEUE if spec.memory >= settings.large_queue_memory_mib else DEFAULT_QUEUE
        super().__init__(
            image=settings.image_registry + registry.image_names[spec.image],
            environment=contract_environment(spec),
            # the run's inputs are mounted below it when the run's directory is known, each read-only
            mounts=[workspace_mount(RunDirectory(TEMPLATE).layout(settings.data_dir), spec.name)],
            mount_tmp_dir=False,
            mem_limit=f"{spec.memory}m",
            cpus=spec.cores,
            network_mode="none",
            user=container_user(settings),
            auto_remove="force",
            docker_conn_id=settings.docker_conn_id,
            **docker_connection.operator_arguments(),
            pool=settings.pool,
            pool_slots=spec.pool_slots,
            execution_timeout=timedelta(minutes=spec.minutes(LONGEST_SEARCH)),
            retries=RETRIES,
            retry_delay=timedelta(seconds=15),
            retry_exponential_backoff=2,
            max_retry_delay=timedelta(minutes=10),
            doc_md=spec.description,
            # Airflow has no rule "all ended, at least one succeeded" that ignores skipped tasks:
            # see _skip_unless_a_model_succeeded
            trigger_rule=TriggerRule.ALL_DONE if spec.is_post_processing else TriggerRule.ALL_SUCCESS,
            **kwargs,
        )
        self.spec = spec
        self.run_directory = TEMPLATE
        self.model_task = ModelTask.from_registry(spec, registry)
        self.dependent_models = registry.dependent_models(spec.name)
        self.models = registry.models if spec.is_post_processing else ()
        self._runner: ContainerRunner | None = None
        self._kill_requested = False

    @translate_errors()
    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]  # not a line of the log
        """Run the container unless its outputs are up to date; return a summary of the outputs."""
        parameters = parse_parameters(context["params"])
        if not parameters.selects(self.dependent_models):
            msg = f"not needed: the selected models are {', '.join(parameters.models)}"
            raise AirflowSkipException(msg)
        if self.spec.is_post_processing:
            self._skip_unless_a_model_succeeded(context)
        settings = load_settings()
        layout = RunDirectory(self.run_directory).layout(settings.data_dir)
        inputs = self.model_task.inputs_fingerprint(layout, self.image, self.environment)
        run = TaskRun(context, settings, layout, parameters, inputs)
        # two runs with the same settings share a directory: only one of them computes a task
        with exclusive_lock(layout.directory / self.spec.name, "making it"):
            if not parameters.force and self.model_task.is_up_to_date(layout, inputs):
                self.log.info("up to date: inputs, image and parameters unchanged")
                self._clean_up(run)
            else:
                self._run_container(run)
        return summary_of(self.spec.name, layout) | {"image": self.image}

    def on_kill(self) -> None:
        """Remove the container at once, and start none: Airflow no longer needs it."""
        self._kill_requested = True
        if self._runner is not None:
            self._runner.kill()

    def _skip_unless_a_model_succeeded(self, context: Context) -> None:
        ti = context["ti"]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(self.models), run_ids=[ti.run_id])
        if "success" not in states.get(ti.run_id, {}).values():
            msg = f"no model succeeded, so there are no predictions for {self.spec.name}"
            raise AirflowSkipException(msg)

    def _run_container(self, run: TaskRun) -> None:
        self.model_task.require_inputs(run.layout)
        self._runner = self._new_runner(run)
        if self._kill_requested:
            self._runner.kill()
        with self._runner.lifetime():
            self.execute_resumable(run.context)
            workspace = self._runner.request.workspace
            self.model_task.collect_outputs(run.layout, workspace, self.image, run.inputs)

    def _clean_up(self, run: TaskRun) -> None:
        """Remove the workspace and the container of an attempt that was killed after its outputs were collected."""
        if run.layout.workspace(self.spec.name).exists():
            self._new_runner(run).remove_leftovers()
        else:
            self.model_task.workspace(run.layout).remove()

    def _new_runner(self, run: TaskRun) -> ContainerRunner:
        workspace = self.model_task.workspace(run.layout)
        mounts = workspace_mounts(workspace)
        ti = run.context["ti"]
        request = ContainerRequest(
            image=self.image,
            environment={**self.environment, "INPUTS": run.inputs},
            mounts=mounts,
            workspace=workspace,
            labels=ContainerLabels(
                deployment=installation_id(run.settings.data_dir),
                dag=ti.dag_id,
                run=ti.run_id,
                task=ti.task_id,
                attempt=ti.try_number,
                inputs=run.inputs,
            ),
            user=str(self.user),
            time_limit=timedelta(minutes=self.spec.minutes(run.parameters.automl_minutes)),
            memory=self.spec.memory,
            cores=self.spec.cores,
        )
        return ContainerRunner(
            runner_backend(run.settings, partial(docker_connection.connect, lambda: self.hook)),
            request,
            engine_timeout=run.settings.engine_timeout_seconds,
            state=run.context.get("task_state_store"),
            write_line=partial(self.log.info, "%s"),
            warm_up=self.model_task.warm_imports,
        )

    # ResumableJobMixin stores the container's id in Airflow's task state, and calls these from execute_resumable. All
    # of them are called within the runner's lifetime(), which removes the container in every case: its path for a
    # container that an attempt reattaches to calls poll_until_complete only.

    @property
    def _active_runner(self) -> ContainerRunner:
        assert self._runner is not None, "execute_resumable is called by _run_container"  # noqa: S101
        return self._runner

    def submit_job(self, context: Context) -> str:  # noqa: ARG002 - signature of the mixin
        """Start a container, or reattach to one whose id was not stored, and return its id."""
        return self._active_runner.reattach_or_start()

    def get_job_status(self, external_id: Any, context: Context) -> str:  # noqa: ARG002 - signature of the mixin
        """Return ``active`` for a container of an earlier attempt that this one can reattach to."""
        return "active" if self._active_runner.can_reattach(external_id) else "gone"

    def is_job_active(self, status: str) -> bool:
        """Whether to follow a container. This includes a successful one, whose log is not yet complete."""
        return status == "active"

    def is_job_succeeded(self, status: str) -> bool:  # noqa: ARG002 - signature of the mixin
        """Return False: a container that ended without an error is followed, for its log."""
        return False

    def poll_until_complete(self, external_id: Any, context: Context) -> None:  # noqa: ARG002 - signature of the mixin
        """Follow the container to its end."""
        self._active_runner.follow(external_id)

    def get_job_result(self, external_id: Any, context: Context) -> None:
        """Return nothing: the results of a container are files."""
