"""Untrusted files, broken in any way, must not cause unexpected errors or leftover files.

``FUZZ_INPUTS`` is the total number of inputs (``make test-fuzz``: 13,000, of which 10,140 go to ``unzip`` and
to the readers of tables), ``FUZZ_SEED`` selects them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.targets import TARGETS
from tests.samples import ROOT

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(7_200)]

INPUTS = int(os.environ.get("FUZZ_INPUTS", "800"))
SEED = int(os.environ.get("FUZZ_SEED", "67"))
KEPT = ROOT / ".cache" / "fuzz"


@pytest.mark.parametrize("name", TARGETS)
def test_target_each_input_is_accepted_or_rejected_with_a_message(
    name: str, tmp_path: Path, seen: list[dict[str, Any]]
) -> None:
    inputs = max(10, INPUTS * TARGETS[name].share // 1_000)
    folder = tmp_path / name
    folder.mkdir()
    path = os.pathsep.join(str(ROOT / part) for part in ("plugins", "model_images/contract/src", ""))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", name, str(inputs), str(SEED), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    file = folder / "outcome.json"
    if not file.exists():
        kept = keep(folder / "at_hand", name)
        output = done.stderr[-2_000:]
        pytest.fail(f"the process ended ({done.returncode}) with the input that is kept in {kept}: {output}")
    outcome = json.loads(file.read_text(encoding="utf-8"))
    outcome["seconds"] = time.monotonic() - began
    seen.append(outcome)
    assert outcome["inputs"] == inputs
    assert outcome["outcomes"].get("accepted"), "some of them were whole"
    if outcome["findings"]:
        kept = keep(folder / "found", name)
        pytest.fail("\n\n".join([f"kept in {kept}", *outcome["findings"].values()]))


def test_targets_shares_add_up_to_a_thousand() -> None:
    assert sum(target.share for target in TARGETS.values()) == 1_000


def keep(found: Path, name: str) -> Path:
    """Keep inputs in a folder that the next test run does not remove."""
    kept = KEPT / name
    shutil.rmtree(kept, ignore_errors=True)
    if found.exists():
        shutil.copytree(found, kept)
    return kept
