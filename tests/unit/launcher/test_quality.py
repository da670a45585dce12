"""``make test`` fails when the code is not clean, though every test passes, and its looks at the code end with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest
from rich.console import Console

from launcher import quality
from launcher.checkout import Checkout
from launcher.console import Screen
from launcher.errors import EXIT_FAILED, StoppedError
from launcher.knobs import parse_knobs
from launcher.processes import wait_until
from launcher.session import Session
from launcher.signals import StopSignals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLEAN = '"""Nothing."""\n'


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A session in a checkout with one file, which is clean."""
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "nothing.py").write_text(CLEAN)
    return Session(Checkout(tmp_path), Screen(Console(record=True, width=200, force_terminal=False)), StopSignals())


def outcome_of(session: Session, monkeypatch: pytest.MonkeyPatch, tests: Callable[[], int]) -> int:
    """Do what ``make test`` does, with other tests than this project's."""
    monkeypatch.setattr(quality, "_with_containers", lambda *_arguments: tests())
    return quality.test(session, parse_knobs("test", {}, ()))


def test_clean_code_and_passing_tests_are_well(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome_of(session, monkeypatch, lambda: 0) == 0
    said = session.screen.console.export_text()
    assert all(f"{title:<16}nothing found" in said for title in ("Ruff", "Format", "Types"))
    assert "All is well" in said


@pytest.mark.parametrize(
    ("code", "title", "finding"),
    [
        (f"{CLEAN}import os\n", "Ruff", "F401"),
        (f"{CLEAN}x = [ 1]\n", "Format", "1 file would be reformatted"),
        (f"{CLEAN}x: int = 'one'\n", "Types", "Incompatible types in assignment"),
    ],
)
def test_a_finding_fails_it_though_all_tests_pass(
    session: Session, monkeypatch: pytest.MonkeyPatch, code: str, title: str, finding: str
) -> None:
    (session.checkout.root / "launcher" / "nothing.py").write_text(code)
    assert outcome_of(session, monkeypatch, lambda: 0) == EXIT_FAILED
    said = session.screen.console.export_text()
    assert f"{title:<16}" in said
    assert "found something:" in said
    assert finding in said
    assert "All is well" not in said


def test_a_failing_test_fails_it_though_the_code_is_clean(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome_of(session, monkeypatch, lambda: 1) == EXIT_FAILED


def test_a_stop_ends_the_looks_at_the_code(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_for_ever(of: Session) -> int:
        return int(not quality._passes(of, "Types", ["http.server", "0"]))

    def looks() -> bool:
        return any("http.server" in child.cmdline() for child in psutil.Process().children())

    def stopped() -> int:
        assert wait_until(looks, 30)
        raise StoppedError

    monkeypatch.setattr(quality, "check", look_for_ever)
    with pytest.raises(StoppedError):
        outcome_of(session, monkeypatch, stopped)
    assert not looks()
    assert "found something" not in session.screen.console.export_text()


@pytest.mark.parametrize(("cores", "memory", "workers"), [(2, 24, 3), (2, 8, 2), (8, 64, 9), (1, 2, 1)])
def test_workers_are_as_many_as_cores_and_memory_bear(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, workers: int
) -> None:
    monkeypatch.setattr(quality, "cores", lambda: cores)
    total = psutil.virtual_memory()._replace(total=memory << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: total)
    assert quality._workers() == workers
