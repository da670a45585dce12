"""Runs in the evaluation image: compares the greedy selection with a simple implementation that tries every addition.

Prints the selected models of both, for several draws of models, as JSON.
"""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numerai_tools.scoring import correlation_contribution, numerai_corr
from sklearn.metrics import log_loss

from numerai_contract import operations

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ERAS, _ROWS, _MODELS = 4, 40, 4
operations.load("ensemble")  # creates the package of operations
selection = operations.load("ensemble").select.__globals__
Era = operations.load("evaluate")._targets.Era
payouts = importlib.import_module("numerai_operations._payout")
_CORR, _MMC = 0.75, 2.25


def draw(seed: int, *, binary: bool) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Draw slightly informed models, and targets; per era. The last model is the meta model."""
    random = np.random.default_rng(seed)
    models, targets = [], []
    for _ in range(_ERAS):
        truth = random.normal(size=_ROWS)
        predictions = 0.5 + 0.1 * (
            truth[:, np.newaxis] * random.uniform(0, 0.6, _MODELS) + random.normal(size=(_ROWS, _MODELS))
        )
        models.append(np.clip(predictions, 0.01, 0.99))
        targets.append((truth > 0).astype(float) if binary else np.clip(np.round(2 + truth), 0, 4) / 4)
    return models, targets


def expected(
    models: list[NDArray[np.float64]], targets: list[NDArray[np.float64]], *, binary: bool, paid: bool
) -> list[int]:
    """Try every addition, one mean at a time; return the selection up to the best mean."""

    def goodness(picks: list[int]) -> float:
        blends = [np.round(era[:, picks].mean(axis=1), 12) for era in models]
        if binary:
            return -float(log_loss(np.concatenate(targets), np.concatenate(blends)))
        scores = []
        for era, blend, truth in zip(models, blends, targets, strict=True):
            frame, series = pd.DataFrame({"blend": blend}), pd.Series(truth, name="target")
            corr = float(numerai_corr(frame, series)["blend"])
            mmc = float(correlation_contribution(frame, pd.Series(era[:, -1]), series)["blend"]) if paid else 0.0
            scores.append(_CORR * corr + _MMC * mmc if paid else corr)
        return float(np.mean(scores))

    picks: list[int] = []
    path: list[float] = []
    for _ in range(selection["ROUNDS"]):
        picks.append(max(range(_MODELS), key=lambda model: goodness([*picks, model])))
        path.append(goodness(picks))
        best = next(turn for turn, score in enumerate(path, start=1) if score >= max(path) - 1e-12)
        if len(picks) - best >= selection["MAX_ROUNDS_WITHOUT_GAIN"]:
            break
    return picks[:best]


def ours(
    models: list[NDArray[np.float64]], targets: list[NDArray[np.float64]], *, binary: bool, paid: bool
) -> list[int]:
    """Select with the code of the operation."""
    eras = [Era(number, np.arange(_ROWS) + number * _ROWS, truth) for number, truth in enumerate(targets)]
    payout = None
    if paid:
        multipliers = {"corr": _CORR, "mmc": _MMC}
        payout = selection["PaidScores"](payouts.Payout(multipliers, ""), np.concatenate(models)[:, -1])
    score = operations.load("ensemble").objective(np.concatenate(models), eras, binary=binary, paid=payout)
    selected = selection["select"](score, _MODELS)
    assert np.array_equal(selected.weights, np.bincount(selected.picks, minlength=_MODELS) / len(selected.picks))
    return list(selected.picks)


found = []
for seed in range(2):
    for binary, paid in ((False, False), (True, False), (False, True)):
        models, targets = draw(seed, binary=binary)
        kind = {"binary": binary, "paid": paid}
        found.append([ours(models, targets, **kind), expected(models, targets, **kind)])
print(json.dumps(found))
