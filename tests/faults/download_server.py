"""A server of one file that can pause in the middle of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class DownloadServer:
    """Serves one file.

    Attributes
    ----------
    address : str
        The file's address.
    halfway : threading.Event
        Set when a download is paused in the middle.
    """

    def __init__(self, content: bytes) -> None:
        self.halfway, self._open = threading.Event(), threading.Event()
        self._open.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", '"one"')
                self.end_headers()
                half = len(content) // 2
                self.wfile.write(content[:half])
                self.wfile.flush()
                if not outer._open.is_set():
                    outer.halfway.set()
                    outer._open.wait()
                self.wfile.write(content[half:])

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", '"one"')
                self.end_headers()

            def log_message(self, *_args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/numerai_dataset.zip"

    @contextmanager
    def serving(self) -> Iterator[DownloadServer]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._open.set()
            self._server.shutdown()
            self._server.server_close()

    def pause_halfway(self) -> None:
        """Pause downloads in the middle from now on."""
        self.halfway.clear()
        self._open.clear()

    def resume(self) -> None:
        """Continue them."""
        self._open.set()
