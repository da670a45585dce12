"""How much of a lasting law the models find among the effects of single eras, for ``docs/results/known-signal.md``.

Trains models by their real operations on the tables of twelve small worlds (`benchmarks.world`), and scores a model by
the correlation of its live predictions with the lasting law. Such a score has no noise of a test: twelve worlds tell
settings apart that a year of rounds cannot. Build the images first (``make images``), then:

    PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.worlds --label after
    PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.worlds --model xgboost --set MAX_TREES=150 --set COLSAMPLE=1
    PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.worlds --model svm xgboost lightgbm --ensembles
    PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.worlds --model logistic_regression --set EMBEDDINGS=none

``--python classic=PATH`` runs the operations of an image with an interpreter that has its requirements, instead of
containers; ``--images FOLDER`` takes operations and ``models.yaml`` from another checkout, to compare with. Results are
stored after each world in ``benchmarks/results/worlds.json``, in a column for each label; what is in it is not measured
again (``--again``).
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from scipy.special import ndtri
from scipy.stats import rankdata

from benchmarks.bench import CORES, Bench, machine
from benchmarks.models_page import write_section
from benchmarks.world import ERAS, FEATURES, LAW, LIVE_ROWS, PRODUCTS, ROWS_PER_ERA, VALIDATION_ERAS, write_world
from numerai_pipeline.core.task_ids import UNZIP
from numerai_pipeline.models.registry import ENSEMBLE_PREFIX, load_registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from numerai_pipeline.models.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results") / "worlds.json"
WORLDS = 12
# the eras of a world are independent: an embargo would only take rows away
NO_EMBARGO = 0
# its embeddings take longer than all models, and a model without them (EMBEDDINGS=none) does not wait for it
_EMBEDS = "tsne"
MEANS = ("mean", "gauss_rank")
"""Ensembles that are computed here, beside those of the operation `ensemble`."""

Results = dict[str, Any]


class WorldBench:
    """Runs models in one world, and keeps their predictions.

    Parameters
    ----------
    number
        Of the world.
    work
        Folder of tables and outputs.
    label
        Whose outputs these are.
    registry, options
        See `benchmarks.bench.Bench`.
    """

    def __init__(self, number: int, work: Path, label: str, registry: Registry, **options: Any) -> None:
        self._registry, self._options = registry, options
        self._tables = work / "tables" / f"{number:02}"
        self._directory = work / label / f"{number:02}"
        if not self._tables.is_dir():
            write_world(number, self._tables)

    def run(self, model: str, settings: Mapping[str, str]) -> tuple[float, dict[str, float]]:
        """Run a model, after the tasks upstream that have not run; return its score and its cost."""
        default = self._bench("default")
        upstream = [task for task in self._registry.tasks if task in self._registry.preprocessing(model)]
        if settings.get("EMBEDDINGS") == "none":
            upstream = [task for task in upstream if task != _EMBEDS]
        for task in upstream:
            if not (default.directory(task) / "model" / "model.json").is_file():
                _succeed(default, self._registry, task)
        # with other settings beside the default outputs, from which the ensembles are made
        bench = self._bench(_folder(settings)) if settings else default
        if settings:
            for task in upstream:
                bench.directory(task).parent.mkdir(parents=True, exist_ok=True)
                _link(bench.directory(task), default.directory(task))
        cost = _succeed(bench, self._registry, model, settings)
        return self._score(_read_live(bench, model)), cost

    def ensembles(self, models: Sequence[str]) -> dict[str, float]:
        """Return the score of each ensemble of models that have run with their default settings."""
        bench = self._bench("default")
        predictions = np.column_stack([_read_live(bench, model) for model in models])
        scores = {name: self._score(combine(predictions, name)) for name in MEANS}
        # exactly these models: others may have run for another measurement
        members = self._bench("+".join(models))
        for model in models:
            members.directory(model).parent.mkdir(parents=True, exist_ok=True)
            _link(members.directory(model), bench.directory(model))
        _succeed(members, self._registry, "ensemble")
        live = members.directory("ensemble") / "predictions"
        for path in sorted(live.glob(f"{ENSEMBLE_PREFIX}*.csv")):
            if not path.name.endswith(".manifest.json"):
                scores[path.stem] = self._score(_read(path))
        return scores

    def _bench(self, folder: str) -> Bench:
        return Bench(self._directory / folder, self._tables, self._registry, embargo=NO_EMBARGO, **self._options)

    def _score(self, predictions: NDArray[np.float64]) -> float:
        return float(np.corrcoef(predictions, np.load(self._tables / LAW))[0, 1])


def combine(predictions: NDArray[np.float64], how: str) -> NDArray[np.float64]:
    """Combine predictions of live rows, shape (rows, models), by their mean or by that of their Gaussian ranks."""
    if how == "mean":
        return predictions.mean(axis=1)
    ranks = (rankdata(predictions, axis=0) - 0.5) / len(predictions)
    return np.asarray(ndtri(ranks)).mean(axis=1)


def _succeed(
    bench: Bench, registry: Registry, task: str, settings: Mapping[str, str] | None = None
) -> dict[str, float]:
    measured = bench.run(registry.tasks[task], settings)
    if measured.exit_code:
        raise SystemExit(f"{bench.directory(task)}: {bench.last_line(task)}")
    names = ("seconds", "processor_seconds", "memory")
    return {name: round(getattr(measured, name), 1) for name in names}


def _link(link: Path, target: Path) -> None:
    if not link.exists():
        link.symlink_to(target.resolve(), target_is_directory=True)


def _folder(settings: Mapping[str, str]) -> str:
    return "_".join(f"{name}={value}" for name, value in sorted(settings.items())) or "default"


def _read_live(bench: Bench, model: str) -> NDArray[np.float64]:
    return _read(bench.directory(model) / "predictions" / f"{model}.csv")


def _read(path: Path) -> NDArray[np.float64]:
    with path.open(newline="") as file:
        return np.array([float(row["prediction"]) for row in csv.DictReader(file)])


def entry_name(model: str, settings: Mapping[str, str]) -> str:
    """Name a model with its settings, such as ``xgboost MAX_TREES=150``."""
    return " ".join([model, *(f"{name}={value}" for name, value in sorted(settings.items()))])


class Scores:
    """The scores of an entry under a label, world by world."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.by_world = {int(world): float(score) for world, score in entry["scores"].items()}
        self.cost = entry.get("cost", {})

    @property
    def mean(self) -> float:
        """Return the mean over the worlds."""
        return float(np.mean(list(self.by_world.values())))

    @property
    def inverted(self) -> int:
        """Return the number of worlds with a correlation below zero."""
        return sum(score < 0 for score in self.by_world.values())

    def against(self, other: Scores) -> tuple[float, float, int, int]:
        """Compare with other scores: mean difference, its standard error, worlds in which it is better, worlds."""
        worlds = sorted(self.by_world.keys() & other.by_world.keys())
        differences = np.array([self.by_world[world] - other.by_world[world] for world in worlds])
        if not len(differences):
            return float("nan"), float("nan"), 0, 0
        error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else float("nan")
        return float(differences.mean()), float(error), int((differences > 0).sum()), len(differences)


