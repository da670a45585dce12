"""The log of a search: configurations of a learner, their errors on the folds, and the best one so far.

It is parsed from SMAC's output, which has the command that evaluates a configuration on a fold, then its result. The
output is complete and immediate, while SMAC's result files are late and partial.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any

FOLDS = 4

# … -wrapper FOLD INFO SECONDS LENGTH SEED -name 'value' -name 'value' …
_CALL = re.compile(r"Call: .* -wrapper (\S+) \S+ \S+ \S+ \S+ (-.*)$")
_RESULT = re.compile(r"Completed run for config \d+ .*=> Result: (\w+), response: ([-+.\dEe]+)")
_SUCCESS = "SAT"


@dataclass
class Candidate:
    """A configuration of a learner.

    Attributes
    ----------
    arguments : tuple of str
        Alternating names and values, as Auto-WEKA passes them to its evaluation.
    seed : int
        Of the search that evaluated it first.
    errors : dict
        Error by fold.
    failures : int
        Number of folds that timed out, ran out of memory or crashed.
    """

    arguments: tuple[str, ...]
    seed: int
    errors: dict[str, float] = field(default_factory=dict)
    failures: int = 0

    @property
    def error(self) -> float:
        """Mean error over its folds so far; infinite when one failed, or when there is none."""
        return float("inf") if self.failures or not self.errors else sum(self.errors.values()) / len(self.errors)

    @property
    def learner(self) -> str:
        """The class of the learner."""
        return dict(_pairs(self.arguments)).get("-targetclass", "?")

    @property
    def options(self) -> str:
        """The learner's options, as on WEKA's command line."""
        return shlex.join(weka_options(self.arguments))

    def described(self) -> dict[str, Any]:
        """Describe it for the report."""
        return {
            "learner": self.learner,
            "options": self.options,
            "seed": self.seed,
            "folds": len(self.errors),
            "error": self.error if self.errors and not self.failures else None,
        }


class SearchLog:
    """Records the configurations in order, from the output of several searches, and the duration of the searches."""

    def __init__(self) -> None:
        self.candidates: dict[tuple[str, ...], Candidate] = {}
        self.runs = 0
        self.failed_runs = 0
        self.seconds = 0.0
        self.trajectory: list[tuple[float, float, str]] = []
        self._running: dict[int, tuple[Candidate, str]] = {}

    def read(self, line: str, seed: int, seconds: float) -> bool:
        """Parse a line of the search with this seed, `seconds` after the start; return whether a run has ended."""
        if call := _CALL.search(line):
            fold, arguments = call[1], tuple(shlex.split(call[2]))
            candidate = self.candidates.setdefault(_canonical(arguments), Candidate(arguments, seed))
            self._running[seed] = candidate, fold
            return False
        result = _RESULT.search(line)
        if result is None or seed not in self._running:
            return False
        candidate, fold = self._running.pop(seed)
        self.runs += 1
        if result[1] == _SUCCESS:
            candidate.errors[fold] = float(result[2])
        else:
            candidate.failures += 1
            self.failed_runs += 1
        self._update_trajectory(seconds)
        return True

    @property
    def tried(self) -> list[Candidate]:
        """Configurations with a result, in the order of their start."""
        return [candidate for candidate in self.candidates.values() if candidate.errors or candidate.failures]

    def ranked(self) -> list[Candidate]:
        """Successful configurations, the best first.

        The error on one fold is unreliable: configurations with fewer than half of the folds come after all others.
        """
        usable = [candidate for candidate in self.candidates.values() if candidate.error < float("inf")]
        return sorted(usable, key=lambda candidate: (2 * len(candidate.errors) < FOLDS, candidate.error))

    def _update_trajectory(self, seconds: float) -> None:
        for best in self.ranked()[:1]:
            if not self.trajectory or self.trajectory[-1][1:] != (best.error, best.learner):
                self.trajectory.append((seconds, best.error, best.learner))


def weka_options(arguments: tuple[str, ...]) -> list[str]:
    """Convert Auto-WEKA's arguments to options of the learner.

    They are sorted by name. Prefixes of a name encode the nested learner that it belongs to; the name of the option is
    its last part (``-_1_W_1__wcfsl_03_2_W``). Marks in the name denote an integer value, or the begin and end of quoted
    options; the value ``REMOVED`` denotes a flag.
    """
    options: list[str] = []
    quoted: list[str] | None = None
    for name, value in sorted(_pairs(arguments)):
        if name == "-targetclass" or "HIDDEN" in name or value == "REMOVE_PREV" or name.startswith("-attribute"):
            continue
        if name.endswith("QUOTE_END"):
            options.append(" ".join(quoted or []))
            quoted = None
            continue
        option = [] if name.endswith("QUOTE_START") else ["--" if "DASHDASH" in name else f"-{name.rpartition('_')[2]}"]
        values = [] if value == "REMOVED" else [str(round(float(value))) if "INT_" in name else value]
        if "QUOTE_START" in name:
            options += option
            quoted = values
        elif quoted is not None:
            quoted += option + values
        else:
            options += option + values
    return options


def _pairs(arguments: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(arguments[::2], arguments[1::2], strict=True))


def _canonical(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Sort arguments, so that equal configurations compare equal."""
    return tuple(f"{name}={value}" for name, value in sorted(_pairs(arguments)))
