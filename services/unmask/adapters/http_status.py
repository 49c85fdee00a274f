"""A small HTTP server for whoever watches a process: /livez, /readyz and /metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from unmask.core.errors import BadConfig, UnmaskError

_log = logging.getLogger(__name__)
# A probe uses what the process needs; many watchers must not become a load of their own.
_FRESH_SECONDS: Final = 5.0


class StatusServer:
    """Answers on `address` (host:port) from a thread of its own until closed.

    /livez says that the process runs; /readyz runs `probe` (at most every five seconds), which raises an `UnmaskError` while
    the process could not do its work; /metrics is what `page` gives.  Raises `BadConfig` when it cannot bind.
    """

    def __init__(self, address: str, probe: Callable[[], None], page: Callable[[], bytes]) -> None:
        host, _, port = address.rpartition(":")
        self._ready = _Ready(probe)
        handler = _handler({"/livez": lambda: (200, b"alive\n"), "/readyz": self._ready, "/metrics": lambda: (200, page())})
        try:
            self._server = ThreadingHTTPServer((host.strip("[]") or "127.0.0.1", int(port)), handler)
        except (OSError, ValueError, OverflowError) as error:
            raise BadConfig(f"metrics address {address!r}: {error}; expected HOST:PORT") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Starts answering."""
        self._thread.start()

    def close(self) -> None:
        """Answers no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Ready:
    """The last probe's answer, asked again when it is old; one at a time."""

    def __init__(self, probe: Callable[[], None]) -> None:
        self._probe, self._lock = probe, threading.Lock()
        self._at, self._answer = -_FRESH_SECONDS, (503, b"not probed yet\n")

    def __call__(self) -> tuple[int, bytes]:
        with self._lock:
            if time.monotonic() - self._at >= _FRESH_SECONDS:
                self._answer = self._asked()
                self._at = time.monotonic()
            return self._answer

    def _asked(self) -> tuple[int, bytes]:
        try:
            self._probe()
        except UnmaskError as error:
            _log.warning("not ready: %s", error.detail)
            return 503, f"{error.code}: {error.detail}\n".encode("utf-8", "replace")
        except Exception:
            _log.exception("the readiness probe broke")
            return 503, b"internal: see the log\n"
        return 200, b"ready\n"


def _handler(pages: dict[str, Callable[[], tuple[int, bytes]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """GET of the known pages."""

        timeout = 10

        def do_GET(self) -> None:
            """Answers one request."""
            page = pages.get(self.path.partition("?")[0])
            status, body = (404, b"/livez, /readyz, /metrics\n") if page is None else page()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            with suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has gone
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Probes come every few seconds: nothing to log."""

    return Handler
