"""Runs inputs on one target in a separate process: damaged bytes may crash the native code that reads them.

    python -m tests.fuzz.worker TARGET INPUTS SEED FOLDER

The folder must be empty. The current input is in ``FOLDER/at_hand``; the outcomes are in
``FOLDER/outcome.json``, and each input that should not have come out so in ``FOLDER/found``.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import TARGETS, Files, Target, classified_as, inputs_of

_MEMORY = 6 * 2**30
_SECONDS_EACH = 60
_MOST_FINDINGS = 25


class _TooSlowError(BaseException):
    """Reading a file of a few kilobytes took too long."""


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise _TooSlowError


class Trial:
    """Runs inputs one after another, up to ``most``, and counts the outcomes."""

    def __init__(self, target: Target, folder: Path, most: int) -> None:
        self._target = target
        self._most = most
        self._at_hand = folder / "at_hand"
        self._found = folder / "found"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        tempfile.tempdir = str(self._temporary)
        self.outcomes: Counter[str] = Counter()
        self.left = 0
        self.findings: dict[str, str] = {}
        self._seen: set[str] = set()

    @property
    def tried(self) -> int:
        """Number of distinct inputs so far."""
        return sum(self.outcomes.values())

    def try_one(self, role: str, name: str, content: bytes) -> None:
        """Run an input; record the outcome without raising an exception."""
        key = f"{role}/{hash(content)}"
        if key in self._seen or self.tried >= self._most:
            return
        self._seen.add(key)
        shutil.rmtree(self._at_hand, ignore_errors=True)
        self._at_hand.mkdir(parents=True)
        (self._at_hand / "input").write_bytes(content)
        (self._at_hand / "input.txt").write_text(f"{role}: {name}\n", encoding="utf-8", errors="replace")
        place = self._at_hand / "place"
        place.mkdir()
        files = Files(place)
        signal.alarm(_SECONDS_EACH)
        try:
            allowed = self._target.attempt(place, role, content, files)
            outcome, wrong, where = "accepted", "", ""
        except BaseException as error:  # noqa: BLE001 - all outcomes are classified
            allowed = []
            kind = classified_as(error)
            outcome = kind or "unclassified"
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
            wrong = "" if kind else f"{error!r:.300}\n{traceback.format_exc()}"
            if kind and not str(error).strip():
                wrong = "the error has no message"
        finally:
            signal.alarm(0)
        self.outcomes[outcome] += 1
        left = set(files.there()) - set(files.before) - set(allowed)
        left |= {str(path.relative_to(self._temporary)) for path in self._temporary.rglob("*")}
        if left:
            self.left += 1
            wrong, where = f"{wrong}\nleftover files: {sorted(left)[:9]}", f"{where} leaves files"
            shutil.rmtree(self._temporary)
            self._temporary.mkdir()
        if wrong and where not in self.findings and len(self.findings) < _MOST_FINDINGS:
            kept = self._found / str(len(self.findings))
            shutil.copytree(self._at_hand, kept)
            self.findings[where] = f"{role}: {name} (kept in {kept})\n{wrong}"


def main(arguments: list[str]) -> int:
    """Run a target; return 0 if all outcomes are expected."""
    target, inputs, start = TARGETS[arguments[0]], int(arguments[1]), int(arguments[2])
    folder = Path(arguments[3])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    trial = Trial(target, folder, inputs)
    known = [(role, name, content) for role, seeds in target.seeds().items() for name, content in seeds.items()]
    # an evenly spread part of the corpus, or all of it with enough inputs
    step = max(1, -(-len(known) // max(1, inputs // 2)))
    for role, name, content in known[start % step :: step]:
        trial.try_one(role, name, content)
    from_corpus = trial.tried

    for round_of in range(50):
        left = inputs - trial.tried
        if left <= 0:
            break

        @seed(start * 1_000 + round_of)
        @settings(
            max_examples=max(left, 10),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs_of(target))
        def more(drawn: tuple[str, str, bytes]) -> None:
            trial.try_one(*drawn)

        more()
        gc.collect()
    shutil.rmtree(folder / "at_hand")
    outcome = {
        "target": arguments[0],
        "seed": start,
        "inputs": trial.tried,
        "from_corpus": from_corpus,
        "left": trial.left,
        "outcomes": dict(sorted(trial.outcomes.items())),
        "findings": trial.findings,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    (folder / "outcome.json").write_text(json.dumps(outcome, indent=1), encoding="utf-8")
    return 1 if trial.findings else 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
