"""The order of the leaderboard, and why it is that order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._payout import Payout
    from ._targets import KnownTargets

Score = Literal["payout", "corr", "logloss"]


class Ranking(NamedTuple):
    """The score by which models are ranked.

    Attributes
    ----------
    by : {"payout", "corr", "logloss"}
        The score.
    formula : str
        Its definition in a few words.
    eras : list of int or None
        The eras on which at least one model has it, in order.
    fallback : str or None
        Why it is not the payout score, for targets of several grades.
    """

    by: Score
    formula: str
    eras: list[int | None]
    fallback: str | None

    def order(self, row: dict[str, Any]) -> tuple[float, float, str]:
        """Return a row's sort key: best first, rows without this score last, by their mean CORR and their name."""
        score = row[self.by] if self.by == "logloss" else -row[self.by]
        return (_or_last(score), _or_last(-row["corr"]), row["model"])


def choose_ranking(
    targets: KnownTargets, scores: dict[str, NDArray[np.float64]], payout: Payout | None, fallback: str | None
) -> Ranking:
    """Choose the payout score where an era has all of its parts, else logloss for targets of 0 and 1, else mean CORR.

    Parameters
    ----------
    targets
        The known targets.
    scores
        Score → shape (eras, models), with ``payout`` if it is known.
    payout
        The payout score; None where it is unknown.
    fallback
        Why it is unknown.
    """

    def eras_of(name: str) -> list[int | None]:
        known = ~np.isnan(scores[name]).all(axis=1)
        return [era.number for era, is_known in zip(targets.eras, known, strict=True) if is_known]

    if targets.binary:
        return Ranking("logloss", "logloss", [era.number for era in targets.eras], None)
    if payout is not None:
        eras = eras_of("payout")
        if eras:
            return Ranking("payout", payout.formula, eras, None)
        lacking = [part for part in payout.multipliers if not eras_of(part)]
        if lacking == ["mmc"]:
            fallback = "the run has no predictions of the meta model for the scored eras"
        else:
            fallback = f"no era has {' and '.join(part.upper() for part in lacking or payout.multipliers)}"
    return Ranking("corr", "mean CORR", eras_of("corr"), fallback)


def _or_last(score: float | None) -> float:
    return math.inf if score is None or math.isnan(score) else score
