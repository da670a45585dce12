"""The authors' Auto-WEKA: SMAC choosing among WEKA's learners and their options.

Auto-WEKA writes the space of configurations and the scenario (``autoweka.ExperimentConstructor``); one SMAC a seed then
tries configurations, each on one fold of a cross-validation at a time and in a Java process of its own
(``autoweka.smac.SMACWrapper``), so that a learner that takes too long or too much memory takes nobody along.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from ._candidates import FOLDS, Journal
from ._java import PARTS, ProgramError, command, run, started

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from numerai_contract.progress import Progress

# a learner that gives every row the same answer: the contract refuses it, so there is no use in trying it
_LEFT_OUT = ("weka.classifiers.rules.ZeroR",)
_EXPERIMENT, _DATA = "search", "training"
# seconds between two lines of progress: the supervisor speaks when nothing was said for 25
_BETWEEN_LINES = 20.0
_LARGEST_JAVA_INT = 2**31 - 1
# one that ends with less to show for would do so again
_RUNS_WORTH_A_RESTART = 20
_SCORE = re.compile(r"SubProcessWrapper: Time\(.*\) Score\((.*)\)")
_NO_SCORE = 1e9


class Plan(NamedTuple):
    """What a search may use.

    Attributes
    ----------
    seeds : list of int
        One search runs for each, all at once.
    seconds, seconds_of_part : int
        For the search, and for training on three quarters of the rows.
    run_limit : int or None
        Runs (a configuration on a fold) of each search after which it ends.
    heap, smac_heap : int
        Memory of a learner and of SMAC itself, MiB.
    metric : str
        The error that is made small: ``rmse`` (of the probabilities) or ``errorRate``.
    """

    seeds: list[int]
    seconds: int
    seconds_of_part: int
    run_limit: int | None
    heap: int
    smac_heap: int
    metric: str


def classpath() -> list[Path]:
    """List the jars that Auto-WEKA and its WEKA are in."""
    return [PARTS / "autoweka.jar", *sorted((PARTS / "jaxb").glob("*.jar"))]


def search(plan: Plan, directory: Path, training: Path, header: Path, progress: Progress) -> Journal:
    """Try configurations until time or runs are used up.

    Parameters
    ----------
    plan
        What it may use.
    directory
        For its own files.
    training
        What to learn from, ARFF.
    header
        The same without rows worth speaking of.
    progress
        Where to say how far it is.

    Raises
    ------
    ProgramError
        When the search cannot begin.
    """
    run(
        command(
            classpath(), plan.heap, "autoweka.ExperimentConstructor", str(_describe(plan, directory, training, header))
        ),
        directory,
        seconds=max(60, plan.seconds),
    )
    experiment = directory / f"{_EXPERIMENT}-{_DATA}"
    lines: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
    journal = Journal()
    with contextlib.ExitStack() as searches:

        def begin(seed: int) -> None:
            process = searches.enter_context(started(_smac(plan, seed), experiment, AUTOWEKA_EXPERIMENT_SEED=str(seed)))
            # they end by themselves: leaving the block ends what they read from
            threading.Thread(target=_forward, args=(process, seed, lines), daemon=True).start()

        _follow(plan, lines, journal, begin, progress)
    return journal


def _follow(
    plan: Plan,
    lines: queue.SimpleQueue[tuple[int, str | None]],
    journal: Journal,
    begin: Callable[[int], None],
    progress: Progress,
) -> None:
    """Begin the searches and read what they say, until all have ended or their time is over."""
    going = set(plan.seeds)
    runs = dict.fromkeys(plan.seeds, 0)
    trouble: dict[int, str] = {}
    began = spoke = time.monotonic()
    for seed in plan.seeds:
        begin(seed)
    while going:
        now = time.monotonic()
        if now - began >= plan.seconds:
            return
        if now - spoke >= _BETWEEN_LINES:
            spoke = now
            progress.update(_share(plan, journal, now - began), _state(plan, journal, now - began))
        try:
            seed, line = lines.get(timeout=max(0.01, min(began + plan.seconds, spoke + _BETWEEN_LINES) - now))
        except queue.Empty:
            continue
        if line is not None:
            runs[seed] += journal.read(line, seed, time.monotonic() - began)
            if "rror" in line and not line.startswith("[INFO"):
                trouble.setdefault(seed, line)
            continue
        going.discard(seed)
        if plan.run_limit is not None and runs[seed] >= plan.run_limit:
            continue
        # over days SMAC may outgrow its memory; what it found is in the journal, and another goes on from elsewhere
        other = max(runs) + 1
        restart = runs[seed] >= _RUNS_WORTH_A_RESTART and plan.run_limit is None
        progress.say(
            f"the search with seed {seed} ended after {runs[seed]:,} runs ({trouble.get(seed, 'it gave no reason')})"
            + (f"; going on with seed {other}" if restart else "")
        )
        if restart:
            runs[other] = 0
            going.add(other)
            begin(other)


def _share(plan: Plan, journal: Journal, seconds: float) -> float:
    runs = journal.runs / (plan.run_limit * len(plan.seeds)) if plan.run_limit else 0.0
    return min(max(seconds / plan.seconds, runs), 0.99)


def _state(plan: Plan, journal: Journal, seconds: float) -> str:
    best = journal.ranked()[:1]
    error = f"best error {best[0].error:.4f}" if best else "none successful yet"
    return f"{seconds:.0f} of {plan.seconds:,} s, {len(journal.tried):,} configurations tried, {error}"


def _forward(process: subprocess.Popen[str], seed: int, lines: queue.SimpleQueue[tuple[int, str | None]]) -> None:
    # the stream is closed under the reader's feet when time is over
    with contextlib.suppress(ValueError, OSError):
        for line in process.stdout or ():
            if line.strip():
                lines.put((seed, line.rstrip("\n")))
    lines.put((seed, None))


def _smac(plan: Plan, seed: int) -> list[str]:
    """Put together the command that Auto-WEKA would start SMAC with, and what it leaves to SMAC's defaults."""
    smac = PARTS / "smac"
    limits = []
    if plan.run_limit is not None:
        # without the second, SMAC tries more in a round when the learners at hand are quick, which no seed decides
        limits = ["--totalNumRunsLimit", str(plan.run_limit), "--intensificationPercentage", "0"]
    return command(
        [smac / "patches", smac, *sorted(smac.glob("*.jar"))],
        plan.smac_heap,
        "ca.ubc.cs.beta.smac.executors.AutomaticConfigurator",
        *("--seed", str(seed)),
        *("--scenarioFile", "autoweka.scenario"),
        *("--runGroupName", "autoweka"),
        *("--executionMode", "SMAC"),
        # a random start may be one that takes all the time there is
        *("--initialIncumbent", "DEFAULT"),
        *("--initialN", "1"),
        *("--adaptiveCapping", "false"),
        *("--logModel", "false"),
        # to look for the next among the default of 10,000 takes longer than to try most of them
        *("--numEIRandomConfigs", "2000"),
        *("--subsampleValuesWhenLowOnMemory", "true"),
        *("--stateSerializer", "NULL"),
        *("--doValidation", "false"),
        *("--abortOnFirstRunCrash", "false"),
        *("--logAllCallStrings", "true"),
        *limits,
    )


