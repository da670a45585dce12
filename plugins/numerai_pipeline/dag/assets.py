"""The assets of a stable, which schedule other DAGs: ``numerai://<stable>/predictions`` and ``…/submissions``.

The first is updated by ``leaderboard``, when the predictions of a run exist, and the second by ``submit``, when
submissions are confirmed. The facts of the run are in the ``extra`` of both events (:func:`run_facts`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.task_ids import UNZIP
from numerai_pipeline.dag.run_dates import run_type_of
from numerai_pipeline.storage.manifests import SUFFIX
from numerai_pipeline.storage.run_directory import RunDirectory
from numerai_pipeline.storage.untrusted_json import RunFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from numerai_pipeline.storage.layout import RunLayout

log = logging.getLogger(__name__)

_DAG_PREFIX = "numerai_"


def stable_of(dag_id: str) -> str:
    """Return the name of the stable that a DAG runs: ``tournament`` for ``numerai_tournament``."""
    return dag_id.removeprefix(_DAG_PREFIX)


def predictions_asset(dag_id: str) -> Asset:
    """Return the asset of the predictions of a DAG's runs."""
    return Asset(f"numerai://{stable_of(dag_id)}/predictions")


def submissions_asset(dag_id: str) -> Asset:
    """Return the asset of the confirmed submissions of a DAG's runs."""
    return Asset(f"numerai://{stable_of(dag_id)}/submissions")


def run_layout(context: Context) -> RunLayout:
    """Return the paths of the directory of a run whose data was unpacked."""
    run = context["ti"].xcom_pull(task_ids=UNZIP)
    return RunDirectory.from_xcom(run).layout(load_settings().data_dir)


def run_facts(
    context: Context,
    scores: Mapping[str, float | None],
    submissions: Mapping[str, Mapping[str, Any]],
    *,
    submits: bool,
) -> dict[str, Any]:
    """Return the facts of a run that the events of its assets have.

    Parameters
    ----------
    context : Context
        Airflow's context of a task after ``unzip``.
    scores : mapping
        Model or ensemble → mean CORR.
    submissions : mapping
        Model at Numerai → record of its submission.
    submits : bool
        Whether the run submits, by its parameter or its stable.

    Returns
    -------
    dict
        ``dag``, ``run_id``, ``run_type``, ``source``, ``feature_set``, ``target``; ``round`` (a number; None for an
        archive without one); ``walk_forward`` (whether the round is over, so that nothing can be submitted);
        ``submits``; ``directory`` (path of the run's directory); ``predictions``: model or
        ensemble → ``file``, ``key`` (of the result), ``sha256``, ``corr`` (None if not evaluated), ``submitted_as``
        (models at Numerai with a confirmed submission of this result).
    """
    from numerai_pipeline.numerai_api.submission_files import find_predictions

    ti, run = context["ti"], context["ti"].xcom_pull(task_ids=UNZIP)
    layout = run_layout(context)
    submitted = {name: record.get("key") for name, record in submissions.items() if record.get("round") is not None}
    predictions = {}
    for path in sorted(layout.predictions_directory.glob("[!.]*.csv")):
        try:
            found = find_predictions(layout, path.stem)
        except BadInputError as error:
            log.warning("not among the facts of the run: %s", error)
            continue
        predictions[path.stem] = {
            "file": str(path),
            "key": found.key,
            "sha256": found.sha256,
            "corr": scores.get(path.stem),
            "submitted_as": [name for name, key in submitted.items() if key == found.key],
        }
    return {
        "dag": ti.dag_id,
        "run_id": ti.run_id,
        "run_type": run_type_of(context["dag_run"]),
        "round": int(run["round"]) if str(run["round"]).isdecimal() else None,
        **{name: run.get(name) for name in ("source", "feature_set", "target")},
        "walk_forward": run.get("era") is not None,
        "submits": submits,
        "directory": str(layout.directory),
        "predictions": predictions,
    }


def submission_records(layout: RunLayout) -> dict[str, dict[str, Any]]:
    """Read the records of a run's submissions: model at Numerai → record."""
    files, folder = RunFiles(layout.directory), layout.submission_record("x").parent
    found = {
        path.stem: files.read(path) for path in sorted(folder.glob("[!.]*.json")) if not path.name.endswith(SUFFIX)
    }
    return {name: record for name, record in found.items() if record is not None}
