"""One run as the page shows it: whatever is there by now, in plain values, and a word on what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numerai_pipeline.leaderboard.maps import map_names
from numerai_pipeline.leaderboard.plain import RunFiles, items, member, number, text, truth, whole
from numerai_pipeline.leaderboard.searches import search_of
from numerai_pipeline.manifests import SUFFIX, manifest_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numerai_pipeline.run_layout import RunLayout

SCORES = (
    *("corr", "corr_std", "sharpe", "max_drawdown", "positive_eras", "mmc", "bmc", "feature_exposure"),
    *("logloss", "consistency", "concordance", "originality"),
)
MOST_BINS = 60
_PARTS = ("validation", "test", "live")
_MOST_MODELS = 500
_ADVERSARIAL = "adversarial_validation"
_ENSEMBLE = "ensemble"


def read_run(layout: RunLayout) -> dict[str, Any]:
    """Read a run's directory.

    Returns
    -------
    dict
        ``round``, ``run``
            The directory's names.
        ``facts``
            Of ``run.json``, None where it does not say.
        ``evaluated``
            Whether there is a leaderboard; without one, ``models`` are those with predictions or a report, with the
            scores of their reports.
        ``target``, ``sorted_by``, ``rows``, ``eras``, ``left_out``, ``correlations``
            As in ``leaderboard.json``.
        ``models``
            Its rows, best first, each with ``seconds``, ``memory`` (MiB), ``image`` and ``notes`` of its task as well.
        ``series``
            ``eras`` (numbers, ascending) and ``corr`` (model → CORR in each of these eras, None where it has none).
        ``distributions``
            Model → ``edges`` of the bins and the counts of ``validation``, ``test``, ``live`` in them.
        ``drift``, ``searches``, ``ensemble``
            What adversarial validation, each AutoML search and the ensemble reported; None, or empty, when none did.
        ``maps``
            Names of the t-SNE maps.
        ``preparations``
            Name, seconds and image of the tasks that predict nothing.
        ``missing``
            What is not there: pairs of what it is and the task that leaves it.
        ``unavailable_comparisons``
            Published predictions that the models are not compared with, or only in part: name → reason.
        ``problems``
            What is there and cannot be read, a sentence each.
    """
    files = RunFiles(layout.directory)
    run_metadata = files.read(layout.run_metadata) or {}
    reports = dict(_reports(files, layout))
    evaluations = dict(_evaluations(files, layout))
    board = files.read(layout.leaderboard)
    predicted = {path.stem for path in layout.predictions_directory.glob("[!.]*.csv") if manifest_path(path).is_file()}
    images = {name: _image(files, layout, name) for name in {*reports, *predicted}}
    listed = _rows(board) if board is not None else _unscored(predicted, reports)
    rows = [row | _task_facts(row["model"], reports, images) for row in listed]
    shown = {row["model"] for row in rows}
    return {
        "round": layout.directory.parent.name,
        "run": layout.directory.name,
        "facts": _facts(run_metadata),
        "evaluated": board is not None,
        "target": text(member(board, "target")),
        "sorted_by": text(member(board, "sorted_by")),
        "rows": whole(member(board, "rows")),
        "eras": whole(member(board, "eras")),
        "models": rows,
        "left_out": _texts(member(board, "left_out")),
        "correlations": _correlations(member(board, "rank_correlations")),
        "series": _series(evaluations),
        "distributions": {name: found for name, told in evaluations.items() if (found := _distribution(told))},
        "drift": _drift(member(reports.get(_ADVERSARIAL), "chosen")),
        "searches": [found for name, report in reports.items() if (found := search_of(name, report))],
        "ensemble": _ensemble(member(reports.get(_ENSEMBLE), "chosen", "ensemble_selection")),
        "maps": map_names(layout),
        "preparations": [
            {"model": name, **_task_facts(name, reports, images)} for name in reports if name not in shown
        ],
        "missing": list(_missing(layout, evaluated=board is not None, predicted=predicted)),
        "unavailable_comparisons": _texts(run_metadata.get("unavailable_comparisons")),
        "problems": files.problems,
    }


def _reports(files: RunFiles, layout: RunLayout) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(layout.reports_directory.glob("[!.]*.json")):
        if not path.name.endswith(SUFFIX) and (report := files.read(path)) is not None:
            yield path.stem, report


def _evaluations(files: RunFiles, layout: RunLayout) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(layout.evaluation("x").parent.glob("[!.]*.json")):
        if not path.name.endswith(SUFFIX) and (report := files.read(path)) is not None:
            yield text(report.get("model")) or path.stem, report


def _image(files: RunFiles, layout: RunLayout, task: str) -> str | None:
    return text(member(files.read(layout.image_record(task)), "image"))


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    sides = {
        side: {name: whole(member(facts, side, name)) for name in ("rows", "eras", "missing", "without_target")}
        for side in ("training", "tournament")
    }
    return {
        **{name: text(facts.get(name)) for name in ("source", "version", "feature_set", "target")},
        **{name: whole(facts.get(name)) for name in ("era", "features", "every_nth_era", "seed")},
        **sides,
    }


def _rows(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [row for row in items(board.get("models"), _row, _MOST_MODELS) if row is not None]
    return sorted(rows, key=lambda row: (row["rank"] is None, row["rank"] or 0))


def _row(told: object) -> dict[str, Any] | None:
    name = text(member(told, "model"))
    if name is None:
        return None
    return {
        "model": name,
        "kind": text(member(told, "kind")) or "model",
        "rank": whole(member(told, "rank")),
        "eras": whole(member(told, "eras")),
        **{score: number(member(told, score)) for score in SCORES},
        "concordant": truth(member(told, "concordant")),
        "original": truth(member(told, "original")),
        "most_like": text(member(told, "most_like")),
    }


def _unscored(predicted: set[str], reports: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """List the models of a run that has not been evaluated, with what they reported themselves, by name."""
    names = predicted | {name for name, report in reports.items() if isinstance(report.get("validation"), dict)}
    rows = []
    for name in sorted(names):
        own = member(reports.get(name), "validation")
        told = {"model": name, **{score: member(own, score) for score in ("logloss", "consistency")}}
        row = _row(told)
        if row is not None:
            kind = "ensemble" if name.startswith("ensemble_") else "model"
            rows.append({**row, "kind": kind, "correlation": number(member(own, "correlation"))})
    return rows


def _task_facts(name: str, reports: Mapping[str, dict[str, Any]], images: Mapping[str, str | None]) -> dict[str, Any]:
    report = reports.get(name)
    return {
        "seconds": number(member(report, "seconds")),
        "memory": whole(member(report, "peak_memory_mib")),
        "image": images.get(name),
        "notes": [note for note in items(member(report, "notes"), text, 20) if note],
    }


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): found for key, inner in value.items() if (found := text(inner)) is not None}


def _correlations(told: object) -> dict[str, Any] | None:
    names = items(member(told, "models"), text, _MOST_MODELS)
    matrix = items(member(told, "matrix"), lambda row: items(row, number, _MOST_MODELS), _MOST_MODELS)
    if not names or None in names or any(len(row) != len(names) for row in matrix) or len(matrix) != len(names):
        return None
    return {"models": names, "matrix": matrix}


def _series(evaluations: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    by_model: dict[str, dict[int, float | None]] = {}
    for name, told in evaluations.items():
        eras = items(told.get("by_era"), lambda era: (whole(member(era, "era")), number(member(era, "corr"))), 10_000)
        by_model[name] = {era: corr for era, corr in eras if era is not None}
    numbers = sorted(set().union(*by_model.values())) if by_model else []
    return {
        "eras": numbers,
        "corr": {name: [found.get(era) for era in numbers] for name, found in by_model.items()},
    }


def _distribution(told: Mapping[str, Any]) -> dict[str, Any] | None:
    edges = items(member(told, "distribution", "edges"), number, 10_000)
    counts = {part: items(member(told, "distribution", part), whole, 10_000) for part in _PARTS}
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
    rates = [items(member(chosen, "roc", f"{side}_positive_rate"), number, 1_001) for side in ("false", "true")]
    features = items(member(chosen, "drifting_features"), _drifting, 50)
    if not any(rates) and not features:
        return None
    points = [list(point) for point in zip(*rates, strict=False) if None not in point]
    return {
        "method": text(member(chosen, "method")),
        "auc": number(member(chosen, "auc")),
        "auc_of_folds": items(member(chosen, "auc_of_folds"), number, 50),
        "roc": points,
        "features": features,
    }


def _drifting(told: object) -> dict[str, Any]:
    scores = {name: number(member(told, name)) for name in ("importance", "shift", "kolmogorov_smirnov")}
    return {"feature": text(member(told, "feature")) or "?", **scores}


def _ensemble(told: object) -> dict[str, Any] | None:
    weights = member(told, "weights")
    if not isinstance(weights, dict):
        return None
    found = {str(name): number(weight) for name, weight in weights.items()}
    return {
        "weights": sorted(found.items(), key=lambda pair: (-(pair[1] or 0), pair[0])),
        "objective": text(member(told, "objective")),
        "best_model": text(member(told, "best_model")),
        "gain": number(member(told, "scored_on", "gain")),
        "eras": len(member(told, "scored_on", "eras") or ()),
        "equal_weights_because": text(member(told, "equal_weights_because")),
    }


def _missing(layout: RunLayout, *, evaluated: bool, predicted: set[str]) -> Iterator[tuple[str, str]]:
    if not layout.run_metadata.is_file():
        yield "the run's facts (run.json)", "unzip"
    if not (layout.training.is_file() and layout.tournament.is_file()):
        yield "the tables", "unzip"
    if not predicted:
        yield "predictions", "the models"
    if not (layout.directory / "split.parquet").is_file():
        yield "the split by likeness", _ADVERSARIAL
    if not map_names(layout):
        yield "the t-SNE maps", "tsne"
    if not any(name.startswith("ensemble_") for name in predicted):
        yield "the ensembles", _ENSEMBLE
    if not evaluated:
        yield "the scores (leaderboard.json)", "evaluate"
