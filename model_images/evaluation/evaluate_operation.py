"""Evaluation: scores of each model, era by era, and the leaderboard.

The predictions of each model and ensemble are scored on the rows of the validation table with a known target. In a
walk-forward run they are scored on the live rows, whose targets (``targets.parquet``) are hidden from the models. A
model whose fit has no predictions of the newest validation eras is scored on the others. References for comparison are
a constant 0.5, and the example predictions if the dataset has them.

By era, with numerai-tools: CORR, MMC, BMC, FNC, correlation with the meta model, feature exposure, and the round's
payout score (`_payout`); logloss for targets of 0 and 1. Their means are over all eras, and over the last 52 weeks.
Standard deviation, Sharpe ratio, maximum drawdown and share of positive eras of CORR, and the criteria of 2018
(`_metrics_2018`), are over all eras. An undefined score is null.

Models are ranked by the payout score, on the eras in which all of its parts are known. Without it, by mean CORR, and
the leaderboard has the reason. Targets of 0 and 1 are ranked by logloss.

The outputs, in the directory of the fit, are ``leaderboard.json`` and ``leaderboard.csv``, best first, and for each
model ``evaluation/<model>.json`` with its eras and the distributions of its predictions, by data type, with those of
the live rows where the run's directory has ``live.parquet``. Optional files there, each with ``id`` and columns of
numbers, Parquet or CSV:

``example_predictions``
    A reference.
``meta_model``
    Numerai's meta model, for MMC and the correlation with it.
``benchmark_models``
    For BMC: the column that ``BENCHMARK`` names, such as ``v53_lgbm_ender60``. Other columns are not used.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract import outputs
from numerai_contract.exits import BadDataError
from numerai_contract.predictions import write_predictions
from numerai_contract.tables import Table
from numerai_contract.task import TrainingSummary

from . import _targets
from ._comparisons import EXAMPLE, META_MODEL, find_benchmark, find_comparison
from ._feature_scores import FeatureScores, feature_scores
from ._metrics import Series, contribution, corr, rank_correlation
from ._metrics_2018 import COMPARED, concordance, losses, originality, rank_correlations
from ._payout import read_payout
from ._prediction_files import LIVE, VALIDATION, Entry, load_predictions, read_live_or_note
from ._ranking import choose_ranking
from ._writers import to_jsonable, write_csv, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._payout import Payout
    from ._targets import KnownTargets

LEADERBOARD = "leaderboard"
REPORTS = "evaluation"
CONSTANT = "constant_half"
MEANS = ("payout", "corr", "mmc", "bmc", "fnc", "meta_model_correlation", "feature_exposure")
"""Scores by era whose means are on the leaderboard: over all eras, and over the last `RECENT_WEEKS`."""
RECENT_WEEKS = 52
RECENT = f"_{RECENT_WEEKS}_weeks"
COLUMNS = (
    *("rank", "model", "kind", "rows", "eras", "payout", "payout_eras", "corr", "corr_std", "sharpe", "max_drawdown"),
    *("positive_eras", *MEANS[2:], *(f"{name}{RECENT}" for name in MEANS), "logloss", "consistency", "concordance"),
    *("concordant", "originality", "most_like", "original"),
)
_BINS = 40
_LIVE_TABLE = "live.parquet"


class _ByEra(NamedTuple):
    """Scores of each era and entry.

    Attributes
    ----------
    scores : dict
        Each of `MEANS` → shape (eras, entries), NaN where undefined.
    most_exposed : numpy.ndarray of int, shape (eras, entries)
        Index of the feature with the largest exposure.
    recent : numpy.ndarray of bool, shape (eras,)
        Marks the last `RECENT_WEEKS`, up to the newest era with a known target.
    benchmark : str or None
        Name of the benchmark model of BMC.
    """

    scores: dict[str, NDArray[np.float64]]
    most_exposed: NDArray[np.intp]
    recent: NDArray[np.bool_]
    benchmark: str | None


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
    payout, fallback = read_payout(task.parameters)
    by_era = _score(task, table, found.values, targets, payout)
    ranking = choose_ranking(targets, by_era.scores, payout, fallback)
    if ranking.fallback is not None:
        task.note(f"ranked by {ranking.formula}, not by the payout score: {ranking.fallback}")
    compared = [index for index, entry in enumerate(entries) if entry.kind != "reference"]
    with task.progress.step("comparing the models"):
        similarities = np.full((len(entries), len(entries)), np.nan)
        # the references are the last columns
        similarities[np.ix_(compared, compared)] = rank_correlations(
            found.values[:, : len(compared)], task.parameters.threads
        )
        rows = [_row(index, entries, targets, by_era, similarities, parts[index]) for index in range(len(entries))]
    best_first = sorted(rows, key=ranking.order)
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
        "sorted_by": ranking.by,
        "ranking": {"formula": ranking.formula, "eras": ranking.eras, "fallback": ranking.fallback},
        "benchmark": by_era.benchmark,
        "rows": len(targets.rows),
        "eras": len(targets.eras),
        "recent_eras": int(np.count_nonzero(by_era.recent)),
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
    example = find_comparison(task, EXAMPLE, table)
    if example is not None:
        references.append(Entry(EXAMPLE, "reference", example))
    return references


def _score(
    task: Task, table: Table, predictions: NDArray[np.float64], targets: KnownTargets, payout: Payout | None
) -> _ByEra:
    """Score all entries, the columns of `predictions`, in all eras."""
    meta_model, benchmark = find_comparison(task, META_MODEL, table), find_benchmark(task, table)
    eras, entries = len(targets.eras), predictions.shape[1]
    scores = {name: np.full((eras, entries), np.nan) for name in MEANS}
    with task.progress.step(f"scoring {entries} predictions on {eras:,} eras"):

        def score_era(index: int) -> None:
            era = targets.eras[index]
            in_era = predictions[era.rows]
            scores["corr"][index] = corr(in_era, era.targets)
            if meta_model is not None:
                anchor = meta_model[era.rows]
                scores["mmc"][index] = contribution(in_era, anchor, era.targets)
                scores["meta_model_correlation"][index] = rank_correlation(in_era, anchor)
            if benchmark is not None:
                scores["bmc"][index] = contribution(in_era, benchmark[1][era.rows], era.targets)

        with ThreadPoolExecutor(task.parameters.threads) as pool:
            for index, _ in enumerate(pool.map(score_era, range(eras))):
                task.progress.update((index + 1) / eras, f"era {index + 1:,} of {eras:,}")
    if payout is not None:
        scores["payout"] = payout.of(scores)
    with task.progress.step("measuring feature exposure and FNC"):
        of_features = feature_scores(table, targets, predictions, task.progress.update, task.parameters.threads)
    _note_neutral_eras(task, table, eras, of_features)
    scores["feature_exposure"], scores["fnc"] = of_features.exposure, of_features.fnc
    numbers = [-1 if era.number is None else era.number for era in targets.eras]
    recent = np.array(numbers, dtype=np.int64) > max(numbers, default=-1) - RECENT_WEEKS
    return _ByEra(scores, of_features.feature, recent, benchmark and benchmark[0])


def _note_neutral_eras(task: Task, table: Table, eras: int, scores: FeatureScores) -> None:
    if scores.first_neutral:
        task.note(
            f"FNC: of the newest {eras - scores.first_neutral:,} of {eras:,} eras, as its work grows with the square of"
            f" the {len(table.feature_names):,} features"
        )


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
    of_entry = {name: scores[:, index] for name, scores in by_era.scores.items()}
    series = Series.of(of_entry["corr"])
    loss = losses(entry.predictions, targets.eras if targets.binary else ())
    row: dict[str, Any] = {
        "rank": None,
        "model": entry.name,
        "kind": entry.kind,
        "rows": int(np.count_nonzero(~np.isnan(entry.predictions[targets.rows]))),
        "eras": int(np.count_nonzero(~np.isnan(of_entry["corr"]))),
        "payout_eras": int(np.count_nonzero(~np.isnan(of_entry["payout"]))),
        "corr_std": series.std,
        "sharpe": series.sharpe,
        "max_drawdown": series.max_drawdown,
        "positive_eras": series.positive,
        **{name: Series.of(scores).mean for name, scores in of_entry.items()},
        **{f"{name}{RECENT}": Series.of(scores[by_era.recent]).mean for name, scores in of_entry.items()},
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


def _eras(index: int, targets: KnownTargets, by_era: _ByEra, entry: Entry, table: Table) -> list[dict[str, Any]]:
    """List an entry's scores era by era."""
    of_eras = losses(entry.predictions, targets.eras).of_eras if targets.binary else [None] * len(targets.eras)
    listed = []
    for number, (era, loss) in enumerate(zip(targets.eras, of_eras, strict=True)):
        scores = {name: values[number, index] for name, values in by_era.scores.items()}
        is_exposed = not math.isnan(scores["feature_exposure"])
        listed.append(
            {
                "era": era.number,
                "rows": int(np.count_nonzero(~np.isnan(entry.predictions[era.rows]))),
                **scores,
                "most_exposed_to": table.feature_names[by_era.most_exposed[number, index]] if is_exposed else None,
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
