"""The registry of models: ``model_images/models.yaml`` as dataclasses, each mistake in it a clear error."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from jsonschema import Draft202012Validator

from numerai_pipeline.errors import BadInputError
from numerai_pipeline.model_images import PYTHON, image_reference
from numerai_pipeline.task_ids import PIPELINE_TASKS, UNZIP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema import ValidationError

SCHEMA = Path(__file__).with_name("models.schema.json")
# libyaml's where it is there: Airflow reads the registry with every task, and it takes a tenth of the time
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FIRST_TASK = UNZIP
# In `needs`: every task that leaves predictions. What needs it goes on with those that succeeded.
ALL_MODELS = "models"
# How the predictions of ensembles are called.
ENSEMBLE_PREFIX = "ensemble_"
TableForm = Literal["parquet", "csv"]
RESERVED_NAMES = PIPELINE_TASKS | {ALL_MODELS}
# What a container is told by the pipeline itself; a task's own parameters may not shadow it.
CONTRACT_VARIABLES = frozenset(
    {"OPERATION", "TRAINING", "TESTING", "PREDICTING", "STORING", "REPORTING", "INPUTS"}
    | {"TIME_LIMIT", "TIME_LIMIT_PART", "THREADS", "MEMORY_LIMIT", "SEED"}
)


@dataclass(frozen=True)
class ImageSpec:
    """An image: its folder's name, the Python of its base, and what is in it."""

    name: str
    about: str
    python: str = PYTHON


@dataclass(frozen=True)
class ModelSpec:
    """A task that runs in a container.

    Attributes
    ----------
    name : str
        Name of the task, and of its predictions and report.
    about : str
        What it does.
    image, operation : str
        Which image it runs in, and which of the image's operations it is.
    needs : tuple of str
        The tasks that come right before it; ``models`` stands for all that predict.
    group : str or None
        Group it is drawn in.
    predicts : bool
        Whether it leaves predictions (a model) or not (a preparation).
    leaves : tuple of str
        Files a preparation leaves for the tasks after it, relative to the run's directory.
    may_read : tuple of str
        Files there that it reads where they are, and does without where they are not.
    memory : int
        Hard memory limit, MiB.
    cores : int
        Hard limit of processor cores.
    pool_slots : int
        Slots it takes of the pool.
    time_limit : int
        Minutes after which it is stopped; a search's own minutes come on top (:meth:`minutes`).
    search_parts : int or None
        Set for a search: one fit may take one part in this many of the run's ``automl_minutes``.
    tables : {"parquet", "csv"}
        Form of the tables it reads; csv for an image of 2018.
    parameters : dict
        Further environment variables of its container.
    """

    name: str
    about: str
    image: str
    operation: str
    memory: int
    time_limit: int
    pool_slots: int
    needs: tuple[str, ...] = (FIRST_TASK,)
    group: str | None = None
    predicts: bool = True
    leaves: tuple[str, ...] = ()
    may_read: tuple[str, ...] = ()
    cores: int = 1
    search_parts: int | None = None
    tables: TableForm = "parquet"
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def after_models(self) -> bool:
        """Whether it comes after all models, and goes on with those that succeeded."""
        return ALL_MODELS in self.needs

    def minutes(self, automl_minutes: int) -> int:
        """Minutes after which the task is stopped in a run with this search time.

        Searches overrun: by up to one and a half times what they were given, as measured.
        """
        return self.time_limit + (math.ceil(2.5 * automl_minutes) if self.search_parts else 0)


@dataclass(frozen=True)
class Registry:
    """All images and tasks, the tasks in an order in which each comes after what it needs."""

    directory: Path
    images: dict[str, ImageSpec]
    tasks: dict[str, ModelSpec]

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.tasks.values())

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the tasks that leave predictions."""
        return tuple(spec.name for spec in self if spec.predicts)

    @property
    def predictions(self) -> tuple[str, ...]:
        """Names of all predictions: those of the models, and those that other tasks make of them."""
        left = (Path(file) for spec in self for file in spec.leaves)
        made = (file.stem for file in left if file.parent.name == "predictions" and file.suffix == ".csv")
        return (*self.models, *made)

    @property
    def after_models(self) -> tuple[str, ...]:
        """Names of the tasks that come after all models."""
        return tuple(spec.name for spec in self if spec.after_models)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups the tasks are drawn in."""
        return tuple(dict.fromkeys(spec.group for spec in self if spec.group is not None))

    @cached_property
    def references(self) -> dict[str, str]:
        """Full name of each image, without an address: a hash of all its files, which many tasks ask for."""
        return {spec.name: image_reference(self.directory, spec.name, spec.python) for spec in self.images.values()}

    def served_by(self, name: str) -> frozenset[str]:
        """Names of the models that a task serves: itself if it predicts, and those that need it, directly or not.

        A task runs when one of the models it serves was picked. One that comes after all models serves all of them.
        """
        if self.tasks[name].after_models:
            return frozenset(self.models)
        serving = {name}
        for spec in self:  # in topological order, so one pass finds all
            if serving.intersection(spec.needs):
                serving.add(spec.name)
        return frozenset(serving.intersection(self.models))

    def upstream(self, name: str) -> tuple[str, ...]:
        """Names of the tasks right before this one: what it needs, each model by its name."""
        return _expanded(self.tasks[name], self.tasks)

    def edges(self) -> Iterator[tuple[str, str]]:
        """Yield the pairs (upstream task, task) of the graph, ``unzip`` among the former."""
        for spec in self:
            for name in self.upstream(spec.name):
                yield name, spec.name

    def left_before(self, name: str) -> tuple[str, ...]:
        """Files that the tasks before this one leave, those right before it and those before these."""
        found: set[str] = set()
        waiting = list(self.upstream(name))
        while waiting:
            spec = self.tasks.get(waiting.pop())
            if spec is not None:
                found.update(spec.leaves)
                waiting += self.upstream(spec.name)
        return tuple(sorted(found))


