"""The payout score: the weighted sum of the scores that the round pays on.

Their names, horizons and multipliers are the round's own configuration, the variable ``PAYOUT``: a JSON list of objects
with ``name``, ``display_name``, ``days`` and ``multiplier``. Numerai's clip of a round's payout is not applied.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numerai_contract.exits import BadParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters

VARIABLE = "PAYOUT"
PARTS = {"correlation": "corr", "meta_model_contribution": "mmc"}
"""Numerai's name of a score → the score of this image."""


class Payout(NamedTuple):
    """A payout score.

    Attributes
    ----------
    multipliers : dict
        ``corr`` or ``mmc`` → its multiplier.
    formula : str
        Such as ``3 x corr60 + 15 x mmc60``.
    """

    multipliers: dict[str, float]
    formula: str

    def of(self, scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Compute it from its parts, arrays of equal shape; NaN where one of them is."""
        parts = [multiplier * scores[part] for part, multiplier in self.multipliers.items()]
        total: NDArray[np.float64] = np.sum(parts, axis=0)
        return total


def read_payout(parameters: Parameters) -> tuple[Payout, None] | tuple[None, str]:
    """Read the payout score of the run's round.

    Returns
    -------
    Payout or None
        None when it is unknown, has a score that this image cannot compute, or is paid on a target that looks another
        number of days ahead than the run's.
    str or None
        The reason for that.

    Raises
    ------
    BadParameterError
        When the variable is invalid.
    """
    if VARIABLE not in parameters:
        return None, "the payout of the round is unknown"
    text = parameters.get_str(VARIABLE)
    try:
        entries = [
            (str(entry["name"]), str(entry["display_name"]), int(entry["days"]), float(entry["multiplier"]))
            for entry in json.loads(text)
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise BadParameterError(
            f"{VARIABLE} is {text!r}: allowed is a JSON list of objects with name, display_name, days and multiplier "
            f"({type(error).__name__}: {error})."
        ) from error
    multipliers: dict[str, float] = {}
    for name, display_name, days, multiplier in entries:
        if name not in PARTS:
            return None, f"the round pays on {display_name} ({name}), which is not computed here"
        if parameters.target_days is not None and days != parameters.target_days:
            return None, (
                f"the round pays on {display_name}, of a target that looks {days} days ahead, and the run's target "
                f"looks {parameters.target_days} days ahead"
            )
        multipliers[PARTS[name]] = multipliers.get(PARTS[name], 0.0) + multiplier
    if not multipliers:
        return None, "the round pays on no score"
    return Payout(multipliers, " + ".join(f"{multiplier:g} x {name}" for _, name, _, multiplier in entries)), None
