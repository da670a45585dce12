"""Public answers of Numerai's API with made-up ids, to test the client and the simulator against.

Each JSON file beside this module is one answer: ``source`` (where its shape and words were published), ``note``,
``query`` and ``variables``, and ``answer``, the body of the reply. A word that is in none of them is not known to be
one of Numerai's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent


@dataclass(frozen=True)
class RecordedAnswer:
    """One answer.

    Attributes
    ----------
    name : str
        Name of its file, without the suffix.
    source : tuple of str
        Where shape and words were published.
    query : str
    answer : dict
        Body of the reply: ``data``, and ``errors`` where there are any.
    variables : dict
    note : str
    """

    name: str
    source: tuple[str, ...]
    query: str
    answer: dict[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """The part ``data`` of the answer."""
        data: dict[str, Any] = self.answer["data"]
        return data


def recorded(name: str) -> RecordedAnswer:
    """Load one answer; the object is the caller's to change."""
    content = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    return RecordedAnswer(name, tuple(content.pop("source")), **content)


def all_recorded(prefix: str = "") -> list[RecordedAnswer]:
    """Load all answers whose names begin with a prefix, by name."""
    return [recorded(path.stem) for path in sorted(DIRECTORY.glob(f"{prefix}*.json"))]


def latest_submissions(name: str) -> list[dict[str, Any]]:
    """Give the entries of the only model of a ``latest_submissions_...`` answer, the newest round first."""
    (model,) = recorded(name).data["account"]["models"]
    entries: list[dict[str, Any]] = model["latestSubmissions"]
    return entries


def submission_statuses() -> set[str]:
    """Collect the status words of ``latestSubmissions``."""
    names = [answer.name for answer in all_recorded("latest_submissions_")]
    return {entry["status"] for name in names for entry in latest_submissions(name)}


def diagnostics_statuses() -> set[str]:
    """Collect the status words of ``diagnostics``."""
    return {entry["status"] for answer in all_recorded("diagnostics_") for entry in answer.data["diagnostics"]}


def error_texts() -> set[str]:
    """Collect the texts of errors."""
    errors = [error for answer in all_recorded("error_") for error in answer.answer["errors"]]
    return {error.get("message") or error["error"] for error in errors}


def score_configs(name: str) -> list[dict[str, Any]]:
    """Give the scores of the only round of a ``round_score_configs_...`` answer."""
    (the_round,) = recorded(name).data["rounds"]
    configs: list[dict[str, Any]] = the_round["roundScoreConfigs"]
    return configs


def score_names() -> set[str]:
    """Collect the display names of scores."""
    names = [answer.name for answer in all_recorded("round_score_configs_")]
    return {config["displayName"] for name in names for config in score_configs(name)}


def shape(value: Any) -> Any:
    """Reduce an answer to its structure: keys and types; a list to the different structures of its elements."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    if isinstance(value, list):
        shapes: list[Any] = []
        for member in map(shape, value):
            if member not in shapes:
                shapes.append(member)
        return shapes
    return None if value is None else type(value).__name__
