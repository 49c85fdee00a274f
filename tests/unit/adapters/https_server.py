"""A real https server on loopback whose certificate a private authority signs."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

import trustme

PICTURE = bytes(range(256)) * 1000
Answer = Callable[["Handler"], None]


@dataclass
class Site:
    """Where the server is, what clients may trust, and what it was asked."""

    port: int
    trust: ssl.SSLContext
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    def url(self, path: str, host: str = "localhost") -> str:
        """A URL of this server."""
        return f"https://{host}:{self.port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path; every odd server a test needs."""

    site: Site
    stop: threading.Event

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        """Answers."""
        self.site.asked.append((self.path, dict(self.headers)))
        kind, _, rest = self.path.partition("?")[0].lstrip("/").partition("/")
        with contextlib.suppress(OSError):
            getattr(self, f"_{kind}")(rest)

    def head(self, status: int = 200, **headers: str) -> None:
        """Status line and headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _picture(self, _: str) -> None:
        self.head(Content_Length=str(len(PICTURE)))
        self.wfile.write(PICTURE)

    def _unsized(self, _: str) -> None:
        self.head()
        self.wfile.write(PICTURE)

    def _short(self, _: str) -> None:
        self.head(Content_Length=str(len(PICTURE) * 2))
        self.wfile.write(PICTURE)

    def _status(self, code: str) -> None:
        self.head(int(code), Content_Length="0")

    def _gzip(self, _: str) -> None:
        self.head(Content_Length="4", Content_Encoding="gzip")
        self.wfile.write(b"\x1f\x8b..")

    def _to(self, place: str) -> None:
        self.head(302, Location=unquote(place).replace("|", "/"), Content_Length="0")

    def _again(self, times: str) -> None:
        count = int(times)
        self.head(307, Location=f"/again/{count - 1}" if count > 1 else "/picture", Content_Length="0")

    def _endless(self, _: str) -> None:
        self.head()
        while not self.stop.is_set():
            self.wfile.write(b"x" * 65536)

    def _drip(self, _: str) -> None:
        self.head()
        while not self.stop.is_set():
            self.wfile.write(b"x")
            time.sleep(0.05)

    def _slowhead(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while not self.stop.is_set():
            self.wfile.write(b"X-A: b\r\n")
            time.sleep(0.05)

    def _silent(self, _: str) -> None:
        self.stop.wait(10)

    def _garbage(self, _: str) -> None:
        self.wfile.write(b"\x00\x01 this is not http\r\n\r\n")


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    """The server, on 127.0.0.1 and a free port, for `localhost` and 127.0.0.1."""
    authority = trustme.CA()
    trust, own = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(trust)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(own)
    stop = threading.Event()
    handler = type("Bound", (Handler,), {"stop": stop})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site = Site(server.server_port, trust)
    handler.site = site  # type: ignore[attr-defined]
    own.sni_callback = lambda _socket, name, _context: site.names.append(name)
    server.socket = own.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that refuse us are what is tested
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
