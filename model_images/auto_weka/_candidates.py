"""What a search has tried: configurations of a learner, their errors on the folds, and which is the best so far.

SMAC says what it does line by line: the command that evaluates a configuration on a fold, then what came of it. That
is all there is to know, and it is known at once, while its result files come late and in part.
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
    """A configuration that was tried.

    Attributes
    ----------
    arguments : tuple of str
        Names and values by turns, as Auto-WEKA passes them to its evaluation.
    seed : int
        Of the search that tried it first.
    errors : dict
        Error by fold.
    failures : int
        How many folds took too long, needed too much memory or crashed.
    """

    arguments: tuple[str, ...]
    seed: int
    errors: dict[str, float] = field(default_factory=dict)
    failures: int = 0

    @property
    def error(self) -> float:
        """Mean error over the folds it was tried on; infinite when it failed on one, or on all so far."""
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


class Journal:
    """What was tried, in order, gathered from the lines of several searches, and for how long they went on."""

    def __init__(self) -> None:
        self.candidates: dict[tuple[str, ...], Candidate] = {}
        self.runs = 0
        self.failed_runs = 0
        self.seconds = 0.0
        self.trajectory: list[tuple[float, float, str]] = []
        self._running: dict[int, tuple[Candidate, str]] = {}

    def read(self, line: str, seed: int, seconds: float) -> bool:
        """Take in a line of the search with this seed, `seconds` after the start; say whether a run has ended."""
        if call := _CALL.search(line):
            fold, arguments = call[1], tuple(shlex.split(call[2]))
            candidate = self.candidates.setdefault(_named(arguments), Candidate(arguments, seed))
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
        self._follow(seconds)
        return True

    @property
    def tried(self) -> list[Candidate]:
        """Those with a result, in the order in which they were begun."""
        return [candidate for candidate in self.candidates.values() if candidate.errors or candidate.failures]

    def ranked(self) -> list[Candidate]:
        """Those that succeeded, the best first.

        One fold flatters: whoever was tried on fewer than half comes after all who were tried on more.
        """
        usable = [candidate for candidate in self.candidates.values() if candidate.error < float("inf")]
        return sorted(usable, key=lambda candidate: (2 * len(candidate.errors) < FOLDS, candidate.error))

    def _follow(self, seconds: float) -> None:
        for best in self.ranked()[:1]:
            if not self.trajectory or self.trajectory[-1][1:] != (best.error, best.learner):
                self.trajectory.append((seconds, best.error, best.learner))


def weka_options(arguments: tuple[str, ...]) -> list[str]:
    """Translate Auto-WEKA's arguments into options of the learner.

    They are sorted by name, which says by prefixes which learner inside which they belong to; the option's own name
    comes last (``-_1_W_1__wcfsl_03_2_W``). Marks in the name say that a value is whole, or that options in quotes
    begin or end; values of ``REMOVED`` stand for flags.
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
        worth = [] if value == "REMOVED" else [str(round(float(value))) if "INT_" in name else value]
        if "QUOTE_START" in name:
            options += option
            quoted = worth
        elif quoted is not None:
            quoted += option + worth
        else:
            options += option + worth
    return options


def _pairs(arguments: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(arguments[::2], arguments[1::2], strict=True))


def _named(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Put arguments in an order that does not depend on who lists them."""
    return tuple(f"{name}={value}" for name, value in sorted(_pairs(arguments)))
