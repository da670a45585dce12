"""Evaluation: scores of each model, era by era, and the leaderboard.

The predictions of each model and ensemble are scored on the rows of the validation table with a known target. In a
walk-forward run they are scored on the live rows, whose targets (``targets.parquet``) are hidden from the models. A
model whose fit has no predictions of the newest validation eras is scored on the others. References for comparison are
a constant 0.5, and the example predictions if the dataset has them.

By era: CORR, MMC and BMC (numerai-tools), feature exposure, and logloss for targets of 0 and 1. Over all eras: mean,
standard deviation, Sharpe ratio, maximum drawdown, share of positive eras, and the criteria of 2018 (`_metrics_2018`).
An undefined score is null.

The outputs, in the directory of the fit, are ``leaderboard.json`` and ``leaderboard.csv``, best first (by mean CORR, by
logloss for targets of 0 and 1), and for each model ``evaluation/<model>.json`` with its eras and the distributions of
its predictions, by data type, with those of the live rows where the run's directory has ``live.parquet``. Optional
files there, each with ``id`` and columns of numbers, Parquet or CSV:

``example_predictions``
    A reference.
``meta_model``
    Numerai's meta model, for MMC.
``benchmark_models``
    For BMC; several columns are combined by their mean rank in the era.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from numerai_contract import outputs
from numerai_contract.exits import BadDataError
from numerai_contract.predictions import write_predictions
from numerai_contract.tables import Table
from numerai_contract.task import TrainingSummary

from . import _targets
from ._exposure import Exposure, exposure
from ._metrics import Series, contribution, corr
from ._metrics_2018 import COMPARED, concordance, losses, originality, rank_correlations
from ._prediction_files import LIVE, VALIDATION, Entry, load_predictions, read_live_or_note, read_optional
from ._writers import to_jsonable, write_csv, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._targets import KnownTargets

LEADERBOARD = "leaderboard"
REPORTS = "evaluation"
CONSTANT, EXAMPLE = "constant_half", "example_predictions"
COLUMNS = (
    *("rank", "model", "kind", "rows", "eras", "corr", "corr_std", "sharpe", "max_drawdown", "positive_eras"),
    *("mmc", "bmc", "feature_exposure", "logloss", "consistency", "concordance", "concordant"),
    *("originality", "most_like", "original"),
)
_BINS = 40
_LIVE_TABLE = "live.parquet"


class _ByEra(NamedTuple):
    """Scores of each era and entry, shape (eras, entries), NaN where undefined."""

    corr: NDArray[np.float64]
    mmc: NDArray[np.float64]
    bmc: NDArray[np.float64]
    exposure: Exposure


def make(task: Task) -> TrainingSummary:
    """Score all predictions and write the leaderboard."""
    storing, directory = task.parameters.storing, task.model.path
    hidden = storing / _targets.FILE
    is_walk_forward = hidden.is_file()
    # float32: to find out whether int8 would do, all features are read
    path = storing / _LIVE_TABLE if is_walk_forward else task.parameters.validation
    table = Table(path, feature_dtype=np.float32)
    found = load_predictions(
        storing / (LIVE if is_walk_forward else VALIDATION),
        table,
        may_lack_newest=not is_walk_forward,
        references=_references(task, table),
    )
    entries = found.entries
    parts = [_by_data_type(storing, entry, table, found.notes) for entry in entries]
    for note in found.notes:
        task.note(note)
    targets = _targets.known_targets(table, hidden=hidden)
    if not targets.eras:
        task.note("no row has a known target: there are only scores that need no targets")
    by_era = _score(task, table, found.values, targets)
    compared = [index for index, entry in enumerate(entries) if entry.kind != "reference"]
    with task.progress.step("comparing the models"):
        similarities = np.full((len(entries), len(entries)), np.nan)
        # the references are the last columns
        similarities[np.ix_(compared, compared)] = rank_correlations(
            found.values[:, : len(compared)], task.parameters.threads
        )
        rows = [_row(index, entries, targets, by_era, similarities, parts[index]) for index in range(len(entries))]
    best_first = sorted(rows, key=lambda row: _order(row, binary=targets.binary))
    for rank, row in enumerate(best_first, start=1):
        row["rank"] = rank
    inputs = task.parameters.inputs
    for index, (entry, row) in enumerate(zip(entries, rows, strict=True)):
        report = {
            **row,
            "by_era": _eras(index, targets, by_era, entry, table),
            "distribution": _histogram(parts[index]),
        }
        write_json(directory / REPORTS / f"{entry.name}.json", report, inputs)
    write_csv(directory / f"{LEADERBOARD}.csv", [to_jsonable(row) for row in best_first], COLUMNS, inputs)
    board = {
        "target": "binary" if targets.binary else "graded",
        "sorted_by": "logloss" if targets.binary else "corr",
        "rows": len(targets.rows),
        "eras": len(targets.eras),
        "models": best_first,
        "left_out": found.left_out,
        "rank_correlations": {
            "models": [entries[index].name for index in compared],
            "matrix": similarities[np.ix_(compared, compared)],
        },
    }
    write_json(directory / f"{LEADERBOARD}.json", board, inputs)
    first = best_first[0]
    task.progress.log(f"{LEADERBOARD}.json with {len(rows)} rows, {first['model']} first")
    chosen = {"models": len(found.of_kind("model")), "left_out": sorted(found.left_out), "best": first["model"]}
    return TrainingSummary(0, chosen=chosen, libraries=("numerai-tools", "pandas", "scipy"), table=table)


def _references(task: Task, table: Table) -> list[Entry]:
    """Collect the references."""
    references = [Entry(CONSTANT, "reference", np.full(len(table), 0.5))]
    example = _optional(task, EXAMPLE, table)
    if example is not None:
        references.append(Entry(EXAMPLE, "reference", next(iter(example.values()))))
    return references


def _optional(task: Task, stem: str, table: Table) -> dict[str, NDArray[np.float64]] | None:
    """Read an optional file; a damaged file is left out with a note."""
    try:
        return read_optional(task.parameters.storing, stem, table)
    except BadDataError as error:
        task.note(f"left out: {error}")
        return None


def _score(task: Task, table: Table, predictions: NDArray[np.float64], targets: KnownTargets) -> _ByEra:
    """Score all entries, the columns of `predictions`, in all eras."""
    meta, benchmarks = _optional(task, "meta_model", table), _optional(task, "benchmark_models", table)
    entries = predictions.shape[1]
    found = {name: np.full((len(targets.eras), entries), np.nan) for name in ("corr", "mmc", "bmc")}
    with task.progress.step(f"scoring {entries} predictions on {len(targets.eras):,} eras"):

        def score_era(index: int) -> None:
            era = targets.eras[index]
            in_era = predictions[era.rows]
            found["corr"][index] = corr(in_era, era.targets)
            if meta is not None:
                found["mmc"][index] = contribution(in_era, next(iter(meta.values()))[era.rows], era.targets)
            if benchmarks is not None:
                found["bmc"][index] = contribution(in_era, _mean_rank(benchmarks, era.rows), era.targets)

        with ThreadPoolExecutor(task.parameters.threads) as pool:
            for index, _ in enumerate(pool.map(score_era, range(len(targets.eras)))):
                task.progress.update((index + 1) / len(targets.eras), f"era {index + 1:,} of {len(targets.eras):,}")
    with task.progress.step("measuring feature exposure"):
        exposures = exposure(table, targets, predictions, task.progress.update)
    return _ByEra(**found, exposure=exposures)


def _mean_rank(columns: dict[str, NDArray[np.float64]], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Average the ranks of several models in the rows of an era; NaN where one of them has no prediction.

    A model without any prediction in the era does not take part: not every file has a column of each model.
    """
    stacked = np.column_stack([values[rows] for values in columns.values()])
    stacked = stacked[:, ~np.isnan(stacked).all(axis=0)]
    ranks: NDArray[np.float64] = np.full(len(rows), np.nan)
    present = ~np.isnan(stacked).any(axis=1)
    if stacked.shape[1] and present.any():
        ranks[present] = rankdata(stacked[present], axis=0).mean(axis=1)
    return ranks


