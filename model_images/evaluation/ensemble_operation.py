"""Four ensembles of the models with complete predictions, each written as predictions.

``ensemble_geometric_mean``
    The geometric mean of the probabilities, joined on the id. It and the geometric mean of the probabilities of class 0
    do not add up to one, and it is biased towards 0: so it is divided by the sum of both. Predictions are clipped to a
    distance of one millionth from 0 and 1 beforehand.
``ensemble_fleming``
    The same of Jim Fleming's four models, his ensemble of 2016 and that of 2018: logistic regression, factorization
    machines, gradient-boosted trees and pairwise regression [1]_ [2]_. It is of those of the four that the run has;
    without any of them it equals ``ensemble_geometric_mean``, and the report has a note.
``ensemble_selection``
    A weighted mean, with weights by greedy forward selection with replacement (`_selection`). For targets of 0 and 1,
    of the probabilities, by logloss, which is not defined for ranks. Otherwise of the ranks in the era, by the mean
    payout score of the round (`_payout`). Where at most one era has all parts of it, the selection is by mean CORR, and
    the report has the reason. It is selected on the earlier half of the eras with the score, and scored on the later
    half, so that the reported gain is out of sample. EMBARGO weeks between them are left out: the targets of
    neighbouring eras overlap.
``ensemble_gauss_rank``
    In each era, the predictions of a model are ranked, and the ranks transformed to a normal distribution, as for CORR.
    The weighted mean of the models is transformed back to (0, 1). A model's weight is its score on the eras of the
    selection, such as its payout score, as Numerai's meta model weights models by their stakes; models without a
    positive score have none. For targets of 0 and 1 it orders rows, and its values are no probabilities.

The fit selects on the models' predictions of the validation table and predicts that table, or the rows of it that every
model has: a fit of an earlier week has no predictions of the newest eras. It keeps the models and their weights in
``weights.json``. The predictions of live rows combine those of exactly these models.

The selection scores hundreds of means in each era with a fast CORR and MMC (`_metrics`), equal to those of
numerai-tools, with which `evaluate` scores the result. Models are transformed and averaged one at a time, so that the
predictions of all models are in memory once.

With one model, with fewer than two eras of known targets, or when no model has a score on the first half, all weights
are equal and the report has the reason.

References
----------
.. [1] github.com/jimfleming/numerai, ``ensemble.py``: the geometric mean of the predictions.
.. [2] altermarkive.github.io/numerai-experiments, part 4 (2018): the four models, of which one was missing there.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from numerai_contract import outputs
from numerai_contract.exits import BadDataError, MissingInputError
from numerai_contract.predictions import CLIP_MARGIN, write_predictions
from numerai_contract.scores import COIN_TOSS
from numerai_contract.tables import DATA_TYPES, Table
from numerai_contract.task import TrainingSummary

from ._comparisons import META_MODEL, find_comparison
from ._payout import read_payout
from ._prediction_files import ENSEMBLE_PREFIX, LIVE, VALIDATION, load_predictions, read_live_predictions
from ._selection import PaidScores, objective, select
from ._targets import known_targets, two_blocks
from ._writers import write_json
from .evaluate_operation import prepare_self_test as prepare_self_test  # noqa: PLC0414 (the same predictions)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._targets import Era, KnownTargets

GEOMETRIC_MEAN = f"{ENSEMBLE_PREFIX}geometric_mean"
FLEMING = f"{ENSEMBLE_PREFIX}fleming"
SELECTION = f"{ENSEMBLE_PREFIX}selection"
GAUSS_RANK = f"{ENSEMBLE_PREFIX}gauss_rank"
ENSEMBLES = (GEOMETRIC_MEAN, FLEMING, SELECTION, GAUSS_RANK)
FLEMING_MODELS = ("logistic_regression", "factorization_machines", "gradient_boosted_trees", "pairwise_regression")
WEIGHTS = "weights.json"

Combined = Literal["probabilities", "ranks"]


class Weights(NamedTuple):
    """All that later predictions need of a fit.

    Attributes
    ----------
    models : list of str
        The models of all ensembles, in the order of the weights.
    combines : {"probabilities", "ranks"}
        The values that `SELECTION` is a weighted mean of.
    weights, gauss_rank : numpy.ndarray of float64, shape (models,)
        Of `SELECTION` and of `GAUSS_RANK`, adding up to one.
    """

    models: list[str]
    combines: Combined
    weights: NDArray[np.float64]
    gauss_rank: NDArray[np.float64]

    def combine(self, parts: NDArray[np.float64], table: Table) -> dict[str, NDArray[np.float64]]:
        """Compute the weighted means from the values that are combined, shape (rows, models); ranks replace them."""
        selection = parts @ self.weights
        ranks = parts if self.combines == "ranks" else _parts(parts, "ranks", table)
        normal = np.zeros(len(ranks))
        for column, weight in zip(ranks.T, self.gauss_rank, strict=True):  # a model at a time, for the memory
            normal += weight * ndtri(column)
        return {SELECTION: selection, GAUSS_RANK: ndtr(normal)}


def make(task: Task) -> TrainingSummary:
    """Select the weights, and write them and the ensembles' predictions of the validation table."""
    table, storing, directory = Table(task.parameters.validation, ()), task.parameters.storing, task.model.path
    found = load_predictions(storing / VALIDATION, table, may_lack_newest=True, ensembles=False)
    for note in found.notes:
        task.note(note)
    names = [entry.name for entry in found.entries]
    rows = ~np.isnan(found.values).any(axis=1)
    left_out_rows = int(np.count_nonzero(~rows))
    if left_out_rows:
        task.note(
            f"ensembles: selected on {len(table) - left_out_rows:,} of {len(table):,} rows of {table.path.name}; "
            f"{left_out_rows:,} rows that not every model has are left out"
        )
    targets = known_targets(table, usable=rows)
    means = _geometric_means(names, found.values)
    if not _fleming(names):
        task.note(f"{FLEMING}: the run has none of {', '.join(FLEMING_MODELS)}; it equals {GEOMETRIC_MEAN}")
    combines: Combined = "probabilities" if targets.binary else "ranks"
    parts = _parts(found.values, combines, table)
    selected, by_score, details = _weights(task, names, parts, _goal(task, table, targets))
    weights = Weights(names, combines, selected, by_score)
    _write_weights(directory / WEIGHTS, weights, task.parameters.inputs)
    ids = table.ids.filter(pa.array(rows))
    for name, predictions in (means | weights.combine(parts, table)).items():
        _write(directory / VALIDATION / f"{name}.csv", ids, predictions[rows], task.parameters.inputs)
    chosen = {
        GEOMETRIC_MEAN: {"models": names},
        FLEMING: {"models": [names[index] for index in _fleming(names)]},
        SELECTION: {"weights": dict(zip(names, selected.tolist(), strict=True)), **details},
        GAUSS_RANK: {"weights": dict(zip(names, by_score.tolist(), strict=True))},
        "left_out": sorted(found.left_out),
        "left_out_rows": left_out_rows,
    }
    libraries = ("numerai-tools", "pandas", "scipy")
    return TrainingSummary(len(targets.rows), chosen=chosen, libraries=libraries, table=table)


