"""Which results a task needs in a run: the keys of its fit and of its prediction, and the files that they are made of.

The key of a fit is a hash of the image, the environment, the dataset and the fits of the upstream tasks; the key of a
prediction, of its fit, the live rows and the upstream predictions. Equal keys are equal results: a run uses a finished
one wherever it was made. The number of threads is not part of it: another machine has other cores, and the last digits
of a fit on it may differ, but its fits are as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.errors import BadInputError, NotFoundError
from numerai_pipeline.dataset.store import Dataset
from numerai_pipeline.storage.layout import fingerprint
from numerai_pipeline.storage.manifests import file_sha256, manifest_path, read_manifest
from numerai_pipeline.storage.results import ResultStore
from numerai_pipeline.storage.run_metadata import RunMetadata
from numerai_pipeline.storage.task_records import Fallback, TaskRecord, read_record, require_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numerai_pipeline.models.registry import ModelSpec, Registry
    from numerai_pipeline.storage.layout import DataLayout, RunLayout

LIVE_TABLE = "live.parquet"
"""The live table as a container has it."""
TRAINING_VARIABLES = ("TRAINING", "VALIDATION", "TARGETS")
"""Variables that a container gets for a fit only."""
_TARGETS = "targets.parquet"
_NOT_IN_KEYS = ("THREADS",)


@dataclass(frozen=True)
class RunFiles:
    """The files and decisions of a run that its tasks use.

    Attributes
    ----------
    data : DataLayout
        The data volume.
    layout : RunLayout
        The run's directory.
    metadata : RunMetadata
        The decisions of ``unzip``.
    failed : frozenset of str
        Tasks that have not succeeded in this run: their records are of earlier attempts, and do not count.
    """

    data: DataLayout
    layout: RunLayout
    metadata: RunMetadata
    failed: frozenset[str] = frozenset()

    @classmethod
    def read(cls, data: DataLayout, layout: RunLayout, failed: frozenset[str] = frozenset()) -> RunFiles:
        """Read the run's metadata."""
        return cls(data, layout, RunMetadata.read(layout), failed)

    def dataset(self, key: str) -> Dataset:
        """Read a dataset."""
        return Dataset.read(self.data.dataset(key))


@dataclass(frozen=True)
class UpstreamResult:
    """The result of an upstream task that a task reads: its fit, and its prediction if it has one."""

    task: str
    fit: str
    prediction: str | None


@dataclass(frozen=True)
class TaskPlan:
    """The results of one task in one run.

    Attributes
    ----------
    spec : ModelSpec
        The task.
    dataset : Dataset
        The dataset of the fit.
    fit_inputs, prediction_inputs : mapping
        What the keys are the hashes of.
    fit_key : str
        Key of the fit.
    prediction_key : str or None
        Key of the prediction; None for a task without.
    upstream : tuple of UpstreamResult
        The results that it reads.
    has_fit, has_prediction : bool
        Whether these results are finished.
    """

    spec: ModelSpec
    dataset: Dataset
    fit_inputs: Mapping[str, Any]
    prediction_inputs: Mapping[str, Any]
    fit_key: str
    prediction_key: str | None
    upstream: tuple[UpstreamResult, ...]
    has_fit: bool
    has_prediction: bool

    @property
    def further_targets(self) -> tuple[str, ...]:
        """The targets that the fit learns beside the main one."""
        return self.dataset.further_targets if self.spec.several_targets else ()

    @property
    def keeps_parts(self) -> bool:
        """Whether an attempt continues with the finished files of an unfinished fit."""
        return bool(self.spec.outputs or self.further_targets)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.has_fit and self.has_prediction

    @property
    def scoring(self) -> Mapping[str, str]:
        """Variables by which a post-processing task scores; none for other tasks, whose keys do not depend on them."""
        found: Mapping[str, str] = self.fit_inputs.get("scoring", {})
        return found

    @property
    def key(self) -> str:
        """Key of the result that a container must make: the fit, with the prediction, or only the prediction."""
        return self.fit_key if not self.has_fit or self.prediction_key is None else self.prediction_key