def _row(
    index: int,
    entries: list[Entry],
    targets: KnownTargets,
    by_era: _ByEra,
    similarities: NDArray[np.float64],
    parts: dict[str, NDArray[np.float64]],
) -> dict[str, Any]:
    """Compute an entry's row of the leaderboard, without its rank."""
    entry = entries[index]
    series = Series.of(by_era.corr[:, index])
    loss = losses(entry.predictions, targets.eras if targets.binary else ())
    row: dict[str, Any] = {
        "rank": None,
        "model": entry.name,
        "kind": entry.kind,
        "rows": int(np.count_nonzero(~np.isnan(entry.predictions[targets.rows]))),
        "eras": int(np.count_nonzero(~np.isnan(by_era.corr[:, index]))),
        "corr": series.mean,
        "corr_std": series.std,
        "sharpe": series.sharpe,
        "max_drawdown": series.max_drawdown,
        "positive_eras": series.positive,
        "mmc": Series.of(by_era.mmc[:, index]).mean,
        "bmc": Series.of(by_era.bmc[:, index]).mean,
        "feature_exposure": Series.of(by_era.exposure.largest[:, index]).mean,
        "logloss": loss.logloss,
        "consistency": loss.consistency,
    }
    agreement = None if entry.name == CONSTANT else concordance(parts)
    others = [other for other, candidate in enumerate(entries) if candidate.kind == "model"]
    nearest = originality(index, similarities, [candidate.name for candidate in entries], others)
    return row | {
        "concordance": agreement and agreement.statistic,
        "concordant": agreement and agreement.concordant,
        "originality": nearest and nearest.largest,
        "most_like": nearest and nearest.most_like,
        "original": nearest and nearest.original,
    }


