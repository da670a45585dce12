"""Passes connections on to the Docker engine, for servers between a client and the engine."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SOCKET = "/var/run/docker.sock"


def pass_on(connection: socket.socket, sent: Callable[[bytes], object], first: bytes = b"") -> None:
    """Pass a client's connection on to the engine until both sides have ended.

    Parameters
    ----------
    connection : socket.socket
        The client's.
    sent : callable
        Gets each part that the client sends, before the engine does.
    first : bytes, optional
        A part that was read before.
    """
    with socket.socket(socket.AF_UNIX) as engine:
        engine.connect(SOCKET)
        engine.sendall(first)

        def back() -> None:
            with contextlib.suppress(OSError):
                while answer := engine.recv(65536):
                    connection.sendall(answer)
                connection.shutdown(socket.SHUT_RDWR)

        answering = threading.Thread(target=back, daemon=True)
        answering.start()
        with contextlib.suppress(OSError):
            while more := connection.recv(65536):
                sent(more)
                engine.sendall(more)
            engine.shutdown(socket.SHUT_RDWR)
        answering.join()
