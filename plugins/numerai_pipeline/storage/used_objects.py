"""What the directories of runs use: their runs in Airflow, and the shared datasets and results."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.task_records import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numerai_pipeline.storage.layout import DataLayout, RunLayout
    from numerai_pipeline.storage.task_records import TaskRecord

log = logging.getLogger(__name__)

# a relative link, as `write_record` creates it
_RESULT = re.compile(r"^(\.\./)+results/(?P<task>[^./][^/]*)/(?P<key>[^./][^/]*)/")


@dataclass(frozen=True)
class RunRef:
    """A run of Airflow: its DAG and its run id."""

    dag: str
    run: str


@dataclass(frozen=True)
class UsedObjects:
    """The shared objects of the data volume that runs use.

    Attributes
    ----------
    datasets : frozenset of str
        Keys of datasets: of the runs, of their fits, and of the earlier fits that they may use.
    results : frozenset of Path
        Directories of results.
    """

    datasets: frozenset[str]
    results: frozenset[Path]


def read_metadata(layout: RunLayout) -> dict[str, Any]:
    """Read ``run.json``; empty when it is missing or damaged."""
    try:
        content = json.loads(layout.run_metadata.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def run_ref(metadata: dict[str, Any]) -> RunRef | None:
    """Return the run of Airflow that a directory belongs to; None for a directory of an earlier release."""
    dag, run = metadata.get("dag"), metadata.get("run_id")
    return RunRef(dag, run) if isinstance(dag, str) and isinstance(run, str) else None


def linked_result(path: Path) -> tuple[str, str] | None:
    """Return task and key of the result that a link of a run's directory leads to; None for anything else."""
    if not path.is_symlink():
        return None
    match = _RESULT.search(str(path.readlink()))
    return (match["task"], match["key"]) if match else None


def used_objects(data: DataLayout, runs: Iterable[RunLayout]) -> UsedObjects:
    """Collect the shared objects that runs use, by their metadata, the records of their tasks and their links."""
    datasets: set[str] = set()
    results: set[Path] = set()
    for layout in runs:
        metadata = read_metadata(layout)
        older = metadata.get("older_datasets")
        datasets.update(_texts([metadata.get("dataset"), *(older if isinstance(older, list) else [])]))
        results.update(data.result("references", key) for key in _texts([metadata.get("references")]))
        for record in _records(layout):
            fallback = record.fallback
            datasets.update(_texts([record.dataset, fallback and fallback.dataset]))
            keys = [record.fit, record.prediction, fallback and fallback.fit, fallback and fallback.prediction]
            results.update(data.result(record.task, key) for key in _texts(keys))
        results.update(_linked_results(data, layout))
    return UsedObjects(frozenset(datasets), frozenset(results))


def _records(layout: RunLayout) -> Iterator[TaskRecord]:
    for file in sorted(layout.tasks_directory.glob("[!.]*.json")):
        try:
            record = read_record(layout, file.stem)
        except BadInputError as error:  # the links of the task remain
            log.warning("%s", error)
            continue
        if record is not None:
            yield record


def _linked_results(data: DataLayout, layout: RunLayout) -> Iterator[Path]:
    for path in layout.directory.rglob("*"):
        found = linked_result(path)
        if found is not None:
            yield data.result(*found)


def _texts(values: Iterable[object]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str) and value)
