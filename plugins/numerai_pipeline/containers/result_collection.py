"""The end of a container's work: its outputs are checked, and become results that later tasks and runs use."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.disk import require_free_space
from numerai_pipeline.storage.manifests import manifest_path, require_whole, verified_manifest
from numerai_pipeline.storage.reports import measures_of
from numerai_pipeline.storage.results import ResultInfo, ResultStore
from numerai_pipeline.storage.task_records import TaskRecord, write_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Literal

    from numerai_pipeline.containers.task_plan import RunFiles, TaskPlan
    from numerai_pipeline.containers.workspace import Workspace
    from numerai_pipeline.dataset.store import Dataset
    from numerai_pipeline.models.registry import ModelSpec

BYTES_PER_ROW = 64  # of predictions or embeddings: id and numbers
_PREDICTION = "prediction"


@dataclass(frozen=True)
class ResultCollector:
    """Checks and publishes the results of one task in one run.

    Attributes
    ----------
    plan : TaskPlan
        The results.
    run : RunFiles
        The run.
    image : str
        Full name of the image.
    """

    plan: TaskPlan
    run: RunFiles
    image: str

    def check_inputs(self, inputs: Mapping[str, Path]) -> None:
        """Verify the content of the container's inputs, since not every image does, and the free space for its outputs.

        Raises
        ------
        BadInputError
            When an input is missing or damaged.
        DiskFullError
            When the outputs do not fit on the volume.
        """
        made_by = {"training.parquet": "`unzip`", "validation.parquet": "`unzip`", "live.parquet": "`unzip`"}
        for name, path in inputs.items():
            if name.endswith(".manifest.json") or path.is_dir():
                continue
            if manifest_path(path).is_file() or not path.is_file():
                require_whole(path, made_by.get(name, "the upstream tasks"))
        spec, dataset = self.plan.spec, self.plan.dataset
        rows = 0 if self.plan.has_fit else dataset.training.rows + dataset.validation.rows
        needed = rows * BYTES_PER_ROW * (max(1, len(spec.outputs)) + len(self.plan.further_targets))
        require_free_space(self.run.data.root, needed, f"{spec.name}: its output")

    def collect(self, workspace: Workspace) -> None:
        """Check the container's outputs and publish them: the fit first, so that it outlives a kill.

        Raises
        ------
        BadInputError
            When an output is missing or invalid. An invalid fit is removed: kept, it would be the next attempt's.
        """
        store, plan = ResultStore(self.run.data), self.plan
        if not plan.spec.keeps_model:
            self._publish_both(store, workspace)
            return
        if not store.has(plan.spec.name, plan.fit_key):
            try:
                check_fit(plan.spec, plan.dataset, workspace)
                store.publish(workspace.model, self.describe("fit"))
            except BadInputError:
                shutil.rmtree(workspace.model, ignore_errors=True)
                raise
        if plan.prediction_key is not None and not store.has(plan.spec.name, plan.prediction_key):
            directory = self._gather_prediction(workspace)
            store.publish(directory, self.describe("prediction"))

    def describe(self, kind: Literal["fit", "prediction"]) -> ResultInfo:
        """Describe the fit or the prediction."""
        plan, metadata = self.plan, self.run.metadata
        key, inputs = plan.fit_key, plan.fit_inputs
        if kind == "prediction":
            key, inputs = plan.prediction_key or plan.fit_key, plan.prediction_inputs
        return ResultInfo(
            plan.spec.name, key, kind, self.image, plan.dataset.key, metadata.round, metadata.run, dict(inputs)
        )

    def record(self) -> TaskRecord:
        """Return the record of the finished results."""
        plan = self.plan
        fit = ResultStore(self.run.data).read(plan.spec.name, plan.fit_key)
        return TaskRecord(
            plan.spec.name, self.image, plan.dataset.key, plan.fit_key, plan.prediction_key, fit.created_at, fit.round
        )

    def write_record(self, record: TaskRecord) -> None:
        """Link the results in the run's directory and write the task's record there."""
        spec = self.plan.spec
        declared = {*spec.outputs, *spec.live_outputs, "plots"}
        if spec.predicts:
            declared.add(f"predictions/{spec.name}.csv")
        if spec.is_post_processing:
            declared.add("evaluation")
        keys = dict.fromkeys(key for key in (record.fit, record.prediction) if key is not None)
        write_record(self.run.layout, record, [self.run.data.result(record.task, key) for key in keys], declared)

    def container_report(self) -> dict[str, float | None]:
        """Return ``seconds`` and ``peak_memory_mib`` of the container that made the results, by its own report.

        None for a value that the report does not have, such as of an image of 2018.
        """
        plan, store = self.plan, ResultStore(self.run.data)
        file, key = "report.json", plan.fit_key
        if plan.prediction_key is not None:
            file, key = "prediction_report.json", plan.prediction_key
        return measures_of(store.path(plan.spec.name, key) / file)

    def _gather_prediction(self, workspace: Workspace) -> Path:
        """Move the outputs about the live rows to a directory of their own."""
        spec = self.plan.spec
        if spec.predicts:
            from numerai_pipeline.models.predictions import validate_predictions

            predictions = workspace.directory / "predictions" / f"{spec.name}.csv"
            _check_plain(workspace, predictions)
            validate_predictions(predictions, self.run.layout.live)
            names: tuple[str, ...] = (f"predictions/{spec.name}.csv",)
        else:
            _require_outputs(spec, workspace, workspace.directory, spec.live_outputs)
            names = spec.live_outputs
        directory = workspace.directory / _PREDICTION
        shutil.rmtree(directory, ignore_errors=True)
        for name in names:
            for source in (workspace.directory / name, manifest_path(workspace.directory / name)):
                if source.is_file():
                    _move(source, directory / source.relative_to(workspace.directory))
        report = workspace.directory / "reports" / f"{spec.name}.json"
        if workspace.is_plain(report):
            _move(report, directory / "prediction_report.json")
        return directory

    def _publish_both(self, store: ResultStore, workspace: Workspace) -> None:
        """Publish the outputs of an image that keeps no model: predictions of validation and live rows in one file."""
        spec, plan = self.plan.spec, self.plan
        directory = workspace.directory / _PREDICTION
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        if spec.predicts:
            from numerai_pipeline.models.predictions import split_predictions, validate_predictions

            predictions = workspace.directory / "predictions" / f"{spec.name}.csv"
            _check_plain(workspace, predictions)
            parts = {
                directory / "validation.csv": plan.dataset.layout.validation,
                directory / "predictions" / f"{spec.name}.csv": self.run.layout.live,
            }
            validate_predictions(predictions, *parts.values())
            split_predictions(predictions, parts)
        outputs = (*spec.outputs, *spec.live_outputs)
        _require_outputs(spec, workspace, workspace.directory, outputs)
        report = workspace.directory / "reports" / f"{spec.name}.json"
        for source, name in (
            *((workspace.directory / output, output) for output in outputs),
            (report, "report.json"),
        ):
            for file, target in ((source, name), (manifest_path(source), f"{name}.manifest.json")):
                if workspace.is_plain(file):
                    _move(file, directory / target)
        store.publish(directory, self.describe("fit"))


def check_fit(spec: ModelSpec, dataset: Dataset, workspace: Workspace) -> None:
    """Check a finished fit: its record, its predictions of the validation table, and its declared outputs.

    Raises
    ------
    BadInputError
        When one is missing or invalid.
    """
    if not workspace.has_fit:
        msg = f"{spec.name}: the container ended without an error but did not finish its fit (model/model.json)"
        raise BadInputError(msg)
    if spec.predicts:
        from numerai_pipeline.models.predictions import validate_predictions

        _check_plain(workspace, workspace.model / "validation.csv")
        validate_predictions(workspace.model / "validation.csv", dataset.layout.validation)
    _require_outputs(spec, workspace, workspace.model, spec.outputs)


def _require_outputs(spec: ModelSpec, workspace: Workspace, folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        _check_plain(workspace, folder / name)
    missing = [name for name in names if verified_manifest(folder / name) is None]
    if missing:
        msg = (
            f"{spec.name}: the container ended without an error but did not produce {', '.join(missing)}, each with"
            " its manifest"
        )
        raise BadInputError(msg)


def _check_plain(workspace: Workspace, path: Path) -> None:
    for each in (path, manifest_path(path)):
        workspace.check_plain(each)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
