"""The operator of the container tasks: a ``DockerOperator`` for one entry of ``models.yaml``.

It translates between Airflow and the pipeline: the entry becomes the arguments of a ``DockerOperator``; the attempt of
a task uses finished results (``task_plan.py``) or runs a container (``runner.py``) and collects its results
(``result_collection.py``); the outcome is a return value or one of Airflow's exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import ResumableJobMixin
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

from numerai_pipeline.containers import runner as container_runner
from numerai_pipeline.containers.backend import ContainerRequest
from numerai_pipeline.containers.data_volume import container_user, installation_id
from numerai_pipeline.containers.labels import ContainerLabels
from numerai_pipeline.containers.mounts import CONTAINER_DATA, data_mount, workspace_mounts
from numerai_pipeline.containers.platforms import runner_backend
from numerai_pipeline.containers.result_collection import ResultCollector, check_fit
from numerai_pipeline.containers.runner import ContainerRunner, ContinuesError, InterruptedAttemptError
from numerai_pipeline.containers.task_plan import LIVE_TABLE, TRAINING_VARIABLES, RunFiles, TaskPlan, TaskPlanner
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.parameters import LONGEST_SEARCH, MOST_TARGETS, parse_parameters
from numerai_pipeline.core.settings import Settings, load_settings
from numerai_pipeline.core.stables import Submissions
from numerai_pipeline.dag import docker_connection, metrics
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.deployment import deployment_id
from numerai_pipeline.dag.leaderboard_links import LeaderboardLink
from numerai_pipeline.dag.orphan_cleanup import is_task_active, remove_orphans
from numerai_pipeline.dag.result_trigger import ResultTrigger
from numerai_pipeline.dag.run_dates import SCHEDULED, live_run_ids
from numerai_pipeline.models.registry import SEARCH_FACTOR
from numerai_pipeline.storage.continuing_fits import ContinuingFit, continuing_fits
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.reports import summary_of
from numerai_pipeline.storage.results import ResultStore
from numerai_pipeline.storage.run_directory import TEMPLATE, RunDirectory
from numerai_pipeline.storage.task_records import Fallback, remove_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from airflow.sdk import Context

    from numerai_pipeline.core.parameters import RunParameters
    from numerai_pipeline.models.registry import ModelSpec, Registry

RETRIES = 3
YIELD_TIME = timedelta(seconds=30)
"""Time for which a task leaves the pool to a wider task of a scheduled run, before it tries again."""
REATTACH_TIME = timedelta(seconds=10)
"""Time after which a stopped attempt goes on: if it went on at once, the scheduler could read the executor's report of
the ended process late, take it for the process that it has just queued, and count an attempt."""
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
    files : RunFiles
        The run's files.
    parameters : RunParameters
        The run's parameters.
    """

    context: Context
    settings: Settings
    files: RunFiles
    parameters: RunParameters

    @property
    def store(self) -> ResultStore:
        """The results of the data volume."""
        return ResultStore(self.files.data)


