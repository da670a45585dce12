"""Reads one run for the page: the available results as plain values, and a list of the missing ones."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from numerai_pipeline.leaderboard.maps import embedding_names, tables_of
from numerai_pipeline.leaderboard.runs import stable_of
from numerai_pipeline.leaderboard.searches import search_of
from numerai_pipeline.storage.manifests import SUFFIX, manifest_path
from numerai_pipeline.storage.untrusted_json import RunFiles, as_bool, as_float, as_int, as_list, as_str, get_in
from numerai_pipeline.storage.used_objects import linked_result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numerai_pipeline.storage.layout import RunLayout

MEANS = ("payout", "corr", "mmc", "bmc", "fnc", "meta_model_correlation", "feature_exposure")
"""Scores that the leaderboard has over all eras, and over the last 52 weeks."""
SCORES = (
    *MEANS,
    *(f"{name}_52_weeks" for name in MEANS),
    *("corr_std", "sharpe", "max_drawdown", "positive_eras", "logloss", "consistency", "concordance", "originality"),
)
MOST_BINS = 60
_PARTS = ("validation", "test", "live")
_MOST_MODELS = 500
_ADVERSARIAL = "adversarial_validation"
_ENSEMBLE = "ensemble"
_KEY_DIGITS = 8


def read_run(layout: RunLayout) -> dict[str, Any]:
    """Read a run's directory.

    Returns
    -------
    dict
        ``round``, ``run``
            The directory's names.
        ``metadata``
            The name of the run's stable, and values of ``run.json``; None if missing.
        ``evaluated``
            Whether there is a leaderboard; otherwise ``models`` are those with predictions or a report, with the
            scores of their reports.
        ``target``, ``sorted_by``, ``benchmark``, ``rows``, ``eras``, ``recent_eras``, ``left_out``, ``correlations``
            As in ``leaderboard.json``.
        ``ranking``
            ``formula`` of the score by which models are ranked, ``eras`` (their number) that have it, ``first`` and
            ``last`` of them, and ``fallback``, why it is not the payout score.
        ``models``
            Its rows, best first, each also with ``seconds``, ``memory`` (MiB), ``image``, ``fit`` (key, round and age,
            as a text) and ``notes`` of its task.
        ``series``
            ``eras`` (numbers, ascending) and ``corr`` (model → CORR in each of these eras, None if missing).
        ``distributions``
            Model → ``edges`` of the bins and the counts of ``validation``, ``test``, ``live`` in them.
        ``drift``, ``searches``, ``ensemble``
            Results of adversarial validation, of each AutoML search and of the ensemble; None, or empty, if missing.
        ``embeddings``
            Names of the t-SNE embeddings.
        ``other_tasks``
            Name, seconds, image and fit of the tasks that do not predict.
        ``missing``
            Missing results: pairs of the result and the task that produces it.
        ``unavailable_comparisons``
            Published predictions that are not used for comparison, or only in part: name → reason.
        ``problems``
            Files that cannot be read, each with the reason.
    """
    files = RunFiles(layout.directory)
    run_metadata = files.read(layout.run_metadata) or {}
    reports = dict(_json_files(files, layout.reports_directory))
    evaluations = dict(_evaluations(files, layout))
    board = files.read(layout.leaderboard)
    predicted = {path.stem for path in layout.predictions_directory.glob("[!.]*.csv") if manifest_path(path).is_file()}
    by_task = {
        **dict(_json_files(files, layout.image_record("x").parent)),
        **dict(_json_files(files, layout.tasks_directory)),
    }
    records = {name: by_task.get(_task_of(layout, name), {}) for name in {*reports, *predicted}}
    created_at = as_str(run_metadata.get("created_at"))
    listed = _rows(board) if board is not None else _unscored(predicted, reports)
    rows = [row | _task_values(row["model"], reports, records, created_at) for row in listed]
    shown = {row["model"] for row in rows}
    return {
        "round": layout.directory.parent.name,
        "run": layout.directory.name,
        "metadata": _metadata(run_metadata),
        "evaluated": board is not None,
        "target": as_str(get_in(board, "target")),
        "sorted_by": as_str(get_in(board, "sorted_by")),
        "ranking": _ranking(get_in(board, "ranking")),
        "benchmark": as_str(get_in(board, "benchmark")),
        "rows": as_int(get_in(board, "rows")),
        "eras": as_int(get_in(board, "eras")),
        "recent_eras": as_int(get_in(board, "recent_eras")),
        "models": rows,
        "left_out": _texts(get_in(board, "left_out")),
        "correlations": _correlations(get_in(board, "rank_correlations")),
        "series": _series(evaluations),
        "distributions": {name: found for name, content in evaluations.items() if (found := _distribution(content))},
        "drift": _drift(get_in(reports.get(_ADVERSARIAL), "chosen")),
        "searches": [found for name, report in reports.items() if (found := search_of(name, report))],
        "ensemble": _ensemble(get_in(reports.get(_ENSEMBLE), "chosen", "ensemble_selection")),
        "embeddings": embedding_names(layout),
        "other_tasks": [
            {"model": name, **_task_values(name, reports, records, created_at)} for name in reports if name not in shown
        ],
        "missing": list(_missing(layout, evaluated=board is not None, predicted=predicted)),
        "unavailable_comparisons": _texts(run_metadata.get("unavailable_comparisons")),
        "problems": files.problems,
    }


def read_scores(layout: RunLayout) -> dict[str, float | None]:
    """Read the mean CORR of each model and ensemble of a run's leaderboard; empty without one."""
    board = RunFiles(layout.directory).read(layout.leaderboard) or {}
    return {row["model"]: row["corr"] for row in _rows(board) if row["kind"] != "reference"}


