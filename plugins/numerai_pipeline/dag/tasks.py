"""The tasks of the DAG that run in Airflow itself: each a function that a PythonOperator calls.

A task takes values of Airflow's context by name, calls the library, and returns the plain values that later tasks use.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseXCom
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from numerai_pipeline.core.parameters import RunParameters, parse_parameters
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.task_ids import DOWNLOAD, UNZIP, WAIT_FOR_ROUND
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.closed_run import RAW_FILES, data_of_closed_run, run_fingerprint
from numerai_pipeline.dag.fit_policy import FitPolicy
from numerai_pipeline.dag.run_dates import SCHEDULED, run_date
from numerai_pipeline.dataset.raw import RawDataset
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import require_whole
from numerai_pipeline.storage.reports import summary_of
from numerai_pipeline.storage.run_directory import RunDirectory
from numerai_pipeline.storage.run_metadata import RunMetadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.types import DagRunProtocol, RuntimeTaskInstanceProtocol

log = logging.getLogger(__name__)


@translate_errors()
def download(params: Mapping[str, Any], dag_run: DagRunProtocol, ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Download and verify the raw files of the run's round; return their description.

    A scheduled run gets the round that ``wait_for_round`` waited for; another run with a date gets the round of that
    date, and never the current one instead. A cleared scheduled run whose round has closed gets the files that it had.
    """
    parameters = parse_parameters(params)
    own = data_of_closed_run(DataLayout(load_settings().data_dir), dag_run, datetime.now(tz=UTC))
    if own is not None:
        log.info("round %s closed at %s: this run uses its files again", own.round, own.closes)
        return own.to_json()
    waited_for = ti.xcom_pull(task_ids=WAIT_FOR_ROUND) or {}
    closes = waited_for.get("closes")
    raw = _raw_dataset(
        parameters,
        parameters.round or waited_for.get("round"),
        run_date(dag_run),
        deadline=datetime.fromisoformat(closes) if closes else None,
        # a scheduled run is for its own round only
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
        needs_live_only=_fit_policy(parameters).needs_live_only,
    )


def _fit_policy(parameters: RunParameters) -> FitPolicy:
    settings = load_settings()
    return FitPolicy(parameters, DataLayout(settings.data_dir), settings.fit_max_age_weeks)


@translate_errors()
def unzip(
    params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol, dependent_models: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Convert the raw files to the run's tables; return the run's directory and metadata.

    Training and validation table are shared by the rounds of a week (``datasets/<key>``); the live table is the run's.

    Parameters
    ----------
    params : mapping
        The run's parameters.
    ti : RuntimeTaskInstanceProtocol
        The running task.
    dependent_models : mapping
        Task → models that depend on it, itself included. Tasks without a selected model are skipped here, all at once:
        each would otherwise take a process only to skip itself.
    """
    from numerai_pipeline.dataset import benchmarks
    from numerai_pipeline.dataset.unpack import find_or_make_dataset, write_live

    parameters = parse_parameters(params)
    raw = RawDataset.from_json(ti.xcom_pull(task_ids=DOWNLOAD))
    data = DataLayout(load_settings().data_dir)
    policy = _fit_policy(parameters)
    is_live_only = set(raw.files) == {"live"}
    if is_live_only:
        dataset = policy.newest(raw)
        log.info("%s", dataset)
    else:
        dataset = find_or_make_dataset(
            raw,
            data,
            feature_set=parameters.feature_set,
            target=parameters.target,
            every_nth_era=parameters.every_nth_era,
            targets=parameters.further_targets,
            embargo=parameters.embargo,
            refit_every=parameters.refit_every,
        )
    layout = data.run(raw.round, run_fingerprint(ti.dag_id, ti.run_id))
    live = write_live(raw, dataset, layout)
    compared = None
    if is_live_only:
        compared = benchmarks.find_benchmarks(dataset, data)
    elif raw.kind == "v5":
        compared = benchmarks.write_benchmarks(raw, dataset, data, layout)
    metadata = RunMetadata(
        dag=ti.dag_id,
        run_id=ti.run_id,
        round=raw.round,
        created_at=datetime.now(tz=UTC).isoformat(timespec="seconds"),
        closes=raw.closes,
        dataset=dataset.key,
        older_datasets=tuple(each.key for each in policy.older(raw, dataset)),
        references=compared.key if compared else None,
        live_sha256=require_whole(layout.live, "`unzip`").sha256,
        prefers_finished=is_live_only,
        may_fit=parameters.fit != "never",
        source=raw.source,
        payout=raw.payout,
        benchmark=benchmarks.benchmark_model(raw.version, raw.payout_days or dataset.target_days),
    ).write(
        layout,
        {
            RAW_FILES: raw.to_json(),
            "version": raw.version,
            "era": raw.era,
            "feature_set": dataset.feature_set,
            "target": dataset.target,
            **({"further_targets": list(dataset.further_targets)} if dataset.further_targets else {}),
            "every_nth_era": parameters.every_nth_era,
            "seed": parameters.seed,
            "training": asdict(dataset.training),
            "validation": asdict(dataset.validation),
            "live": live.to_json(),
            "features": len(dataset.features),
            "known_until": dataset.known_until,
            "references_available": compared.available if compared else [],
            "unavailable_comparisons": compared.unavailable if compared else {},
        },
    )
    del metadata[RAW_FILES]  # for `download` only, if this run is cleared
    result = {**RunDirectory.of(layout, data.root).to_xcom(), **metadata}
    skipped = [task for task, models in dependent_models.items() if not parameters.selects(models)]
    if skipped:
        log.info("skipped, since %s do not need them: %s", ", ".join(parameters.models), ", ".join(skipped))
        # tasks are skipped by an exception, so the return value must be pushed before it
        ti.xcom_push(key=BaseXCom.XCOM_RETURN_KEY, value=result)
        raise DownstreamTasksSkipped(tasks=skipped)  # type: ignore[no-untyped-call]
    return result


@translate_errors()
def write_leaderboard_page(ti: RuntimeTaskInstanceProtocol) -> str:
    """Write the run's leaderboard, as far as it has results, as one HTML file; return its path."""
    from numerai_pipeline.leaderboard.static_page import write_static_page

    run = ti.xcom_pull(task_ids=UNZIP)
    if run is None:
        msg = "the run has no directory, and so no results to show"
        raise AirflowSkipException(msg)
    page = write_static_page(RunDirectory.from_xcom(run).layout(load_settings().data_dir))
    log.info("%s: %s KiB", page, f"{page.stat().st_size / 1024:,.0f}")
    return str(page)


@translate_errors()
def summarize_run(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol, models: Sequence[str]) -> dict[str, Any]:
    """Log and return the summary of the run: its metadata, and each selected model's predictions and scores."""
    parameters = parse_parameters(params)
    run = ti.xcom_pull(task_ids=UNZIP)
    layout = RunDirectory.from_xcom(run).layout(load_settings().data_dir)
    summaries = {name: summary_of(name, layout) for name in models if parameters.selects([name])}
    for name, summary in summaries.items():
        scores = [f"{score} {_digits(summary[score])}" for score in ("logloss", "consistency", "correlation")]
        log.info("%s: %s rows, %s: %s", name, summary.get("rows"), ", ".join(scores), summary.get("predictions"))
    return {**run, "models": summaries}


def _digits(score: float | None) -> str:
    return "unknown" if score is None else f"{score:.5f}"
