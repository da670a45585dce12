"""Generates the directory of a finished run quickly: the file formats are real, the values are random.

``python -m tests.generated_run DIRECTORY`` writes a few runs for manual inspection.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_pipeline.storage.layout import DataLayout, RunLayout, fingerprint
from numerai_pipeline.storage.manifests import manifest_path, write_manifest
from numerai_pipeline.storage.used_objects import RunRef
from tests.generated_results import Write, add_task

MODELS = (
    *("svm", "xgboost", "wide_and_deep", "auto_sklearn", "auto_weka", "logistic_regression", "neural_network", "tpot"),
    *("pairwise_network", "pairwise_regression", "factorization_machines", "gradient_boosted_trees", "lightgbm"),
)
ENSEMBLES = ("ensemble_geometric_mean", "ensemble_fleming", "ensemble_selection", "ensemble_gauss_rank")
DAG_RUN = RunRef("numerai_tournament", "manual__2026-08-15T13:00:00+00:00")
FORMULA = "3 x corr60 + 15 x mmc60"
CREATED_AT = "2026-08-15T14:30:00+00:00"  # five days after the fits
FOUR_MAPS = ("perplexity_05", "perplexity_30", "perplexity_30_polynomial", "perplexity_50")


def make_run(
    data_dir: Path,
    round_name: str = "1335",
    *,
    seed: int = 67,
    models: tuple[str, ...] = MODELS[:8],
    eras: int = 60,
    evaluated: bool = True,
    tables: bool = True,
    binary: bool = True,
    dag_run: RunRef = DAG_RUN,
    unavailable: Mapping[str, str] | None = None,
    former: bool = False,
) -> RunLayout:
    """Write a run's directory.

    Parameters
    ----------
    data_dir, round_name
        Destination.
    seed
        Seed of the values and of the directory's name.
    models
        Names of the models that succeeded; with the ensembles and a reference they are the leaderboard.
    eras
        Validation eras.
    evaluated
        Whether `ensemble` and `evaluate` have run.
    tables
        Whether there are tables, a split and embeddings.
    binary
        Whether targets are 0 or 1.
    dag_run
        The run of Airflow that made it.
    unavailable
        Comparisons that the run does not have: role → reason.
    former
        Whether the directory is of an earlier release: it has all files itself.
    """
    random = np.random.default_rng(seed)
    data = DataLayout(data_dir)
    layout = data.run(round_name, fingerprint({"seed": seed}))
    sides: dict[str, Any] = {
        "training": {"rows": 4_800, "eras": 120},
        "tournament": {"rows": 100 * (eras + 9), "eras": eras + 9},
    }
    facts = {"source": "practice", "version": "v5.3", "feature_set": "small", "target": "target", "every_nth_era": 1}
    numbers = {"era": None, "seed": seed, "features": 42, "unavailable_comparisons": dict(unavailable or {})}
    if not former:
        sides |= {"validation": {"rows": 100 * eras, "eras": eras}, "live": {"rows": 900, "eras": ["0189"]}}
        del sides["tournament"]
        sides |= {"dag": dag_run.dag, "run_id": dag_run.run, "dataset": fingerprint({"dataset": seed})}
        sides |= {"older_datasets": [], "references": None, "created_at": CREATED_AT}
    _write(layout.run_metadata, {"round": round_name, **facts, **numbers, **sides})
    for name in models:
        predictions = layout.predictions(name)
        predictions.parent.mkdir(parents=True, exist_ok=True)
        predictions.write_text("id,prediction\nn1,0.5\n")
        write_manifest(predictions, rows=1, columns=["id", "prediction"])
        _write(layout.report(name), _report(name, random))
        _write(layout.image_record(name), {"image": f"numerai-{_image(name)}:{zlib.crc32(name.encode()):08x}"})
    _write(layout.report("adversarial_validation"), _adversarial(random))
    _write(layout.report("tsne"), {"seconds": 312.4, "peak_memory_mib": 2_204, "validation": None, "chosen": {}})
    if tables:
        _tables(layout, random, eras, binary=binary)
    if evaluated:
        _evaluate(layout, random, models, eras, binary=binary)
    if not former:
        _move_into_results(
            layout, models, fingerprint({"dataset": seed}), variant=[seed, round_name, models, evaluated]
        )
    return layout


def _move_into_results(layout: RunLayout, models: tuple[str, ...], dataset: str, variant: object) -> None:
    """Move the files of a run of an earlier release to where they are since: a dataset, results and links."""
    live_ids = _split_tables(layout, dataset)

    def move(files: Mapping[str, Path]) -> Write:
        def write(directory: Path) -> None:
            for name, source in files.items():
                for path, target in (
                    (source, directory / name),
                    (manifest_path(source), manifest_path(directory / name)),
                ):
                    if path.exists():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        path.rename(target)

        return write

    def add(task: str, files: Mapping[str, Path], prediction: Mapping[str, Path] | None = None) -> None:
        image = layout.image_record(task)
        add_task(
            layout,
            task,
            fit=move({"report.json": layout.report(task), **files}),
            prediction=move(prediction) if prediction else None,
            variant=variant,
            image=json.loads(image.read_text())["image"] if image.exists() else "numerai-classic:0",
            dataset=dataset,
            fit_round="1334",
        )

    for name in models:
        add(name, {}, {f"predictions/{name}.csv": layout.predictions(name)})
    add("adversarial_validation", {"split.parquet": layout.directory / "split.parquet"})
    maps = {f"tsne/{path.name}": path for path in (layout.directory / "tsne").glob("*.parquet")}
    placed = {f"live/{name}": _split_map(path, live_ids) for name, path in maps.items()}
    add("tsne", maps, placed)
    if layout.leaderboard.exists():
        add("ensemble", {}, {f"predictions/{name}.csv": layout.predictions(name) for name in ENSEMBLES})
        folder = layout.evaluation("x").parent
        scores = {f"evaluation/{path.name}": path for path in folder.glob("*.json")}
        add("evaluate", {"leaderboard.json": layout.leaderboard, **scores})
    shutil.rmtree(layout.directory / "images")


def _split_tables(layout: RunLayout, dataset: str) -> pa.Array:
    """Write the tables of the dataset and the live table; return the ids of the latter."""
    if not layout.training.exists():
        return pa.array([], pa.string())
    tables = layout.data.dataset(dataset)
    tables.directory.mkdir(parents=True, exist_ok=True)
    layout.training.rename(tables.training)
    table = pq.read_table(layout.tournament)
    is_known = pc.equal(table["data_type"], "validation")
    pq.write_table(table.filter(is_known), tables.validation)
    live = table.filter(pc.invert(is_known))
    pq.write_table(live, layout.live)
    layout.tournament.unlink()
    return live["id"].combine_chunks()


def _split_map(path: Path, live_ids: pa.Array) -> Path:
    """Move the live rows of an embedding to a file of their own."""
    table = pq.read_table(path)
    is_live = pc.is_in(table["id"], value_set=live_ids)
    pq.write_table(table.filter(pc.invert(is_live)), path)
    live = path.with_name(f"live_{path.name}")
    pq.write_table(table.filter(is_live), live)
    return live


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _image(name: str) -> str:
    own = {"auto_sklearn": "auto-sklearn", "auto_weka": "auto-weka", "tpot": "tpot"}
    return own.get(name, "networks" if name in {"wide_and_deep", "neural_network", "pairwise_network"} else "classic")


def _report(name: str, random: np.random.Generator) -> dict[str, Any]:
    logloss = 0.6915 + random.normal(0, 0.0006)
    report: dict[str, Any] = {
        "operation": name,
        "rows": {"training": 4_320, "held_out": 480, "tournament": 6_900},
        "features": 42,
        "target": "binary",
        "seconds": round(float(random.uniform(9, 900)), 3),
        "peak_memory_mib": int(random.integers(180, 3_800)),
        "validation": {"rows": 6_000, "eras": 60, "logloss": logloss, "consistency": 0.7, "correlation": 0.021},
        "chosen": {},
        "notes": ["learning from 4,320 of 4,800 rows (ROW_LIMIT)"] if name == "svm" else [],
    }
    report["chosen"] = {"auto_sklearn": _auto_sklearn, "auto_weka": _auto_weka, "tpot": _tpot}.get(name, dict)()
    return report


def _auto_sklearn() -> dict[str, Any]:
    members = [("gradient_boosting", 0.7, 0.69142), ("mlp", 0.3, 0.69201)]
    configuration = {"classifier:__choice__": "gradient_boosting", "classifier:gradient_boosting:learning_rate": 0.05}
    first = [("sgd", 0.69301, 0.92), ("lda", 0.69288, 1.09), ("gradient_boosting", 0.69142, 6.4), ("mlp", 0.69201, 4.1)]
    return {
        "task": "classifier",
        "metric": "log_loss",
        "search_seconds": 58.15,
        "seconds_per_fit": 15,
        "at_a_time": 2,
        "runs": {"tried": 10, "succeeded": 7, "cut_short": 1, "timed_out": 2, "out_of_memory": 0, "crashed": 0},
        "ensemble": {
            "held_out_loss": 0.69129,
            "members": [
                {"weight": weight, "learner": learner, "held_out_loss": loss, "configuration": configuration}
                for learner, weight, loss in members
            ],
        },
        "trajectory": [
            {"seconds": seconds, "held_out_loss": loss}
            for seconds, loss in ((4.1, 0.69301), (9.8, 0.69288), (17.4, 0.69142), (40.2, 0.69129))
        ],
        "candidates": {
            "order": "96cb9ab8",
            "first": [
                {
                    "learner": learner,
                    "configuration": "208efcdcd254",
                    "outcome": "succeeded",
                    "held_out_loss": loss,
                    "seconds": seconds,
                }
                for learner, loss, seconds in first
            ],
        },
    }


def _auto_weka() -> dict[str, Any]:
    tried = [
        ("bayes.BayesNet", "-Q weka.classifiers.bayes.net.search.local.K2", 0.4981),
        ("trees.J48", "-C 0.39", 0.51),
    ]
    described = [
        {"learner": f"weka.classifiers.{learner}", "options": options, "seed": 67, "folds": 4, "error": error}
        for learner, options, error in tried
    ]
    return {
        **described[0],
        "auto_weka": "2013 (pyautoweka 1.1)",
        "weka": "3.7.7",
        "metric": "rmse",
        "seconds_searched": 60.0,
        "configurations": 4,
        "runs": 9,
        "failed_runs": 1,
        "trajectory": [{"seconds": 17.3, "error": 0.4999, "learner": "x"}, {"seconds": 28.8, "error": 0.4981}],
        "tried": described,
    }


def _tpot() -> dict[str, Any]:
    return {
        "search_space": "weak-signal",
        "population": 20,
        "generations": 3,
        "folds": 3,
        "search_seconds": 60.9,
        "pipelines": {"tried": 61, "succeeded": 55, "timed_out": 4, "out_of_memory": 0, "crashed": 2},
        "best_logloss": 0.69177,
        "pipeline": [{"SelectPercentile": {"percentile": 33.8}}, {"LogisticRegression": {"C": 0.01, "penalty": "l2"}}],
        "trajectory": [{"seconds": 6.0, "logloss": 0.6929}, {"seconds": 33.0, "logloss": 0.69177}],
        "candidates": {
            "first": [{"learner": "LogisticRegression", "pipeline": "024ba97", "outcome": "succeeded", "seconds": 0.9}]
        },
        "exported": "tpot_pipeline.py",
    }


def _adversarial(random: np.random.Generator) -> dict[str, Any]:
    rate = np.linspace(0, 1, 101)
    features = [
        {
            "feature": f"feature_{place * 7 % 42:02}",
            "importance": 0.05 / (1 + place / 3),
            "shift": float(random.normal(0, 0.1)),
            "kolmogorov_smirnov": float(random.uniform(0.01, 0.08)),
        }
        for place in range(12)
    ]
    return {
        "seconds": 4.2,
        "peak_memory_mib": 280,
        "validation": None,
        "chosen": {
            "method": "gradient_boosting",
            "auc": 0.5399,
            "auc_of_folds": [0.5307, 0.5392, 0.5336, 0.5533, 0.5429],
            "roc": {"false_positive_rate": rate.tolist(), "true_positive_rate": (rate**0.84).tolist()},
            "drifting_features": features,
        },
        "notes": ["AUC 0.5399: the two differ a little"],
    }


def _tables(layout: RunLayout, random: np.random.Generator, eras: int, *, binary: bool) -> None:
    values = [0.0, 1.0] if binary else [0.0, 0.25, 0.5, 0.75, 1.0]
    tournament_types = ["validation"] * eras + ["test"] * 8 + ["live"]
    sides = [
        (layout.training, "a", 40, [(f"{era + 1:04}", "train") for era in range(120)]),
        (layout.tournament, "b", 100, [(f"{era + 121:04}", kind) for era, kind in enumerate(tournament_types)]),
    ]
    ids: list[str] = []
    for path, letter, rows, told in sides:
        own = [f"n{letter}{place:06}" for place in range(rows * len(told))]
        kinds = np.repeat([kind for _, kind in told], rows)
        target = random.choice(values, len(own))
        unknown = np.isin(kinds, ["test", "live"])
        columns = {
            "id": own,
            "era": np.repeat([era for era, _ in told], rows),
            "data_type": kinds,
            "target": pa.array(target, pa.float32(), mask=unknown),
        }
        pq.write_table(pa.table(columns), path)
        ids += own
        if path == layout.training:
            sides_of = np.where(random.random(len(own)) < 0.1, "validation", "train")
            similarity = pa.array(random.random(len(own)), pa.float32())
            pq.write_table(
                pa.table({"id": own, "similarity": similarity, "split": sides_of}), layout.directory / "split.parquet"
            )
    for name in FOUR_MAPS:
        centres = random.normal(0, 30, (7, 2))
        points = (centres[random.integers(0, 7, len(ids))] + random.normal(0, 7, (len(ids), 2))).astype(np.float32)
        order = random.permutation(len(ids))  # rows are found by id
        path = layout.directory / "tsne" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        drawn = {"id": [ids[place] for place in order], "x": points[order, 0], "y": points[order, 1]}
        pq.write_table(pa.table(drawn), path)


def _evaluate(
    layout: RunLayout, random: np.random.Generator, models: tuple[str, ...], eras: int, *, binary: bool
) -> None:
    names = [*models, *ENSEMBLES]
    market = random.normal(0, 0.02, eras)
    rows = []
    for place, name in enumerate([*names, "constant_half"]):
        constant = name == "constant_half"
        skill = 0.012 + 0.003 * random.normal() + (0.006 if name in ENSEMBLES else 0)
        corr = skill + 0.5 * market + random.normal(0, 0.012, eras)
        running = np.concatenate([[0], np.cumsum(corr)])
        row: dict[str, Any] = {
            "model": name,
            "kind": "reference" if constant else "ensemble" if name in ENSEMBLES else "model",
            "rows": 100 * eras,
            "eras": 0 if constant else eras,
            "corr": None if constant else corr.mean(),
            "corr_std": None if constant else corr.std(),
            "sharpe": None if constant else corr.mean() / corr.std(),
            "max_drawdown": None if constant else float(np.max(np.maximum.accumulate(running) - running)),
            "positive_eras": None if constant else float(np.mean(corr > 0)),
            "feature_exposure": None if constant else float(random.uniform(0.1, 0.45)),
            "logloss": (0.693147 if constant else 0.6931 - skill / 8) if binary else None,
            "consistency": (0.0 if constant else float(np.mean(corr > 0))) if binary else None,
            "concordance": None if constant else float(random.uniform(0.02, 0.1)) + 0.1 * (place == 3),
            "concordant": None if constant else place != 3,
            "originality": None if constant else 0.962 if place == 2 else float(random.uniform(0.3, 0.9)),
            "most_like": None if constant else names[0],
            "original": None if constant else place != 2,
        }
        if not binary:
            row |= _numerai_scores(row["corr"], random)
        rows.append((row, corr))
    rows.sort(key=lambda pair: pair[0]["logloss"] if binary else -(pair[0]["payout"] or -1))
    for rank, (row, corr) in enumerate(rows, start=1):
        row["rank"] = rank
        by_era = [
            {"era": 121 + era, "rows": 100, "corr": None if row["corr"] is None else corr[era], "logloss": 0.69}
            for era in range(eras)
        ]
        told = {} if row["kind"] == "reference" else _distribution(random)
        _write(layout.evaluation(row["model"]), {**row, "by_era": by_era, "distribution": told})
    alike = random.uniform(0.2, 0.9, (len(names), len(names)))
    matrix = (alike + alike.T) / 2
    matrix[0, 1] = matrix[1, 0] = -0.12
    np.fill_diagonal(matrix, 1.0)
    board = {
        "target": "binary" if binary else "graded",
        "sorted_by": "logloss" if binary else "payout",
        "ranking": {
            "formula": "logloss" if binary else FORMULA,
            "eras": list(range(121 if binary else 121 + eras // 2, 121 + eras)),
            "fallback": None,
        },
        "benchmark": None if binary else "v53_lgbm_ender60",
        "rows": 100 * eras,
        "eras": eras,
        "recent_eras": min(eras, 52),
        "models": [row for row, _ in rows],
        "left_out": {},
        "rank_correlations": {"models": names, "matrix": matrix.tolist()},
    }
    for name in ENSEMBLES:
        path = layout.predictions(name)
        path.write_text("id,prediction\nn1,0.5\n")
        write_manifest(path, rows=1, columns=["id", "prediction"])
    weights = dict(zip(models, random.dirichlet(np.full(len(models), 0.4)).round(2).tolist(), strict=True))
    scored = {"eras": list(range(eras // 2)), "gain": 0.00021}
    objective = "logloss" if binary else f"mean payout score of the eras, {FORMULA}"
    selection = {"weights": weights, "objective": objective, "best_model": models[0], "scored_on": scored}
    chosen = {"ensemble_selection": {**selection, "equal_weights_because": None}}
    _write(layout.report("ensemble"), {"seconds": 8.1, "peak_memory_mib": 410, "validation": None, "chosen": chosen})
    _write(layout.report("evaluate"), {"seconds": 14.9, "peak_memory_mib": 620, "validation": None, "chosen": {}})
    _write(layout.leaderboard, board)


def _numerai_scores(corr: float | None, random: np.random.Generator) -> dict[str, float | None]:
    """Give the scores of targets of several grades, over all eras and over the last 52 weeks."""
    names = ("mmc", "bmc", "fnc", "meta_model_correlation")
    of_both: dict[str, float | None] = {}
    for suffix in ("", "_52_weeks"):
        found = dict.fromkeys(("payout", "corr", *names, "feature_exposure"), None)
        if corr is not None:
            own = corr + (0.002 * random.normal() if suffix else 0)
            mmc, bmc, fnc = (float(value) for value in random.normal([0.002, 0.001, 0.8 * own], 0.002))
            alike, exposure = float(random.uniform(0.3, 0.9)), float(random.uniform(0.1, 0.45))
            found = dict(zip(found, (3 * own + 15 * mmc, own, mmc, bmc, fnc, alike, exposure), strict=True))
        of_both |= {f"{name}{suffix}": value for name, value in found.items()}
    return of_both | {"payout_eras": 0 if corr is None else 30}


def _distribution(random: np.random.Generator) -> dict[str, Any]:
    sample = 0.5 + 0.01 * random.normal() + random.uniform(0.01, 0.04) * random.standard_normal(8_000)
    edges = np.histogram_bin_edges(sample, 40)
    parts = {part: sample[first::3] for first, part in enumerate(("validation", "test", "live"))}
    counts = {part: np.histogram(values, edges)[0].tolist() for part, values in parts.items()}
    return {"edges": edges.tolist(), **counts}


def main() -> None:
    """Write a few runs for manual inspection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    data_dir = parser.parse_args().directory
    make_run(data_dir)
    make_run(data_dir, "1335", seed=5, evaluated=False, tables=False, models=MODELS[:3])
    make_run(data_dir, "1330", seed=6, models=MODELS)
    make_run(data_dir, "1329", seed=7, models=MODELS, former=True)


if __name__ == "__main__":
    main()