def _describe(plan: Plan, directory: Path, training: Path, header: Path) -> Path:
    """Write the experiment down as Auto-WEKA wants it."""
    batch = ET.Element("experimentBatch")
    experiment = ET.SubElement(batch, "experimentComponent")
    learners = sorted(
        path.name.removesuffix(".params") for path in (PARTS / "params").glob("*/weka.classifiers.*.params")
    )
    for name, text in (
        ("name", _EXPERIMENT),
        ("resultMetric", plan.metric),
        ("experimentConstructor", "autoweka.smac.SMACExperimentConstructor"),
        ("experimentConstructorArgs", "-experimentpath"),
        ("experimentConstructorArgs", str(directory)),
        ("experimentConstructorArgs", "-propertyoverride"),
        # it insists on a program that exists; SMAC is started by `_smac`
        ("experimentConstructorArgs", "smacexecutable=/bin/true"),
        ("extraProps", "executionMode=SMAC:initialIncumbent=DEFAULT:initialN=1"),
        ("instanceGenerator", "autoweka.instancegenerators.CrossValidation"),
        ("instanceGeneratorArgs", f"seed=0:numFolds={FOLDS}"),
        # its clock counts processor time; the one that counts is ours
        ("tunerTimeout", str(min(100 * plan.seconds, _LARGEST_JAVA_INT))),
        ("trainTimeout", str(plan.seconds_of_part)),
        ("attributeSelection", "false"),
        *(("allowedClassifiers", learner) for learner in learners if learner not in _LEFT_OUT),
        ("memory", f"{plan.heap}m"),
    ):
        ET.SubElement(experiment, name).text = text
    data = ET.SubElement(batch, "datasetComponent")
    for name, text in (("trainArff", str(training)), ("testArff", str(header)), ("name", _DATA)):
        ET.SubElement(data, name).text = text
    path = directory / "experiment.xml"
    ET.ElementTree(batch).write(path, encoding="utf-8", xml_declaration=True)
    return path


def train(arguments: tuple[str, ...], model: Path, training: Path, header: Path, plan: Plan, seconds: float) -> None:
    """Train a configuration on all rows, as Auto-WEKA does with the best one, and save the model.

    Parameters
    ----------
    arguments
        The configuration.
    model
        Where to; its name ends with ``.model``.
    seconds
        For all of it.

    Raises
    ------
    ProgramError
        When it fails, or takes longer.
    """
    dataset = f"type=trainTestArff:trainArff={training}:testArff={header}"
    properties = {
        "datasetString": dataset.replace(":", "\\:"),
        "instanceGenerator": "autoweka.instancegenerators.CrossValidation",
        "resultMetric": plan.metric,
        "modelOutputFilePrefix": str(model.with_suffix("")),
    }
    said = run(
        command(
            classpath(),
            plan.heap,
            "autoweka.SubProcessWrapper",
            *("-prop", ":".join(f"{name}={value}" for name, value in properties.items())),
            *("-timeout", f"{seconds:.0f}"),
            *("-wrapper", "default", *arguments),
        ),
        training.parent,
        seconds,
    )
    # a model is written whatever happened; the score tells one that was trained from one that was given up
    score = _SCORE.search(said)
    if score is None or float(score[1]) >= _NO_SCORE or not model.exists():
        reasons = [line.strip() for line in said.splitlines() if "failed" in line or "terminated" in line]
        raise ProgramError(reasons[0] if reasons else "it left no model")
