"""How good each model is, era by era, and which one is best.

All whole predictions of the run's directory are scored on the rows whose target is known: the tournament table's, and
those of ``targets.parquet`` where a walk-forward run hides them from the models. Beside them stands what any model
should do better than: a constant 0.5, and the example predictions where the dataset has them.

By era: CORR, MMC and BMC (numerai-tools), feature exposure, and logloss where targets are 0 or 1. Over all eras: mean,
standard deviation, Sharpe ratio, maximum drawdown, share of positive eras, and the criteria of 2018 (`_criteria`).
A score that cannot be had is null.

It leaves ``leaderboard.json`` and ``leaderboard.csv``, best first (by mean CORR, by logloss where targets are 0 or 1),
and for each model ``reports/evaluation/<model>.json`` with its eras and the distributions of its predictions. Optional
files in the run's directory, each with ``id`` and columns of numbers, Parquet or CSV:

``example_predictions``
    A reference.
``meta_model``
    Numerai's meta model, for MMC.
``benchmark_models``
    For BMC; of several columns the mean rank in the era counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from numerai_contract import outputs
from numerai_contract.exits import BadDataError
from numerai_contract.predictions import write_predictions
from numerai_contract.tables import Table
from numerai_contract.task import Learned

from . import _truth
from ._criteria import COMPARED, concordance, losses, originality, rank_correlations
from ._exposure import Exposure, exposure
from ._gathered import FOLDER, Entry, gather, read_optional
from ._metrics import Series, contribution, corr
from ._written import plain, write_csv, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._truth import Truth

LEADERBOARD = "leaderboard"
REPORTS = "reports/evaluation"
CONSTANT, EXAMPLE = "constant_half", "example_predictions"
COLUMNS = (
    *("rank", "model", "kind", "rows", "eras", "corr", "corr_std", "sharpe", "max_drawdown", "positive_eras"),
    *("mmc", "bmc", "feature_exposure", "logloss", "consistency", "concordance", "concordant"),
    *("originality", "most_like", "original"),
)
_BINS = 40


class _ByEra(NamedTuple):
    """Scores of each era and entry, shape (eras, entries), NaN where there is none."""

    corr: NDArray[np.float64]
    mmc: NDArray[np.float64]
    bmc: NDArray[np.float64]
    exposure: Exposure


def run(task: Task) -> None:
    """Score what is there and leave the leaderboard."""
    table, storing = task.tournament, task.parameters.storing
    gathered = gather(storing, table)
    for name, why in gathered.left_out.items():
        task.note(f"left out: {name} ({why})")
    truth = _truth.what_came_true(task.training, table, storing / _truth.FILE)
    if not truth.eras:
        task.note("no row has a known target: there are no scores, only what the predictions alone tell")
    entries = [*gathered.entries, *_references(task, {entry.name for entry in gathered.entries})]
    by_era = _score(task, entries, truth)
    compared = [place for place, entry in enumerate(entries) if entry.kind != "reference"]
    with task.progress.step("comparing the models"):
        alike = np.full((len(entries), len(entries)), np.nan)
        alike[np.ix_(compared, compared)] = rank_correlations(
            np.column_stack([entries[place].predictions for place in compared])
        )
        rows = [_row(place, entries, truth, by_era, alike, table) for place in range(len(entries))]
    best_first = sorted(rows, key=lambda row: _order(row, binary=truth.binary))
    for rank, row in enumerate(best_first, start=1):
        row["rank"] = rank
    inputs = task.parameters.inputs
    for place, (entry, row) in enumerate(zip(entries, rows, strict=True)):
        report = {**row, "by_era": _eras(place, truth, by_era, entry, table), "distribution": _histogram(entry, table)}
        write_json(storing / REPORTS / f"{entry.name}.json", report, inputs)
    _forget_others(storing, {entry.name for entry in entries})
    write_csv(storing / f"{LEADERBOARD}.csv", [plain(row) for row in best_first], COLUMNS, inputs)
    board = {
        "target": "binary" if truth.binary else "graded",
        "sorted_by": "logloss" if truth.binary else "corr",
        "rows": len(truth.rows),
        "eras": len(truth.eras),
        "models": best_first,
        "left_out": gathered.left_out,
        "rank_correlations": {
            "models": [entries[place].name for place in compared],
            "matrix": alike[np.ix_(compared, compared)],
        },
    }
    write_json(storing / f"{LEADERBOARD}.json", board, inputs)
    first = best_first[0]
    chosen = {"models": len(gathered.of_kind("model")), "left_out": sorted(gathered.left_out), "best": first["model"]}
    made = f"{LEADERBOARD}.json with {len(rows)} rows, {first['model']} first"
    task.conclude(Learned(0, chosen=chosen, libraries=("numerai-tools", "pandas", "scipy")), made)


def _references(task: Task, taken: set[str]) -> list[Entry]:
    """Collect what any model should do better than; a model of the same name stands in its place."""
    table = task.tournament
    references = [Entry(CONSTANT, "reference", np.full(len(table), 0.5))]
    example = _optional(task, EXAMPLE)
    if example is not None:
        references.append(Entry(EXAMPLE, "reference", next(iter(example.values()))))
    return [reference for reference in references if reference.name not in taken]


def _optional(task: Task, stem: str) -> dict[str, NDArray[np.float64]] | None:
    """Read an optional file; one that is damaged is left out, and said so."""
    try:
        return read_optional(task.parameters.storing, stem, task.tournament)
    except BadDataError as error:
        task.note(f"left out: {error}")
        return None


def _score(task: Task, entries: list[Entry], truth: Truth) -> _ByEra:
    """Score all entries in all eras."""
    table = task.tournament
    meta, benchmarks = _optional(task, "meta_model"), _optional(task, "benchmark_models")
    predictions = np.column_stack([entry.predictions for entry in entries])
    found = {name: np.full((len(truth.eras), len(entries)), np.nan) for name in ("corr", "mmc", "bmc")}
    with task.progress.step(f"scoring {len(entries)} predictions on {len(truth.eras):,} eras"):
        for place, era in enumerate(truth.eras):
            mine = predictions[era.rows]
            found["corr"][place] = corr(mine, era.targets)
            if meta is not None:
                found["mmc"][place] = contribution(mine, next(iter(meta.values()))[era.rows], era.targets)
            if benchmarks is not None:
                found["bmc"][place] = contribution(mine, _mean_rank(benchmarks, era.rows), era.targets)
            task.progress.update((place + 1) / len(truth.eras), f"era {place + 1:,} of {len(truth.eras):,}")
    with task.progress.step("measuring feature exposure"):
        exposures = exposure(table, truth, predictions, task.progress.update)
    return _ByEra(**found, exposure=exposures)


def _mean_rank(columns: dict[str, NDArray[np.float64]], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Average the ranks that several models give the rows of an era; NaN where one of them has no value.

    A model without a single value in the era does not take part: not every file has a column of each model.
    """
    stacked = np.column_stack([values[rows] for values in columns.values()])
    stacked = stacked[:, ~np.isnan(stacked).all(axis=0)]
    ranks: NDArray[np.float64] = np.full(len(rows), np.nan)
    told = ~np.isnan(stacked).any(axis=1)
    if stacked.shape[1] and told.any():
        ranks[told] = rankdata(stacked[told], axis=0).mean(axis=1)
    return ranks


