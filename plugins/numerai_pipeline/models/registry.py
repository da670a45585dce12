"""The registry of models: reads and validates ``model_images/models.yaml``."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from jsonschema import Draft202012Validator

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.task_ids import PIPELINE_TASKS, UNZIP
from numerai_pipeline.models.images import PYTHON, image_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema import ValidationError

SCHEMA = Path(__file__).with_name("models.schema.json")
# libyaml's loader if available: Airflow reads the registry with each task, and libyaml takes a tenth of the time
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# In `depends_on`: all tasks that produce predictions. A task that depends on it uses the models that succeeded.
ALL_MODELS = "models"
# Prefix of the names of ensembles' predictions.
ENSEMBLE_PREFIX = "ensemble_"
TableFormat = Literal["parquet", "csv"]
SEARCH_FACTOR = 3.5
"""Most time of a search's task by its search time: up to two and a half, as measured, and the final fit once more."""
RESERVED_NAMES = PIPELINE_TASKS | {ALL_MODELS}
# Environment variables that the pipeline sets; a task's parameters must not override them.
CONTRACT_VARIABLES = frozenset(
    {"OPERATION", "TRAINING", "VALIDATION", "TESTING", "PREDICTING", "MODEL", "STORING", "REPORTING", "INPUTS"}
    | {"TIME_LIMIT", "TIME_LIMIT_PART", "THREADS", "MEMORY_LIMIT", "SEED", "TARGET_DAYS", "EMBARGO", "TARGETS"}
    | {"PAYOUT", "BENCHMARK"}
)
_DEPRECATED_KEYS = {
    "about": "description",
    "needs": "depends_on",
    "leaves": "outputs",
    "may_read": "optional_inputs",
}
"""Keys of the previous release → their names since; accepted with a warning until the next release."""


@dataclass(frozen=True)
class ImageSpec:
    """An image: its folder's name, its content in a line, and the Python version of its base."""

    name: str
    description: str
    python: str = PYTHON


