"""The operator of a model's task: an entry of ``models.yaml`` in Airflow's words.

It decides nothing about data or models. It tells Airflow what the task costs, tells the container what the contract
says, and tells Airflow what became of it. The container itself is the Docker provider's business
(``model_container.py``), which is only imported where a task runs: the docker library has no place in the DAG
processor.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator, TriggerRule
from airflow.sdk.exceptions import AirflowSkipException

from numerai_pipeline.airflow_words import in_airflow_words
from numerai_pipeline.data_volume import container_user, installation_id
from numerai_pipeline.disk import require_free_space
from numerai_pipeline.errors import BadInputError
from numerai_pipeline.leaderboard.links import LeaderboardLink
from numerai_pipeline.locks import exclusive_lock
from numerai_pipeline.manifests import file_sha256, manifest_path, read_manifest, require_whole, verified_manifest
from numerai_pipeline.model_registry import FIRST_TASK, ModelSpec, Registry
from numerai_pipeline.parameters import LONGEST_SEARCH, parse_parameters
from numerai_pipeline.reports import summary_of
from numerai_pipeline.run_layout import CONTAINER_RUN, RunLayout, fingerprint
from numerai_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow.sdk import Context

    from numerai_pipeline.model_container import ModelContainer
    from numerai_pipeline.workspace import Workspace

RETRIES = 3
BYTES_OF_A_ROW = 64  # of predictions, or of a map: id and numbers
BIG_MEMORY, SMALL = "big-memory", "cpu"
"""Queues of Celery's, for workers on machines of different sizes; other executors have none."""


def contract_environment(spec: ModelSpec) -> dict[str, str]:
    """Say what the contract (``docs/contract.md``) tells a container; seed and search time are templates."""
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


def _kind_of_container(settings: Settings) -> type[ModelContainer]:
    if settings.engine == "swarm":
        from numerai_pipeline.model_service import ModelService

        return ModelService
    from numerai_pipeline.model_container import ModelContainer

    return ModelContainer


