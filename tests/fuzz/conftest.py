"""Collects the outcomes of the inputs, and prints them at the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fuzz.report import ENOUGH, PAGE, table, write_page
from tests.fuzz.targets import TARGETS

SEEN = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture(scope="session")
def seen(pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    """Outcomes of the targets so far."""
    return pytestconfig.stash.setdefault(SEEN, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table; a run of all targets with enough inputs also writes it into the documentation."""
    outcomes = config.stash.get(SEEN, [])
    if not outcomes:
        return
    terminalreporter.section("fuzzing")
    terminalreporter.write_line(table(outcomes))
    if len(outcomes) == len(TARGETS) and sum(outcome["inputs"] for outcome in outcomes) >= ENOUGH:
        write_page(outcomes)
        terminalreporter.write_line(f"written into {PAGE}")
