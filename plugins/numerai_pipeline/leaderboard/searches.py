"""What the three AutoML searches tried and found, out of their reports, in the same words for all.

Each search reports in its own terms (see the modules of its image); a search of one's own is shown as well when its
report has a ``trajectory``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numerai_pipeline.leaderboard.plain import items, member, number, text

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
    """Describe a search; None when the report is of none.

    Returns
    -------
    dict
        ``model``; ``measure`` (what its scores are; less is better); ``facts`` (pairs of words and value); ``counts``
        (how many attempts ended how); ``found`` (learner, weight, score, settings); ``trajectory`` (pairs of seconds
        and best score so far); ``tried`` (learner, outcome, score, seconds, settings).
    """
    chosen = report.get("chosen")
    if not isinstance(chosen, dict) or not isinstance(chosen.get("trajectory"), list):
        return None
    trajectory = items(chosen["trajectory"], _point, 500)
    return {
        "model": name,
        "measure": _measure(chosen),
        "facts": [[words, text(chosen[key])] for key, words in _FACTS.items() if text(chosen.get(key)) is not None],
        "counts": _counts(chosen),
        "found": _found(chosen),
        "trajectory": [point for point in trajectory if None not in point],
        "tried": items(member(chosen, "candidates", "first") or chosen.get("tried"), _attempt, _MOST),
    }


def _measure(chosen: Mapping[str, Any]) -> str:
    keys = {key for point in chosen["trajectory"] if isinstance(point, dict) for key in point}
    if "logloss" in keys:
        return "logloss"
    if "held_out_loss" in keys:
        return "held-out logloss" if chosen.get("task") == "classifier" else "held-out squared error"
    return text(chosen.get("metric")) or "error"


def _score(value: object) -> float | None:
    return next((found for key in _SCORES if (found := number(member(value, key))) is not None), None)


def _point(value: object) -> list[float | None]:
    return [number(member(value, "seconds")), _score(value)]


def _counts(chosen: Mapping[str, Any]) -> list[list[Any]]:
    told = next((chosen[key] for key in ("runs", "pipelines") if isinstance(chosen.get(key), dict)), None)
    if told is None:
        told = {"runs": chosen.get("runs"), "failed runs": chosen.get("failed_runs")}
    return [[str(key).replace("_", " "), count] for key, value in told.items() if (count := number(value)) is not None]


def _found(chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    members = member(chosen, "ensemble", "members")
    if isinstance(members, list):
        return items(members, _attempt, _MOST)
    if "pipeline" in chosen:
        steps = items(chosen["pipeline"], _step, _MOST)
        names, settings = (" → ".join(step[part] for step in steps) for part in (0, 1))
        return [{"learner": names, "weight": None, "score": _score(chosen), "settings": settings}]
    return [_attempt(chosen)] if text(chosen.get("learner")) else []


def _step(value: object) -> tuple[str, str]:
    """Name a step of a pipeline, and its settings."""
    if not isinstance(value, dict) or not value:
        return (text(value) or "?", "")
    name, settings = next(iter(value.items()))
    return (str(name), f"{name}({_settings(settings) or ''})")


def _settings(value: object) -> str | None:
    if isinstance(value, dict):
        return text(", ".join(f"{key}={text(setting)}" for key, setting in value.items()))
    return text(value)


def _attempt(value: object) -> dict[str, Any]:
    told = next((found for key in ("configuration", "options", "pipeline") if (found := member(value, key))), None)
    return {
        "learner": text(member(value, "learner")) or "?",
        "weight": number(member(value, "weight")),
        "outcome": text(member(value, "outcome")),
        "score": _score(value),
        "seconds": number(member(value, "seconds")),
        "settings": _settings(told),
    }
