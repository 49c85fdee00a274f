"""One HTTP exchange with a stranger's server: addresses checked once and pinned, time and size limited, no redirects."""

from __future__ import annotations

import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from unmask.core.errors import BadRequest, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Addresses of a host and port; raises OSError, or UnicodeError for what is no host name.
Resolve = Callable[[str, int], Sequence[str]]
_CHUNK: Final = 64 * 1024
_URL_SIGNS: Final = "/?%:@!$&'()*+,;=~[]"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked; `name` is what errors call it (a URL may hold a secret)."""

    method: str
    url: str
    name: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)


class Answer:
    """Status and headers of an answer, its body still to be read; whatever reads it raises OSError or HTTPException."""

    def __init__(self, response: http.client.HTTPResponse, deadline: float) -> None:
        self._response, self._deadline = response, deadline
        self.status = response.status

    def header(self, name: str) -> str | None:
        """The header's value, or None."""
        return self._response.getheader(name)

    def body(self, limit: int) -> bytes | None:
        """The whole body; None, and no more than `limit` + 1 bytes of it read, where it is larger than `limit`."""
        response, body = self._response, bytearray()
        if response.length is not None and response.length > limit:
            return None
        while chunk := response.read1(min(_CHUNK, limit + 1 - len(body))):
            body += chunk
            if len(body) > limit:
                return None
        _left(self._deadline)  # a connection cut at the deadline may look like a body's end
        if response.length:  # what was announced and did not come
            raise OSError(f"the connection ended {response.length} bytes early")
        return bytes(body)

    def skip(self, most: int) -> None:
        """Reads once, at most that many bytes, to take a short answer off the line; what goes wrong does not matter."""
        with suppress(OSError, http.client.HTTPException):
            self._response.read1(most)


class PinnedHttp:
    """Exchanges over https; none takes longer than `seconds`, looking the name up included.

    Addresses in `allowed` are spoken to though they are not global (a deployment's own network), and they alone over plain
    http where `plain` says so.  `context` replaces the system's trust, for private certificate authorities.
    """

    def __init__(
        self,
        *,
        seconds: float,
        allowed: Sequence[Network] = (),
        context: ssl.SSLContext | None = None,
        plain: bool = False,
        resolve: Resolve | None = None,
    ) -> None:
        self.seconds, self._allowed = seconds, tuple(allowed)
        self._context = context or ssl.create_default_context()
        self._schemes = ("https", "http") if plain else ("https",)
        self._resolve = resolve or _looked_up

    def deadline(self) -> float:
        """When an exchange, or several in a row, that begins now has to be over; on the clock of `time.monotonic`."""
        return time.monotonic() + self.seconds

    @contextmanager
    def exchange(self, request: Request, deadline: float) -> Iterator[Answer]:
        """Sends the request and gives the answer's head; its body may be read inside the block.

        Raises `BadRequest` for a URL or an address that is refused (nothing was sent), else `Unavailable`; an OSError or
        HTTPException that leaves the block becomes `Unavailable` too.
        """
        parts = self._checked(request)
        try:
            addresses = self._addresses(request.name, parts, deadline)
            with _connected(parts, addresses, self._context, deadline) as connection:
                connection.request(request.method, _path(parts), body=request.body, headers=dict(request.headers))
                with connection.getresponse() as response:
                    _left(deadline)  # a connection cut at the deadline may look like the end of the headers
                    yield Answer(response, deadline)
        except (OSError, http.client.HTTPException) as error:
            why = f"took more than {self.seconds:g} s" if time.monotonic() >= deadline else _why(error)
            raise Unavailable(f"{request.name}: {why}") from error

    def _checked(self, request: Request) -> SplitResult:
        try:
            parts = urlsplit(request.url)
            port = parts.port
        except ValueError as error:
            raise BadRequest(f"{request.name}: {error}") from error
        if parts.scheme not in self._schemes or not parts.hostname or port == 0:
            raise BadRequest(f"{request.name}: only https://host/… is spoken to")
        if parts.username is not None or any(character <= " " or character == "\x7f" for character in request.url):
            raise BadRequest(f"{request.name}: no user names, spaces or control characters")
        return parts

    def _addresses(self, name: str, parts: SplitResult, deadline: float) -> Sequence[str]:
        """The only addresses that will be spoken to; every one of the host must be allowed, not only the first."""
        host = parts.hostname or ""
        try:
            addresses = _in_time(lambda: self._resolve(host, _port(parts)), deadline)
        except UnicodeError as error:
            raise BadRequest(f"{name}: host {host!r} is no host name") from error
        except TimeoutError:
            raise
        except OSError as error:
            raise Unavailable(f"{name}: host {host!r}: not resolved ({error})") from error
        for text in addresses:
            address = ipaddress.ip_address(text.partition("%")[0])
            if parts.scheme == "http" and not self._listed(address):
                raise BadRequest(f"{name}: only https://host/… is spoken to, http only where the deployment allows the address")
            if not self._may(address):
                raise BadRequest(f"{name}: host {host!r}: {text} is not a public address")
        return addresses

    def _listed(self, address: Address) -> bool:
        plain = _unmapped(address)
        return any(plain.version == network.version and plain in network for network in self._allowed)

    def _may(self, address: Address) -> bool:
        plain = _unmapped(address)
        # 6to4 hides an IPv4 address that a relay would speak to.
        tunnelled = getattr(plain, "sixtofour", None) is not None
        public = plain.is_global and not plain.is_multicast and not plain.is_reserved and not tunnelled
        return public or self._listed(address)


