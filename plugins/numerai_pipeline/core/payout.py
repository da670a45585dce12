"""The payout score of a round: the scores that it pays on, with their multipliers, as the API's configuration has them.

Names, horizons and multipliers change from time to time, so none of them is a constant here. The recorded names are
``correlation`` (CORR) and ``meta_model_contribution`` (MMC).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CORRELATION = "correlation"
"""Numerai's name of CORR."""


@dataclass(frozen=True)
class PaidScore:
    """A score that a round pays on.

    Attributes
    ----------
    name : str
        Numerai's name, such as ``correlation``.
    display_name : str
        Its name on Numerai's pages, such as ``corr60``.
    days : int
        Trading days that the score's target looks ahead.
    multiplier : float
        Its weight in the payout score.
    """

    name: str
    display_name: str
    days: int
    multiplier: float

    @classmethod
    def from_api(cls, fields: Mapping[str, Any]) -> PaidScore:
        """Read an entry of ``roundScoreConfigs``.

        Raises
        ------
        KeyError, TypeError, ValueError
            When a field is missing or invalid.
        """
        return cls(
            str(fields["name"]),
            str(fields["displayName"]),
            int(fields["totalScoreDays"]),
            float(fields["defaultMultiplier"]),
        )


def payout_days(payout: Iterable[PaidScore]) -> int | None:
    """Return how many days ahead the target of the paid correlation looks; None if unknown or ambiguous."""
    payout = tuple(payout)
    days = {score.days for score in payout if score.name == CORRELATION} or {score.days for score in payout}
    return days.pop() if len(days) == 1 else None
