"""One task of ``models.yaml`` in one run: its inputs and outputs, and whether the outputs are up to date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.task_ids import UNZIP
from numerai_pipeline.storage.disk import require_free_space
from numerai_pipeline.storage.layout import RunLayout, fingerprint
from numerai_pipeline.storage.manifests import (
    file_sha256,
    manifest_path,
    read_manifest,
    require_whole,
    verified_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numerai_pipeline.models.registry import ModelSpec, Registry

BYTES_PER_ROW = 64  # of predictions or embeddings: id and numbers


@dataclass(frozen=True)
class ModelTask:
    """One task of ``models.yaml``, with the outputs of the tasks around it.

    Attributes
    ----------
    spec : ModelSpec
        The task's entry.
    preprocessing : tuple of str
        The preprocessing tasks that it requires; none for a post-processing task, which uses the available predictions.
    upstream_outputs : tuple of str
        Outputs of all tasks before it, relative to the run's directory.
    reserved_outputs : frozenset of str
        Outputs of all other tasks.
    producers : mapping
        Output → the task that produces it.
    """

    spec: ModelSpec
    preprocessing: tuple[str, ...]
    upstream_outputs: tuple[str, ...]
    reserved_outputs: frozenset[str]
    producers: Mapping[str, str]

    @classmethod
    def from_registry(cls, spec: ModelSpec, registry: Registry) -> ModelTask:
        """Describe a task of a registry."""
        return cls(
            spec=spec,
            preprocessing=tuple(need for need in spec.depends_on if need != UNZIP and not spec.is_post_processing),
            upstream_outputs=registry.upstream_outputs(spec.name),
            reserved_outputs=frozenset(name for each in registry if each.name != spec.name for name in each.outputs),
            producers={output: each.name for each in registry.tasks.values() for output in each.outputs},
        )

    def is_up_to_date(self, layout: RunLayout, inputs: str) -> bool:
        """Whether all outputs exist, match their manifests, and were made from these inputs."""
        name = self.spec.name
        results = [layout.predictions(name) if self.spec.predicts else layout.report(name)]
        results += [layout.directory / output for output in self.spec.outputs]
        return all(verified_manifest(result, inputs=inputs) for result in results)

    def inputs_fingerprint(self, layout: RunLayout, image: str, environment: Mapping[str, str]) -> str:
        """Return a hash of everything that decides the result: image, environment, tables, and earlier tasks' inputs.

        Raises
        ------
        BadInputError
            When a table, or the report of a preprocessing task, is missing.
        """
        tables = [layout.training, layout.tournament]
        reports = [layout.report(name) for name in self.preprocessing]
        manifests = {path: read_manifest(path) for path in (*tables, *reports)}
        absent = [path.name for path, manifest in manifests.items() if manifest is None]
        if absent:
            msg = f"{', '.join(absent)} in {layout.directory}: missing or not finished; run the upstream tasks again"
            raise BadInputError(msg)
        made_from = {
            path.name: manifest.sha256 if path in tables else manifest.inputs
            for path, manifest in manifests.items()
            if manifest
        }
        # optional inputs count by their content, since some of them have no manifest
        optional = self._optional_inputs(layout)
        made_from |= {str(path.relative_to(layout.directory)): file_sha256(path) for path in optional}
        return fingerprint({"image": image, "environment": dict(environment), "made from": made_from})

    def require_inputs(self, layout: RunLayout) -> None:
        """Verify the content of all inputs, since not every image does, and the free space for the outputs.

        Makes the CSV tables if the image reads those.

        Raises
        ------
        BadInputError
            When an input is missing or damaged.
        DiskFullError
            When the outputs do not fit on the volume.
        """
        tables = [require_whole(table, f"`{UNZIP}`") for table in (layout.training, layout.tournament)]
        for output in () if self.spec.is_post_processing else self.upstream_outputs:
            require_whole(layout.directory / output, f"`{self.producers[output]}`")
        rows = max(manifest.rows or 0 for manifest in tables)
        needed = rows * BYTES_PER_ROW * max(1, len(self.spec.outputs))
        require_free_space(layout.directory, needed, f"{self.spec.name}: its output")
        if self.spec.tables == "csv":
            from numerai_pipeline.dataset.csv_export import write_csv_tables

            write_csv_tables(layout)

    def collect_outputs(self, layout: RunLayout, workspace: Workspace, image: str, inputs: str) -> None:
        """Validate the container's predictions, and only then move its outputs to the run's directory.

        Raises
        ------
        BadInputError
            When an output is missing or invalid.
        """
        name = self.spec.name
        if self.spec.predicts and not verified_manifest(layout.predictions(name), inputs=inputs):
            from numerai_pipeline.models.predictions import validate_predictions

            produced = workspace.container_layout.predictions(name)
            for path in (produced, manifest_path(produced)):
                workspace.check_plain(path)
            validate_predictions(produced, layout.tournament, inputs=inputs)
        workspace.collect_outputs(image)
        if not self.is_up_to_date(layout, inputs):
            outputs = ", ".join((layout.report(name).name, *self.spec.outputs))
            msg = f"{name}: the container ended without an error but did not produce {outputs}, each with its manifest"
            raise BadInputError(msg)

    def warm_imports(self) -> None:
        """Import pyarrow, which :meth:`collect_outputs` needs, ahead of time."""
        if self.spec.predicts:
            import numerai_pipeline.models.predictions  # noqa: F401

    def workspace(self, layout: RunLayout) -> Workspace:
        """Return the workspace of the task's container: its inputs, its outputs, and the files hidden from it."""
        own = [layout.predictions(self.spec.name)] if self.spec.predicts else []
        own.append(layout.report(self.spec.name))
        outputs = (*(str(path.relative_to(layout.directory)) for path in own), *self.spec.outputs)
        return Workspace(
            run=layout,
            task=self.spec.name,
            read_only=self._read_only(layout),
            hidden=self._hidden(layout),
            outputs=outputs,
            # outputs of a post-processing task that failed would be of other models than the next run's
            resumable=() if self.spec.is_post_processing else self.spec.outputs,
            reserved=self.reserved_outputs,
            writes_evaluations=self.spec.is_post_processing,
        )

    def _optional_inputs(self, layout: RunLayout) -> list[Path]:
        """List optional inputs that exist: files of the entry and, for a post-processing task, all predictions."""
        found = [path for name in self.spec.optional_inputs if (path := layout.directory / name).is_file()]
        if self.spec.is_post_processing:
            own = {layout.directory / output for output in self.spec.outputs}
            predictions = sorted(layout.predictions_directory.glob("[!.]*.csv"))
            found += [path for path in predictions if path not in own and read_manifest(path) is not None]
        return found

    def _read_only(self, layout: RunLayout) -> tuple[Path, ...]:
        """List the files that are mounted read-only."""
        upstream = [layout.directory / name for name in self.upstream_outputs]
        if self.spec.is_post_processing:  # some of the tasks before it may have failed
            upstream = [path for path in upstream if path.is_file()]
        return tuple(dict.fromkeys((*layout.tables(self.spec.tables), *upstream, *self._optional_inputs(layout))))

    def _hidden(self, layout: RunLayout) -> tuple[Path, ...]:
        """List files that a model must not read: the known targets of the rows that it predicts."""
        secrets = (layout.targets,)
        return tuple(path for path in secrets if path.is_file() and path.name not in self.spec.optional_inputs)
