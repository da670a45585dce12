"""The steps of the DAG that run in Airflow itself: each a function that a PythonOperator calls.

A step takes what it needs from Airflow's context by name, asks the library, and returns the few plain values that the
next steps need.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from numerai_pipeline.airflow_words import in_airflow_words
from numerai_pipeline.leases import Lease, note
from numerai_pipeline.manifests import atomic_path
from numerai_pipeline.parameters import RunParameters, parse_parameters
from numerai_pipeline.raw_dataset import RawDataset
from numerai_pipeline.reports import summary_of
from numerai_pipeline.run_layout import DataLayout, RunLayout, fingerprint
from numerai_pipeline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.types import DagRunProtocol, RuntimeTaskInstanceProtocol

log = logging.getLogger(__name__)


def download(params: Mapping[str, Any], dag_run: DagRunProtocol) -> dict[str, Any]:
    """Bring the raw files of the run's round to the data volume, verified; return which they are.

    A run with a date (scheduled, backfilled) gets the round of that date, never silently today's.
    """
    with in_airflow_words():
        parameters = parse_parameters(params)
        raw = _raw_dataset(parameters, dag_run)
        log.info("round %s, source %s, version %s", raw.round, raw.source, raw.version)
        return raw.to_json()


def _raw_dataset(parameters: RunParameters, dag_run: DagRunProtocol) -> RawDataset:
    from numerai_pipeline.downloads import fetch_archive
    from numerai_pipeline.tournament import Tournament

    settings = load_settings()
    layout = DataLayout(settings.data_dir)
    if parameters.source == "archive":
        round_name = str(parameters.round or "archive")
        address = str(parameters.archive).replace("{round}", round_name)
        file = fetch_archive(address, layout, settings.http_timeout)
        return RawDataset("archive", "archive", round_name, address.rsplit("/", 1)[-1], {"archive": file})
    tournament = Tournament(settings.api_address(parameters.source), timeout=settings.http_timeout)
    return tournament.download_round(
        layout,
        source=parameters.source,
        version=parameters.version,
        round_number=parameters.round,
        run_date=dag_run.data_interval_end or dag_run.logical_date,
    )


def unzip(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Turn the raw files into the run's two tables; return the run's directory on the data volume and its facts."""
    from numerai_pipeline.unpacking.dataset import unpack

    with in_airflow_words():
        parameters = parse_parameters(params)
        raw = RawDataset.from_json(ti.xcom_pull(task_ids="download"))
        settings = load_settings()
        chosen = {
            "source": raw.source,
            "version": raw.version,
            "feature_set": parameters.feature_set,
            "target": parameters.target,
            "every_nth_era": parameters.every_nth_era,
        }
        # An archive is known by its content: two files of one name are two datasets.
        content = {role: file.sha256 for role, file in raw.files.items()}
        identity = content if raw.kind == "archive" else {}
        layout = DataLayout(settings.data_dir).run(
            raw.round, fingerprint({**chosen, **identity, "seed": parameters.seed})
        )
        note(DataLayout(settings.data_dir), layout, Lease(ti.dag_id, ti.run_id))
        unpacked = unpack(
            raw,
            layout,
            feature_set=parameters.feature_set,
            target=parameters.target,
            every_nth_era=parameters.every_nth_era,
            inputs=fingerprint({**chosen, **content}),
            force=parameters.force,
        )
        facts = {"round": raw.round, **chosen, "seed": parameters.seed, **asdict(unpacked)}
        with atomic_path(layout.run_facts) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        return {"directory": str(layout.directory.relative_to(settings.data_dir)), **facts}


def explore(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol, models: Sequence[str]) -> dict[str, Any]:
    """Gather what all models left: the run's verdict, for the log and for whoever asks Airflow for it."""
    with in_airflow_words():
        parameters = parse_parameters(params)
        run = ti.xcom_pull(task_ids="unzip")
        layout = RunLayout(load_settings().data_dir / run["directory"])
        picked = [name for name in models if not parameters.models or name in parameters.models]
        summaries = {name: summary_of(name, layout) for name in picked}
        for name, summary in summaries.items():
            scores = [f"{score} {_digits(summary[score])}" for score in ("logloss", "consistency", "correlation")]
            log.info("%s: %s rows, %s: %s", name, summary.get("rows"), ", ".join(scores), summary.get("predictions"))
        return {**run, "directory": str(layout.directory), "models": summaries}


def _digits(score: float | None) -> str:
    return "unknown" if score is None else f"{score:.5f}"