def load_registry(directory: Path) -> Registry:
    """Read and check ``models.yaml`` in the folder of the model images.

    Raises
    ------
    BadInputError
        Naming the file, the entry, what is wrong with it and what would be right.
    """
    file = directory / "models.yaml"
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe one
    except FileNotFoundError:
        msg = f"{file} is missing: set NUMERAI_IMAGES_DIR to the folder of the model images"
        raise BadInputError(msg) from None
    except yaml.YAMLError as error:
        msg = f"{file} is not YAML: {' '.join(str(error).split())}"
        raise BadInputError(msg) from None
    _check_schema(file, content)
    images = {name: ImageSpec(name, **image) for name, image in content["images"].items()}
    for name in images:
        if not (directory / name / "Dockerfile").is_file():
            msg = f"{file}: images.{name}: there is no {name}/Dockerfile beside it"
            raise BadInputError(msg)
    tasks = {name: _model_spec(name, task) for name, task in content["tasks"].items()}
    for spec in tasks.values():
        _check_task(file, spec, images, tasks)
    return Registry(directory, images, _in_order(file, tasks))


def _check_schema(file: Path, content: Any) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = sorted(Draft202012Validator(schema).iter_errors(content), key=lambda error: list(map(str, error.path)))
    if errors:
        raise BadInputError("\n".join(_describe(file, error) for error in errors))


def _describe(file: Path, error: ValidationError) -> str:
    place = ".".join(str(part) for part in error.absolute_path) or "the file"
    if error.validator == "additionalProperties" and isinstance(error.schema, dict):
        known = sorted(error.schema["properties"])
        unknown = sorted(str(key) for key in dict(error.instance or {}) if key not in known)  # type: ignore[arg-type]
        return f"{file}: {place}: unknown key {', '.join(map(repr, unknown))}; there are: {', '.join(known)}"
    return f"{file}: {place}: {error.message}"


def _model_spec(name: str, task: Mapping[str, Any]) -> ModelSpec:
    parameters = {key: _as_text(value) for key, value in task.get("parameters", {}).items()}
    return ModelSpec(
        name=name,
        about=task["about"],
        image=task["image"],
        operation=task.get("operation", name),
        memory=task["memory"],
        time_limit=task["time_limit"],
        pool_slots=task.get("pool_slots", task.get("cores", 1)),
        needs=tuple(task.get("needs", (FIRST_TASK,))),
        group=task.get("group"),
        predicts=task.get("predicts", True),
        leaves=tuple(task.get("leaves", ())),
        may_read=tuple(task.get("may_read", ())),
        cores=task.get("cores", 1),
        search_parts=task.get("search_parts"),
        tables=task.get("tables", "parquet"),
        parameters=parameters,
    )


def _as_text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_task(file: Path, spec: ModelSpec, images: Mapping[str, ImageSpec], tasks: Mapping[str, ModelSpec]) -> None:
    place = f"{file}: tasks.{spec.name}"
    if spec.name in RESERVED_NAMES:
        msg = f"{place}: the name belongs to a step of the pipeline itself; choose another"
        raise BadInputError(msg)
    if spec.predicts and spec.name.startswith(ENSEMBLE_PREFIX):
        msg = f"{place}: predictions called {ENSEMBLE_PREFIX}… are ensembles, made of models; choose another name"
        raise BadInputError(msg)
    if spec.image not in images:
        msg = f"{place}.image: there is no image {spec.image!r}; there are: {', '.join(images)}"
        raise BadInputError(msg)
    for need in spec.needs:
        if need not in (FIRST_TASK, ALL_MODELS) and need not in tasks:
            msg = f"{place}.needs: there is no task {need!r}; there are: {', '.join((FIRST_TASK, *tasks))}"
            raise BadInputError(msg)
    if spec.after_models and spec.predicts:
        msg = f"{place}.needs: what comes after all {ALL_MODELS} cannot be one of them; set predicts: false"
        raise BadInputError(msg)
    if spec.leaves and spec.predicts:
        msg = f"{place}.leaves: only a preparation leaves files for later tasks; set predicts: false, or take it out"
        raise BadInputError(msg)
    shadowed = sorted(CONTRACT_VARIABLES.intersection(spec.parameters))
    if shadowed:
        msg = f"{place}.parameters: {', '.join(shadowed)} is set by the pipeline itself; take it out"
        raise BadInputError(msg)


def _expanded(spec: ModelSpec, tasks: Mapping[str, ModelSpec]) -> tuple[str, ...]:
    models = [other.name for other in tasks.values() if other.predicts]
    return tuple(name for need in spec.needs for name in (models if need == ALL_MODELS else [need]))


def _in_order(file: Path, tasks: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    sorter = TopologicalSorter(
        {spec.name: [name for name in _expanded(spec, tasks) if name != FIRST_TASK] for spec in tasks.values()}
    )
    try:
        return {name: tasks[name] for name in sorter.static_order()}
    except CycleError as error:
        msg = f"{file}: tasks need each other in a circle: {' -> '.join(error.args[1])}"
        raise BadInputError(msg) from None
