"""Runs the scheduler and kills it when it is unhealthy: ``python -m server.airflow.scheduler_watchdog``.

A scheduler that loses its database for a moment shuts down by waiting for all running tasks: hours and days in which
no task starts. Its container does not end meanwhile, so no restart policy helps. The watchdog kills a scheduler that
has been unhealthy for a while, and Docker restarts it. Model containers keep running, and the next attempts of their
tasks reattach to them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from server.airflow.health import problem_with

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = ("airflow", "scheduler")
INTERVAL_SECONDS = 10.0
TIMEOUT_SECONDS = 120.0
"""Time without a successful health check after which the scheduler is killed."""
START_SECONDS = 600.0


def watch(
    command: tuple[str, ...] = COMMAND,
    is_healthy: Callable[[], bool] = lambda: problem_with("scheduler") is None,
    *,
    interval: float = INTERVAL_SECONDS,
    timeout: float = TIMEOUT_SECONDS,
    start_timeout: float = START_SECONDS,
) -> int:
    """Run a command in a new session, and kill the session when the command is unhealthy for too long.

    Parameters
    ----------
    command
        The command.
    is_healthy
        The health check.
    interval
        Seconds between two checks.
    timeout
        Seconds that it may be unhealthy after it has been healthy.
    start_timeout
        Seconds until its first successful check.

    Returns
    -------
    int
        Its exit code; 1 when it was killed.
    """
    child = subprocess.Popen(command, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    last_healthy = time.monotonic() + start_timeout - timeout
    while True:
        try:
            return child.wait(timeout=interval)
        except subprocess.TimeoutExpired:
            pass
        if is_healthy():
            last_healthy = time.monotonic()
        elif time.monotonic() - last_healthy > timeout:
            print(f"{' '.join(command)} has been unhealthy for {timeout:.0f} s: killing it for a restart", flush=True)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return 1


if __name__ == "__main__":
    sys.exit(watch())