class TaskPlanner:
    """Plans one task of a registry.

    Parameters
    ----------
    spec : ModelSpec
        The task.
    registry : Registry
        Its registry.
    """

    def __init__(self, spec: ModelSpec, registry: Registry) -> None:
        self.spec = spec
        self.models = registry.models if spec.is_post_processing else ()
        self._preprocessing = () if spec.is_post_processing else registry.preprocessing(spec.name)
        self._post_processing = tuple(name for name in registry.upstream(spec.name) if name in registry.post_processing)
        self._outputs = {each.name: each.outputs for each in registry}
        self._live_outputs = {each.name: each.live_outputs for each in registry}
        self._keep_models = frozenset(each.name for each in registry if each.keeps_model)

    def plan(self, run: RunFiles, image: str, environment: Mapping[str, str], *, forced: bool = False) -> TaskPlan:
        """Plan the task: its finished fit where the run prefers or has one, otherwise a new fit.

        Parameters
        ----------
        run : RunFiles
            The run.
        image : str
            Full name of the task's image.
        environment : mapping
            The contract's variables.
        forced : bool
            Whether the run makes new results, even of the same inputs.

        Raises
        ------
        NotFoundError
            When the run may not fit, and there is no finished fit.
        BadInputError
            When an upstream task has no result in this run.
        """
        plans = self._plans(run, image, environment, forced=forced)
        newest = next(plans, None)
        if newest is None:
            msg = f"{self.spec.name}: its upstream tasks have no results of one dataset: clear them and run them again"
            raise BadInputError(msg)
        if newest.has_fit or not self.spec.keeps_model or self.spec.is_post_processing:
            return newest
        if forced and run.metadata.may_fit:
            return newest
        if run.metadata.prefers_finished:
            finished = next((plan for plan in plans if plan.has_fit), None)
            if finished is not None:
                return finished
        if not run.metadata.may_fit:
            msg = (
                f"{self.spec.name}: there is no finished fit of these settings, and fit=never forbids a new one: start"
                " the run with fit=auto"
            )
            raise NotFoundError(msg)
        return newest

    def fallback(self, run: RunFiles, image: str, environment: Mapping[str, str]) -> TaskPlan | None:
        """Plan the predictions of the newest finished fit of an older dataset; None when there is none."""
        if not self.spec.keeps_model or self.spec.is_post_processing:
            return None
        plans = self._plans(run, image, environment, forced=False)
        return next((plan for plan in plans if plan.has_fit and plan.dataset.key != run.metadata.dataset), None)

    def inputs(self, plan: TaskPlan, run: RunFiles) -> dict[str, Path]:
        """Return the container's inputs: name below ``/data`` → file or folder, with the manifests of files."""
        files: dict[str, Path] = {}
        if not self.spec.keeps_model:
            files |= dict(self._tables_of_2018(plan, run))
        else:
            if not plan.has_fit:
                files |= {"training.parquet": plan.dataset.layout.training}
                files |= {"validation.parquet": plan.dataset.layout.validation}
            if plan.prediction_key is not None or self._reads_live_rows(run):
                files[LIVE_TABLE] = run.layout.live
            if plan.has_fit:
                files["model"] = run.data.result(self.spec.name, plan.fit_key)
        for each in plan.upstream:
            # a finished fit only predicts, and needs no file of the upstream fits; verifying them takes long
            only_live = plan.has_fit and each.task in self._keep_models
            files |= self._upstream_files(each, run, only_live=only_live)
        files |= self._optional_inputs(run)
        manifests = {f"{name}.manifest.json": manifest_path(path) for name, path in files.items()}
        return files | {name: path for name, path in manifests.items() if path.is_file()}

    def _plans(self, run: RunFiles, image: str, environment: Mapping[str, str], *, forced: bool) -> Iterator[TaskPlan]:
        """Yield the plan for the run's dataset, then those for older datasets, newest first."""
        metadata = run.metadata
        store = ResultStore(run.data)
        for number, key in enumerate((metadata.dataset, *metadata.older_datasets)):
            upstream = self._upstream(run, key, is_newest=number == 0)
            if upstream is None:
                continue
            dataset = run.dataset(key)
            fit_inputs: dict[str, Any] = {
                "image": image,
                "environment": {name: value for name, value in environment.items() if name not in _NOT_IN_KEYS},
                "dataset": key,
                "fits": {each.task: each.fit for each in upstream},
                "files": self._optional_digests(run),
                "forced": metadata.run if forced else None,
            }
            if self.spec.is_post_processing:
                fit_inputs["scoring"] = metadata.scoring
            prediction_inputs: dict[str, Any] = {
                "live": metadata.live_sha256,
                "predictions": {each.task: each.prediction for each in upstream},
            }
            if self.spec.several_targets and dataset.further_targets:
                fit_inputs["targets"] = list(dataset.further_targets)
            if not self.spec.keeps_model or self._reads_live_rows(run):
                # everything decides everything: one result, which serves this run's rows only
                fit_inputs |= prediction_inputs
            fit = fingerprint(fit_inputs)
            prediction_inputs |= {"fit": fit}
            prediction = fingerprint(prediction_inputs) if self.spec.reads_live_rows else None
            if not self.spec.keeps_model:
                prediction = fit
            yield TaskPlan(
                self.spec,
                dataset,
                fit_inputs,
                prediction_inputs,
                fit,
                prediction,
                upstream,
                has_fit=store.has(self.spec.name, fit),
                has_prediction=prediction is None or store.has(self.spec.name, prediction),
            )

    def _upstream(self, run: RunFiles, dataset: str, *, is_newest: bool) -> tuple[UpstreamResult, ...] | None:
        """Return the upstream results of this run; of preprocessing tasks, those of this dataset, None without."""
        found = []
        for name in self._preprocessing:
            result = _result_for(require_record(run.layout, name), dataset)
            if result is None:
                return None
            found.append(result)
        if self.spec.is_post_processing and not is_newest:
            return None  # its fit is of the fits of this run's models, whatever their datasets are
        for name in (*self.models, *self._post_processing):
            record = None if name in run.failed else read_record(run.layout, name)
            if record is not None:
                found.append(UpstreamResult(name, record.fit, record.prediction))
        if not found and self.spec.is_post_processing:
            msg = f"{self.spec.name}: no model has a result in this run: clear a model and run it again"
            raise BadInputError(msg)
        return tuple(found)

    def _upstream_files(self, each: UpstreamResult, run: RunFiles, *, only_live: bool) -> dict[str, Path]:
        fit = run.data.result(each.task, each.fit)
        if each.task in self.models:
            prediction = run.data.result(each.task, each.prediction or each.fit)
            name = f"{each.task}.csv"
            files = {} if only_live else {f"validation/{name}": fit / "validation.csv"}
            return files | {f"predictions/{name}": prediction / "predictions" / name}
        files = {} if only_live else {name: fit / name for name in self._outputs[each.task]}
        if each.prediction is not None:
            prediction = run.data.result(each.task, each.prediction)
            files |= {name: prediction / name for name in self._live_outputs[each.task]}
        return files

    def _tables_of_2018(self, plan: TaskPlan, run: RunFiles) -> Iterator[tuple[str, Path]]:
        from numerai_pipeline.dataset.csv_export import write_tournament, write_training_csv

        layout = plan.dataset.layout
        training = write_training_csv(layout) if self.spec.tables == "csv" else layout.training
        tournament = write_tournament(plan.dataset, run.layout, self.spec.tables)
        yield training.name, training
        yield tournament.name, tournament

    def _optional_inputs(self, run: RunFiles) -> dict[str, Path]:
        folders = [run.layout.directory]
        if run.metadata.references is not None:
            folders.insert(0, run.data.result("references", run.metadata.references))
        found = {}
        for name in self.spec.optional_inputs:
            path = next((folder / name for folder in folders if (folder / name).is_file()), None)
            if path is not None:
                found[name] = path
        return found

    def _optional_digests(self, run: RunFiles) -> dict[str, str]:
        digests = {}
        for name, path in self._optional_inputs(run).items():
            manifest = read_manifest(path)
            digests[name] = manifest.sha256 if manifest else file_sha256(path)
        return digests

    def _reads_live_rows(self, run: RunFiles) -> bool:
        """Whether the scores depend on the live rows: of a walk-forward run, and of an archive, which has one round."""
        is_scoring = _TARGETS in self.spec.optional_inputs
        return is_scoring and (run.layout.targets.is_file() or run.metadata.source == "archive")


def _result_for(record: TaskRecord, dataset: str) -> UpstreamResult | None:
    candidates: tuple[TaskRecord | Fallback, ...] = (record, *([record.fallback] if record.fallback else []))
    for each in candidates:
        if each.dataset == dataset:
            return UpstreamResult(record.task, each.fit, each.prediction)
    return None
