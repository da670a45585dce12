"""Runs in the evaluation image: scores by direct calls of numerai-tools and scikit-learn, era by era.

Reads the run's tables and predictions in /data and prints the scores as JSON.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from numerai_tools.scoring import (
    correlation_contribution,
    feature_neutral_corr,
    max_feature_correlation,
    numerai_corr,
    sharpe_ratio,
    spearman_correlation,
)
from sklearn.metrics import log_loss

DATA = Path("/data")


def score_era(rows: pd.DataFrame, features: list[str]) -> dict[str, Any]:
    """Score the rows of an era, all with a target, by numerai-tools."""
    frame, targets = rows[["prediction"]], rows["target"].astype("float64")
    scores: dict[str, Any] = {"corr": numerai_corr(frame, targets)["prediction"]}
    for file, column in (("meta_model", "mmc"), ("benchmark_models", "bmc")):
        present = rows[file].notna() if file in rows else rows["target"].isna()
        if present.any():
            scores[column] = correlation_contribution(frame[present], rows[file][present], targets[present])[
                "prediction"
            ]
            if file == "meta_model":
                scores["meta_model_correlation"] = spearman_correlation(
                    rows[file][present], rows["prediction"][present]
                )
    numbers = rows[features].astype("float64")
    if len(rows) > len(features) + 1:
        scores["fnc"] = feature_neutral_corr(frame, numbers, targets)["prediction"]
    scores["most_exposed_to"], scores["feature_exposure"] = max_feature_correlation(rows["prediction"], numbers)
    return scores


def score(name: str) -> dict[str, Any]:
    """Score a model's predictions."""
    tables = [pd.read_parquet(DATA / f"{part}.parquet") for part in ("validation", "live")]
    table = pd.concat(tables).set_index("id").sort_index()
    files = [pd.read_csv(DATA / folder / f"{name}.csv") for folder in ("validation", "predictions")]
    table["prediction"] = pd.concat(files).set_index("id")["prediction"]
    for file in ("meta_model", "benchmark_models"):
        if (DATA / f"{file}.parquet").exists():
            table[file] = pd.read_parquet(DATA / f"{file}.parquet").set_index("id").iloc[:, -1]
    table = table[table["target"].notna()]
    features = [column for column in table if column.startswith("feature")]
    found: dict[str, Any] = {"eras": {}}
    for era, rows in table.groupby("era"):
        scores: dict[str, Any] = {}
        if len(rows) > 1 and rows["prediction"].nunique() > 1:
            scores = score_era(rows, features)
        if set(table["target"]) <= {0, 1}:
            scores["logloss"] = log_loss(rows["target"], rows["prediction"], labels=[0, 1])
        found["eras"][era] = scores
    eras = found["eras"].values()
    correlations = [scores["corr"] for scores in eras if not math.isnan(scores.get("corr", math.nan))]
    if correlations:
        found |= {"corr": sum(correlations) / len(correlations), "sharpe": sharpe_ratio(pd.Series(correlations))}
    if set(table["target"]) <= {0, 1}:
        found["logloss"] = log_loss(table["target"], table["prediction"], labels=[0, 1])
        found["consistency"] = sum(scores["logloss"] < math.log(2) for scores in eras) / len(eras)
    return found


names = sorted(path.stem for path in (DATA / "validation").glob("*.csv"))
print(json.dumps({name: score(name) for name in names}))
