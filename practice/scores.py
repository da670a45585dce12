"""Scores of submissions and diagnostics: CORR once a round's targets are known, and the standings.

CORR is ``numerai_corr`` of numerai-tools, on the target that the round pays on; diagnostics use the current round's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from practice.payouts import paid_target
from practice.rounds import SATURDAY
from practice.season import season_eras
from practice.submission_store import read_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]
    from numpy.typing import NDArray

    from practice.model import EraRows
    from practice.season import Season
    from practice.submission_store import RoundEntry, Submission, SubmissionStore


@dataclass(frozen=True)
class Score:
    """The score of a submission in a round.

    Attributes
    ----------
    entry : RoundEntry
    submission : Submission
    corr : float
        CORR of the round.
    percentile : float
        Share of the other models in the round with a lower CORR, 0 to 1; 0 without other models.
    """

    entry: RoundEntry
    submission: Submission
    corr: float
    percentile: float


@dataclass(frozen=True)
class Baselines:
    """Scores to compare a round's scores with.

    Attributes
    ----------
    example : float
        CORR of the season's example predictions.
    signal : float
        CORR of the lasting law behind the targets, an upper bound apart from chance.
    """

    example: float
    signal: float


class Scorer:
    """Scores submissions, each once per round.

    Parameters
    ----------
    season : Season
    store : SubmissionStore
    """

    def __init__(self, season: Season, store: SubmissionStore) -> None:
        self._season = season
        self._store = store
        self._corr: dict[tuple[str, int], float | None] = {}
        self._baselines: dict[int, Baselines] = {}

    def scores(self, model_id: str) -> list[Score]:
        """Score a model in all rounds whose targets are known, the newest first."""
        found = []
        for entry in self._store.scored(model_id):
            own = self._score(entry)
            if entry.submission is not None and own is not None:
                others = [corr for corr in self._others(model_id, entry.round) if corr is not None]
                worse = sum(corr < own for corr in others) / len(others) if others else 0.0
                found.append(Score(entry, entry.submission, own, worse))
        return found

    def baselines(self, round_number: int) -> Baselines:
        """Score the example predictions and the hidden signal on a round's live rows."""
        if round_number not in self._baselines:
            rows, target = self._season.live_rows(round_number), self._target(round_number)
            example, signal = (
                _corr(rows, target, rows.ids.astype(str), values.astype(np.float64)) or 0.0
                for values in (rows.example, rows.expected)
            )
            self._baselines[round_number] = Baselines(example, signal)
        return self._baselines[round_number]

    def standings(self) -> dict[str, Any]:
        """Compute the standings.

        Returns
        -------
        dict
            ``round``: the current one. ``models``, the best first: ``name``, ``submitted`` and ``scored`` (rounds),
            ``corr`` (mean over the scored rounds, or None), ``rounds``: for each round with a submission ``round``,
            ``status``, ``corr`` (None until known), ``percentile``, ``example``, ``signal`` (see :class:`Baselines`).
        """
        models = [self._standing(model.id, model.name) for model in self._store.models()]
        models.sort(key=lambda model: (model["corr"] is None, -(model["corr"] or 0.0), model["name"]))
        return {"round": self._season.current_round().number, "models": models}

    def _standing(self, model_id: str, name: str) -> dict[str, Any]:
        scores = {score.entry.round: score for score in self.scores(model_id)}
        rounds = []
        for entry in self._store.scored(model_id):
            score = scores.get(entry.round)
            baselines = self.baselines(entry.round) if score else None
            rounds.append(
                {
                    "round": entry.round,
                    "status": entry.status,
                    "corr": score.corr if score else None,
                    "percentile": score.percentile if score else None,
                    "example": baselines.example if baselines else None,
                    "signal": baselines.signal if baselines else None,
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

    def _score(self, entry: RoundEntry) -> float | None:
        """Compute CORR in a round; None until the targets are known, and where too few rows are covered."""
        submission = entry.submission
        target = self._target(entry.round)
        if submission is None or not self._season.knows_target(target, entry.round):
            return None
        key = (submission.id, entry.round)
        if key not in self._corr:
            predictions = read_predictions(self._store.file(submission).read_bytes())
            ids, values = predictions.iloc[:, 0].to_numpy(str), predictions.iloc[:, 1].to_numpy(np.float64)
            if submission.round != entry.round:
                ids = self._mapped_ids(ids, submission.round, entry.round)
            self._corr[key] = _corr(self._season.live_rows(entry.round), target, ids, values)
        return self._corr[key]

    def _target(self, round_number: int) -> str:
        return paid_target(self._season.round(round_number))

    def _mapped_ids(self, ids: NDArray[np.str_], of_round: int, to_round: int) -> NDArray[np.str_]:
        """Map the ids of a queued submission to those of its round; here the rows correspond by their position."""
        mapped = dict(zip(self._season.live_ids(of_round), self._season.live_ids(to_round), strict=True))
        return np.array([mapped.get(name, name) for name in ids.tolist()])

    def _others(self, model_id: str, round_number: int) -> list[float | None]:
        return [
            self._score(entry)
            for model in self._store.models()
            if model.id != model_id
            for entry in self._store.scored(model.id)
            if entry.round == round_number
        ]

    def diagnostics(self, content: bytes) -> dict[str, Any]:
        """Score predictions of validation eras, in the fields of numerapi's query.

        Only CORR by era and the figures that follow from it, ``validationCorrMean`` and so on; all others are null.

        Parameters
        ----------
        content : bytes
            CSV with the columns id and prediction.

        Raises
        ------
        ValueError
            The content is invalid, or covers no era with known targets.
        """
        by_era = self._corr_by_era(read_predictions(content))
        scores = np.array(list(by_era.values()))
        mean, std = float(scores.mean()), float(scores.std())
        return {
            "status": "done",
            "message": None,
            "updatedAt": self._season.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "trainedOnVal": False,
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
        by_id = dict(zip(predictions["id"], predictions["prediction"].astype(float), strict=True))
        current = self._season.current_round()
        target = paid_target(current)
        _, validation = season_eras(self._season.size, current.number)
        found = {}
        for era in validation:
            if not self._season.knows_target(target, current.number - 5 * (current.era - era)):
                continue
            rows = self._season.rows(era, SATURDAY)
            ids = [name for name in rows.ids.astype(str).tolist() if name in by_id]
            corr = _corr(rows, target, ids, np.array([by_id[name] for name in ids])) if ids else None
            if corr is not None:
                found[era] = corr
        if not found:
            msg = "no validation era is covered"
            raise ValueError(msg)
        return found


def _corr(
    rows: EraRows, target: str, ids: Sequence[str] | NDArray[np.str_], values: NDArray[np.float64]
) -> float | None:
    """Compute CORR in an era; None where the predictions cover less than 80 % of the rows or are constant."""
    import pandas as pd
    from numerai_tools.scoring import numerai_corr

    targets = pd.Series(rows.targets[target].astype(np.float64), index=rows.ids.astype(str), name=target)
    predictions = pd.Series(values, index=ids, name="prediction").reindex(targets.index).dropna()
    if len(predictions) < 0.8 * len(targets) or predictions.nunique() < 2:
        return None
    return float(numerai_corr(predictions.to_frame(), targets)["prediction"])