def _json_files(files: RunFiles, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob("[!.]*.json")):
        if not path.name.endswith(SUFFIX) and (content := files.read(path)) is not None:
            yield path.stem, content


def _evaluations(files: RunFiles, layout: RunLayout) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, report in _json_files(files, layout.evaluation("x").parent):
        yield as_str(report.get("model")) or name, report


def _task_of(layout: RunLayout, name: str) -> str:
    """Return the task that made the predictions of this name, such as those of an ensemble."""
    result = linked_result(layout.predictions(name))
    return result[0] if result else name


def _fit(record: Mapping[str, Any], created_at: str | None) -> str | None:
    """Describe a fit, relative to the time of the run only, so that the page of an old run never changes."""
    key, round_name = as_str(record.get("fit")), as_str(record.get("fit_round"))
    if key is None:
        return None
    age = _age(as_str(record.get("fitted_at")), created_at)
    return f"{key[:_KEY_DIGITS]}… of round {round_name or 'unknown'}{f', {age}' if age else ''}"


def _age(fitted_at: str | None, created_at: str | None) -> str | None:
    try:
        age = datetime.fromisoformat(created_at or "") - datetime.fromisoformat(fitted_at or "")
    except (ValueError, TypeError):  # no time, or one of them without a time zone
        return None
    seconds = age.total_seconds()
    if seconds < 0:
        return "made during this run"
    if seconds < 3600:
        return "less than an hour before this run"
    number, unit = (age.days, "day") if age.days else (int(seconds // 3600), "hour")
    return f"{number} {unit}{'' if number == 1 else 's'} before this run"


def _metadata(content: dict[str, Any]) -> dict[str, Any]:
    sides = {
        side: {name: as_int(get_in(content, side, name)) for name in ("rows", "eras", "missing", "without_target")}
        for side in ("training", "validation", "live", "tournament")
    }
    return {
        "stable": stable_of(content),
        **{name: as_str(content.get(name)) for name in ("source", "version", "feature_set", "target")},
        **{name: as_int(content.get(name)) for name in ("era", "features", "every_nth_era", "seed")},
        **sides,
    }


def _rows(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [row for row in as_list(board.get("models"), _row, _MOST_MODELS) if row is not None]
    return sorted(rows, key=lambda row: (row["rank"] is None, row["rank"] or 0))


def _row(content: object) -> dict[str, Any] | None:
    name = as_str(get_in(content, "model"))
    if name is None:
        return None
    return {
        "model": name,
        "kind": as_str(get_in(content, "kind")) or "model",
        "rank": as_int(get_in(content, "rank")),
        "eras": as_int(get_in(content, "eras")),
        "payout_eras": as_int(get_in(content, "payout_eras")),
        **{score: as_float(get_in(content, score)) for score in SCORES},
        "concordant": as_bool(get_in(content, "concordant")),
        "original": as_bool(get_in(content, "original")),
        "most_like": as_str(get_in(content, "most_like")),
    }


def _ranking(content: object) -> dict[str, Any]:
    eras = [era for era in as_list(get_in(content, "eras"), as_int, 10_000) if era is not None]
    return {
        "formula": as_str(get_in(content, "formula")),
        "eras": len(eras),
        "first": min(eras, default=None),
        "last": max(eras, default=None),
        "fallback": as_str(get_in(content, "fallback")),
    }


def _unscored(predicted: set[str], reports: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """List the models of a run without evaluation by name, with the scores of their reports."""
    names = predicted | {name for name, report in reports.items() if isinstance(report.get("validation"), dict)}
    rows = []
    for name in sorted(names):
        own = get_in(reports.get(name), "validation")
        content = {"model": name, **{score: get_in(own, score) for score in ("logloss", "consistency")}}
        row = _row(content)
        if row is not None:
            kind = "ensemble" if name.startswith("ensemble_") else "model"
            rows.append({**row, "kind": kind, "correlation": as_float(get_in(own, "correlation"))})
    return rows


def _task_values(
    name: str,
    reports: Mapping[str, dict[str, Any]],
    records: Mapping[str, dict[str, Any]],
    created_at: str | None,
) -> dict[str, Any]:
    report, record = reports.get(name), records.get(name, {})
    return {
        "seconds": as_float(get_in(report, "seconds")),
        "memory": as_int(get_in(report, "peak_memory_mib")),
        "image": as_str(record.get("image")),
        "fit": _fit(record, created_at),
        "notes": [note for note in as_list(get_in(report, "notes"), as_str, 20) if note],
    }


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): found for key, inner in value.items() if (found := as_str(inner)) is not None}


def _correlations(content: object) -> dict[str, Any] | None:
    names = as_list(get_in(content, "models"), as_str, _MOST_MODELS)
    matrix = as_list(get_in(content, "matrix"), lambda row: as_list(row, as_float, _MOST_MODELS), _MOST_MODELS)
    if not names or None in names or any(len(row) != len(names) for row in matrix) or len(matrix) != len(names):
        return None
    return {"models": names, "matrix": matrix}


def _series(evaluations: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    by_model: dict[str, dict[int, float | None]] = {}
    for name, content in evaluations.items():
        eras = as_list(
            content.get("by_era"), lambda era: (as_int(get_in(era, "era")), as_float(get_in(era, "corr"))), 10_000
        )
        by_model[name] = {era: corr for era, corr in eras if era is not None}
    numbers = sorted(set().union(*by_model.values())) if by_model else []
    return {
        "eras": numbers,
        "corr": {name: [found.get(era) for era in numbers] for name, found in by_model.items()},
    }


def _distribution(content: Mapping[str, Any]) -> dict[str, Any] | None:
    edges = as_list(get_in(content, "distribution", "edges"), as_float, 10_000)
    counts = {part: as_list(get_in(content, "distribution", part), as_int, 10_000) for part in _PARTS}
    counts = {part: found for part, found in counts.items() if found}
    bins = len(edges) - 1
    whole_numbers = all(len(found) == bins and None not in found for found in counts.values())
    if bins < 1 or None in edges or not counts or not whole_numbers:
        return None
    together = -(-bins // MOST_BINS)
    return {
        "edges": [*edges[:-1:together], edges[-1]],
        **{
            part: [sum(count or 0 for count in found[start : start + together]) for start in range(0, bins, together)]
            for part, found in counts.items()
        },
    }


def _drift(chosen: object) -> dict[str, Any] | None:
    rates = [as_list(get_in(chosen, "roc", f"{side}_positive_rate"), as_float, 1_001) for side in ("false", "true")]
    features = as_list(get_in(chosen, "drifting_features"), _drifting, 50)
    if not any(rates) and not features:
        return None
    points = [list(point) for point in zip(*rates, strict=False) if None not in point]
    return {
        "method": as_str(get_in(chosen, "method")),
        "auc": as_float(get_in(chosen, "auc")),
        "auc_of_folds": as_list(get_in(chosen, "auc_of_folds"), as_float, 50),
        "roc": points,
        "features": features,
    }


def _drifting(content: object) -> dict[str, Any]:
    scores = {name: as_float(get_in(content, name)) for name in ("importance", "shift", "kolmogorov_smirnov")}
    return {"feature": as_str(get_in(content, "feature")) or "?", **scores}


def _ensemble(content: object) -> dict[str, Any] | None:
    weights = get_in(content, "weights")
    if not isinstance(weights, dict):
        return None
    found = {str(name): as_float(weight) for name, weight in weights.items()}
    return {
        "weights": sorted(found.items(), key=lambda pair: (-(pair[1] or 0), pair[0])),
        "objective": as_str(get_in(content, "objective")),
        "fallback": as_str(get_in(content, "fallback")),
        "best_model": as_str(get_in(content, "best_model")),
        "gain": as_float(get_in(content, "scored_on", "gain")),
        "eras": len(get_in(content, "scored_on", "eras") or ()),
        "equal_weights_because": as_str(get_in(content, "equal_weights_because")),
    }


def _missing(layout: RunLayout, *, evaluated: bool, predicted: set[str]) -> Iterator[tuple[str, str]]:
    if not layout.run_metadata.is_file():
        yield "the run's metadata (run.json)", "unzip"
    if not all(table.is_file() for table in tables_of(layout)):
        yield "the tables", "unzip"
    if not predicted:
        yield "predictions", "the models"
    if not (layout.directory / "split.parquet").is_file():
        yield "the validation split (split.parquet)", _ADVERSARIAL
    if not embedding_names(layout):
        yield "the t-SNE embeddings", "tsne"
    if not any(name.startswith("ensemble_") for name in predicted):
        yield "the ensembles", _ENSEMBLE
    if not evaluated:
        yield "the scores (leaderboard.json)", "evaluate"
