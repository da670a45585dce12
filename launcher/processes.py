"""Processes started by the launcher: commands that it waits for, and services that run beside it.

Each runs in a separate session. A Ctrl-C on the terminal then reaches only the launcher, which stops the others in
order; and all processes of a session can be found, although Airflow puts each task into a separate process group.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any

import psutil

from launcher.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path


class CommandError(LauncherError):
    """A command failed; `output` is its output, and `code` is None if it took too long or was stopped."""

    def __init__(self, argv: Sequence[str], code: int | None, output: str) -> None:
        ended = "took too long" if code is None else f"exited with {code}"
        super().__init__(f"{' '.join(argv[:3])} {ended}", output)
        self.code = code
        self.output = output


def _start(argv: Sequence[str | Path], env: Mapping[str, str] | None, **streams: Any) -> subprocess.Popen[bytes]:
    """Start a program in a new session; `streams` are the other options of `subprocess.Popen`."""
    environment = {**os.environ, **(env or {})}
    return subprocess.Popen([str(word) for word in argv], env=environment, start_new_session=True, **streams)


class Commands:
    """Runs commands from any thread, and can end all running ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._cancelled = False

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout: float | None = None,
        first_output_timeout: float | None = None,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        check: bool = True,
    ) -> str:
        """Run a command to its end and return its output (both streams).

        Parameters
        ----------
        argv
            The command; never through a shell.
        timeout, first_output_timeout
            Seconds after which it is ended, in any case or if its log is still empty.
        log
            A file to which its output is appended, for long outputs.
        env
            Variables in addition to those of this process.
        stdin, stdout
            Files for its standard input, empty by default, and its standard output.
        check
            Whether an exit code other than 0 raises a CommandError, as a timeout does.
        """
        command = [str(word) for word in argv]
        with contextlib.ExitStack() as stack:
            sink: IO[bytes] | int = subprocess.PIPE
            offset = 0
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                sink = stack.enter_context(log.open("ab"))
                offset = sink.tell()
            with self._lock:
                if self._cancelled:
                    raise CommandError(command, None, "stopped")
                streams = {"stdin": stdin or subprocess.DEVNULL, "stdout": stdout or sink}
                process = _start(command, env, cwd=cwd, stderr=sink if stdout else subprocess.STDOUT, **streams)
                self._running.add(process)
            code: int | None = None
            try:
                if first_output_timeout is not None and log is not None:
                    _wait_for_output(process, log, offset, first_output_timeout)
                out, err = process.communicate(timeout=timeout)
                code = process.returncode
            except subprocess.TimeoutExpired:
                stop_session(process.pid, grace=2.0, leader=process)
                out, err = process.communicate()
            except BaseException:
                stop_session(process.pid, grace=2.0, leader=process)
                raise
            finally:
                with self._lock:
                    self._running.discard(process)
        output = (out or err or b"").decode(errors="replace")
        if log is not None:
            output = log.read_bytes()[offset:].decode(errors="replace")
        if check and code != 0:
            raise CommandError(command, code, output)
        return output

    def succeeds(self, argv: Sequence[str | Path]) -> bool:
        """Whether a command exits with 0; False also if there is no such command."""
        try:
            self.run(argv, timeout=30)
        except (CommandError, OSError):
            if self._cancelled:  # the command has no result
                raise
            return False
        return True

    def cancel(self, grace: float = 3.0) -> None:
        """End all running commands, and start no others from now on."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        in_parallel(lambda process: stop_session(process.pid, grace=grace, leader=process), running)


@dataclass(frozen=True)
class ServiceRecord:
    """The record of a background program, by which a later process can find and stop it.

    `owner` is the command that uses it (run or up), `session` the process id of its first process, and `started` the
    creation time of that process (seconds since 1970), which distinguishes it from a later one with the same id.
    """

    name: str
    owner: str
    session: int
    started: float
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether any of its processes still runs."""
        return bool(session_members(self.session, self.started))


class Services:
    """The background programs started from this checkout, each with a record in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def stop_accepting(self) -> None:
        """Start no more programs: the launcher is about to stop all of them."""
        with self._lock:
            self._closed = True

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        owner: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> ServiceRecord:
        """Start a program in a new session, with its output in a new log file and any details in its record."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, log.open("wb") as output:
            if self._closed:
                msg = f"{name} is not started: everything is being stopped"
                raise LauncherError(msg)
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            process = _start(argv, env, cwd=cwd, **streams)
            self._children[process.pid] = process
            try:
                started = float(psutil.Process(process.pid).create_time())
            except psutil.Error:
                started = time.time()
            record = ServiceRecord(name, owner, process.pid, started, dict(details or {}))
            self._write(record)
        return record

    def assign(self, record: ServiceRecord, *, owner: str) -> None:
        """Change the command that uses a running program."""
        self._write(replace(record, owner=owner))

    def find(self, name: str) -> ServiceRecord | None:
        """Find the record of a running program; an outdated record is removed."""
        try:
            record = ServiceRecord(**json.loads(self._file(name).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        if record.alive:
            return record
        self._file(name).unlink(missing_ok=True)
        return None

    def exit_code(self, record: ServiceRecord) -> int | None:
        """Exit code of a program that this process started; None while it runs or if it is unknown."""
        child = self._children.get(record.session)
        return None if child is None else child.poll()

    def stop(self, name: str, *, grace: float) -> bool:
        """Stop a program with all its processes; returns whether there was one."""
        record = self.find(name)
        if record is None:
            return False
        stop_session(record.session, grace=grace, started=record.started, leader=self._children.get(record.session))
        self._file(name).unlink(missing_ok=True)
        return True

    def _write(self, record: ServiceRecord) -> None:
        file = self._file(record.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".new").write_text(json.dumps(asdict(record)))
        file.with_suffix(".new").replace(file)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def session_members(session: int, started: float | None = None) -> list[psutil.Process]:
    """List the running processes of a session; none if its id now belongs to another one."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) != session or process.status() == psutil.STATUS_ZOMBIE:
                continue
            # creation times are computed from clock ticks since boot, to about a second
            if process.pid == session and started is not None and abs(process.create_time() - started) > 2:
                return []
            members.append(process)
    return members


def stop_session(
    session: int, *, grace: float, started: float | None = None, leader: subprocess.Popen[bytes] | None = None
) -> None:
    """Send SIGTERM to every process of a session, and kill the remaining ones after some seconds."""

    def is_gone() -> bool:
        if leader is not None:
            leader.poll()  # an ended child stays in the process table until it is polled
        return not session_members(session, started)

    for number, limit in ((signal.SIGTERM, grace), (signal.SIGKILL, 2.0)):
        for process in session_members(session, started):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        if wait_until(is_gone, limit, every=0.1):
            return


def wait_until(condition: Callable[[], bool], timeout: float, every: float = 0.05) -> bool:
    """Wait for a condition; returns whether it was met in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def in_parallel(function: Callable[[Any], object], values: Iterable[Any]) -> None:
    """Call a function with each of some values, in one thread each, and wait for all."""
    threads = [threading.Thread(target=function, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _wait_for_output(process: subprocess.Popen[bytes], log: Path, offset: int, timeout: float) -> None:
    if not wait_until(lambda: process.poll() is not None or log.stat().st_size > offset, timeout, every=0.1):
        raise subprocess.TimeoutExpired(process.args, timeout)


def tail(text: str, lines: int = 40) -> str:
    """Give the last lines of a text."""
    return "\n".join(text.rstrip().splitlines()[-lines:])
