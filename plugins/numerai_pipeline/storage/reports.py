"""Summaries of the JSON reports that containers write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from numerai_pipeline.storage.manifests import read_manifest
from numerai_pipeline.storage.task_records import read_record
from numerai_pipeline.storage.untrusted_json import RunFiles, as_float, get_in

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.storage.layout import RunLayout


def summary_of(task: str, layout: RunLayout) -> dict[str, Any]:
    """Summarize the outputs of a task in a run's directory.

    Returns
    -------
    dict
        ``predictions`` (path) and ``rows`` if it has predictions; ``fit`` (key) and ``fitted_at`` (ISO 8601) if it has
        a record; of its report ``seconds``, ``logloss`` (natural
        logarithm, validation rows), ``consistency`` (share of validation eras, 0 to 1), ``correlation`` (mean over
        validation eras); None where the report has no value.

    Raises
    ------
    BadInputError
        When the record of the task is damaged.
    """
    summary: dict[str, Any] = {}
    manifest = read_manifest(layout.predictions(task))
    if manifest is not None:
        summary |= {"predictions": str(layout.predictions(task)), "rows": manifest.rows}
    record = read_record(layout, task)
    if record is not None:
        summary |= {"fit": record.fit, "fitted_at": record.fitted_at}
    report = _read_report(layout, task)
    scores = ("logloss", "consistency", "correlation")
    return summary | {
        "seconds": _number(get_in(report, "seconds")),
        **{score: _number(get_in(report, "validation", score)) for score in scores},
    }


def measures_of(report: Path) -> dict[str, float | None]:
    """Return what a container measured of itself, by a report in a result: ``seconds`` and ``peak_memory_mib``.

    None for a value that the report does not have, such as of an image of 2018.
    """
    content = RunFiles(report.parent).read(report)
    return {name: as_float(get_in(content, name)) for name in ("seconds", "peak_memory_mib")}


def _number(value: Any) -> float | None:
    """Give a number as it is; None for anything else that a container may have put there."""
    return None if as_float(value) is None else value


def _read_report(layout: RunLayout, task: str) -> dict[str, Any]:
    try:
        report = json.loads(layout.report(task).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # an image of 2018 writes none
    return report if isinstance(report, dict) else {}
