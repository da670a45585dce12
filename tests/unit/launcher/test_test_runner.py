"""``make test`` fails when the code is not clean, even if every test passes, and ends its checks when stopped."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import psutil
import pytest
from rich.console import Console

from launcher import test_runner
from launcher.console import Screen
from launcher.context import CommandContext
from launcher.errors import EXIT_FAILED, StoppedError
from launcher.options import ProgramOptions
from launcher.paths import ROOT, ProjectPaths
from launcher.processes import wait_until
from launcher.signals import StopSignals

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLEAN = '"""Nothing."""\n'


@pytest.fixture
def context(tmp_path: Path) -> CommandContext:
    """The context of a command in a checkout with a clean file, a page, and the packages of the pipeline, all empty."""
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "nothing.py").write_text(CLEAN)
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "mkdocs.yml").write_text("site_name: Nothing\nsite_dir: .cache/site\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Nothing\n")
    for name in (".", "core", "storage", "dataset", "models", "leaderboard", "numerai_api", "containers", "dag"):
        package = tmp_path / "plugins" / "numerai_pipeline" / name
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(CLEAN)
    return CommandContext(
        ProjectPaths(tmp_path), Screen(Console(record=True, width=200, force_terminal=False)), StopSignals()
    )


def outcome_of(context: CommandContext, monkeypatch: pytest.MonkeyPatch, tests: Callable[[], int]) -> int:
    """Run ``make test`` with a function instead of this project's tests."""
    monkeypatch.setattr(test_runner, "_with_containers", lambda *_arguments: tests())
    return test_runner.test(context, ProgramOptions.model_validate({}))


def test_make_test_with_clean_code_and_passing_tests_succeeds(
    context: CommandContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome_of(context, monkeypatch, lambda: 0) == 0
    output = context.screen.console.export_text()
    titles = ("Ruff", "Format", "Types", "Packages", "Documentation", "Prose")
    assert all(f"{title:<16}no findings" in output for title in titles)
    assert "Passed" in output


@pytest.mark.parametrize(
    ("code", "title", "finding"),
    [
        (f"{CLEAN}import os\n", "Ruff", "F401"),
        (f"{CLEAN}x = [ 1]\n", "Format", "1 file would be reformatted"),
        (f"{CLEAN}x: int = 'one'\n", "Types", "Incompatible types in assignment"),
    ],
)
def test_make_test_with_a_finding_fails(
    context: CommandContext, monkeypatch: pytest.MonkeyPatch, code: str, title: str, finding: str
) -> None:
    (context.paths.root / "launcher" / "nothing.py").write_text(code)
    assert outcome_of(context, monkeypatch, lambda: 0) == EXIT_FAILED
    output = context.screen.console.export_text()
    assert f"{title:<16}" in output
    assert "has findings:" in output
    assert finding in output
    assert "Passed" not in output


def test_make_test_with_a_failing_test_fails(context: CommandContext, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome_of(context, monkeypatch, lambda: 1) == EXIT_FAILED


def test_make_test_when_stopped_ends_the_checks(context: CommandContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_forever(of: CommandContext, _: object = None) -> int:
        return int(not test_runner._passes(of, "Types", [*test_runner.MODULE, "http.server", "0"]))

    def is_checking() -> bool:
        return any("http.server" in child.cmdline() for child in psutil.Process().children())

    def stopped() -> int:
        assert wait_until(is_checking, 30)
        raise StoppedError

    monkeypatch.setattr(test_runner, "check", check_forever)
    with pytest.raises(StoppedError):
        outcome_of(context, monkeypatch, stopped)
    assert not is_checking()
    assert "has findings" not in context.screen.console.export_text()


def test_make_check_with_stilted_prose_fails(context: CommandContext) -> None:
    (context.paths.root / "launcher" / "nothing.py").write_text('"""Nobody\tknows it."""\n')
    assert test_runner.check(context) == EXIT_FAILED
    assert "unnamed actor 333.33" in context.screen.console.export_text()


def test_make_check_with_a_broken_link_in_the_documentation_fails(context: CommandContext) -> None:
    (context.paths.root / "docs" / "index.md").write_text("# Nothing\n\n[Gone](gone.md)\n")
    assert test_runner.check(context) == EXIT_FAILED
    assert "contains a link 'gone.md'" in context.screen.console.export_text()


def test_package_contracts_reject_a_forbidden_import(context: CommandContext) -> None:
    assert test_runner._passes(context, "Packages", test_runner.LINT_IMPORTS)
    forbidden = context.paths.plugins / "numerai_pipeline" / "core" / "__init__.py"
    for line, contract in (
        ("from numerai_pipeline import dag", "Packages import only packages below them BROKEN"),
        ("import airflow", "Only dag imports Airflow BROKEN"),
    ):
        forbidden.write_text(f'{CLEAN}\n{line}\n\n__all__ = ["{line.split()[-1]}"]\n')
        assert not test_runner._passes(context, "Packages", test_runner.LINT_IMPORTS)
        assert contract in context.screen.console.export_text()


@pytest.mark.parametrize(("cores", "memory", "workers"), [(2, 24, 3), (2, 8, 2), (8, 64, 9), (1, 2, 1)])
def test_workers_are_limited_by_cores_and_memory(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, workers: int
) -> None:
    monkeypatch.setattr(test_runner, "machine_cores", lambda: cores)
    total = psutil.virtual_memory()._replace(total=memory << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: total)
    assert test_runner._workers() == workers
