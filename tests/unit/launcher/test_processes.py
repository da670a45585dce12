from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from launcher.errors import LauncherError
from launcher.processes import CommandError, Commands, Services, session_members, wait_until

if TYPE_CHECKING:
    from pathlib import Path

# A program like Airflow: a child in a separate process group, and another that ignores SIGTERM.
FAMILY = """
import subprocess, sys, time
apart = "import os, time; os.setpgid(0, 0); time.sleep(600)"
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
for program in (apart, deaf):
    subprocess.Popen([sys.executable, "-c", program])
print("ready", flush=True)
time.sleep(600)
"""
LONG = 20.0


def start_family(services: Services, tmp_path: Path) -> list[psutil.Process]:
    record = services.start("family", [sys.executable, "-c", FAMILY], owner="run", log=tmp_path / "family.log")
    assert wait_until(lambda: len(session_members(record.session)) == 3, LONG)
    assert wait_until(lambda: ignores_sigterm(session_members(record.session)), LONG)
    return session_members(record.session)


def ignores_sigterm(processes: list[psutil.Process]) -> bool:
    def mask(pid: int) -> int:
        with open(f"/proc/{pid}/status") as status:  # noqa: PTH123
            return next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))

    return any(mask(process.pid) & (1 << (signal.SIGTERM - 1)) for process in processes)


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_service_stop_ends_all_of_its_processes(tmp_path: Path) -> None:
    services = Services(tmp_path / "services")
    family = start_family(services, tmp_path)
    assert services.stop("family", grace=0.5)
    assert all(is_over(process) for process in family)
    assert services.find("family") is None


def test_service_is_found_and_stopped_by_another_process(tmp_path: Path) -> None:
    family = start_family(Services(tmp_path / "services"), tmp_path)
    later = Services(tmp_path / "services")
    record = later.find("family")
    assert record is not None
    assert record.owner == "run"
    assert later.stop("family", grace=0.5)
    assert all(is_over(process) for process in family)


def test_service_record_of_a_reused_process_id_is_removed(tmp_path: Path) -> None:
    services = Services(tmp_path / "services")
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        (tmp_path / "services").mkdir()
        (tmp_path / "services" / "old.json").write_text(
            f'{{"name": "old", "owner": "run", "session": {stranger.pid}, "started": 1.0}}'
        )
        assert not services.stop("old", grace=0.1)
        assert stranger.poll() is None
        stranger.kill()
    assert not (tmp_path / "services" / "old.json").exists()


def test_services_start_after_stop_accepting_fails(tmp_path: Path) -> None:
    services = Services(tmp_path / "services")
    services.stop_accepting()
    with pytest.raises(LauncherError, match="not started: everything is being stopped"):
        services.start("late", ["sleep", "600"], owner="run", log=tmp_path / "late.log")


def test_command_failure_has_its_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("from before\n")
    with pytest.raises(CommandError) as raised:
        Commands().run(["sh", "-c", "echo out; echo err >&2; exit 3"], log=log)
    assert raised.value.code == 3
    assert sorted(raised.value.output.split()) == ["err", "out"]
    assert log.read_text().startswith("from before\n")


def test_command_exceeding_its_timeout_is_ended() -> None:
    with pytest.raises(CommandError) as raised:
        Commands().run(["sleep", "600"], timeout=0.2)
    assert raised.value.code is None


def test_command_without_output_is_ended(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        Commands().run(["sleep", "600"], log=tmp_path / "log", first_output_timeout=0.2)
    output = Commands().run(["sh", "-c", "echo hello; sleep 0.5"], log=tmp_path / "log", first_output_timeout=LONG)
    assert output == "hello\n"


def test_commands_cancel_from_another_thread_ends_them() -> None:
    commands = Commands()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            commands.run(["sleep", "600"])
        except CommandError as error:
            errors.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    assert wait_until(lambda: bool(commands._running), LONG)
    commands.cancel()
    worker.join(LONG)
    assert len(errors) == 1
    with pytest.raises(CommandError):
        commands.run(["true"])


def test_command_cancelled_has_no_result() -> None:
    commands = Commands()
    commands.cancel()
    with pytest.raises(CommandError):
        commands.succeeds(["true"])


def test_command_missing_does_not_succeed() -> None:
    assert not Commands().succeeds(["numerai-no-such-command"])