def section(results: Results) -> list[str]:
    """Write the section of the page."""
    labels = list(results)
    entries = list(dict.fromkeys(name for label in labels for name in results[label]["entries"]))
    found = {
        (name, label): Scores(results[label]["entries"][name])
        for name in entries
        for label in labels
        if name in results[label]["entries"]
    }
    worlds = sorted({world for scores in found.values() for world in scores.by_world})
    lines = ["## A lasting law among the effects of single eras", ""]
    lines += textwrap.wrap(
        "Made by `benchmarks/worlds.py`; do not edit. Each world has its own law:"
        f" {FEATURES} five-bin features and {PRODUCTS} products of two have weak effects that last, and effects six"
        f" times as strong that are drawn again for every era. The models learn {ERAS} eras of {ROWS_PER_ERA} rows; the"
        f" last {VALIDATION_ERAS} are the validation table, and the final fit has them all. A score is the correlation"
        f" of a model's predictions of {LIVE_ROWS:,} live rows with the lasting law. It has no noise of a test, and"
        " worlds are the only chance in it: *±* is the standard error of the mean over the worlds, and of paired"
        " differences it is much smaller. *Inverted* counts worlds with a correlation below zero.",
        120,
    )
    lines += [""]
    for label in labels:
        made = results[label]
        text = f"- **{label}**: revision `{made['revision']}`, {made['machine']}"
        lines += textwrap.wrap(text, 120, subsequent_indent="  ")
    lines += ["", "| model | " + " | ".join(f"{label} | worlds | inverted" for label in labels) + " | better in |"]
    lines += ["|---" + "|---:" * (3 * len(labels) + 1) + "|"]
    for name in entries:
        cells = [f"`{name}`"]
        for label in labels:
            scores = found.get((name, label))
            cells += (
                ["", "", ""] if scores is None else [_mean(scores), str(len(scores.by_world)), str(scores.inverted)]
            )
        cells.append(_change([found[name, label] for label in labels if (name, label) in found]))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "The worlds, one by one, and the seconds of one of them on the machine above:", ""]
    lines += ["| model | label | " + " | ".join(str(world) for world in worlds) + " | processor s |"]
    lines += ["|---|---" + "|---:" * (len(worlds) + 1) + "|"]
    for (name, label), scores in found.items():
        values = [f"{scores.by_world[world]:.3f}" if world in scores.by_world else "" for world in worlds]
        cost = scores.cost.get("processor_seconds")
        seconds = "" if cost is None else f"{cost:,.0f}"
        lines.append(f"| `{name}` | {label} | {' | '.join(values)} | {seconds} |")
    return lines