def _order(row: dict[str, Any], *, binary: bool) -> tuple[float, str]:
    """Sort key: best first, entries without a score last, then by name."""
    score = row["logloss"] if binary else -row["corr"]
    return (math.inf if score is None or math.isnan(score) else score, row["model"])


def _eras(index: int, targets: KnownTargets, by_era: _ByEra, entry: Entry, table: Table) -> list[dict[str, Any]]:
    """List an entry's scores era by era."""
    of_eras = losses(entry.predictions, targets.eras).of_eras if targets.binary else [None] * len(targets.eras)
    listed = []
    for number, (era, loss) in enumerate(zip(targets.eras, of_eras, strict=True)):
        largest = by_era.exposure.largest[number, index]
        feature = None if math.isnan(largest) else table.feature_names[by_era.exposure.feature[number, index]]
        listed.append(
            {
                "era": era.number,
                "rows": int(np.count_nonzero(~np.isnan(entry.predictions[era.rows]))),
                "corr": by_era.corr[number, index],
                "mmc": by_era.mmc[number, index],
                "bmc": by_era.bmc[number, index],
                "feature_exposure": largest,
                "most_exposed_to": feature,
                "logloss": loss,
            }
        )
    return listed


def _by_data_type(storing: Path, entry: Entry, table: Table, notes: list[str]) -> dict[str, NDArray[np.float64]]:
    """Divide an entry's predictions by the rows' data type; with those of the live table, where the run has one."""
    parts = {data_type: entry.predictions[table.of_type(data_type)] for data_type in COMPARED}
    path = storing / _LIVE_TABLE
    if table.path != path and path.is_file() and entry.kind != "reference":
        live = Table(path, feature_names=())
        predictions = read_live_or_note(storing, entry.name, live, notes)
        parts |= {data_type: predictions[live.of_type(data_type)] for data_type in COMPARED[1:]}
    return {data_type: part[~np.isnan(part)] for data_type, part in parts.items()}


def _histogram(parts: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Count predictions in bins of equal width, by the rows' data type."""
    present = {name: part for name, part in parts.items() if len(part)}
    if not present:
        return {}
    edges = np.histogram_bin_edges(np.concatenate(list(present.values())), _BINS)
    # bins of a range, not of edges: numpy then computes a value's bin instead of searching for it
    ends = (edges[0], edges[-1])
    return {"edges": edges, **{name: np.histogram(part, _BINS, ends)[0] for name, part in present.items()}}


def prepare_self_test(storing: Path) -> None:
    """Write predictions of two models: one uses the features that the target depends on, the other does not."""
    for name, folder in (("validation", VALIDATION), ("live", LIVE)):
        table = Table(storing / f"{name}.parquet")
        features = table.features()
        informed = 0.5 + 0.2 * (features[:, 0] - features[:, 1])
        for model, predictions in (("informed", informed), ("random", 0.3 + 0.4 * features[:, 2])):
            write_predictions(storing / folder / f"{model}.csv", table.ids, predictions.astype(np.float64), None)


def check_self_test(storing: Path) -> None:
    """Check that the informed model is first."""
    directory = storing / "model"
    for suffix in ("json", "csv"):
        outputs.verify(directory / f"{LEADERBOARD}.{suffix}")
    lines = (directory / f"{LEADERBOARD}.csv").read_text(encoding="utf-8").splitlines()
    if not lines[1].startswith("1,informed,"):
        raise BadDataError(f"self-test of evaluate: the leaderboard begins with {lines[1]!r}")
