"""The newer Auto-WEKA (2.6, built with ``AUTO_WEKA=2.6``): one classifier of WEKA's that is itself the search.

It divides its time by itself, in minutes, and trains the best configuration on everything before it ends; until then
there is nothing to be had from it. So it cannot be given a limit of runs, and a request to stop ends it without a
result, to be tried again. It tells of its choice in the text it prints.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any

from numerai_contract.exits import BadParameterError, ModelFailureError
from numerai_contract.progress import duration

from ._java import PARTS, Allowance, ProgramError, command, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.task import Task

_PACKAGE = PARTS / "package"
_LEARNER = "weka.classifiers.meta.AutoWEKAClassifier"
_METRICS = {"rmse": "rootMeanSquaredError", "errorRate": "errorRate"}
# it gives its search 50 of 60 seconds; what it overruns by was seen to be less than all of it again
_OVERRUN = 2.0
_BETWEEN_LINES = 20.0
_OWN_MEMORY, _BEYOND_HEAP, _OVERSEER_HEAP = 450, 100, 512
_SAID = re.compile(
    r"^(best classifier|arguments|attribute search|attribute search arguments|attribute evaluation|"
    r"attribute evaluation arguments|metric|estimated \w+|training time on evaluation dataset): ?(.*)$",
    re.MULTILINE,
)
_TRIED = re.compile(r"^Tried (\d+) configurations", re.MULTILINE)


def is_here() -> bool:
    """Say whether this image was built with the newer release."""
    return _PACKAGE.is_dir()


def classpath() -> list[Path]:
    """List the jars that it and its WEKA are in."""
    return [PARTS / "weka.jar", _PACKAGE / "autoweka.jar", *sorted((_PACKAGE / "lib").glob("*.jar"))]


def search_and_predict(
    task: Task,
    place: Path,
    learned: Path,
    predict: Callable[[str, Path, int, Allowance], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Search, train the best on all rows, and predict the tournament table.

    Parameters
    ----------
    task
        For its parameters, and to say how far it is.
    place, learned
        A directory for files, and what to learn from.
    predict
        Given learner, model, memory in MiB and what it may take, computes the probabilities.

    Returns
    -------
    probabilities : numpy.ndarray of float64, shape (rows of the tournament,)
    chosen : dict
        For the report.
    """
    parameters = task.parameters
    if "RUN_LIMIT" in parameters:
        raise BadParameterError(
            "RUN_LIMIT is set: Auto-WEKA 2.6 has no such limit. Take it out, or build the other way."
        )
    metric = parameters.text("METRIC", "rmse", choices=tuple(_METRICS))
    minutes = max(1, round((parameters.time_limit or 600) / 60))
    memory = (parameters.memory_limit or 4_096) - _OWN_MEMORY - _OVERSEER_HEAP - _BEYOND_HEAP
    heap = max(256, memory // parameters.threads - 3 * _BEYOND_HEAP)
    model = place / "chosen.model"
    words = command(
        classpath(),
        _OVERSEER_HEAP,
        _LEARNER,
        *("-t", str(learned), "-d", str(model), "-no-cv", "-v"),
        *("-seed", str(parameters.seed % 2**31)),
        *("-timeLimit", str(minutes)),
        *("-memLimit", str(heap)),
        *("-parallelRuns", str(parameters.threads)),
        *("-metric", _METRICS[metric]),
    )
    seconds = 60.0 * minutes
    with task.progress.step(f"searching for {minutes} min with Auto-WEKA 2.6, {parameters.threads} at a time"):
        said = _run_speaking(task, words, place, seconds)
    found = dict(_SAID.findall(said))
    tried = _TRIED.search(said)
    try:
        probabilities = predict(_LEARNER, model, max(256, memory), Allowance(time.monotonic() + max(90.0, seconds)))
    except ProgramError as error:
        raise ModelFailureError(
            f"Auto-WEKA chose {found.get('best classifier', 'a learner')}, and {error}. "
            "Give it more time (automl_minutes), or build the image without AUTO_WEKA=2.6: it can take the next best."
        ) from error
    return probabilities, {
        "learner": found.get("best classifier"),
        "options": found.get("arguments"),
        "attribute_selection": {name: text for name, text in found.items() if name.startswith("attribute")} or None,
        "error": next((text for name, text in found.items() if name.startswith("estimated")), None),
        "metric": metric,
        "seeds": [parameters.seed + number for number in range(parameters.threads)],
        "seconds_searched": seconds,
        "configurations": int(tried[1]) if tried else None,
    }


def _run_speaking(task: Task, words: list[str], place: Path, seconds: float) -> str:
    """Run it to its end, saying how far it is by the clock, since it is silent itself."""
    began = time.monotonic()
    over = threading.Event()

    def speak() -> None:
        while not over.wait(_BETWEEN_LINES):
            spent = time.monotonic() - began
            task.progress.update(min(spent / seconds, 0.99), f"{spent:.0f} of about {seconds:.0f} s")

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        return run(words, place, Allowance(began + _OVERRUN * seconds))
    except ProgramError as error:
        raise ModelFailureError(
            f"Auto-WEKA 2.6 was given {duration(seconds)} and ended without a model: {error}. "
            "Give it more time (automl_minutes), memory, or a smaller ROW_LIMIT."
        ) from error
    finally:
        over.set()
        speaker.join()
