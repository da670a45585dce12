"""Processes the launcher starts: commands it waits for, and services that keep running beside it.

Everything runs in a session of its own. A Ctrl-C on the terminal then reaches only the launcher, which stops the rest
in a sensible order; and a session is found again in full, though Airflow gives each task a process group of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING

import psutil

from launcher.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

POLL_SECONDS = 0.05


class CommandError(LauncherError):
    """A command failed; `output` is the end of what it said."""

    def __init__(self, argv: Sequence[str], code: int | None, output: str) -> None:
        ended = "took too long" if code is None else f"exited with {code}"
        super().__init__(f"{' '.join(argv[:3])} {ended}", output)
        self.argv = list(argv)
        self.code = code
        self.output = output


class Commands:
    """Runs commands, from any thread, and can end all that are under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._cancelled = False

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout: float | None = None,
        first_words_within: float | None = None,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        check: bool = True,
    ) -> str:
        """Run a command to its end and return what it said (on both streams).

        Parameters
        ----------
        argv
            The command; never through a shell.
        timeout
            Seconds after which it is ended.
        first_words_within
            Seconds within which it must have said something in its log, else it is ended.
        log
            A file that its output is appended to, for steps whose output is long.
        env
            Variables set in addition to this process's own.
        cwd
            Working directory.
        stdin
            What it reads; nothing by default.
        stdout
            Where its standard output goes instead.
        check
            Whether a failure raises.

        Raises
        ------
        CommandError
            When it exits with another code than 0, or takes too long.
        """
        words = [str(word) for word in argv]
        with contextlib.ExitStack() as stack:
            sink: IO[bytes] | int = subprocess.PIPE
            offset = 0
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(log.open("ab"))
                offset, sink = file.tell(), file
            process = self._start(words, stdin, stdout or sink, sink if stdout else subprocess.STDOUT, env, cwd)
            code: int | None
            try:
                if first_words_within is not None and log is not None:
                    _wait_for_words(process, log, offset, first_words_within)
                out, err = process.communicate(timeout=timeout)
                code = process.returncode
            except subprocess.TimeoutExpired:
                stop_session(process.pid, grace=2.0, leader=process)
                out, err = process.communicate()
                code = None
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
            raise CommandError(words, code, output)
        return output

    def succeeds(self, argv: Sequence[str | Path], *, timeout: float = 30) -> bool:
        """Whether a command exits with 0; False as well where there is no such command."""
        try:
            self.run(argv, timeout=timeout)
        except (CommandError, OSError):
            return False
        return True

    def cancel(self, grace: float = 3.0) -> None:
        """End all commands under way, and start none from now on."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        stoppers = [
            threading.Thread(target=stop_session, args=(process.pid,), kwargs={"grace": grace, "leader": process})
            for process in running
        ]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()

    def _start(
        self,
        words: Sequence[str],
        stdin: IO[bytes] | None,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
        env: Mapping[str, str] | None,
        cwd: Path | None,
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._cancelled:
                raise CommandError(words, None, "stopped")
            process = subprocess.Popen(
                words,
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
            self._running.add(process)
        return process


@dataclass(frozen=True)
class ServiceRecord:
    """What must be known of a background program to find and stop it later, from another process.

    Attributes
    ----------
    name
        What it is: airflow, practice, dockerd.
    owner
        Which command it serves: run or up.
    session
        Its session, which is the process id of its first process.
    started
        When that process was created (seconds since 1970), to tell it from a later one with the same id.
    """

    name: str
    owner: str
    session: int
    started: float

    @property
    def alive(self) -> bool:
        """Whether any of its processes still runs."""
        return bool(session_members(self.session, self.started))


class Services:
    """The background programs started from this checkout, remembered in a folder, one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._refuses = False

    def refuse_new(self) -> None:
        """Start nothing from now on: what is about to be stopped must not grow behind our back."""
        with self._lock:
            self._refuses = True

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        owner: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> ServiceRecord:
        """Start a program in a session of its own, its output in a new log file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, log.open("wb") as output:
            if self._refuses:
                msg = f"{name} is not started any more: everything is being stopped"
                raise LauncherError(msg)
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
            self._children[process.pid] = process
            try:
                started = float(psutil.Process(process.pid).create_time())
            except psutil.Error:
                started = time.time()
            record = ServiceRecord(name, owner, process.pid, started)
            self._write(record)
        return record

    def adopt(self, record: ServiceRecord, *, owner: str) -> None:
        """Let a running program serve another command from now on."""
        self._write(replace(record, owner=owner))

    def find(self, name: str) -> ServiceRecord | None:
        """Find the record of a program that still runs; one that has gone stale is dropped."""
        try:
            record = ServiceRecord(**json.loads(self._file(name).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        if record.alive:
            return record
        self.forget(name)
        return None

    def exit_code(self, record: ServiceRecord) -> int | None:
        """Exit code of a program this very process started; None while it runs or where it is not known."""
        child = self._children.get(record.session)
        return None if child is None else child.poll()

    def stop(self, name: str, *, grace: float) -> bool:
        """Stop a program with everything it started; says whether there was one."""
        record = self.find(name)
        if record is None:
            return False
        stop_session(record.session, grace=grace, started=record.started, leader=self._children.get(record.session))
        self.forget(name)
        return True

    def forget(self, name: str) -> None:
        """Drop the record of a program."""
        self._file(name).unlink(missing_ok=True)

    def _write(self, record: ServiceRecord) -> None:
        file = self._file(record.name)
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(asdict(record)))
        beside.replace(file)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def session_members(session: int, started: float | None = None) -> list[psutil.Process]:
    """List the processes of a session that have not ended; none if its number is somebody else's by now."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) != session or process.status() == psutil.STATUS_ZOMBIE:
                continue
            # creation times come from the clock ticks since boot: a second apart is still the same process
            if process.pid == session and started is not None and abs(process.create_time() - started) > 2:
                return []
            members.append(process)
    return members


def stop_session(
    session: int, *, grace: float, started: float | None = None, leader: subprocess.Popen[bytes] | None = None
) -> None:
    """Ask every process of a session to end (SIGTERM), and kill what is left after some seconds."""
    for process in session_members(session, started):
        _send(process, signal.SIGTERM)
    if not _gone(session, started, leader, grace):
        for process in session_members(session, started):
            _send(process, signal.SIGKILL)
        _gone(session, started, leader, 2.0)


def wait_until(condition: Callable[[], bool], timeout: float, every: float = POLL_SECONDS) -> bool:
    """Wait for something to come true; says whether it did in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def _gone(session: int, started: float | None, leader: subprocess.Popen[bytes] | None, timeout: float) -> bool:
    def gone() -> bool:
        if leader is not None:
            leader.poll()  # an ended child stays in the process table until it is asked for
        return not session_members(session, started)

    return wait_until(gone, timeout, every=0.1)


def _wait_for_words(process: subprocess.Popen[bytes], log: Path, offset: int, timeout: float) -> None:
    def said_something() -> bool:
        return process.poll() is not None or log.stat().st_size > offset

    if not wait_until(said_something, timeout, every=0.1):
        raise subprocess.TimeoutExpired(process.args, timeout)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)


def end_of(text: str, lines: int = 40) -> str:
    """Give the last lines of a log."""
    return "\n".join(text.rstrip().splitlines()[-lines:])