def apply(task: Task) -> None:
    """Write the ensembles' predictions of the live rows."""
    table, storing = task.testing, task.parameters.storing
    weights = read_weights(task.model.path / WEIGHTS)
    values = np.empty((len(table), len(weights.models)), order="F")
    for column, name in enumerate(weights.models):
        try:
            values[:, column] = read_live_predictions(storing, name, table)
        except MissingInputError as error:
            raise MissingInputError(
                f"{error} The ensembles of this fit need all of its {len(weights.models)} models; a run with "
                "force, or with other models, selects new weights."
            ) from error
    means = _geometric_means(weights.models, values)
    for name, predictions in (means | weights.combine(_parts(values, weights.combines, table), table)).items():
        _write(storing / LIVE / f"{name}.csv", table.ids, predictions, task.parameters.inputs)
    task.progress.log(f"{', '.join(ENSEMBLES)} of {len(weights.models)} models for {len(table):,} rows")


def geometric_mean(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average probabilities geometrically, so that those of 1 and of 0 add up to one.

    Parameters
    ----------
    probabilities
        In (0, 1), or NaN where unknown, shape (rows, models).

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
        In (0, 1); NaN where one is unknown.
    """
    of_one, of_zero = np.zeros(len(probabilities)), np.zeros(len(probabilities))
    for column in probabilities.T:  # a model at a time, for the memory
        clipped = column.clip(CLIP_MARGIN, 1 - CLIP_MARGIN)
        of_one += np.log(clipped)
        of_zero += np.log1p(-clipped)
    models = probabilities.shape[1]
    of_one, of_zero = np.exp(of_one / models), np.exp(of_zero / models)
    mean: NDArray[np.float64] = of_one / (of_one + of_zero)
    return mean


def _fleming(names: list[str]) -> list[int]:
    """Return the indices of Fleming's models."""
    return [index for index, name in enumerate(names) if name in FLEMING_MODELS]


def _geometric_means(names: list[str], predictions: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Compute the geometric means of all models, and of Fleming's, or of all where there is none of his."""
    of_all, fleming = geometric_mean(predictions), _fleming(names)
    return {GEOMETRIC_MEAN: of_all, FLEMING: geometric_mean(predictions[:, fleming]) if fleming else of_all}


def _parts(predictions: NDArray[np.float64], combines: Combined, table: Table) -> NDArray[np.float64]:
    """Return the values that are combined; ranks replace the predictions.

    Ranks are those within the era, from 0 to 1, both excluded; ties share their mean rank. Rows of an unknown era are
    ranked with the rows of their data type.
    """
    if combines == "probabilities":
        return predictions
    groups = table.era_numbers.astype(np.int64) * len(DATA_TYPES)
    for code, data_type in enumerate(DATA_TYPES):
        groups[table.of_type(data_type)] += code
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        predictions[rows] = (rankdata(predictions[rows], axis=0) - 0.5) / len(rows)
    return predictions


def _write(path: Path, ids: pa.ChunkedArray, predictions: NDArray[np.float64], inputs: str | None) -> None:
    write_predictions(path, ids, predictions.clip(CLIP_MARGIN, 1 - CLIP_MARGIN), inputs)


def _write_weights(path: Path, weights: Weights, inputs: str | None) -> None:
    write_json(path, weights._asdict(), inputs)


def read_weights(path: Path) -> Weights:
    """Read the weights of a finished fit.

    Raises
    ------
    BadDataError
        When the file is missing or damaged.
    """
    try:
        has_manifest = outputs.verify(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        weights, gauss_rank = (
            np.array([float(weight) for weight in found[name]]) for name in ("weights", "gauss_rank")
        )
        read = Weights([str(name) for name in found["models"]], found["combines"], weights, gauss_rank)
        has_sizes = len(read.models) == len(weights) == len(gauss_rank) > 0
        is_valid = has_manifest and has_sizes and read.combines in get_args(Combined)
    except (BadDataError, OSError, ValueError, KeyError, TypeError):
        is_valid = False
    if not is_valid:
        raise BadDataError(
            f"{path}: the weights of this fit are missing or damaged. Start the run with force, which makes a new fit."
        )
    return read


class _Goal(NamedTuple):
    """The score that the weights maximise.

    Attributes
    ----------
    name : str
        Its name.
    eras : tuple of Era
        The eras that have it, in order.
    binary : bool
        Whether it is logloss.
    paid : PaidScores or None
        The payout score, if it is that.
    fallback : str or None
        Why it is not.
    """

    name: str
    eras: tuple[Era, ...]
    binary: bool = False
    paid: PaidScores | None = None
    fallback: str | None = None

    def score(
        self, parts: NDArray[np.float64], eras: tuple[Era, ...], pool: ThreadPoolExecutor
    ) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """Create the function that scores weights on some of the eras."""
        return objective(parts, eras, binary=self.binary, paid=self.paid, apply=pool.map)


def _goal(task: Task, table: Table, targets: KnownTargets) -> _Goal:
    """Choose the score: logloss for targets of 0 and 1, else the payout score where two eras have it, else CORR."""
    if targets.binary:
        return _Goal("logloss", targets.eras, binary=True)
    payout, fallback = read_payout(task.parameters)
    if payout is not None:
        meta_model = find_comparison(task, META_MODEL, table) if "mmc" in payout.multipliers else None
        paid = PaidScores(payout, meta_model)
        eras = tuple(era for era in targets.eras if paid.has(era))
        if len(eras) > 1:
            return _Goal(f"mean payout score of the eras, {payout.formula}", eras, paid=paid)
        fallback = f"{len(eras)} eras have all parts of the payout score, {payout.formula}"
    task.note(f"{SELECTION}: selected by CORR, not by the payout score: {fallback}")
    return _Goal("mean CORR of the eras", targets.eras, fallback=fallback)


def _weights(
    task: Task, names: list[str], parts: NDArray[np.float64], goal: _Goal
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
    """Choose the weights of `SELECTION` and of `GAUSS_RANK`, shape (models,); return them and entries in the report."""
    equal = np.full(len(names), 1 / len(names))
    if len(names) == 1:
        return equal, equal, _equal_weights(task, f"{names[0]} is the only model: all ensembles are of its predictions")
    if len(goal.eras) < 2:
        reason = f"{len(goal.eras)} eras have known targets, and the selection needs two: weights are equal"
        return equal, equal, _equal_weights(task, reason)
    first_half, other_half = two_blocks(goal.eras, task.parameters.embargo)
    # a thread for each era: within an era, matrices are too small for several
    with threadpool_limits(1), ThreadPoolExecutor(task.parameters.threads) as pool:
        score = goal.score(parts, first_half, pool)
        with task.progress.step(f"selecting among {len(names)} models on {len(first_half)} eras"):
            selected = select(score, len(names), task.progress.update)
        if selected is None:
            reason = "no model has a score on the eras of the selection: weights are equal"
            return equal, equal, _equal_weights(task, reason)
        other_score = goal.score(parts, other_half, pool)
        singles = score(np.eye(len(names)))
        best = int(np.argmax(singles))
        of_best = np.eye(len(names))[:, best]
        details = {
            "objective": goal.name,
            "fallback": goal.fallback,
            "best_model": names[best],
            "selected": [names[pick] for pick in selected.picks],
            "selected_on": _scored(score, first_half, selected.weights, of_best, equal, binary=goal.binary),
            "scored_on": _scored(other_score, other_half, selected.weights, of_best, equal, binary=goal.binary),
            "equal_weights_because": None,
        }
    return selected.weights, _by_score(singles, binary=goal.binary), details


def _by_score(scores: NDArray[np.float64], *, binary: bool) -> NDArray[np.float64]:
    """Return weights in proportion to the scores above zero, or above a coin's logloss; equal ones without any."""
    gains = np.maximum(scores + (COIN_TOSS if binary else 0.0), 0.0)
    total = float(gains.sum())
    return gains / total if total > 0 else np.full(len(scores), 1 / len(scores))


def _equal_weights(task: Task, reason: str) -> dict[str, Any]:
    task.note(f"{SELECTION}: {reason}")
    return {"equal_weights_because": reason}


def _scored(
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    eras: tuple[Era, ...],
    selected: NDArray[np.float64],
    best: NDArray[np.float64],
    equal: NDArray[np.float64],
    *,
    binary: bool,
) -> dict[str, Any]:
    """Score the selection on some eras, together with the best model on the selection's eras and with equal weights.

    The gain is the difference of the selection and this model; more is better.
    """
    scores = score(np.column_stack([selected, best, equal]))
    known = [None if found == -np.inf else float(found) for found in scores]
    gain = None if known[0] is None or known[1] is None else known[0] - known[1]
    ours, theirs, plain = ((None if found is None else -found) if binary else found for found in known)
    return {
        "eras": [era.number for era in eras],
        "score": ours,
        "best_model_score": theirs,
        "equal_weights_score": plain,
        "gain": gain,
    }


def check_self_test(storing: Path) -> None:
    """Check that all ensembles are complete and not constant, on validation and on live rows."""
    for table, folder in (("validation", storing / "model" / VALIDATION), ("live", storing / LIVE)):
        rows = len(Table(storing / f"{table}.parquet", ()))
        for name in ENSEMBLES:
            path = folder / f"{name}.csv"
            if not path.is_file() or not outputs.verify(path):
                raise BadDataError(f"self-test of ensemble: {path.relative_to(storing)} or its manifest is missing")
            predictions = [line.split(",")[1] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
            if len(predictions) != rows or len(set(predictions)) == 1:
                raise BadDataError(f"self-test of ensemble: {path.relative_to(storing)} is incomplete or constant")
