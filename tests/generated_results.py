"""Publishes generated results as the pipeline does, and links them in a run's directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numerai_pipeline.storage.layout import RunLayout, fingerprint
from numerai_pipeline.storage.results import ResultInfo, ResultStore
from numerai_pipeline.storage.task_records import Fallback, TaskRecord, write_record

DATASET = "da7a5e70da7a"
FITTED_AT = "2026-08-10T14:00:00+00:00"
Write = Callable[[Path], None]


def publish(layout: RunLayout, task: str, key: str, kind: str, write: Write, **changes: Any) -> Path:
    """Publish a result whose content a function writes into an empty directory."""
    store = ResultStore(layout.data)
    if store.has(task, key):
        return store.path(task, key)
    directory = layout.data.work(task, key)
    directory.mkdir(parents=True)
    write(directory)
    known: dict[str, Any] = {"image": "numerai-classic:1", "dataset": DATASET, "round": "1334", "run": "dag/run"}
    return store.publish(directory, ResultInfo(task=task, key=key, kind=kind, **{**known, **changes}))


def add_task(
    layout: RunLayout,
    task: str,
    *,
    fit: Write = lambda _: None,
    prediction: Write | None = None,
    variant: object = 0,
    image: str = "numerai-classic:1",
    dataset: str = DATASET,
    fitted_at: str = FITTED_AT,
    fit_round: str = "1334",
    fallback: Fallback | None = None,
) -> TaskRecord:
    """Publish the results of a task and write its record, as the pipeline does; ``variant`` decides their keys."""
    keys = {kind: fingerprint({"task": task, "kind": kind, "variant": variant}) for kind in ("fit", "prediction")}
    results = [publish(layout, task, keys["fit"], "fit", fit, image=image, dataset=dataset, round=fit_round)]
    if prediction is not None:
        kind = "prediction"
        results.append(publish(layout, task, keys[kind], kind, prediction, image=image, dataset=dataset))
    record = TaskRecord(
        task=task,
        image=image,
        dataset=dataset,
        fit=keys["fit"],
        prediction=keys["prediction"] if prediction is not None else None,
        fitted_at=fitted_at,
        fit_round=fit_round,
        fallback=fallback,
    )
    files = {str(file.relative_to(result)) for result in results for file in result.rglob("*") if file.is_file()}
    write_record(layout, record, results, files - {"result.json", "model.json", "prediction_report.json"})
    return record


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
