"""What submissions of a practice season come to: CORR once a round's targets are known, diagnostics, and the standings.

CORR is ``numerai_corr`` of numerai-tools, of the target that the rounds pay on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from practice.accounts import read_predictions
from practice.model import SATURDAY
from practice.season import season_eras

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]
    from numpy.typing import NDArray

    from practice.accounts import Desk, Submission
    from practice.model import EraRows
    from practice.season import Season

TARGET = "target_ender_20"
"""The target that the rounds pay on."""


@dataclass(frozen=True)
class Score:
    """The score of a submission.

    Attributes
    ----------
    submission : Submission
    corr : float
        CORR of its round.
    percentile : float
        Share of the other models in the round that did worse, 0 to 1; 0 for whoever is alone.
    """

    submission: Submission
    corr: float
    percentile: float


@dataclass(frozen=True)
class Yardstick:
    """What others would have reached in a round.

    Attributes
    ----------
    example : float
        CORR of the season's example predictions.
    signal : float
        CORR of the hidden score that the targets lean on: no model can do better but by luck.
    """

    example: float
    signal: float


class Judge:
    """Scores what was handed in at a desk, each submission once.

    Parameters
    ----------
    season : Season
    desk : Desk
    """

    def __init__(self, season: Season, desk: Desk) -> None:
        self._season = season
        self._desk = desk
        self._corr: dict[str, float | None] = {}
        self._yardsticks: dict[int, Yardstick] = {}

    def scores(self, model_id: str) -> list[Score]:
        """Give the scores of a model's rounds whose targets are known, the newest round first."""
        found = []
        for submission in self._desk.counting(model_id):
            own = self._score(submission)
            if own is not None:
                others = [corr for corr in self._others(submission) if corr is not None]
                worse = sum(corr < own for corr in others) / len(others) if others else 0.0
                found.append(Score(submission, own, worse))
        return found

    def yardstick(self, round_number: int) -> Yardstick:
        """Score the example predictions and the hidden signal on a round's live rows."""
        if round_number not in self._yardsticks:
            rows = self._season.live_rows(round_number)
            example, signal = (
                _corr(rows, rows.ids.astype(str), values.astype(np.float64)) or 0.0
                for values in (rows.example, rows.score)
            )
            self._yardsticks[round_number] = Yardstick(example, signal)
        return self._yardsticks[round_number]

    def standings(self) -> dict[str, Any]:
        """Say how the season stands.

        Returns
        -------
        dict
            ``round``: the current one. ``models``, the best first: ``name``, ``submitted`` and ``scored`` (rounds),
            ``corr`` (mean over the scored rounds, or None), ``rounds``: of each round submitted to ``round``, ``corr``
            (None while it is not known), ``percentile``, ``example``, ``signal`` (see :class:`Yardstick`).
        """
        models = [self._standing(model.id, model.name) for model in self._desk.models()]
        models.sort(key=lambda model: (model["corr"] is None, -(model["corr"] or 0.0), model["name"]))
        return {"round": self._season.current_round().number, "models": models}

    def _standing(self, model_id: str, name: str) -> dict[str, Any]:
        scores = {score.submission.round: score for score in self.scores(model_id)}
        rounds = []
        for submission in self._desk.counting(model_id):
            score = scores.get(submission.round)
            yardstick = self.yardstick(submission.round) if score else None
            rounds.append(
                {
                    "round": submission.round,
                    "corr": score.corr if score else None,
                    "percentile": score.percentile if score else None,
                    "example": yardstick.example if yardstick else None,
                    "signal": yardstick.signal if yardstick else None,
                }
            )
        known = [score.corr for score in scores.values()]
        return {
            "name": name,
            "submitted": len(rounds),
            "scored": len(known),
            "corr": float(np.mean(known)) if known else None,
            "rounds": rounds,
        }

    def _score(self, submission: Submission) -> float | None:
        """Score a submission; None while the targets are not known, and when it does not cover its round's rows."""
        if not self._season.knows_target(TARGET, submission.round):
            return None
        if submission.id not in self._corr:
            predictions = read_predictions(self._desk.file(submission).read_bytes())
            rows = self._season.live_rows(submission.round)
            ids, values = predictions.iloc[:, 0].to_numpy(str), predictions.iloc[:, 1].to_numpy(np.float64)
            self._corr[submission.id] = _corr(rows, ids, values)
        return self._corr[submission.id]

    def _others(self, submission: Submission) -> list[float | None]:
        return [
            self._score(other)
            for model in self._desk.models()
            if model.id != submission.model_id
            for other in self._desk.counting(model.id)
            if other.round == submission.round
        ]

    def diagnostics(self, model_id: str, diagnostics_id: str | None) -> dict[str, Any] | None:
        """Score what was handed in for diagnostics, in the words of numerapi's query; None when nothing was.

        Only CORR by era and what follows from it: ``validationCorrMean`` and so on; everything else is left out.
        """
        entry = self._desk.diagnosed(model_id, diagnostics_id)
        if entry is None:
            return None
        result: dict[str, Any] = {"updatedAt": entry["at"].strftime("%Y-%m-%dT%H:%M:%SZ"), "trainedOnVal": False}
        if entry["content"] is None:
            return {**result, "status": "failed", "message": "no file was uploaded", "erasAcceptedCount": 0}
        try:
            predictions = read_predictions(entry["content"])
            by_era = self._corr_by_era(predictions)
        except ValueError as error:
            return {**result, "status": "failed", "message": str(error), "erasAcceptedCount": 0}
        scores = np.array(list(by_era.values()))
        mean, std = float(scores.mean()), float(scores.std())
        return {
            **result,
            "status": "done",
            "message": None,
            "erasAcceptedCount": len(by_era),
            "validationCorrMean": mean,
            "validationCorrStd": std,
            "validationCorrSharpe": mean / std if std else None,
            "perEraDiagnostics": [{"era": era, "validationCorr": corr} for era, corr in by_era.items()],
        }

    def _corr_by_era(self, predictions: pd.DataFrame) -> Mapping[int, float]:
        if list(predictions.columns) != ["id", "prediction"]:
            msg = f"the header is {','.join(predictions.columns)!r}, not 'id,prediction'"
            raise ValueError(msg)
        told = dict(zip(predictions["id"], predictions["prediction"].astype(float), strict=True))
        current = self._season.current_round()
        _, validation = season_eras(self._season.size, current.number)
        found = {}
        for era in validation:
            if not self._season.knows_target(TARGET, current.number - 5 * (current.era - era)):
                continue
            rows = self._season.rows(era, SATURDAY)
            ids = [name for name in rows.ids.astype(str).tolist() if name in told]
            corr = _corr(rows, ids, np.array([told[name] for name in ids])) if ids else None
            if corr is not None:
                found[era] = corr
        if not found:
            msg = "no validation era is covered"
            raise ValueError(msg)
        return found


def _corr(rows: EraRows, ids: Sequence[str] | NDArray[np.str_], values: NDArray[np.float64]) -> float | None:
    """CORR of predictions of an era's rows; None when they do not cover most of them or say nothing."""
    import pandas as pd
    from numerai_tools.scoring import numerai_corr

    targets = pd.Series(rows.targets[TARGET].astype(np.float64), index=rows.ids.astype(str), name=TARGET)
    predictions = pd.Series(values, index=ids, name="prediction").reindex(targets.index).dropna()
    if len(predictions) < 0.8 * len(targets) or predictions.nunique() < 2:
        return None
    return float(numerai_corr(predictions.to_frame(), targets)["prediction"])