class ModelOperator(BaseOperator):
    """Runs one entry of the registry in its container.

    Parameters
    ----------
    spec : ModelSpec
        The entry.
    registry : Registry
        The registry it is from.
    run_directory : str
        Template of the run's directory, relative to the data volume.
    """

    template_fields: Sequence[str] = ("run_directory", "environment")
    template_fields_renderers: ClassVar[dict[str, str]] = {"environment": "json"}
    ui_color = "#d7eaf3"
    operator_extra_links = (LeaderboardLink(),)

    def __init__(self, *, spec: ModelSpec, registry: Registry, run_directory: str, **kwargs: Any) -> None:
        settings = load_settings()
        if settings.large_queue_memory_mib is not None:
            kwargs["queue"] = BIG_MEMORY if spec.memory >= settings.large_queue_memory_mib else SMALL
        super().__init__(
            pool=settings.pool,
            pool_slots=spec.pool_slots,
            execution_timeout=timedelta(minutes=spec.minutes(LONGEST_SEARCH)),
            retries=RETRIES,
            retry_delay=timedelta(seconds=15),
            retry_exponential_backoff=2,
            max_retry_delay=timedelta(minutes=10),
            doc_md=spec.description,
            # no rule of Airflow's says "all ended, one succeeded" where others were skipped: see _need_a_model
            trigger_rule=TriggerRule.ALL_DONE if spec.is_post_processing else TriggerRule.ALL_SUCCESS,
            **kwargs,
        )
        self.spec = spec
        self.run_directory = run_directory
        self.image = settings.image_registry + registry.image_names[spec.image]
        self.serves = registry.dependent_models(spec.name)
        self.models = registry.models if spec.is_post_processing else ()
        # what comes after the models takes what is there, and asks for no more
        self.preparations = tuple(
            need for need in spec.depends_on if need != FIRST_TASK and not spec.is_post_processing
        )
        self.upstream_outputs = registry.upstream_outputs(spec.name)
        self.others_leave = frozenset(name for each in registry if each.name != spec.name for name in each.outputs)
        self.made_by = {left: each.name for each in registry.tasks.values() for left in each.outputs}
        self.environment = contract_environment(spec)
        self._container: ModelContainer | None = None
        self._told_to_end = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the container unless what it would leave is there already; return a summary of what it left."""
        with in_airflow_words():
            parameters = parse_parameters(context["params"])
            if parameters.models and not self.serves.intersection(parameters.models):
                msg = f"not needed: the picked models are {', '.join(parameters.models)}"
                raise AirflowSkipException(msg)
            if self.spec.is_post_processing:
                self._need_a_model(context)
            settings = load_settings()
            layout = RunLayout(settings.data_dir / self.run_directory)
            inputs = self._inputs(layout)
            # a run with the same settings may be at the same work: it is done once
            with exclusive_lock(layout.directory / self.spec.name, "making it"):
                if not parameters.force and self._is_done(layout, inputs):
                    self.log.info("up to date: inputs, image and parameters unchanged")
                    self._tidy_up(context, settings, layout, inputs, parameters.automl_minutes)
                else:
                    self._compute(context, settings, layout, inputs, parameters.automl_minutes)
            return summary_of(self.spec.name, layout) | {"image": self.image}

    def _need_a_model(self, context: Context) -> None:
        """Skip this task when none of the models before it succeeded."""
        ti = context["ti"]
        states = ti.get_task_states(dag_id=ti.dag_id, task_ids=list(self.models), run_ids=[ti.run_id])
        if "success" not in states.get(ti.run_id, {}).values():
            msg = f"no model succeeded, so there is nothing for {self.spec.name} to work on"
            raise AirflowSkipException(msg)

    def _is_done(self, layout: RunLayout, inputs: str) -> bool:
        """Whether all that the container would leave is there, whole, and made from these inputs."""
        name = self.spec.name
        results = [layout.predictions(name) if self.spec.predicts else layout.report(name)]
        results += [layout.directory / left for left in self.spec.outputs]
        return all(verified_manifest(result, inputs=inputs) for result in results)

    def _inputs(self, layout: RunLayout) -> str:
        """Hash of all that decides the result: image, what it is told, tables, and what the tasks before it did."""
        tables = [layout.training, layout.tournament]
        reports = [layout.report(name) for name in self.preparations]
        manifests = {path: read_manifest(path) for path in (*tables, *reports)}
        absent = [path.name for path, manifest in manifests.items() if manifest is None]
        if absent:
            msg = f"{', '.join(absent)} in {layout.directory}: not there or not finished; run the tasks before again"
            raise BadInputError(msg)
        made_from = {
            path.name: manifest.sha256 if path in tables else manifest.inputs
            for path, manifest in manifests.items()
            if manifest
        }
        # whatever may be read is as good as its content: not every file of this kind has a manifest
        made_from |= {str(path.relative_to(layout.directory)): file_sha256(path) for path in self._found(layout)}
        return fingerprint({"image": self.image, "environment": self.environment, "made from": made_from})

    def _found(self, layout: RunLayout) -> list[Path]:
        """List what it reads where it is there: files the entry names and, after the models, their predictions."""
        found = [path for name in self.spec.optional_inputs if (path := layout.directory / name).is_file()]
        if self.spec.is_post_processing:
            own = {layout.directory / left for left in self.spec.outputs}
            predictions = sorted(layout.predictions_directory.glob("[!.]*.csv"))
            found += [path for path in predictions if path not in own and read_manifest(path) is not None]
        return found

    def _compute(
        self, context: Context, settings: Settings, layout: RunLayout, inputs: str, automl_minutes: int
    ) -> None:
        self._require_whole_inputs(layout)
        if self.spec.tables == "csv":
            from numerai_pipeline.unpacking.csv_tables import write_csv_tables

            write_csv_tables(layout)
        self._container = self._new_container(context, settings, layout, inputs, automl_minutes)
        if self._told_to_end:
            self._container.on_kill()
        accept = partial(self._accept, layout, self._container.request.workspace, inputs)
        self._container.run(context, accept, meanwhile=self._import_what_accepts)

    def _tidy_up(
        self, context: Context, settings: Settings, layout: RunLayout, inputs: str, automl_minutes: int
    ) -> None:
        """Remove what a try left that was killed when it had finished all but that."""
        if layout.workspace(self.spec.name).exists():
            self._new_container(context, settings, layout, inputs, automl_minutes).tidy_up()
        else:
            self._workspace(layout).remove()

    def _new_container(
        self, context: Context, settings: Settings, layout: RunLayout, inputs: str, automl_minutes: int
    ) -> ModelContainer:
        from numerai_pipeline.model_container import ContainerRequest

        ti = context["ti"]
        request = ContainerRequest(
            image=self.image,
            environment={**self.environment, "INPUTS": inputs},
            workspace=self._workspace(layout),
            labels={
                "numerai": installation_id(settings.data_dir),
                "numerai.dag": ti.dag_id,
                "numerai.run": ti.run_id,
                "numerai.task": ti.task_id,
                "numerai.try": str(ti.try_number),
                "numerai.inputs": inputs,
            },
            user=container_user(settings),
            time_limit=timedelta(minutes=self.spec.minutes(automl_minutes)),
            memory=self.spec.memory,
            cores=self.spec.cores,
        )
        return _kind_of_container(settings)(task_id=self.task_id, request=request)

    def _import_what_accepts(self) -> None:
        """Import pyarrow, which takes its time, while the engine takes its own to start the container."""
        if self.spec.predicts:
            import numerai_pipeline.predictions  # noqa: F401

    def _accept(self, layout: RunLayout, workspace: Workspace, inputs: str) -> None:
        """Check what the container left, and only then bring it to the run's directory."""
        name = self.spec.name
        if self.spec.predicts and not verified_manifest(layout.predictions(name), inputs=inputs):
            from numerai_pipeline.predictions import validate_predictions

            left = workspace.inside.predictions(name)
            for path in (left, manifest_path(left)):
                workspace.check_plain(path)
            validate_predictions(left, layout.tournament, inputs=inputs)
        workspace.bring_home(self.image)
        if not self._is_done(layout, inputs):
            wanted = ", ".join((layout.report(name).name, *self.spec.outputs))
            msg = f"{name}: the container ended well but did not leave {wanted}, each with its manifest"
            raise BadInputError(msg)

    def _workspace(self, layout: RunLayout) -> Workspace:
        """Lay down what the container may read, what it must not know, and what it leaves."""
        from numerai_pipeline.workspace import Workspace

        own = [layout.predictions(self.spec.name)] if self.spec.predicts else []
        own.append(layout.report(self.spec.name))
        outputs = (*(str(path.relative_to(layout.directory)) for path in own), *self.spec.outputs)
        return Workspace(
            run=layout,
            task=self.spec.name,
            read_only=self._read_only(layout),
            hidden=self._hidden(layout),
            outputs=outputs,
            # what comes after the models may fail, and what others then find must not be made from other models
            kept=() if self.spec.is_post_processing else self.spec.outputs,
            others=self.others_leave,
            scores_others=self.spec.is_post_processing,
        )

    def _require_whole_inputs(self, layout: RunLayout) -> None:
        """Look at the bytes of what it will read, since not every image does, and for room for what it leaves."""
        tables = [require_whole(table, "`unzip`") for table in (layout.training, layout.tournament)]
        for left in () if self.spec.is_post_processing else self.upstream_outputs:
            require_whole(layout.directory / left, f"`{self.made_by[left]}`")
        rows = max(manifest.rows or 0 for manifest in tables)
        room = rows * BYTES_OF_A_ROW * max(1, len(self.spec.outputs))
        require_free_space(layout.directory, room, f"{self.spec.name}: what it leaves")

    def _read_only(self, layout: RunLayout) -> tuple[Path, ...]:
        """List the files that the container may read and not change."""
        left = [layout.directory / name for name in self.upstream_outputs]
        if self.spec.is_post_processing:  # not everything that could be there is
            left = [path for path in left if path.is_file()]
        return tuple(dict.fromkeys((*layout.tables(self.spec.tables), *left, *self._found(layout))))

    def _hidden(self, layout: RunLayout) -> tuple[Path, ...]:
        """List what a model must not see: the true targets of what it predicts, where they are known already."""
        secrets = (layout.targets,)
        return tuple(path for path in secrets if path.is_file() and path.name not in self.spec.optional_inputs)

    def on_kill(self) -> None:
        """Remove the container, or start none: nobody waits for it any more."""
        self._told_to_end = True
        if self._container is not None:
            self._container.on_kill()
