"""Runs in the evaluation image: the CORR of the ensembles' selection, and numerai-tools', of means of ranks.

Prints pairs of scores as JSON, null where there is none.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numerai_tools.scoring import numerai_corr
from scipy.stats import rankdata

from numerai_contract import operations

FastCorr = operations.load("ensemble").objective.__globals__["FastCorr"]
random = np.random.default_rng(7)


def to_json(score: float) -> float | None:
    """Convert NaN to None."""
    return None if math.isnan(score) else float(score)


found = []
for rows in (2, 3, 50, 1_000, 6_000):
    parts = [random.random(rows), random.random(rows).round(1), random.random(rows) < 0.5, np.full(rows, 0.5)]
    ranks = np.array([(rankdata(part) - 0.5) / rows for part in parts])
    weights = np.vstack([np.eye(4), random.multinomial(50, [0.4, 0.3, 0.2, 0.1], size=4) / 50])
    blends = weights @ ranks
    for targets in (
        random.integers(0, 5, rows) / 4,
        random.integers(0, 2, rows).astype(float),
        random.random(rows),
        np.where(np.arange(rows) == 0, 0.25, 0.5),
        np.full(rows, 0.1),
    ):
        ours = FastCorr(targets)(blends)
        # equal values of a mean may differ in the last digits
        for score, blend in zip(ours, blends.round(12), strict=True):
            theirs = math.nan
            if min(len(set(blend)), len(set(targets))) > 1:
                theirs = numerai_corr(pd.DataFrame({"blend": blend}), pd.Series(targets, name="target"))["blend"]
            found.append([to_json(score), to_json(theirs)])
print(json.dumps(found))