def contract_environment(spec: ModelSpec, cores: int) -> dict[str, str]:
    """Return the contract's variables (``docs/reference/contract.md``) of a task; seed and search time are templates.

    Parameters
    ----------
    spec : ModelSpec
        The task.
    cores : int
        Its limit of processor cores.
    """
    data = CONTAINER_DATA
    environment = {
        "OPERATION": spec.operation,
        "STORING": str(data),
        "REPORTING": str(data / "reports" / f"{spec.name}.json"),
        "THREADS": str(cores),
        "MEMORY_LIMIT": str(spec.memory),
        "SEED": "{{ params.seed }}",
    }
    if spec.keeps_model:
        environment |= {
            "TRAINING": str(data / "training.parquet"),
            "VALIDATION": str(data / "validation.parquet"),
            "MODEL": str(data / "model"),
        }
        if spec.reads_live_rows:
            environment["TESTING"] = str(data / LIVE_TABLE)
    else:
        environment |= {
            "TRAINING": str(data / f"training.{spec.tables}"),
            "TESTING": str(data / f"tournament.{spec.tables}"),
        }
    if spec.predicts:
        environment["PREDICTING"] = str(data / "predictions" / f"{spec.name}.csv")
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
    submissions : Submissions, optional
        The submissions of the DAG's stable; none by default.
    live_dags : sequence of str, optional
        The DAGs whose scheduled runs use the same pool; its own by default.
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

    def __init__(
        self,
        *,
        spec: ModelSpec,
        registry: Registry,
        submissions: Submissions = Submissions(),  # noqa: B008 - immutable
        live_dags: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        settings = load_settings()
        cores = spec.cores_of(settings.cores)
        if settings.large_queue_memory_mib is not None:
            kwargs["queue"] = LARGE_QUEUE if spec.memory >= settings.large_queue_memory_mib else DEFAULT_QUEUE
        super().__init__(
            image=settings.image_registry + registry.image_names[spec.image],
            environment=contract_environment(spec, cores),
            # a workspace below this folder, with the inputs mounted in it read-only, once the result's key is known
            mounts=[data_mount(DataLayout(settings.data_dir).work_root / spec.name)],
            mount_tmp_dir=False,
            mem_limit=f"{spec.memory}m",
            cpus=cores,
            network_mode="none",
            user=container_user(settings),
            auto_remove="force",
            docker_conn_id=settings.docker_conn_id,
            **docker_connection.operator_arguments(),
            pool=settings.pool,
            pool_slots=spec.slots_of(settings.cores),
            execution_timeout=timedelta(minutes=spec.minutes(LONGEST_SEARCH, MOST_TARGETS)),
            retries=RETRIES,
            retry_delay=timedelta(seconds=15),
            retry_exponential_backoff=2,
            max_retry_delay=timedelta(minutes=10),
            doc_md=spec.description,
            **kwargs,
        )
        self.spec = spec
        self.submissions = submissions
        self.live_dags = tuple(live_dags)
        self.cores = cores
        self.run_directory = TEMPLATE
        self.planner = TaskPlanner(spec, registry)
        self.dependent_models = registry.dependent_models(spec.name)
        self.models = registry.models if spec.is_post_processing else ()
        slots = spec.slots_of(settings.cores)
        self.wider_tasks = [each.name for each in registry if each.slots_of(settings.cores) > slots]
        self._runner: ContainerRunner | None = None
        self._container_report: dict[str, float | None] = {}
        self._stop_requested = False

    @translate_errors()
    def execute(self, context: Context) -> dict[str, Any]:  # type: ignore[override]  # not a line of the log
        """Run the container unless its outputs are up to date; return a summary of outputs and container."""
        parameters = parse_parameters(context["params"])
        if not parameters.selects(self.dependent_models):
            msg = f"not needed: the selected models are {', '.join(parameters.models)}"
            raise AirflowSkipException(msg)
        settings = load_settings()
        layout = RunDirectory(self.run_directory).layout(settings.data_dir)
        if self.run_directory:  # without, `unzip` failed
            # until this attempt has succeeded, no later task uses the results of an earlier one
            remove_record(layout, self.spec.name)
        failed = self._failed_models(context) if self.spec.is_post_processing else frozenset()
        files = RunFiles.read(DataLayout(settings.data_dir), layout, failed)
        run = TaskRun(context, settings, files, parameters)
        self._collect_continued_fits(run)
        plan, fallback = self._make_results(run)
        collector = self._collector(run, plan)
        record = collector.record()
        if fallback is not None:
            record = replace(record, fallback=Fallback(fallback.dataset.key, fallback.fit_key, fallback.prediction_key))
        collector.write_record(record)
        metrics.report_task_end(context, self.spec.name, files.metadata.closes)
        return summary_of(self.spec.name, layout) | {"image": self.image, "container": self._container_report}

    def execute_again(self, context: Context, event: Any = None) -> dict[str, Any]:  # noqa: ARG002 - of the trigger
        """Continue after another run has finished a result that this one needs, or has taken the pool's slots."""
        return self.execute(context)

    def on_kill(self) -> None:
        """End the attempt, and start no container; the present one stays if Airflow still calls the task running."""
        self._stop_requested = True
        if self._runner is not None:
            self._runner.request_stop()

    def _failed_models(self, context: Context) -> frozenset[str]:
        """Return the models that have not succeeded in this run; skip the task if that is all of them."""
        ti = context["ti"]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(self.models), run_ids=[ti.run_id])
        found = states.get(ti.run_id, {})
        failed = frozenset(name for name in self.models if found.get(name) != "success")
        if len(failed) == len(self.models):  # the task was started by hand: see model_gate.py
            msg = f"no model succeeded, so there are no predictions for {self.spec.name}"
            raise AirflowSkipException(msg)
        return failed

    def _plan(self, run: TaskRun) -> TaskPlan:
        return self.planner.plan(run.files, self.image, self.environment, forced=run.parameters.force)

    def _collector(self, run: TaskRun, plan: TaskPlan) -> ResultCollector:
        return ResultCollector(plan, run.files, self.image)

    def _make_results(self, run: TaskRun) -> tuple[TaskPlan, TaskPlan | None]:
        """Make the results of the task that are not finished yet.

        Returns
        -------
        plan : TaskPlan
            Its finished results.
        fallback : TaskPlan or None
            The finished predictions of an earlier fit, where a new fit might not be ready before the round closes.

        Raises
        ------
        BadInputError
            When no fit is ready before the round closes: the run continues without this task.
        """
        plan = self._plan(run)
        if self._discard_damaged(run, plan):
            plan = self._plan(run)
        if plan.is_finished:
            self.log.info("up to date: %s", self._describe(run, plan))
            state = run.context.get("task_state_store")
            # another Airflow on the data volume may have made the result meanwhile, without that container
            had_container = state is not None and state.get(self.external_id_key) is not None
            self._remove_leftovers(run, plan, had_container=had_container)
            return plan, None
        fallback, deadline = None, self._fit_deadline(run, plan)
        if deadline is not None:
            fallback = self.planner.fallback(run.files, self.image, self.environment)
        if fallback is not None:
            self.log.info("should the new fit not be ready by %s, %s predicts", deadline, self._describe(run, fallback))
            # a container of an earlier attempt may be making the new fit
            fallback = self._finish(run, self._plan_fallback, kept_keys=frozenset({plan.fit_key}))
        try:
            return self._finish(run, self._plan, deadline), fallback
        except ContinuesError as error:
            reason = f"{error}; the round closes at {run.files.metadata.closes}"
            if fallback is None:
                msg = (
                    f"{reason} (NUMERAI_FALLBACK_MINUTES={run.settings.fallback_minutes}), and there is no earlier fit:"
                    " the run continues without this task"
                )
                raise BadInputError(msg) from None
            self.log.warning("%s, so %s predicts", reason, self._describe(run, fallback))
            return fallback, None

    def _finish(
        self,
        run: TaskRun,
        make_plan: Callable[[TaskRun], TaskPlan],
        deadline: datetime | None = None,
        kept_keys: frozenset[str] = frozenset(),
    ) -> TaskPlan:
        """Make the results of a plan: by a container, or by waiting for the run that makes them; return the plan.

        Raises
        ------
        ContinuesError
            At the deadline, before the fit is ready; a container that makes it keeps running.
        """
        plan = make_plan(run)
        while not plan.is_finished:
            with run.store.claim(self.spec.name, plan.key) as held:
                if not held:
                    if deadline is not None and not plan.has_fit and datetime.now(tz=UTC) >= deadline:
                        msg = f"{self.spec.name}: its new fit {plan.fit_key}, which another run makes, is not ready"
                        raise ContinuesError(msg)
                    self.log.info("another run makes this result (%s): waiting without a pool slot", plan.key)
                    until = deadline.isoformat() if deadline is not None and not plan.has_fit else None
                    trigger = ResultTrigger(self.spec.name, plan.key, until)
                    self.defer(trigger=trigger, method_name="execute_again")
                # it may have been finished before the claim
                key, plan = plan.key, make_plan(run)
                if plan.key == key and not plan.is_finished:
                    self._run_container(run, plan, deadline if not plan.has_fit else None, kept_keys)
                    plan = make_plan(run)
        self._remove_leftovers(run, plan)
        return plan

    def _discard_damaged(self, run: TaskRun, plan: TaskPlan) -> bool:
        """Remove finished results whose files were changed since, to make them again; whether there are any."""
        found = False
        for key in filter(None, dict.fromkeys((plan.fit_key, plan.prediction_key))):
            if run.store.has(self.spec.name, key) and not run.store.is_whole(self.spec.name, key):
                with run.store.claim(self.spec.name, key) as held:
                    if held:
                        path = run.store.path(self.spec.name, key)
                        self.log.warning("%s: its files do not match their manifests: making it again", path)
                        run.store.discard(self.spec.name, key)
                        found = True
        return found

    def _fit_deadline(self, run: TaskRun, plan: TaskPlan) -> datetime | None:
        """Return until when a new fit may take, if the run submits to a round that is still open."""
        closes = run.files.metadata.closes
        # post-processing tasks are what the others end for
        if closes is None or plan.has_fit or self.spec.is_post_processing:
            return None
        if not self.submissions.is_submitting(run.parameters, run.context["dag_run"].run_type):
            return None
        moment = datetime.fromisoformat(closes)
        if datetime.now(tz=UTC) >= moment:
            return None
        return moment - timedelta(minutes=run.settings.fallback_minutes)

    def _plan_fallback(self, run: TaskRun) -> TaskPlan:
        plan = self.planner.fallback(run.files, self.image, self.environment)
        if plan is None:
            msg = f"{self.spec.name}: the finished fit of before was removed meanwhile: clear `{self.spec.name}`"
            raise BadInputError(msg)
        return plan

    def _collect_continued_fits(self, run: TaskRun) -> None:
        """Publish the fits of earlier runs that were finished after their round had closed."""
        data = run.files.data
        for fit in continuing_fits(data, self.spec.name):
            info = fit.info
            workspace = Workspace(data.work(info.task, info.key), {}, keeps_parts=bool(self.spec.outputs))
            with run.store.claim(info.task, info.key) as held:
                if not held or (fit.is_in_time and not workspace.has_fit):
                    continue
                if workspace.has_fit and not run.store.has(info.task, info.key):
                    try:
                        check_fit(self.spec, run.files.dataset(info.dataset), workspace)
                        run.store.publish(workspace.model, info)
                        self.log.info("fit %s of round %s is ready", info.key, info.round)
                    except BadInputError as error:
                        self.log.warning("fit %s of round %s is not usable: %s", info.key, info.round, error)
                self._new_runner(run, workspace, environment={}).remove_leftovers()
                fit.remove(data)

    def _describe(self, run: TaskRun, plan: TaskPlan) -> str:
        fit = run.store.read(self.spec.name, plan.fit_key)
        return f"fit {plan.fit_key} of round {fit.round}, finished at {fit.created_at}"

    def _run_container(
        self, run: TaskRun, plan: TaskPlan, deadline: datetime | None, kept_keys: frozenset[str]
    ) -> None:
        if plan.has_fit:
            self.log.info("predicting with %s", self._describe(run, plan))
        collector = self._collector(run, plan)
        inputs = self.planner.inputs(plan, run.files)
        collector.check_inputs(inputs)
        directory = run.files.data.work(self.spec.name, plan.key)
        workspace = Workspace(directory, inputs, keeps_parts=plan.keeps_parts)
        if not directory.exists():  # else an earlier attempt has begun
            if deadline is not None and datetime.now(tz=UTC) >= deadline:
                msg = f"{self.spec.name}: there is no time for a new fit"
                raise ContinuesError(msg)
            self._yield_to_live_run(run.context)
        # each worker of Celery may have an engine of its own, which only its tasks reach
        remove_orphans(run.settings, run.context["ti"])
        environment = self._environment_of(plan, inputs) | self._limit_search(deadline)
        self._runner = self._new_runner(run, workspace, environment, deadline, kept_keys)
        if self._stop_requested:
            self._runner.request_stop()
        try:
            with self._runner.lifetime():
                self.execute_resumable(run.context)
                collector.collect(workspace)
            self._container_report = collector.container_report()
            metrics.report_container(run.context, self.spec.name, self._container_report)
        except ContinuesError:
            if self.spec.keeps_model:
                until = self._runner.ends_at.isoformat(timespec="seconds")
                ContinuingFit(collector.describe("fit"), until).write(run.files.data)
            else:  # it predicts the live rows of this round only
                self._runner.remove_leftovers()
            raise
        except InterruptedAttemptError as error:
            self.log.warning("%s", error)
            # unlike a failure, it does not count as an attempt: no number of reboots exhausts the retries
            raise AirflowRescheduleException(datetime.now(tz=UTC) + REATTACH_TIME) from error  # type: ignore[no-untyped-call]

    def _yield_to_live_run(self, context: Context) -> None:
        """Wait without a pool slot while a wider task of a scheduled run waits for slots.

        Airflow starts any task that fits into the open slots: the narrow tasks of a backfill would take each slot that
        becomes free, and a task that needs several would wait for the end of the backfill.
        """
        ti = context["ti"]
        if not self.wider_tasks or context["dag_run"].run_type == SCHEDULED:
            return
        now = datetime.now(tz=UTC)
        runs = live_run_ids(now)
        if any(
            ti.get_ti_count(dag_id=dag, task_ids=self.wider_tasks, run_ids=runs, states=["scheduled"])
            for dag in self.live_dags or (ti.dag_id,)
        ):
            self.log.info("a task of a scheduled run waits for several pool slots: waiting without one")
            self.defer(trigger=DateTimeTrigger(moment=now + YIELD_TIME), method_name="execute_again")

    def _environment_of(self, plan: TaskPlan, inputs: Mapping[str, Path]) -> dict[str, str]:
        environment = {
            **self.environment,
            "INPUTS": plan.key,
            "TARGET_DAYS": str(plan.dataset.target_days),
            "EMBARGO": str(plan.dataset.embargo),
            **plan.scoring,
        }
        if plan.further_targets:
            environment["TARGETS"] = ",".join(plan.further_targets)
        if LIVE_TABLE in inputs:
            # also for the scores of a walk-forward run's rows
            environment["TESTING"] = str(CONTAINER_DATA / LIVE_TABLE)
        if plan.has_fit:
            environment = {name: value for name, value in environment.items() if name not in TRAINING_VARIABLES}
        return environment

    def _limit_search(self, deadline: datetime | None) -> dict[str, str]:
        """Return the variables of a search that ends, with its fits, before the deadline.

        They are not part of the result's key: the search of a later attempt has other ones, for the same result.
        """
        if deadline is None or self.spec.search_parts is None:
            return {}
        wanted = int(self.environment["TIME_LIMIT"])
        limit = max(60, int((deadline - datetime.now(tz=UTC)).total_seconds() / SEARCH_FACTOR))
        if limit >= wanted:
            return {}
        self.log.warning("the search is limited to %d of %d s, as the round closes soon", limit, wanted)
        return {"TIME_LIMIT": str(limit), "TIME_LIMIT_PART": str(limit // self.spec.search_parts)}

    def _remove_leftovers(self, run: TaskRun, plan: TaskPlan, *, had_container: bool = False) -> None:
        """Remove the workspace and the container of an attempt that was killed after its results were collected."""
        for key in filter(None, (plan.fit_key, plan.prediction_key)):
            workspace = Workspace(run.files.data.work(self.spec.name, key), {})
            if had_container or workspace.directory.exists():
                with run.store.claim(self.spec.name, key) as held:
                    if held:
                        self._new_runner(run, workspace, environment={}).remove_leftovers()

    def _new_runner(
        self,
        run: TaskRun,
        workspace: Workspace,
        environment: Mapping[str, str],
        follow_until: datetime | None = None,
        kept_keys: frozenset[str] = frozenset(),
    ) -> ContainerRunner:
        ti, parameters = run.context["ti"], run.parameters
        request = ContainerRequest(
            image=self.image,
            environment=environment,
            mounts=workspace_mounts(workspace),
            workspace=workspace,
            labels=ContainerLabels(
                volume=installation_id(run.settings.data_dir),
                deployment=deployment_id(run.settings.data_dir),
                dag=ti.dag_id,
                run=ti.run_id,
                task=ti.task_id,
                attempt=ti.try_number,
                key=workspace.directory.name,
            ),
            user=str(self.user),
            failure_log=run.files.layout.failure_log(self.spec.name, ti.try_number),
            time_limit=timedelta(minutes=self.spec.minutes(parameters.automl_minutes, len(parameters.further_targets))),
            memory=self.spec.memory,
            cores=self.cores,
            gpus=self.spec.gpus,
            kept_keys=kept_keys,
        )
        return ContainerRunner(
            runner_backend(run.settings, partial(docker_connection.connect, lambda: self.hook)),
            request,
            engine_timeout=run.settings.engine_timeout_seconds,
            state=run.context.get("task_state_store"),
            write_line=partial(self.log.info, "%s"),
            warm_up=_import_pyarrow if self.spec.predicts else _nothing,
            is_task_active=partial(is_task_active, ti),
            follow_until=follow_until,
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


def _import_pyarrow() -> None:
    """Import pyarrow, which the check of predictions needs, while the container runs."""
    import numerai_pipeline.models.predictions  # noqa: F401


def _nothing() -> None:
    pass
