from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.launcher.conftest import add_old_python, run_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.launcher.conftest import Programs

SHIM = "echo 'pyenv: command not found' >&2; exit 127"


def test_environment_skips_a_shim_which_does_not_run(checkout: Path, programs: Programs, tmp_path: Path) -> None:
    programs.add("python3.12", SHIM)
    real = tmp_path / "pyenv" / "versions" / "3.12.9" / "bin"
    real.mkdir(parents=True)
    programs.add("python-real").rename(real / "python3.12")
    answer = run_environment(checkout, "local", "run", "MODELS=a b")
    assert answer.returncode == 0, answer.stderr
    [sync] = programs.calls("uv sync")
    assert f"--python {real}/python3.12" in sync
    assert "--frozen" in sync
    assert programs.calls("launcher -m launcher run MODELS=a b")


def test_environment_is_synced_only_when_the_lock_changed(checkout: Path, programs: Programs) -> None:
    programs.add("python3.12")
    for _ in range(2):
        assert run_environment(checkout, "local").returncode == 0
    assert len(programs.calls("uv sync")) == 1
    (checkout / "uv.lock").write_text("2\n")
    run_environment(checkout, "local")
    assert len(programs.calls("uv sync")) == 2
    run_environment(checkout, "dev")
    assert "--group dev" in programs.calls("uv sync")[-1]


def test_environment_for_development_keeps_its_tools(checkout: Path, programs: Programs) -> None:
    programs.add("python3.12")
    run_environment(checkout, "dev")
    (checkout / ".venv" / "bin" / "pytest").symlink_to(checkout / "python")
    run_environment(checkout, "local")
    assert len(programs.calls("uv sync")) == 1


def test_environment_failed_installation_prints_the_end_of_its_log(checkout: Path, programs: Programs) -> None:
    programs.add("python3.12")
    uv = programs.folder / "uv"
    uv.write_text(uv.read_text().replace("sync)", "sync) echo no such package >&2; exit 2;"))
    answer = run_environment(checkout, "local")
    assert answer.returncode == 69
    assert "no such package" in answer.stderr
    assert ".cache/environment.log" in answer.stderr


def test_environment_skips_an_old_uv(checkout: Path, programs: Programs, tmp_path: Path) -> None:
    programs.add("python3.12")
    recent = (programs.folder / "uv").rename(programs.folder / "kept")
    programs.add("uv", 'echo "uv 0.4.0"')
    private = checkout / ".uv" / "bin"
    private.mkdir(parents=True)
    recent.rename(private / "uv")
    assert run_environment(checkout, "local").returncode == 0
    assert programs.calls("uv sync")


@pytest.mark.parametrize(
    ("debian", "remedy"),
    [
        (False, "Install Python 3.12 with pip and venv, or uv (https://docs.astral.sh/uv/), and try again."),
        (True, "Install it with: sudo apt-get install python3 python3-venv"),
    ],
)
def test_environment_with_an_old_python_names_it_and_the_remedy(
    checkout: Path, programs: Programs, debian: bool, remedy: str
) -> None:
    add_old_python(programs, "3.9.18", debian=debian)
    answer = run_environment(checkout, "local")
    assert answer.returncode == 69
    assert "there is neither Python 3.12 nor 3.11 on this machine (python3 is Python 3.9.18)" in answer.stderr
    assert remedy in answer.stderr
    assert programs.calls("uv python install -q 3.12")
    assert not programs.calls("apt-get")


def test_environment_with_an_old_python_installs_debians_as_root(checkout: Path, programs: Programs) -> None:
    add_old_python(programs, "3.9.18", user=0, debian=True)
    programs.add("apt-get", f"[[ $1 == install ]] && cp {programs.add('new')} {programs.folder}/python3.11")
    (programs.folder / "cp").symlink_to("/bin/cp")
    answer = run_environment(checkout, "local")
    assert answer.returncode == 0, answer.stderr
    announced, installed = (
        answer.stderr.index(text) for text in (": installing python3 python3-venv", "✓ Environment")
    )
    assert announced < installed
    assert f"--python {programs.folder}/python3.11" in programs.calls("uv sync")[0]


def test_environment_with_no_install_downloads_and_installs_nothing(
    checkout: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_INSTALL", "1")
    add_old_python(programs, "3.9.18", user=0, debian=True)
    answer = run_environment(checkout, "local")
    assert answer.returncode == 69
    assert "without NO_INSTALL=1 the launcher installs it" in answer.stderr
    assert not programs.calls("uv python install")
    assert not programs.calls("apt-get")