def _mean(scores: Scores) -> str:
    values = list(scores.by_world.values())
    if len(values) < 2:
        return f"{scores.mean:.3f}"
    return f"{scores.mean:.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def _change(columns: Sequence[Scores]) -> str:
    """Compare the last of several labels with the first."""
    if len(columns) < 2:
        return ""
    mean, error, better, worlds = columns[-1].against(columns[0])
    return f"{better} of {worlds}: {mean:+.3f} ± {error:.3f}" if worlds else ""


def _revision() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        msg = f"{text!r} is not NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    return name, value


def main() -> None:
    """Measure, store the results, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", help="these models (default: all that depend on no other task)")
    parser.add_argument("--set", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="of the models")
    parser.add_argument("--ensembles", action="store_true", help="then also the ensembles of these models")
    parser.add_argument("--worlds", type=int, default=WORLDS, help="only the first so many (default: %(default)s)")
    parser.add_argument("--label", default="today", help="column of the results (default: %(default)s)")
    parser.add_argument("--revision", help="of the images (default: that of this checkout)")
    parser.add_argument("--again", action="store_true", help="measure again what has results")
    parser.add_argument("--images", type=Path, default=ROOT / "model_images", help="folder of the model images")
    parser.add_argument("--python", type=_pair, action="append", default=[], metavar="IMAGE=PATH", help="no containers")
    parser.add_argument("--cores", type=int, default=CORES, help="cores of every task (default: %(default)s)")
    parser.add_argument("--automl-minutes", type=float, default=2, help="time of a search (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "worlds", help="folder of tables and outputs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--page", action="store_true", help="only write the section again")
    arguments = parser.parse_args()
    results: Results = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
    if not arguments.page:
        _measure(arguments, results)
    if arguments.results == RESULTS:
        write_section("worlds", section(results))


def _measure(arguments: argparse.Namespace, results: Results) -> None:
    console = Console()
    registry = load_registry(arguments.images)
    independent = [spec.name for spec in registry if spec.predicts and spec.depends_on == (UNZIP,)]
    models, settings = arguments.model or independent, dict(arguments.set)
    unknown = [model for model in models if model not in registry.models]
    if unknown:
        raise SystemExit(f"--model {unknown[0]}: the models are {', '.join(registry.models)}")
    if arguments.ensembles and settings:
        raise SystemExit("--ensembles combines models with their default settings: leave out --set")
    label = results.setdefault(arguments.label, {"entries": {}})
    pythons = {image: Path(path).absolute() for image, path in arguments.python}
    where = "processes of the machine, without containers" if pythons else "containers"
    label |= {
        "revision": arguments.revision or _revision(),
        "machine": f"{machine()}; {where}, each with at most {arguments.cores} cores",
    }
    options = {"automl_minutes": arguments.automl_minutes, "cores": arguments.cores, "pythons": pythons}

    def keep(name: str, world: int, score: float, cost: Mapping[str, float] | None = None) -> None:
        entry = label["entries"].setdefault(name, {"scores": {}})
        entry["scores"][str(world)] = round(score, 5)
        if cost is not None:
            entry["cost"] = cost
        arguments.results.parent.mkdir(exist_ok=True)
        arguments.results.write_text(json.dumps(results, indent=1) + "\n")
        console.print(f"world {world}, {name}: {score:+.4f}" + (f", {cost}" if cost else ""))

    for world in range(1, arguments.worlds + 1):
        bench = WorldBench(world, arguments.work, arguments.label, registry, **options)
        for model in models:
            name = entry_name(model, settings)
            if arguments.again or str(world) not in label["entries"].get(name, {"scores": {}})["scores"]:
                keep(name, world, *bench.run(model, settings))
        if arguments.ensembles:
            for name, score in bench.ensembles(models).items():
                keep(f"{name} of {len(models)}", world, score)


if __name__ == "__main__":
    main()
