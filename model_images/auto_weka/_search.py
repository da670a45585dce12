"""The original Auto-WEKA: SMAC selects among WEKA's learners and their options.

Auto-WEKA writes the space of configurations and the scenario (``autoweka.ExperimentConstructor``); one SMAC per seed
then evaluates configurations, each on one fold of a cross-validation at a time and in a separate Java process
(``autoweka.smac.SMACWrapper``), so that a learner that takes too long or too much memory does not end the search.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from numerai_contract.search import POLL_SECONDS

from ._era_folds import SEED
from ._java import PARTS, CancelledError, CpuBudget, ProgramError, command, run, started
from ._search_log import FOLDS

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from numerai_contract.progress import Progress

    from ._budget import SearchPlan
    from ._search_log import SearchLog

# a learner with constant predictions, which the contract rejects
_EXCLUDED = ("weka.classifiers.rules.ZeroR",)
_LAZY = "weka.classifiers.lazy."
_EXPERIMENT, _DATA = "search", "training"
# seconds between two lines of progress, each delayed while other lines are printed: 30 at most in total
_LINE_INTERVAL = 14.0
_MAX_JAVA_INT = 2**31 - 1
# a search that ends after fewer runs would do so again
_MIN_RUNS_TO_RESTART = 20
_SCORE = re.compile(r"SubProcessWrapper: Time\(.*\) Score\((.*)\)")
_NO_SCORE = 1e9


def classpath() -> list[Path]:
    """List the jars of Auto-WEKA and its WEKA."""
    return [PARTS / "autoweka.jar", *sorted((PARTS / "jaxb").glob("*.jar"))]


def search(
    plan: SearchPlan, log: SearchLog, progress: Progress, is_cancelled: Callable[[], bool], update: Callable[[], None]
) -> None:
    """Evaluate configurations until the limit of time or runs.

    Parameters
    ----------
    plan
        Its limits.
    log
        The log of the search, which records the configurations.
    progress
        The progress log.
    is_cancelled
        Called several times a second: whether to stop.
    update
        Called several times a second, for the background predictions.

    Raises
    ------
    ProgramError
        When the search cannot start.
    CancelledError
        When it is cancelled.
    """
    run(
        command(classpath(), plan.heap, "autoweka.ExperimentConstructor", str(_describe(plan))),
        plan.directory,
        CpuBudget(time.monotonic() + max(60, plan.seconds), is_cancelled=is_cancelled),
    )
    experiment = plan.directory / f"{_EXPERIMENT}-{_DATA}"
    lines: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
    with contextlib.ExitStack() as searches:

        def begin(seed: int) -> None:
            process = searches.enter_context(started(_smac(plan, seed), experiment, AUTOWEKA_EXPERIMENT_SEED=str(seed)))
            # the threads end with the processes, which end with the block
            threading.Thread(target=_forward_lines, args=(process, seed, lines), daemon=True).start()

        for seed in plan.seeds:
            begin(seed)
        _process_lines(plan, lines, log, begin, progress, is_cancelled, update)


def _process_lines(
    plan: SearchPlan,
    lines: queue.SimpleQueue[tuple[int, str | None]],
    log: SearchLog,
    begin: Callable[[int], None],
    progress: Progress,
    is_cancelled: Callable[[], bool],
    update: Callable[[], None],
) -> None:
    """Process the output of the searches, until all have ended or their time is over."""
    running = set(plan.seeds)
    runs = dict.fromkeys(plan.seeds, 0)
    errors: dict[int, str] = {}
    began = last_line = time.monotonic()
    last_update = float("-inf")
    while running:
        now = time.monotonic()
        log.seconds = now - began
        if is_cancelled():
            raise CancelledError
        if log.seconds >= plan.seconds:
            return
        if now - last_update >= POLL_SECONDS:
            last_update = now
            update()
        if now - last_line >= _LINE_INTERVAL and progress.update(_share(plan, log), _state(plan, log)):
            last_line = now
        try:
            seed, line = lines.get(timeout=max(0.01, min(began + plan.seconds - now, POLL_SECONDS)))
        except queue.Empty:
            continue
        if line is not None:
            runs[seed] += log.read(line, seed, time.monotonic() - began)
            if "rror" in line and not line.startswith("[INFO"):
                errors.setdefault(seed, line)
            continue
        running.discard(seed)
        other = _successor(plan, seed, runs, errors, progress)
        if other is not None:
            runs[other] = 0
            running.add(other)
            begin(other)


def _successor(
    plan: SearchPlan, seed: int, runs: dict[int, int], errors: dict[int, str], progress: Progress
) -> int | None:
    """Log the early end of a search, and return the seed of its replacement, if another search is useful.

    Over days SMAC may outgrow its memory; its results are in the log, and another search continues from a new start.
    """
    if plan.run_limit is not None and runs[seed] >= plan.run_limit:
        return None
    is_useful = runs[seed] >= _MIN_RUNS_TO_RESTART and plan.run_limit is None
    other = max(runs) + 1 if is_useful else None
    progress.log(
        f"the search with seed {seed} ended after {runs[seed]:,} runs ({errors.get(seed, 'no error message')})"
        + ("" if other is None else f"; continuing with seed {other}")
    )
    return other


def _share(plan: SearchPlan, log: SearchLog) -> float:
    runs = log.runs / (plan.run_limit * len(plan.seeds)) if plan.run_limit else 0.0
    return min(max(log.seconds / plan.seconds, runs), 0.99)


def _state(plan: SearchPlan, log: SearchLog) -> str:
    best = log.ranked()[:1]
    error = f"best error {best[0].error:.6f}" if best else "none successful yet"
    return f"{log.seconds:.0f} of {plan.seconds:,} s, {len(log.tried):,} configurations tried, {error}"


def _forward_lines(process: subprocess.Popen[str], seed: int, lines: queue.SimpleQueue[tuple[int, str | None]]) -> None:
    # when the time is over, the stream is closed while this thread reads
    with contextlib.suppress(ValueError, OSError):
        for line in process.stdout or ():
            if line.strip():
                lines.put((seed, line.rstrip("\n")))
    lines.put((seed, None))


def _smac(plan: SearchPlan, seed: int) -> list[str]:
    """Return the command by which Auto-WEKA would start SMAC, with further options."""
    smac = PARTS / "smac"
    limits = []
    if plan.run_limit is not None:
        # without the second, the number of candidates in a round depends on the speed of the learners
        limits = ["--totalNumRunsLimit", str(plan.run_limit), "--intensificationPercentage", "0"]
    return command(
        [smac / "patches", smac, *sorted(smac.glob("*.jar"))],
        plan.smac_heap,
        "ca.ubc.cs.beta.smac.executors.AutomaticConfigurator",
        *("--seed", str(seed)),
        *("--scenarioFile", "autoweka.scenario"),
        *("--runGroupName", "autoweka"),
        *("--executionMode", "SMAC"),
        # a random start may take all of the time
        *("--initialIncumbent", "DEFAULT"),
        *("--initialN", "1"),
        *("--adaptiveCapping", "false"),
        *("--logModel", "false"),
        # selecting the next one among the default of 10,000 takes longer than evaluating most of them
        *("--numEIRandomConfigs", "2000"),
        *("--subsampleValuesWhenLowOnMemory", "true"),
        *("--stateSerializer", "NULL"),
        *("--doValidation", "false"),
        *("--abortOnFirstRunCrash", "false"),
        *("--logAllCallStrings", "true"),
        *limits,
    )


def excluded_learners(plan: SearchPlan) -> tuple[str, ...]:
    """Return the beginnings of the names of learners that do not take part, alone or as a part of another."""
    return _EXCLUDED if plan.with_lazy else (*_EXCLUDED, _LAZY)


def _describe(plan: SearchPlan) -> Path:
    """Write the experiment description of Auto-WEKA; return its path."""
    batch = ET.Element("experimentBatch")
    experiment = ET.SubElement(batch, "experimentComponent")
    every = (path.name.removesuffix(".params") for path in (PARTS / "params").glob("*/weka.classifiers.*.params"))
    learners = sorted(learner for learner in every if not learner.startswith(excluded_learners(plan)))
    for name, text in (
        ("name", _EXPERIMENT),
        ("resultMetric", plan.metric),
        ("experimentConstructor", "autoweka.smac.SMACExperimentConstructor"),
        ("experimentConstructorArgs", "-experimentpath"),
        ("experimentConstructorArgs", str(plan.directory)),
        ("experimentConstructorArgs", "-propertyoverride"),
        # must be an existing program; `_smac` starts SMAC
        ("experimentConstructorArgs", "smacexecutable=/bin/true"),
        ("extraProps", "executionMode=SMAC:initialIncumbent=DEFAULT:initialN=1"),
        ("instanceGenerator", "autoweka.instancegenerators.CrossValidation"),
        ("instanceGeneratorArgs", f"seed={SEED}:numFolds={FOLDS}"),
        # its clock counts processor time; this module limits the wall-clock time
        ("tunerTimeout", str(min(100 * plan.seconds, _MAX_JAVA_INT))),
        ("trainTimeout", str(plan.seconds_of_part)),
        ("attributeSelection", "false"),
        *(("allowedClassifiers", learner) for learner in learners),
        ("memory", f"{plan.heap}m"),
    ):
        ET.SubElement(experiment, name).text = text
    data = ET.SubElement(batch, "datasetComponent")
    for name, text in (("trainArff", str(plan.training)), ("testArff", str(plan.header)), ("name", _DATA)):
        ET.SubElement(data, name).text = text
    path = plan.directory / "experiment.xml"
    ET.ElementTree(batch).write(path, encoding="utf-8", xml_declaration=True)
    return path


def train(arguments: tuple[str, ...], model: Path, plan: SearchPlan, heap: int, budget: CpuBudget) -> None:
    """Train a configuration on all rows, as Auto-WEKA does with the best one, and save the model.

    Parameters
    ----------
    arguments
        The configuration.
    model
        The path of the file; its name ends with ``.model``.
    plan
        For its files and its metric.
    heap
        Memory, MiB.
    budget
        Its limits.

    Raises
    ------
    ProgramError
        When it fails, or exceeds its budget.
    """
    dataset = f"type=trainTestArff:trainArff={plan.training}:testArff={plan.header}"
    properties = {
        "datasetString": dataset.replace(":", "\\:"),
        "instanceGenerator": "autoweka.instancegenerators.CrossValidation",
        "resultMetric": plan.metric,
        "modelOutputFilePrefix": str(model.with_suffix("")),
    }
    output = run(
        command(
            classpath(),
            heap,
            "autoweka.SubProcessWrapper",
            *("-prop", ":".join(f"{name}={value}" for name, value in properties.items())),
            *("-timeout", f"{budget.seconds:.0f}"),
            *("-wrapper", "default", *arguments),
        ),
        plan.directory,
        budget,
    )
    # a model is written even after a failure; only a successful training has a valid score
    score = _SCORE.search(output)
    if score is None or float(score[1]) >= _NO_SCORE or not model.exists():
        reasons = [line.strip() for line in output.splitlines() if "failed" in line or "terminated" in line]
        raise ProgramError(reasons[0] if reasons else "it wrote no model")
