"""Runs, datasets and results on a data volume, without a container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from numerai_pipeline.containers.task_plan import RunFiles, TaskPlan
from numerai_pipeline.dataset.store import Dataset, DatasetRequest, TableSummary
from numerai_pipeline.storage.layout import DataLayout, DatasetLayout
from numerai_pipeline.storage.manifests import write_manifest
from numerai_pipeline.storage.results import ResultInfo, ResultStore
from numerai_pipeline.storage.run_metadata import RunMetadata
from numerai_pipeline.storage.task_records import Fallback, TaskRecord, write_record

VALIDATION_IDS, LIVE_IDS = ["v1", "v2", "v3"], ["l1", "l2"]
IMAGE = "numerai-classic:1"


def _table(path: Path, ids: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"id": ids, "era": ["0001"] * len(ids), "feature": [1] * len(ids), "target": [0.5] * len(ids)}
    pq.write_table(pa.table(columns), path)
    write_manifest(path, rows=len(ids), columns=list(columns))


def add_dataset(data: DataLayout, key: str, round_name: str = "1300", targets: tuple[str, ...] = ()) -> Dataset:
    """Write a dataset, with further targets."""
    layout = DatasetLayout(data.dataset(key).directory)
    _table(layout.training, ["t1", "t2"])
    _table(layout.validation, VALIDATION_IDS)
    summary = TableSummary(rows=3, eras=1, data_types={}, missing=0, without_target=0)
    dataset = Dataset(
        key=key,
        layout=layout,
        source="practice",
        version="v5.3",
        round=round_name,
        created_at="2026-08-15T13:00:00+00:00",
        request=DatasetRequest("small", None, 1, None, None, targets),
        made_from={},
        known_before=None,
        feature_set="small",
        features={"feature": "int8"},
        target="target",
        target_days=20,
        embargo=8,
        known_until="0001",
        training=summary,
        validation=summary,
        further_targets=targets,
    )
    layout.metadata.write_text(json.dumps(dataset.to_json()))
    return dataset


def new_run(data: DataLayout, run_id: str = "one", **changes: Any) -> RunFiles:
    """Write a run whose data is unpacked: of the dataset ``new``, unless the changes name another."""
    layout = data.run("1300", run_id)
    _table(layout.live, LIVE_IDS)
    decisions = {
        "dag": "numerai_tournament",
        "run_id": run_id,
        "round": "1300",
        "created_at": "2026-08-15T13:00:00+00:00",
        "closes": None,
        "dataset": "new",
        "older_datasets": (),
        "references": None,
        "live_sha256": "live rows",
        "prefers_finished": False,
        "may_fit": True,
    }
    RunMetadata(**{**decisions, **changes}).write(layout, {"source": "practice"})
    return RunFiles.read(data, layout)


def add_result(data: DataLayout, task: str, key: str, kind: str = "fit", **files: str) -> Path:
    """Publish a result with some files, each with its manifest."""
    directory = data.root / "scratch" / task / key
    directory.mkdir(parents=True)
    for name, content in files.items():
        path = directory / name.replace("__", "/").replace("_csv", ".csv").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        write_manifest(path)
    return ResultStore(data).publish(directory, ResultInfo(task, key, kind, IMAGE, "new", "1300", "dag/run"))


def finish(data: DataLayout, plan: TaskPlan, *, prediction: bool = True) -> None:
    """Publish the results of a plan, empty."""
    add_result(data, plan.spec.name, plan.fit_key)
    if prediction and plan.prediction_key not in (None, plan.fit_key):
        add_result(data, plan.spec.name, str(plan.prediction_key), "prediction")


def record(
    run: RunFiles,
    task: str,
    fit: str,
    prediction: str | None = "p",
    dataset: str = "new",
    fallback: Fallback | None = None,
) -> None:
    """Write the record of a task of a run."""
    written = TaskRecord(task, IMAGE, dataset, fit, prediction, "2026-08-15T13:30:00+00:00", "1300", fallback)
    write_record(run.layout, written, [], ())
