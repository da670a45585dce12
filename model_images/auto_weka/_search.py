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
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from ._candidates import FOLDS
from ._java import PARTS, Allowance, GivenUpError, ProgramError, command, run, started

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from numerai_contract.progress import Progress

    from ._candidates import Journal
    from ._plan import Plan

# a learner that gives every row the same answer: the contract refuses it, so there is no use in trying it
_LEFT_OUT = ("weka.classifiers.rules.ZeroR",)
_EXPERIMENT, _DATA = "search", "training"
# seconds between two lines of progress, each put off while other lines are being printed: within 30 in all
_BETWEEN_LINES = 14.0
# seconds between two looks at whether to stop, and at what goes on beside the search
_BETWEEN_LOOKS = 0.2
_LARGEST_JAVA_INT = 2**31 - 1
# one that ends with less to show for would do so again
_RUNS_WORTH_A_RESTART = 20
_SCORE = re.compile(r"SubProcessWrapper: Time\(.*\) Score\((.*)\)")
_NO_SCORE = 1e9


def classpath() -> list[Path]:
    """List the jars that Auto-WEKA and its WEKA are in."""
    return [PARTS / "autoweka.jar", *sorted((PARTS / "jaxb").glob("*.jar"))]


def search(
    plan: Plan, journal: Journal, progress: Progress, stop: Callable[[], bool], look: Callable[[], None]
) -> None:
    """Try configurations until time or runs are used up.

    Parameters
    ----------
    plan
        What it may use.
    journal
        Where to put down what was tried.
    progress
        Where to say how far it is.
    stop
        Asked several times a second whether to stop.
    look
        Called several times a second, for what goes on beside the search.

    Raises
    ------
    ProgramError
        When the search cannot begin.
    GivenUpError
        When it was asked to stop.
    """
    run(
        command(classpath(), plan.heap, "autoweka.ExperimentConstructor", str(_describe(plan))),
        plan.directory,
        Allowance(until=time.monotonic() + max(60, plan.seconds), unwanted=stop),
    )
    experiment = plan.directory / f"{_EXPERIMENT}-{_DATA}"
    lines: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
    with contextlib.ExitStack() as searches:

        def begin(seed: int) -> None:
            process = searches.enter_context(started(_smac(plan, seed), experiment, AUTOWEKA_EXPERIMENT_SEED=str(seed)))
            # they end by themselves: leaving the block ends what they read from
            threading.Thread(target=_forward, args=(process, seed, lines), daemon=True).start()

        for seed in plan.seeds:
            begin(seed)
        _follow(plan, lines, journal, begin, progress, stop, look)


def _follow(
    plan: Plan,
    lines: queue.SimpleQueue[tuple[int, str | None]],
    journal: Journal,
    begin: Callable[[int], None],
    progress: Progress,
    stop: Callable[[], bool],
    look: Callable[[], None],
) -> None:
    """Read what the searches say, until all have ended or their time is over."""
    going = set(plan.seeds)
    runs = dict.fromkeys(plan.seeds, 0)
    trouble: dict[int, str] = {}
    began = spoke = time.monotonic()
    looked = float("-inf")
    while going:
        now = time.monotonic()
        journal.seconds = now - began
        if stop():
            raise GivenUpError
        if journal.seconds >= plan.seconds:
            return
        if now - looked >= _BETWEEN_LOOKS:
            looked = now
            look()
        if now - spoke >= _BETWEEN_LINES and progress.update(_share(plan, journal), _state(plan, journal)):
            spoke = now
        try:
            seed, line = lines.get(timeout=max(0.01, min(began + plan.seconds - now, _BETWEEN_LOOKS)))
        except queue.Empty:
            continue
        if line is not None:
            runs[seed] += journal.read(line, seed, time.monotonic() - began)
            if "rror" in line and not line.startswith("[INFO"):
                trouble.setdefault(seed, line)
            continue
        going.discard(seed)
        other = _successor(plan, seed, runs, trouble, progress)
        if other is not None:
            runs[other] = 0
            going.add(other)
            begin(other)


def _successor(plan: Plan, seed: int, runs: dict[int, int], trouble: dict[int, str], progress: Progress) -> int | None:
    """Say when a search ended before its time, and choose a seed for another in its place, if that is worth a try.

    Over days SMAC may outgrow its memory; what it found is in the journal, and another goes on from elsewhere.
    """
    if plan.run_limit is not None and runs[seed] >= plan.run_limit:
        return None
    worth = runs[seed] >= _RUNS_WORTH_A_RESTART and plan.run_limit is None
    other = max(runs) + 1 if worth else None
    progress.say(
        f"the search with seed {seed} ended after {runs[seed]:,} runs ({trouble.get(seed, 'it gave no reason')})"
        + ("" if other is None else f"; going on with seed {other}")
    )
    return other


def _share(plan: Plan, journal: Journal) -> float:
    runs = journal.runs / (plan.run_limit * len(plan.seeds)) if plan.run_limit else 0.0
    return min(max(journal.seconds / plan.seconds, runs), 0.99)


def _state(plan: Plan, journal: Journal) -> str:
    best = journal.ranked()[:1]
    error = f"best error {best[0].error:.4f}" if best else "none successful yet"
    return f"{journal.seconds:.0f} of {plan.seconds:,} s, {len(journal.tried):,} configurations tried, {error}"


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


def _describe(plan: Plan) -> Path:
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
        ("experimentConstructorArgs", str(plan.directory)),
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
    for name, text in (("trainArff", str(plan.training)), ("testArff", str(plan.header)), ("name", _DATA)):
        ET.SubElement(data, name).text = text
    path = plan.directory / "experiment.xml"
    ET.ElementTree(batch).write(path, encoding="utf-8", xml_declaration=True)
    return path


def train(arguments: tuple[str, ...], model: Path, plan: Plan, heap: int, allowance: Allowance) -> None:
    """Train a configuration on all rows, as Auto-WEKA does with the best one, and save the model.

    Parameters
    ----------
    arguments
        The configuration.
    model
        Where to; its name ends with ``.model``.
    plan
        For its files and its metric.
    heap
        Memory, MiB.
    allowance
        What it may take.

    Raises
    ------
    ProgramError
        When it fails, or takes more.
    """
    dataset = f"type=trainTestArff:trainArff={plan.training}:testArff={plan.header}"
    properties = {
        "datasetString": dataset.replace(":", "\\:"),
        "instanceGenerator": "autoweka.instancegenerators.CrossValidation",
        "resultMetric": plan.metric,
        "modelOutputFilePrefix": str(model.with_suffix("")),
    }
    said = run(
        command(
            classpath(),
            heap,
            "autoweka.SubProcessWrapper",
            *("-prop", ":".join(f"{name}={value}" for name, value in properties.items())),
            *("-timeout", f"{allowance.seconds:.0f}"),
            *("-wrapper", "default", *arguments),
        ),
        plan.directory,
        allowance,
    )
    # a model is written whatever happened; the score tells one that was trained from one that was given up
    score = _SCORE.search(said)
    if score is None or float(score[1]) >= _NO_SCORE or not model.exists():
        reasons = [line.strip() for line in said.splitlines() if "failed" in line or "terminated" in line]
        raise ProgramError(reasons[0] if reasons else "it left no model")
