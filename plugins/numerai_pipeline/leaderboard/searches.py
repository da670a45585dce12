"""Converts the reports of the AutoML searches to one format: trials, best models and trajectory.

Each search has a different report format (see the modules of its image); a custom search is shown as well if its report
has a ``trajectory``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numerai_pipeline.storage.untrusted_json import as_float, as_list, as_str, get_in

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCORES = ("held_out_loss", "best_logloss", "logloss", "error")
_MOST = 60
_FACTS = {
    "search_space": "space searched",
    "task": "kind",
    "metric": "measure",
    "seconds_searched": "seconds searched",
    "search_seconds": "seconds searched",
    "seconds_per_fit": "seconds a fit",
    "seconds_per_pipeline": "seconds a pipeline",
    "population": "population",
    "generations": "generations",
    "folds": "folds",
    "at_a_time": "at a time",
    "configurations": "configurations",
    "exported": "exported to",
    "auto_weka": "Auto-WEKA",
    "weka": "WEKA",
}


def search_of(name: str, report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Describe a search; None if the report is not of a search.

    Returns
    -------
    dict
        ``model``; ``measure`` (name of its scores; less is better); ``facts`` (pairs of label and value); ``counts``
        (number of trials by outcome); ``found`` (learner, weight, score, settings); ``trajectory`` (pairs of seconds
        and best score so far); ``tried`` (learner, outcome, score, seconds, settings).
    """
    chosen = report.get("chosen")
    if not isinstance(chosen, dict) or not isinstance(chosen.get("trajectory"), list):
        return None
    trajectory = as_list(chosen["trajectory"], _point, 500)
    return {
        "model": name,
        "measure": _measure(chosen),
        "facts": [[label, as_str(chosen[key])] for key, label in _FACTS.items() if as_str(chosen.get(key)) is not None],
        "counts": _counts(chosen),
        "found": _found(chosen),
        "trajectory": [point for point in trajectory if None not in point],
        "tried": as_list(get_in(chosen, "candidates", "first") or chosen.get("tried"), _attempt, _MOST),
    }


def _measure(chosen: Mapping[str, Any]) -> str:
    keys = {key for point in chosen["trajectory"] if isinstance(point, dict) for key in point}
    if "logloss" in keys:
        return "logloss"
    if "held_out_loss" in keys:
        return "held-out logloss" if chosen.get("task") == "classifier" else "held-out squared error"
    return as_str(chosen.get("metric")) or "error"


def _score(value: object) -> float | None:
    return next((found for key in _SCORES if (found := as_float(get_in(value, key))) is not None), None)


def _point(value: object) -> list[float | None]:
    return [as_float(get_in(value, "seconds")), _score(value)]


def _counts(chosen: Mapping[str, Any]) -> list[list[Any]]:
    counts = next((chosen[key] for key in ("runs", "pipelines") if isinstance(chosen.get(key), dict)), None)
    if counts is None:
        counts = {"runs": chosen.get("runs"), "failed runs": chosen.get("failed_runs")}
    return [
        [str(key).replace("_", " "), count] for key, value in counts.items() if (count := as_float(value)) is not None
    ]


def _found(chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    members = get_in(chosen, "ensemble", "members")
    if isinstance(members, list):
        return as_list(members, _attempt, _MOST)
    if "pipeline" in chosen:
        steps = as_list(chosen["pipeline"], _step, _MOST)
        names, settings = (" → ".join(step[part] for step in steps) for part in (0, 1))
        return [{"learner": names, "weight": None, "score": _score(chosen), "settings": settings}]
    return [_attempt(chosen)] if as_str(chosen.get("learner")) else []


def _step(value: object) -> tuple[str, str]:
    """Return the name of a pipeline's step, and its settings."""
    if not isinstance(value, dict) or not value:
        return (as_str(value) or "?", "")
    name, settings = next(iter(value.items()))
    return (str(name), f"{name}({_settings(settings) or ''})")


def _settings(value: object) -> str | None:
    if isinstance(value, dict):
        return as_str(", ".join(f"{key}={as_str(setting)}" for key, setting in value.items()))
    return as_str(value)


def _attempt(value: object) -> dict[str, Any]:
    settings = next((found for key in ("configuration", "options", "pipeline") if (found := get_in(value, key))), None)
    return {
        "learner": as_str(get_in(value, "learner")) or "?",
        "weight": as_float(get_in(value, "weight")),
        "outcome": as_str(get_in(value, "outcome")),
        "score": _score(value),
        "seconds": as_float(get_in(value, "seconds")),
        "settings": _settings(settings),
    }
