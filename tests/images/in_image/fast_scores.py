"""Runs in the evaluation image: CORR and MMC of the ensembles' selection, and numerai-tools', of means of ranks.

Prints pairs of scores as JSON, by score, null where there is none.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numerai_tools.scoring import correlation_contribution, numerai_corr
from scipy.stats import rankdata

from numerai_contract import operations

metrics = operations.load("ensemble").objective.__globals__
FastCorr, FastContribution, has_contribution = (
    metrics[name] for name in ("FastCorr", "FastContribution", "has_contribution")
)
random = np.random.default_rng(7)


def to_json(score: float) -> float | None:
    """Convert NaN to None."""
    return None if math.isnan(score) else float(score)


found: dict[str, list[list[float | None]]] = {"corr": [], "mmc": []}
for rows in (2, 3, 50, 1_000, 6_000):
    parts = [random.random(rows), random.random(rows).round(1), random.random(rows) < 0.5, np.full(rows, 0.5)]
    ranks = np.array([(rankdata(part) - 0.5) / rows for part in parts])
    weights = np.vstack([np.eye(4), random.multinomial(50, [0.4, 0.3, 0.2, 0.1], size=4) / 50])
    # equal values of a mean may differ in the last digits
    blends = weights @ ranks
    frame = pd.DataFrame(blends.round(12).T)
    alike = 0.7 * parts[0] + 0.3 * random.random(rows)
    # without predictions for a tenth of the rows
    incomplete = np.where(np.arange(rows) % 10 == 3, np.nan, alike.round(1))
    for targets in (
        random.integers(0, 5, rows) / 4,
        random.integers(0, 2, rows).astype(float),
        random.random(rows),
        np.where(np.arange(rows) == 0, 0.25, 0.5),
        np.full(rows, 0.1),
    ):
        truth = pd.Series(targets, name="target")
        for score, name in zip(FastCorr(targets)(blends), frame, strict=True):
            theirs = math.nan
            if min(frame[name].nunique(), len(set(targets))) > 1:
                theirs = numerai_corr(frame[[name]], truth)[name]
            found["corr"].append([to_json(score), to_json(theirs)])
        for anchor in (alike, incomplete, np.full(rows, 0.5), np.full(rows, np.nan)):
            if has_contribution(anchor, targets):
                present = ~np.isnan(anchor)
                other = pd.Series(anchor[present], truth.index[present])
                theirs = correlation_contribution(frame[present], other, truth[present])
                pairs = zip(FastContribution(anchor, targets)(blends), theirs, strict=True)
                found["mmc"] += [[to_json(score), to_json(their)] for score, their in pairs]
print(json.dumps(found))
