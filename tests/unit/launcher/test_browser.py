from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from launcher import debian
from launcher.browser import ensure_browser, find_browser
from launcher.console import Screen, Step
from launcher.processes import Commands

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.launcher.conftest import Programs


@pytest.fixture
def step() -> Step:
    return Step(Screen(Console(quiet=True)), "Browser")


def bare_debian(monkeypatch: pytest.MonkeyPatch, *, root: bool = True) -> None:
    monkeypatch.setattr(debian, "is_debian", lambda: True)
    monkeypatch.setattr(debian, "is_root", lambda: root)


def test_browser_present_is_used(
    programs: Programs, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare_debian(monkeypatch)
    program = programs.add("google-chrome")
    programs.add("apt-get")
    ensure_browser(step, Commands(), tmp_path / "log", may_install=True)
    assert find_browser() == str(program)
    assert programs.calls() == []


def test_browser_missing_is_installed_from_debian(
    programs: Programs, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare_debian(monkeypatch)
    for name in ("dpkg", "apt-get"):
        programs.add(name)
    ensure_browser(step, Commands(), tmp_path / "log", may_install=True)
    (installing,) = [line for line in programs.calls("apt-get") if " install " in line]
    assert "chromium" in installing.split()
    assert "installed" in step.outcome


@pytest.mark.parametrize(("root", "may_install"), [(False, True), (True, False)])
def test_browser_without_permission_to_install_reports_skipped_tests(
    programs: Programs, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: bool, may_install: bool
) -> None:
    bare_debian(monkeypatch, root=root)
    programs.add("apt-get")
    ensure_browser(step, Commands(), tmp_path / "log", may_install=may_install)
    assert programs.calls() == []
    assert "will be skipped" in step.outcome


def test_browser_failed_installation_reports_skipped_tests(
    programs: Programs, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare_debian(monkeypatch)
    programs.add("dpkg")
    programs.add("apt-get", "exit 100")
    ensure_browser(step, Commands(), tmp_path / "log", may_install=True)
    assert "will be skipped: apt-get could not install chromium" in step.outcome
