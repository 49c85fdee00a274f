"""A real https server on loopback whose certificate a private authority signs; also a receiver of webhooks."""

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
GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Post:
    """What was posted, and when (`time.monotonic`)."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        """The event's."""
        return self.headers["webhook-id"]


@dataclass
class Site:
    """Where the server is, what clients may trust, and what it was asked."""

    port: int
    trust: ssl.SSLContext
    scheme: str = "https"
    authority: bytes = b""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    # Bytes of endless answers that went out.
    written: int = 0
    # Raises for a post that is not to be accepted: it is answered 401.
    check: Callable[[Post], object] | None = None
    # What `/broken` answers, until a test says that it is repaired.
    broken: bool = True

    def url(self, path: str, host: str = "localhost") -> str:
        """A URL of this server."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def posted(self, path: str) -> list[Post]:
        """What was posted there."""
        return [post for post in list(self.posts) if post.path == path]

    def clear(self) -> None:
        """Forgets what it was asked."""
        self.asked.clear()
        self.names.clear()
        self.posts.clear()
        self.written, self.check, self.broken = 0, None, True


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

    def do_POST(self) -> None:
        """Reads the body, checks it where the site does, and answers by path as well."""
        post = Post(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])), time.monotonic())
        self.site.posts.append(post)
        try:
            if self.site.check is not None:
                self.site.check(post)
        except Exception:
            self._status("401")
            return
        self.do_GET()

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
            self.site.written += self.wfile.write(b"x" * 65536)

    def _gigabyte(self, _: str) -> None:
        self.head(Content_Length=str(GIGABYTE))
        while self.site.written < GIGABYTE:
            self.site.written += self.wfile.write(b"x" * 65536)

    def _hook(self, _: str) -> None:
        self.head(Content_Length="2")
        self.wfile.write(b"ok")

    def _nothing(self, _: str) -> None:
        self.head(204)

    def _failing(self, times: str) -> None:
        """500 that many times, then 200."""
        seen = len(self.site.posted(self.path))
        self._status("500" if seen <= int(times) else "200")

    def _broken(self, _: str) -> None:
        self._status("500" if self.site.broken else "200")

    def _moved(self, code: str) -> None:
        self.head(int(code), Location="/hook", Content_Length="0")

    def _busy(self, code_and_when: str) -> None:
        code, _, when = code_and_when.partition("/")
        self.head(int(code), Retry_After=unquote(when), Content_Length="0")

    def _late(self, seconds: str) -> None:
        self.stop.wait(float(seconds))
        self._hook("")

    def _drop(self, _: str) -> None:
        self.close_connection = True

    def _halfhead(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 20")

    def _mute(self, _: str) -> None:
        """Accepts, and then announces a body that never comes."""
        self.head(Content_Length="10")
        self.stop.wait(10)

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
def serving(tls: bool = True) -> Iterator[Site]:
    """The server, on 127.0.0.1 and a free port, for `localhost` and 127.0.0.1."""
    authority = trustme.CA()
    trust, own = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(trust)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(own)
    stop = threading.Event()
    handler = type("Bound", (Handler,), {"stop": stop})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site = Site(server.server_port, trust, "https" if tls else "http", authority.cert_pem.bytes())
    handler.site = site  # type: ignore[attr-defined]
    own.sni_callback = lambda _socket, name, _context: site.names.append(name)
    if tls:
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
