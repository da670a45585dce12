"""Auto-WEKA 2.6 (built with ``AUTO_WEKA=2.6``): a WEKA classifier that includes the search.

It divides its time itself, in minutes, and trains the best configuration on all rows before it ends; until then it has
no result. So there is no limit of runs, and a stop request ends it without a result, with the exit code for a retry.
Its model file is the model: there is no final fit.
Its selection is parsed from its output.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from numerai_contract.exits import BadParameterError, ModelFailureError
from numerai_contract.progress import duration

from ._java import PARTS, CpuBudget, ProgramError, command, run

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_contract.task import Task

_PACKAGE = PARTS / "package"
LEARNER = "weka.classifiers.meta.AutoWEKAClassifier"
_METRICS = {"rmse": "rootMeanSquaredError", "errorRate": "errorRate"}
# its search gets 50 of 60 seconds; the measured overrun was less than the whole time again
_OVERRUN = 2.0
_LINE_INTERVAL = 20.0
_BASE_MEMORY, _BEYOND_HEAP, _MANAGER_HEAP = 450, 100, 512
_RESULT = re.compile(
    r"^(best classifier|arguments|attribute search|attribute search arguments|attribute evaluation|"
    r"attribute evaluation arguments|metric|estimated \w+|training time on evaluation dataset): ?(.*)$",
    re.MULTILINE,
)
_TRIED = re.compile(r"^Tried (\d+) configurations", re.MULTILINE)


def is_installed() -> bool:
    """Return whether this image was built with this release."""
    return _PACKAGE.is_dir()


def classpath() -> list[Path]:
    """List its jars and those of its WEKA."""
    return [PARTS / "weka.jar", _PACKAGE / "autoweka.jar", *sorted((_PACKAGE / "lib").glob("*.jar"))]


def search(task: Task, directory: Path, training: Path, model: Path) -> dict[str, Any]:
    """Search, train the best on all rows, and save the model, whose class is `LEARNER`.

    Parameters
    ----------
    task
        For its parameters and its log.
    directory, training
        A directory for files, and the training rows.
    model
        The path of the model file.

    Returns
    -------
    dict
        For the report.
    """
    parameters = task.parameters
    if "RUN_LIMIT" in parameters:
        raise BadParameterError(
            "RUN_LIMIT is set: Auto-WEKA 2.6 has no such limit. Remove it, or build the image without AUTO_WEKA."
        )
    metric = parameters.get_str("METRIC", "rmse", choices=tuple(_METRICS))
    minutes = max(1, round((parameters.time_limit or 600) / 60))
    memory = (parameters.memory_limit or 4_096) - _BASE_MEMORY - _MANAGER_HEAP - _BEYOND_HEAP
    heap = max(256, memory // parameters.threads - 3 * _BEYOND_HEAP)
    command_line = command(
        classpath(),
        _MANAGER_HEAP,
        LEARNER,
        *("-t", str(training), "-d", str(model), "-no-cv", "-v"),
        *("-seed", str(parameters.seed % 2**31)),
        *("-timeLimit", str(minutes)),
        *("-memLimit", str(heap)),
        *("-parallelRuns", str(parameters.threads)),
        *("-metric", _METRICS[metric]),
    )
    seconds = 60.0 * minutes
    with task.progress.step(f"searching for {minutes} min with Auto-WEKA 2.6, {parameters.threads} at a time"):
        output = _run_with_progress(task, command_line, directory, seconds)
    found = dict(_RESULT.findall(output))
    tried = _TRIED.search(output)
    return {
        "learner": found.get("best classifier"),
        "options": found.get("arguments"),
        "attribute_selection": {name: text for name, text in found.items() if name.startswith("attribute")} or None,
        "error": next((text for name, text in found.items() if name.startswith("estimated")), None),
        "metric": metric,
        "seeds": [parameters.seed + number for number in range(parameters.threads)],
        "seconds_searched": seconds,
        "configurations": int(tried[1]) if tried else None,
    }


def _run_with_progress(task: Task, command_line: list[str], directory: Path, seconds: float) -> str:
    """Run it to its end, logging the elapsed time, since it prints nothing."""
    began = time.monotonic()
    over = threading.Event()

    def log_progress() -> None:
        while not over.wait(_LINE_INTERVAL):
            spent = time.monotonic() - began
            task.progress.update(min(spent / seconds, 0.99), f"{spent:.0f} of about {seconds:.0f} s")

    logger = threading.Thread(target=log_progress, daemon=True)
    logger.start()
    try:
        return run(command_line, directory, CpuBudget(began + _OVERRUN * seconds))
    except ProgramError as error:
        raise ModelFailureError(
            f"Auto-WEKA 2.6 ended without a model after {duration(seconds)}: {error}. "
            "Give it more time (automl_minutes), memory, or a smaller ROW_LIMIT."
        ) from error
    finally:
        over.set()
        logger.join()
