"""The steps of the DAG that run in Airflow itself: each a function that a PythonOperator calls.

A step takes what it needs from Airflow's context by name, asks the library, and returns the few plain values that the
next steps need.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import DownstreamTasksSkipped

from numerai_pipeline.airflow_words import in_airflow_words
from numerai_pipeline.leases import RunRef, mark_in_use
from numerai_pipeline.manifests import atomic_path
from numerai_pipeline.parameters import RunParameters, parse_parameters
from numerai_pipeline.raw_dataset import RawDataset
from numerai_pipeline.reports import summary_of
from numerai_pipeline.run_dates import SCHEDULED, run_date
from numerai_pipeline.run_layout import DataLayout, RunLayout, fingerprint
from numerai_pipeline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.types import DagRunProtocol, RuntimeTaskInstanceProtocol

WAITING_TASK = "wait_for_round"
"""The task that says which round it waited for."""

log = logging.getLogger(__name__)


def download(params: Mapping[str, Any], dag_run: DagRunProtocol, ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Bring the raw files of the run's round to the data volume, verified; return which they are.

    A scheduled run gets the round that was waited for, another with a date the round of that date, never silently
    today's.
    """
    with in_airflow_words():
        parameters = parse_parameters(params)
        waited_for = ti.xcom_pull(task_ids=WAITING_TASK) or {}
        closes = waited_for.get("closes")
        raw = _raw_dataset(
            parameters,
            parameters.round or waited_for.get("round"),
            run_date(dag_run),
            deadline=datetime.fromisoformat(closes) if closes else None,
            # a scheduled run is for its own round or for nothing
            walk_forward=parameters.walk_forward and dag_run.run_type != SCHEDULED,
        )
        log.info("round %s, source %s, version %s", raw.round, raw.source, raw.version)
        return raw.to_json()


def _raw_dataset(
    parameters: RunParameters,
    round_number: int | None,
    date: datetime | None,
    *,
    deadline: datetime | None,
    walk_forward: bool,
) -> RawDataset:
    from numerai_pipeline.numerai_api.client import ApiClient
    from numerai_pipeline.numerai_api.datasets import Datasets
    from numerai_pipeline.numerai_api.downloads import fetch_archive
    from numerai_pipeline.numerai_api.retries import RetryPolicy
    from numerai_pipeline.numerai_api.tournament import Tournament

    settings = load_settings()
    layout = DataLayout(settings.data_dir)

    def connect(url: str) -> ApiClient:
        return ApiClient(url, timeout=settings.http_timeout_seconds, policy=RetryPolicy(deadline=deadline))

    if parameters.source == "archive":
        address, round_name = str(parameters.archive), str(round_number or "archive")
        if "{round}" in address:
            tournament = Tournament(connect(settings.api_url))
            round_name = str(tournament.required_round(round_number, date).number)
            address = address.replace("{round}", round_name)
        file = fetch_archive(address, layout, settings.http_timeout_seconds)
        return RawDataset("archive", "archive", round_name, address.rsplit("/", 1)[-1], {"archive": file})
    client = connect(settings.api_address(parameters.source))
    return Datasets(client, Tournament(client)).download_round(
        layout,
        source=parameters.source,
        version=parameters.version,
        round_number=round_number,
        run_date=date,
        walk_forward=walk_forward,
    )


def unzip(
    params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol, serves: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Turn the raw files into the run's two tables; return the run's directory on the data volume and its facts.

    Tasks that serve (``serves``: task → models) none of the models that were picked are skipped at once: each would
    take a process of its own to find that out.
    """
    from numerai_pipeline.unpacking import references
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
        content = {role: file.sha256 for role, file in raw.files.items() if role not in references.ROLES}
        identity: dict[str, Any] = dict(content) if raw.kind == "archive" else {}
        if raw.era is not None:
            identity = {"walk_forward": raw.era, "embargo": parameters.embargo}
        layout = DataLayout(settings.data_dir).run(
            raw.round, fingerprint({**chosen, **identity, "seed": parameters.seed})
        )
        mark_in_use(DataLayout(settings.data_dir), layout, RunRef(ti.dag_id, ti.run_id))
        unpacked = unpack(
            raw,
            layout,
            feature_set=parameters.feature_set,
            target=parameters.target,
            every_nth_era=parameters.every_nth_era,
            inputs=fingerprint({**chosen, **content, **identity, "payout_days": raw.payout_days}),
            embargo=parameters.embargo,
            force=parameters.force,
        )
        compared = references.write_benchmarks(raw, layout) if raw.kind == "v5" else references.Benchmarks()
        facts = {
            "round": raw.round,
            "era": raw.era,
            **chosen,
            "seed": parameters.seed,
            **asdict(unpacked),
            "references": compared.available,
            "unavailable_comparisons": compared.unavailable,
        }
        with atomic_path(layout.run_metadata) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        result = {"directory": str(layout.directory.relative_to(settings.data_dir)), **facts}
    picked = parameters.models
    not_needed = [task for task, models in serves.items() if picked and not set(models).intersection(picked)]
    if not_needed:
        log.info("not needed for %s, and skipped: %s", ", ".join(picked), ", ".join(not_needed))
        # an exception is how a task has others skipped, so what it returns has to be put down by hand
        ti.xcom_push(key=BaseXCom.XCOM_RETURN_KEY, value=result)
        raise DownstreamTasksSkipped(tasks=not_needed)  # type: ignore[no-untyped-call]
    return result


def show(ti: RuntimeTaskInstanceProtocol) -> str:
    """Write the run's leaderboard as one HTML file, of whatever is there; return where it is."""
    from airflow.sdk.exceptions import AirflowSkipException

    from numerai_pipeline.leaderboard.static_page import write_static_page

    run = ti.xcom_pull(task_ids="unzip")
    if run is None:
        msg = "the run has no directory, so there is nothing to show"
        raise AirflowSkipException(msg)
    with in_airflow_words():
        layout = RunLayout(load_settings().data_dir / run["directory"])
        page = write_static_page(layout)
        log.info("%s: %s KiB", page, f"{page.stat().st_size / 1024:,.0f}")
        return str(page)


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
