from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from launcher import debian
from launcher import engine as engine_module
from launcher.console import Screen
from launcher.docker_cli import Docker
from launcher.engine import SERVICE, Engine, HostInfo, choose_action
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.paths import ProjectPaths
from launcher.processes import Commands, Services

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.launcher.conftest import Programs

BARE_DEBIAN = HostInfo(
    address="unix:///var/run/docker.sock",
    is_linux=True,
    is_root=True,
    is_debian=True,
    has_dockerd=False,
    has_client=False,
)


def advice(host: HostInfo, answer: str = "", *, may_install: bool = True) -> str:
    with pytest.raises(LauncherError) as raised:
        choose_action(host, answer, may_install=may_install)
    assert raised.value.exit_code == EXIT_UNAVAILABLE
    return "\n".join([raised.value.message, *raised.value.details])


def test_choose_action_on_debian_as_root_installs() -> None:
    assert choose_action(BARE_DEBIAN, "", may_install=True) == "install"
    # a client alone, without an engine, changes nothing
    assert choose_action(replace(BARE_DEBIAN, has_client=True), "", may_install=True) == "install"


def test_choose_action_with_installed_engine_starts_it() -> None:
    host = replace(BARE_DEBIAN, has_client=True, has_dockerd=True)
    assert choose_action(host, "", may_install=False) == "start"
    assert "sudo systemctl start docker" in advice(replace(host, is_root=False))


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"is_root": False}, "sudo apt-get install --no-install-recommends docker.io iptables"),
        ({"is_debian": False}, "https://docs.docker.com/engine/install/"),
        ({"is_linux": False}, "Docker Desktop"),
        ({"address": "tcp://10.0.0.1:2375"}, "no Docker engine is reachable at tcp://10.0.0.1:2375"),
    ],
)
def test_choose_action_elsewhere_names_the_remedy(changes: dict[str, Any], remedy: str) -> None:
    assert remedy in advice(replace(BARE_DEBIAN, **changes))


def test_choose_action_with_no_install_names_the_remedy() -> None:
    report = advice(BARE_DEBIAN, may_install=False)
    assert "NO_INSTALL" in report
    assert "apt-get install --no-install-recommends docker.io iptables" in report


def test_choose_action_without_permission_names_the_group() -> None:
    answer = "permission denied while trying to connect to the Docker daemon socket"
    assert "usermod --append --groups docker" in advice(replace(BARE_DEBIAN, is_root=False), answer)


@pytest.fixture
def bare_machine(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A Debian machine as root on which apt-get installs a fake docker and dockerd."""
    running = programs.folder / "running"
    store = programs.folder / "store"
    store.mkdir()
    docker = programs.add(
        "docker",
        f'[[ $1 == ps ]] && exit 0\n[[ -e {running} ]] && echo 20.10.24 || {{ echo "Cannot connect"; exit 1; }}',
    )
    dockerd = programs.add(
        "dockerd", f"touch {running}\ntrap 'rm -f {running}; exit 0' TERM\nwhile true; do sleep 0.1; done"
    )
    for program in (docker, dockerd):
        program.rename(store / program.name)
    programs.add("dpkg")
    install = " && ".join(f"ln -s {store}/{name} {programs.folder}/{name}" for name in ("docker", "dockerd"))
    programs.add("apt-get", f"[[ $1 != install ]] || {{ {install}; }}")
    (programs.folder / "ln").symlink_to("/bin/ln")
    monkeypatch.setattr(engine_module, "SBIN", "")
    monkeypatch.setattr(debian, "is_root", lambda: True)
    monkeypatch.setattr(debian, "is_debian", lambda: True)
    # the real engine of this machine must not matter
    monkeypatch.setattr(Engine, "_is_starting", staticmethod(lambda: False))
    return programs


def make_engine(tmp_path: Path) -> tuple[Engine, Services]:
    paths = ProjectPaths(tmp_path / "checkout")
    services = Services(paths.services)
    return Engine(Docker(Commands()), services, paths), services


def ensure(engine: Engine, *, may_install: bool = True) -> str:
    screen = Screen(Console(record=True, width=120, force_terminal=False))
    with screen.step("Docker engine") as step:
        engine.ensure(step, may_install=may_install)
    return screen.console.export_text()


def test_engine_is_installed_started_and_stopped(bare_machine: Programs, tmp_path: Path) -> None:
    engine, services = make_engine(tmp_path)
    report = ensure(engine)
    assert "installing Debian's (docker.io, iptables)" in report
    assert "Docker 20.10.24 installed and started" in report
    assert "apt-get install -q -y --no-install-recommends docker.io iptables" in bare_machine.calls()
    assert services.find(SERVICE) is not None
    assert engine.stop(also_kept=False) == "stopped the Docker engine"
    assert services.find(SERVICE) is None
    assert not (bare_machine.folder / "running").exists()


def test_engine_start_removes_a_stale_pid_file(bare_machine: Programs, tmp_path: Path) -> None:
    engine, _ = make_engine(tmp_path)
    pid_file = tmp_path / "checkout" / ".cache" / "dockerd.pid"
    pid_file.parent.mkdir(parents=True)
    pid_file.write_text("1")
    ensure(engine)
    assert not pid_file.exists()
    engine.stop(also_kept=False)


def test_engine_running_before_is_used_and_not_stopped(bare_machine: Programs, tmp_path: Path) -> None:
    (bare_machine.folder / "running").touch()
    bare_machine.add("docker", "echo 27.0.1")
    engine, _ = make_engine(tmp_path)
    assert "Docker 27.0.1 is running" in ensure(engine, may_install=False)
    assert engine.stop(also_kept=False) is None
    assert not bare_machine.calls("dockerd")
    assert not bare_machine.calls("apt-get")


def test_engine_release_during_another_command_keeps_it_running(bare_machine: Programs, tmp_path: Path) -> None:
    first, services = make_engine(tmp_path)
    ensure(first)
    second, _ = make_engine(tmp_path)
    ensure(second)
    assert second.stop(also_kept=False) == "kept the Docker engine running: another command of this checkout uses it"
    assert services.find(SERVICE) is not None
    assert first.stop(also_kept=False) == "stopped the Docker engine"


def test_engine_kept_running_is_stopped_only_by_down(bare_machine: Programs, tmp_path: Path) -> None:
    first, services = make_engine(tmp_path)
    ensure(first)
    first.keep_running()
    second, _ = make_engine(tmp_path)
    ensure(second)
    assert second.stop(also_kept=False) is None
    assert services.find(SERVICE) is not None
    third, _ = make_engine(tmp_path)
    assert third.stop() == "stopped the Docker engine"


def test_engine_failing_to_start_reports_the_end_of_its_log(bare_machine: Programs, tmp_path: Path) -> None:
    broken = bare_machine.folder / "store" / "dockerd"
    broken.write_text("#!/bin/bash\necho 'failed to start daemon: no space left on device'\nexit 1\n")
    engine, services = make_engine(tmp_path)
    with pytest.raises(LauncherError, match="did not start") as raised:
        ensure(engine)
    assert "no space left on device" in "\n".join(raised.value.details)
    assert services.find(SERVICE) is None