@dataclass(frozen=True)
class ModelSpec:
    """A task that runs in a container.

    Attributes
    ----------
    name : str
        Name of the task, and of its predictions and report.
    description : str
        Its description, in a line or two of Markdown.
    image, operation : str
        The image that it runs in, and the operation of the image.
    depends_on : tuple of str
        The tasks directly upstream; ``models`` stands for all tasks that predict.
    group : str or None
        Task group in the DAG's graph.
    predicts : bool
        Whether it produces predictions (a model) or not (a preprocessing or post-processing task).
    keeps_model : bool
        Whether it fits once and keeps its fit for later rounds. Otherwise it trains in every run, as in 2018.
    several_targets : bool
        Whether it makes a fit for each of the run's targets, and predicts the mean of their ranks. Otherwise it learns
        the main target only.
    outputs : tuple of str
        Files that its fit produces for downstream tasks, relative to the run's directory.
    live_outputs : tuple of str
        Files about the live rows that it produces for downstream tasks.
    optional_inputs : tuple of str
        Files there that it reads if they exist.
    memory : int
        Hard memory limit, MiB.
    cores : int or Fraction
        Hard limit of processor cores; a fraction is a share of the cores that the models may use (`cores_of`).
    gpus : int or "all"
        Number of GPUs of the engine's machine that its container gets, or all of them.
    pool_slots : int or None
        Pool slots that it occupies; None for as many as cores (`slots_of`).
    time_limit : int
        Minutes after which it is stopped; the time of a search is added, and each target has so many (:meth:`minutes`).
    search_parts : int or None
        Set for a search: one fit may take 1 / ``search_parts`` of the run's ``automl_minutes``.
    tables : {"parquet", "csv"}
        Format of the tables that it reads; csv for an image of 2018.
    parameters : dict
        Further environment variables of its container.
    """

    name: str
    description: str
    image: str
    operation: str
    memory: int
    time_limit: int
    pool_slots: int | None = None
    depends_on: tuple[str, ...] = (UNZIP,)
    group: str | None = None
    predicts: bool = True
    keeps_model: bool = False
    several_targets: bool = False
    outputs: tuple[str, ...] = ()
    live_outputs: tuple[str, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    cores: int | Fraction = 1
    gpus: int | Literal["all"] = 0
    search_parts: int | None = None
    tables: TableFormat = "parquet"
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def reads_live_rows(self) -> bool:
        """Whether it has results of the live rows."""
        return self.predicts or bool(self.live_outputs)

    @property
    def is_post_processing(self) -> bool:
        """Whether it runs after all models, with the results of the successful ones."""
        return ALL_MODELS in self.depends_on

    def cores_of(self, available: int) -> int:
        """Return its limit of cores where the models may use this number of them: from 1 to this number."""
        cores = round(self.cores * available) if isinstance(self.cores, Fraction) else self.cores
        return max(1, min(cores, available))

    def slots_of(self, available: int) -> int:
        """Return its pool slots where the models may use this number of cores, which are the slots of the pool."""
        return self.cores_of(available) if self.pool_slots is None else min(self.pool_slots, available)

    def minutes(self, automl_minutes: int, further_targets: int = 0) -> int:
        """Return the minutes after which the task is stopped in a run with this search time and further targets."""
        if self.several_targets:
            return self.time_limit * (1 + further_targets)
        return self.time_limit + (math.ceil(SEARCH_FACTOR * automl_minutes) if self.search_parts else 0)


@dataclass(frozen=True)
class Registry:
    """All images and tasks, the tasks in topological order."""

    directory: Path
    images: dict[str, ImageSpec]
    tasks: dict[str, ModelSpec]

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.tasks.values())

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the tasks that produce predictions."""
        return tuple(spec.name for spec in self if spec.predicts)

    @property
    def predictions(self) -> tuple[str, ...]:
        """Names of all predictions: of the models, and derived by other tasks."""
        outputs = (Path(file) for spec in self for file in spec.live_outputs)
        derived = (file.stem for file in outputs if file.parent.name == "predictions" and file.suffix == ".csv")
        return (*self.models, *derived)

    @property
    def post_processing(self) -> tuple[str, ...]:
        """Names of the tasks that run after all models."""
        return tuple(spec.name for spec in self if spec.is_post_processing)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the task groups."""
        return tuple(dict.fromkeys(spec.group for spec in self if spec.group is not None))

    @cached_property
    def image_names(self) -> dict[str, str]:
        """Full name of each image, without an address. Cached, since it hashes all files of the image."""
        return {spec.name: image_reference(self.directory, spec.name, spec.python) for spec in self.images.values()}

    def dependent_models(self, name: str) -> frozenset[str]:
        """Return the models that need a task: itself if it predicts, and its downstream models.

        A task runs if one of these models is selected. All models need a post-processing task.
        """
        if self.tasks[name].is_post_processing:
            return frozenset(self.models)
        dependent = {name}
        for spec in self:  # in topological order, so one pass finds all
            if dependent.intersection(spec.depends_on):
                dependent.add(spec.name)
        return frozenset(dependent.intersection(self.models))

    def upstream(self, name: str) -> tuple[str, ...]:
        """Return the tasks directly upstream of this one, each model by its name."""
        return _resolve_dependencies(self.tasks[name], self.tasks)

    def preprocessing(self, name: str) -> tuple[str, ...]:
        """Return the preprocessing tasks upstream of a task, direct and indirect."""
        found: set[str] = set()
        waiting = list(self.upstream(name))
        while waiting:
            spec = self.tasks.get(waiting.pop())
            if spec is not None and not spec.predicts and not spec.is_post_processing and spec.name not in found:
                found.add(spec.name)
                waiting += self.upstream(spec.name)
        return tuple(sorted(found))