def _row(
    place: int, entries: list[Entry], truth: Truth, by_era: _ByEra, alike: NDArray[np.float64], table: Table
) -> dict[str, Any]:
    """Sum an entry up: its row of the leaderboard, without its rank."""
    entry = entries[place]
    series = Series.of(by_era.corr[:, place])
    loss = losses(entry.predictions, truth.eras if truth.binary else ())
    row: dict[str, Any] = {
        "rank": None,
        "model": entry.name,
        "kind": entry.kind,
        "rows": int(np.count_nonzero(~np.isnan(entry.predictions[truth.rows]))),
        "eras": int(np.count_nonzero(~np.isnan(by_era.corr[:, place]))),
        "corr": series.mean,
        "corr_std": series.std,
        "sharpe": series.sharpe,
        "max_drawdown": series.max_drawdown,
        "positive_eras": series.positive,
        "mmc": Series.of(by_era.mmc[:, place]).mean,
        "bmc": Series.of(by_era.bmc[:, place]).mean,
        "feature_exposure": Series.of(by_era.exposure.largest[:, place]).mean,
        "logloss": loss.logloss,
        "consistency": loss.consistency,
    }
    looks = None if entry.name == CONSTANT else concordance(entry.predictions, table)
    others = [other for other, candidate in enumerate(entries) if candidate.kind == "model"]
    copy = originality(place, alike, [candidate.name for candidate in entries], others)
    return row | {
        "concordance": looks and looks.statistic,
        "concordant": looks and looks.concordant,
        "originality": copy and copy.largest,
        "most_like": copy and copy.most_like,
        "original": copy and copy.original,
    }


