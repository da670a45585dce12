"""The payout of a round: its scores, their multipliers, and the target of the paid scores.

| rounds | payout |
|---|---|
| opened up to 2025-12-31 | 0.5 x CORR20v2 + 2 x MMC20 |
| from 2026-01-01 to 1342 | 0.75 x CORR20 + 2.25 x MMC20 |
| from 1343 (2026-08-28) | 3 x CORR60 + 15 x MMC60, on ``target_ender_60`` |

Names are those of Numerai's answers (``tests/recorded/round_score_configs_*.json``). The simulator computes CORR only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from practice.rounds import SeasonRound

FIRST_60_DAY_ROUND = 1343
_MULTIPLIERS_OF_2026 = date(2026, 1, 1)


@dataclass(frozen=True)
class RoundScore:
    """A score of a round.

    Attributes
    ----------
    name, display_name : str
    days : int
        Trading days that the score's target looks ahead.
    multiplier : float
        0 for a score that is not paid.
    """

    name: str
    display_name: str
    days: int
    multiplier: float

    @property
    def is_payout(self) -> bool:
        """Whether the round pays on it."""
        return self.multiplier > 0


def round_scores(the_round: SeasonRound) -> tuple[RoundScore, ...]:
    """List the scores of a round, paid or not."""
    if the_round.number >= FIRST_60_DAY_ROUND:
        corr20, mmc20, corr60, mmc60 = 0.0, 0.0, 3.0, 15.0
    elif the_round.day >= _MULTIPLIERS_OF_2026:
        corr20, mmc20, corr60, mmc60 = 0.75, 2.25, 0.0, 0.0
    else:
        corr20, mmc20, corr60, mmc60 = 0.5, 2.0, 0.0, 0.0
    return (
        RoundScore("correlation", "v2_corr20", 20, corr20),
        RoundScore("meta_model_contribution", "mmc", 20, mmc20),
        RoundScore("correlation", "corr60", 60, corr60),
        RoundScore("meta_model_contribution", "mmc60", 60, mmc60),
    )


def paid_corr(the_round: SeasonRound) -> RoundScore:
    """Return the CORR that a round pays on."""
    return next(score for score in round_scores(the_round) if score.name == "correlation" and score.is_payout)


def paid_target(the_round: SeasonRound) -> str:
    """Return the target of the paid scores."""
    return f"target_ender_{paid_corr(the_round).days}"


def scoring_period(the_round: SeasonRound) -> timedelta:
    """Return the time from the opening of a round to its final scores: 31 days, and 89 for a 60-day target."""
    return timedelta(days=31 if paid_corr(the_round).days == 20 else 89)