def load_registry(directory: Path) -> Registry:
    """Read and validate ``models.yaml`` in the folder of the model images.

    Raises
    ------
    BadInputError
        Naming the file, the entry, the mistake and the remedy.
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
    _rename_deprecated_keys(file, content)
    _check_schema(file, content)
    images = {name: ImageSpec(name, **image) for name, image in content["images"].items()}
    for name in images:
        if not (directory / name / "Dockerfile").is_file():
            msg = f"{file}: images.{name}: {name}/Dockerfile is missing beside it"
            raise BadInputError(msg)
    tasks = {name: _model_spec(name, task) for name, task in content["tasks"].items()}
    for spec in tasks.values():
        _check_task(file, spec, images, tasks)
    return Registry(directory, images, _in_order(file, tasks))


def _rename_deprecated_keys(file: Path, content: Any) -> None:
    for section in ("images", "tasks"):
        entries = content.get(section) if isinstance(content, dict) else None
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            for old, new in _DEPRECATED_KEYS.items() if isinstance(entry, dict) else ():
                if old in entry and new not in entry:
                    entry[new] = entry.pop(old)
                    msg = f"{file}: {section}.{name}.{old} is deprecated: rename the key to {new!r}"
                    # shown by default, unlike DeprecationWarning
                    warnings.warn(msg, FutureWarning, stacklevel=3)


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
        return f"{file}: {place}: unknown key {', '.join(map(repr, unknown))}; allowed: {', '.join(known)}"
    if place.endswith(".cores"):
        return f"{file}: {place}: {error.instance!r} is neither a number of cores, such as 2, nor a share, such as 1/2"
    if place.endswith(".gpus"):
        return f"{file}: {place}: {error.instance!r} is neither a number of GPUs, such as 1, nor all"
    return f"{file}: {place}: {error.message}"


def _model_spec(name: str, task: Mapping[str, Any]) -> ModelSpec:
    parameters = {key: _as_text(value) for key, value in task.get("parameters", {}).items()}
    cores = task.get("cores", 1)
    return ModelSpec(
        name=name,
        description=task["description"],
        image=task["image"],
        operation=task.get("operation", name),
        memory=task["memory"],
        time_limit=task["time_limit"],
        pool_slots=task.get("pool_slots"),
        depends_on=tuple(task.get("depends_on", (UNZIP,))),
        group=task.get("group"),
        predicts=task.get("predicts", True),
        keeps_model=task.get("keeps_model", False),
        several_targets=task.get("several_targets", False),
        outputs=tuple(task.get("outputs", ())),
        live_outputs=tuple(task.get("live_outputs", ())),
        optional_inputs=tuple(task.get("optional_inputs", ())),
        cores=Fraction(cores) if isinstance(cores, str) else cores,
        gpus=task.get("gpus", 0),
        search_parts=task.get("search_parts"),
        tables=task.get("tables", "parquet"),
        parameters=parameters,
    )


def _as_text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_task(file: Path, spec: ModelSpec, images: Mapping[str, ImageSpec], tasks: Mapping[str, ModelSpec]) -> None:
    place = f"{file}: tasks.{spec.name}"
    if spec.name in RESERVED_NAMES:
        msg = f"{place}: the name is reserved for a task of the pipeline; choose another name"
        raise BadInputError(msg)
    if spec.predicts and spec.name.startswith(ENSEMBLE_PREFIX):
        msg = f"{place}: the prefix {ENSEMBLE_PREFIX} is reserved for ensembles; choose another name"
        raise BadInputError(msg)
    _check_cores(place, spec)
    if spec.image not in images:
        msg = f"{place}.image: unknown image {spec.image!r}; available: {', '.join(images)}"
        raise BadInputError(msg)
    for need in spec.depends_on:
        if need not in (UNZIP, ALL_MODELS) and need not in tasks:
            msg = f"{place}.depends_on: unknown task {need!r}; available: {', '.join((UNZIP, *tasks))}"
            raise BadInputError(msg)
    if spec.is_post_processing and spec.predicts:
        msg = f"{place}.depends_on: a task that depends on {ALL_MODELS!r} cannot be a model; set predicts: false"
        raise BadInputError(msg)
    _check_fit(place, spec)
    shadowed = sorted(CONTRACT_VARIABLES.intersection(spec.parameters))
    if shadowed:
        msg = f"{place}.parameters: {', '.join(shadowed)} is set by the pipeline; remove it"
        raise BadInputError(msg)


def _check_fit(place: str, spec: ModelSpec) -> None:
    if (spec.outputs or spec.live_outputs) and spec.predicts:
        msg = f"{place}.outputs: a model has no further outputs; set predicts: false, or remove the key"
        raise BadInputError(msg)
    if spec.keeps_model and spec.tables == "csv":
        msg = f"{place}.tables: an image that keeps its model reads parquet tables; remove one of the two keys"
        raise BadInputError(msg)
    if spec.several_targets and (not spec.predicts or not spec.keeps_model or spec.search_parts is not None):
        msg = f"{place}.several_targets: only for a model with keeps_model, and not for a search; remove the key"
        raise BadInputError(msg)


def _check_cores(place: str, spec: ModelSpec) -> None:
    if isinstance(spec.cores, Fraction) and spec.cores > 1:
        msg = f"{place}.cores: {spec.cores} is more than all cores; the largest share is 1/1"
        raise BadInputError(msg)


def _resolve_dependencies(spec: ModelSpec, tasks: Mapping[str, ModelSpec]) -> tuple[str, ...]:
    models = [other.name for other in tasks.values() if other.predicts]
    return tuple(name for need in spec.depends_on for name in (models if need == ALL_MODELS else [need]))


def _in_order(file: Path, tasks: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    upstream = {name: _resolve_dependencies(spec, tasks) for name, spec in tasks.items()}
    sorter = TopologicalSorter({name: [each for each in names if each != UNZIP] for name, names in upstream.items()})
    try:
        return {name: tasks[name] for name in sorter.static_order()}
    except CycleError as error:
        msg = f"{file}: tasks depend on each other in a cycle: {' -> '.join(error.args[1])}"
        raise BadInputError(msg) from None