class _Pinned(http.client.HTTPConnection):
    """Speaks to the addresses that were checked, under the name that was asked for (SNI, certificate, Host)."""

    def __init__(self, parts: SplitResult, addresses: Sequence[str], context: ssl.SSLContext, deadline: float) -> None:
        self._tls = parts.scheme == "https"
        self.default_port = 443 if self._tls else 80
        super().__init__(parts.hostname or "", _port(parts))
        self._addresses, self._trust, self._deadline = addresses, context, deadline
        self._open: socket.socket | None = None

    def connect(self) -> None:
        """Connects to the first of the addresses that answers."""
        self._open = self.sock = self._reached()
        if self._tls:
            # The time limit of the whole is the cut below; the socket's own is only that of a single wait.
            secured = self._trust.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self._open = self.sock = secured
        _left(self._deadline)  # the cut may have come before there was anything to cut
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()

    def _reached(self) -> socket.socket:
        for number, address in enumerate(self._addresses, start=1):
            try:
                return socket.create_connection((address, self.port), _left(self._deadline))
            except OSError:
                if number == len(self._addresses):
                    raise
        raise OSError("the name has no address")

    def cut(self) -> None:
        """Ends whatever the connection waits for, from another thread."""
        if self._open is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)


@contextmanager
def _connected(parts: SplitResult, addresses: Sequence[str], context: ssl.SSLContext, deadline: float) -> Iterator[_Pinned]:
    """A connection cut at the deadline: a time limit a read would let a server drip for ever."""
    connection = _Pinned(parts, addresses, context, deadline)
    alarm = threading.Timer(_left(deadline), connection.cut)
    alarm.daemon = True
    alarm.start()
    try:
        yield connection
    finally:
        alarm.cancel()
        connection.close()


def _in_time(look_up: Callable[[], Sequence[str]], deadline: float) -> Sequence[str]:
    """What `look_up` gives or raises; a resolver that hangs is left behind on its thread, which the resolver's limits end."""
    answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(look_up())
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, name="resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=_left(deadline))
    except queue.Empty:
        raise TimeoutError("took too long") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _looked_up(host: str, port: int) -> Sequence[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _unmapped(address: Address) -> Address:
    return getattr(address, "ipv4_mapped", None) or address


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _path(parts: SplitResult) -> str:
    return quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_URL_SIGNS)


def _why(error: Exception) -> str:
    """In words of our own: what a server says instead of HTTP is nobody's to read."""
    return f"no HTTP answer ({type(error).__name__})" if isinstance(error, http.client.HTTPException) else str(error)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0.0:
        raise TimeoutError("took too long")
    return left
