"""Fetcher for https URLs: resolve once, refuse addresses that are not global, pin the address, limit size and time."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from unmask.core.errors import BadImage, BadRequest, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Request timeout, too early, too many requests: the same request may work later.
_LATER: Final = frozenset({408, 425, 429})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 3
_CHUNK: Final = 64 * 1024
_URL_SIGNS: Final = "/?%:@!$&'()*+,;=~[]"


class HttpFetcher:
    """The port `Fetcher`.

    `seconds` bounds each fetch, redirects included (looking a name up is bounded by the resolver's own limits); addresses
    in `allowed` are let through though they are not global (a deployment's own network); `context` replaces the system's
    trust, for private certificate authorities.
    """

    def __init__(
        self, *, seconds: float = 10.0, allowed: Sequence[Network] = (), context: ssl.SSLContext | None = None
    ) -> None:
        self._seconds, self._allowed = seconds, tuple(allowed)
        self._context = context or ssl.create_default_context()

    def fetch(self, url: str, limit: int) -> bytes:
        """See `Fetcher.fetch`."""
        deadline = time.monotonic() + self._seconds
        for _ in range(_MOST_REDIRECTS + 1):
            parts = _checked(url)
            addresses = self._addresses(parts)
            try:
                with _connection(parts, addresses, self._context, deadline) as connection:
                    body, location = _answer(connection, parts, limit)
                _left(deadline)  # a connection cut at the deadline may look like a body's end
            except (OSError, http.client.HTTPException) as error:
                why = f"took more than {self._seconds:g} s" if time.monotonic() >= deadline else _why(error)
                raise Unavailable(f"url {url!r}: {why}") from error
            if location is None:
                return body
            url = urljoin(url, location)
        raise BadRequest(f"url {url!r}: more than {_MOST_REDIRECTS} redirects")

    def _addresses(self, parts: SplitResult) -> list[str]:
        """The only addresses that will be spoken to; every one of the name must be allowed, not only the first."""
        host = parts.hostname or ""
        try:
            found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise BadRequest(f"url host {host!r} is no host name") from error
        except OSError as error:
            raise Unavailable(f"url host {host!r}: not resolved ({error})") from error
        addresses = [str(entry[4][0]) for entry in found]
        for text in addresses:
            if not self._may(ipaddress.ip_address(text.partition("%")[0])):
                raise BadRequest(f"url host {host!r}: {text} is not a public address")
        return addresses

    def _may(self, address: Address) -> bool:
        plain = getattr(address, "ipv4_mapped", None) or address
        if any(plain.version == network.version and plain in network for network in self._allowed):
            return True
        # 6to4 hides an IPv4 address that a relay would speak to.
        tunnelled = getattr(plain, "sixtofour", None) is not None
        return bool(plain.is_global and not plain.is_multicast and not plain.is_reserved and not tunnelled)


class _Pinned(http.client.HTTPSConnection):
    """Speaks to the addresses that were checked, under the name that was asked for (SNI, certificate, Host)."""

    def __init__(self, parts: SplitResult, addresses: Sequence[str], context: ssl.SSLContext, deadline: float) -> None:
        super().__init__(parts.hostname or "", parts.port or 443, context=context)
        self._pinned, self._trust, self._deadline = addresses, context, deadline
        self._plain: socket.socket | None = None

    def connect(self) -> None:
        """Connects to the first of the addresses that answers."""
        self._plain = self._reached()
        # Server name and time limit as `http.client` would have them; the limit of the whole is the cut below.
        self.sock = self._trust.wrap_socket(self._plain, server_hostname=self.host, do_handshake_on_connect=False)
        self._plain = self.sock
        self.sock.do_handshake()

    def _reached(self) -> socket.socket:
        for number, address in enumerate(self._pinned, start=1):
            try:
                return socket.create_connection((address, self.port), _left(self._deadline))
            except OSError:
                if number == len(self._pinned):
                    raise
        raise OSError("the name has no address")

    def cut(self) -> None:
        """Ends whatever the connection waits for, from another thread."""
        if self._plain is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._plain, socket.SHUT_RDWR)


@contextmanager
def _connection(parts: SplitResult, addresses: Sequence[str], context: ssl.SSLContext, deadline: float) -> Iterator[_Pinned]:
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


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadRequest(f"url {url!r}: {error}") from error
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise BadRequest(f"url {url!r}: only https://host/… is fetched")
    if parts.username is not None or any(character <= " " for character in url):
        raise BadRequest(f"url {url!r}: no user names, spaces or control characters")
    return parts


def _why(error: Exception) -> str:
    """In words of our own: what a server says instead of HTTP is nobody's to read."""
    return f"no HTTP answer ({type(error).__name__})" if isinstance(error, http.client.HTTPException) else str(error)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0.0:
        raise TimeoutError("took too long")
    return left


def _answer(connection: _Pinned, parts: SplitResult, limit: int) -> tuple[bytes, str | None]:
    """Body, or the place that a redirect names."""
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_URL_SIGNS)
    connection.request("GET", path, headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "unmask"})
    response = connection.getresponse()
    if response.status in _REDIRECTS and (location := response.getheader("Location")):
        return b"", location
    if 400 <= response.status < 500 and response.status not in _LATER:
        raise BadRequest(f"url: the server answered {response.status}")
    if response.status != http.client.OK:
        raise OSError(f"the server answered {response.status}")
    encoding = response.getheader("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise OSError(f"the server sent {encoding[:20]!r} though the plain bytes were asked for")
    return _body(response, limit), None


def _body(response: http.client.HTTPResponse, limit: int) -> bytes:
    body = bytearray()
    if response.length is None or response.length <= limit:
        while chunk := response.read1(min(_CHUNK, limit + 1 - len(body))):
            body += chunk
            if len(body) > limit:
                break
        else:
            if response.length:  # what was announced and did not come
                raise OSError(f"the connection ended {response.length} bytes early")
            return bytes(body)
    raise BadImage(f"the url's body is larger than the {limit} bytes that are read")
