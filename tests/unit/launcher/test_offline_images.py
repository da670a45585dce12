"""Offline base images: what is built of which files, with programs in place of Docker, debootstrap and tar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from launcher import debian
from launcher.base_images import BaseImages
from launcher.console import Screen
from launcher.docker_cli import Docker
from launcher.errors import LauncherError
from launcher.offline_images import interpreters
from launcher.paths import ProjectPaths
from launcher.processes import Commands
from tests.unit.launcher.test_base_images import add_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.launcher.conftest import Programs

# a registry that is out of reach; each build keeps its context and can be made to fail once
DOCKER = """
case "$1" in
    image) [[ -e {folder}/has-debian && $3 == debian:* ]] ;;
    pull | buildx) exit 1 ;;
    build)
        rm -rf {folder}/context && cp -r "${{@: -1}}" {folder}/context
        rm {folder}/fail 2>/dev/null && exit 1
        exit 0 ;;
esac
"""
# debootstrap makes the files that are changed after it
DEBOOTSTRAP = 'mkdir -p "$3/etc/apt" && touch "$3/etc/hostname" "$3/etc/resolv.conf"'
TAR = 'for word; do case $word in --file=*) touch "${word#*=}" ;; esac; done'


@pytest.fixture
def machine(programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A Debian machine as root, without a registry, with CPython 3.12 twice."""
    programs.add("docker", DOCKER.format(folder=programs.folder))
    programs.add("debootstrap", DEBOOTSTRAP)
    programs.add("tar", TAR)
    for tool in ("cp", "mkdir"):
        (programs.folder / tool).symlink_to(f"/bin/{tool}")
    (programs.folder / "has-debian").touch()
    found = [add_python(tmp_path / name / "3.12", "3.12") for name in ("one", "another")]
    monkeypatch.setattr(interpreters, "_candidates", lambda version: iter(found if version == "3.12" else []))
    monkeypatch.setattr(debian, "is_root", lambda: True)
    monkeypatch.setattr(debian, "is_debian", lambda: True)
    return programs


def ensure(tmp_path: Path, version: str, *, may_install: bool = False) -> str:
    screen = Screen(Console(record=True, width=200, force_terminal=False))
    bases = BaseImages(Docker(Commands()), ProjectPaths(tmp_path / "checkout"), may_install=may_install)
    with screen.step("Base image") as step:
        bases.ensure({version: ["classic"]}, step)
    return screen.console.export_text()


def test_offline_python_is_built_of_a_cpython_of_the_machine(machine: Programs, tmp_path: Path) -> None:
    report = ensure(tmp_path, "3.12")
    assert "python:3.12-slim-bookworm built from Debian and this machine's CPython" in report
    (build,) = machine.calls("docker build --")
    assert "--pull=false --build-arg DEBIAN_IMAGE=debian:bookworm-slim" in build
    assert "--build-arg PYTHON=/usr/local/bin/python3.12" in build
    assert "libssl3" in build
    assert "--tag python:3.12-slim-bookworm --file " in build
    assert (machine.folder / "context" / "python" / "bin" / "python3.12").exists()
    assert (machine.folder / "context" / "authorities").is_dir()
    assert not machine.calls("debootstrap")


def test_offline_python_that_does_not_run_there_is_replaced_by_another(machine: Programs, tmp_path: Path) -> None:
    (machine.folder / "fail").touch()
    assert "built from Debian" in ensure(tmp_path, "3.12")
    assert len(machine.calls("docker build --")) == 2


def test_offline_python_of_debian_is_installed_from_its_packages(machine: Programs, tmp_path: Path) -> None:
    ensure(tmp_path, "3.11")
    (build,) = machine.calls("docker build --")
    assert "--build-arg PYTHON=/usr/bin/python3.11 --build-arg PACKAGES=python3 python3-pip python3-venv" in build
    assert list((machine.folder / "context" / "python").iterdir()) == []


def test_offline_python_without_a_cpython_downloads_one_only_where_allowed(machine: Programs, tmp_path: Path) -> None:
    machine.add("uv")
    with pytest.raises(LauncherError) as raised:
        ensure(tmp_path, "3.9")
    assert "there is no CPython 3.9 on this machine for an offline image" in raised.value.details
    assert not machine.calls("uv")
    with pytest.raises(LauncherError):
        ensure(tmp_path, "3.9", may_install=True)
    assert machine.calls("uv python install 3.9")


def test_offline_debian_is_bootstrapped_once(machine: Programs, tmp_path: Path) -> None:
    (machine.folder / "has-debian").unlink()
    for _ in range(2):
        assert "importing debian:bookworm-slim" in ensure(tmp_path, "3.12")
    (bootstrap,) = machine.calls("debootstrap")
    assert bootstrap.startswith("debootstrap --variant=minbase bookworm /")
    (tar,) = machine.calls("tar")
    assert "--exclude=./usr/share/doc/* " in tar
    assert "--exclude=./dev/* ." in tar
    assert len(machine.calls("docker import --change CMD")) == 2


@pytest.mark.parametrize(
    ("name", "remedy"), [("is_root", "requires root on Linux"), ("is_debian", "debootstrap, which builds a Debian")]
)
def test_offline_debian_elsewhere_names_the_remedy(
    machine: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, remedy: str
) -> None:
    for program in ("has-debian", "debootstrap"):
        (machine.folder / program).unlink()
    monkeypatch.setattr(debian, name, lambda: False)
    with pytest.raises(LauncherError) as raised:
        ensure(tmp_path, "3.12", may_install=True)
    assert remedy in "\n".join(raised.value.details)
