"""The scheduler, and somebody who sees that it lives: ``python -m server.airflow.watched``.

A scheduler that loses its database for a moment shuts down, and does so by waiting for all tasks under way: hours and
days, in which nothing new starts. Its container does not end meanwhile, so no restart policy helps. Here it is ended
once it has not been healthy for a while, and Docker starts it anew; models' containers are not touched by that, and are
taken over by the next try of their tasks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from server.airflow.health import trouble

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = ("airflow", "scheduler")
LOOK_SECONDS = 10.0
PATIENCE_SECONDS = 120.0
"""Without a sign of life; a start takes less than that on any machine that is fit for it."""
START_SECONDS = 600.0


def watch(
    command: tuple[str, ...] = COMMAND,
    is_well: Callable[[], bool] = lambda: trouble("scheduler") is None,
    *,
    look: float = LOOK_SECONDS,
    patience: float = PATIENCE_SECONDS,
    start: float = START_SECONDS,
) -> int:
    """Run a command in a session of its own, and kill all of it when it is not well for too long.

    Parameters
    ----------
    command
        The command.
    is_well
        Whether it is.
    look
        Seconds between two looks.
    patience
        Seconds that it may be unwell, once it has been well.
    start
        Seconds that it may take until it is well for the first time.

    Returns
    -------
    int
        Its exit code; 1 when it was killed.
    """
    child = subprocess.Popen(command, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    last_well = time.monotonic() + start - patience
    while True:
        try:
            return child.wait(timeout=look)
        except subprocess.TimeoutExpired:
            pass
        if is_well():
            last_well = time.monotonic()
        elif time.monotonic() - last_well > patience:
            print(f"{' '.join(command)} has not been healthy for {patience:.0f} s: it is started anew", flush=True)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return 1


if __name__ == "__main__":
    sys.exit(watch())