def _order(row: dict[str, Any], *, binary: bool) -> tuple[float, str]:
    """Sort key: best first, those without a score last, each by name."""
    score = row["logloss"] if binary else -row["corr"]
    return (math.inf if score is None or math.isnan(score) else score, row["model"])


def _eras(place: int, truth: Truth, by_era: _ByEra, entry: Entry, table: Table) -> list[dict[str, Any]]:
    """List an entry's scores era by era."""
    of_eras = losses(entry.predictions, truth.eras).of_eras if truth.binary else [None] * len(truth.eras)
    listed = []
    for number, (era, loss) in enumerate(zip(truth.eras, of_eras, strict=True)):
        largest = by_era.exposure.largest[number, place]
        feature = None if math.isnan(largest) else table.feature_names[by_era.exposure.feature[number, place]]
        listed.append(
            {
                "era": era.number,
                "rows": int(np.count_nonzero(~np.isnan(entry.predictions[era.rows]))),
                "corr": by_era.corr[number, place],
                "mmc": by_era.mmc[number, place],
                "bmc": by_era.bmc[number, place],
                "feature_exposure": largest,
                "most_exposed_to": feature,
                "logloss": loss,
            }
        )
    return listed


def _histogram(entry: Entry, table: Table) -> dict[str, Any]:
    """Count predictions in bins of equal width, by the rows' data type."""
    told = ~np.isnan(entry.predictions)
    if not told.any():
        return {}
    edges = np.histogram_bin_edges(entry.predictions[told], _BINS)
    parts = {data_type: entry.predictions[told & table.of_type(data_type)] for data_type in COMPARED}
    return {"edges": edges, **{name: np.histogram(part, edges)[0] for name, part in parts.items() if len(part)}}


def _forget_others(storing: Path, names: set[str]) -> None:
    """Remove reports of models that are not there any more."""
    for path in (storing / REPORTS).glob("*.json"):
        if not path.name.endswith(outputs.MANIFEST_SUFFIX) and path.stem not in names:
            outputs.manifest_path(path).unlink(missing_ok=True)
            path.unlink()


def prepare_self_test(storing: Path) -> None:
    """Lay predictions of two models: one that leans on what the target leans on, and one that knows nothing."""
    table = Table(storing / "tournament.parquet")
    features = table.features()
    knowing = 0.5 + 0.2 * (features[:, 0] - features[:, 1])
    for name, predictions in (("knowing", knowing), ("guessing", 0.3 + 0.4 * features[:, 2])):
        write_predictions(storing / FOLDER / f"{name}.csv", table.ids, predictions.astype(np.float64), None)


def check_self_test(storing: Path) -> None:
    """See that the model that knows comes first."""
    for ending in ("json", "csv"):
        outputs.verify(storing / f"{LEADERBOARD}.{ending}")
    lines = (storing / f"{LEADERBOARD}.csv").read_text(encoding="utf-8").splitlines()
    if not lines[1].startswith("1,knowing,"):
        raise BadDataError(f"self-test of evaluate: the leaderboard begins with {lines[1]!r}")
