"""Fetcher for https URLs: resolve once, refuse addresses that are not global, pin the address, limit size and time."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from unmask.core.errors import BadImage, BadRequest, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 3
_CHUNK: Final = 64 * 1024


class HttpFetcher:
    """The port `Fetcher`.

    `seconds` bounds the whole fetch, redirects included; addresses in `allowed` are let through though they are not
    global (a deployment's own network); `context` replaces the system's trust, for private certificate authorities.
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
            connection = _Pinned(parts, self._address(parts), self._context, deadline)
            try:
                body, location = _answer(connection, parts, limit, deadline)
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"url {url!r}: {error or type(error).__name__}") from error
            finally:
                connection.close()
            if location is None:
                return body
            url = urljoin(url, location)
        raise BadRequest(f"url {url!r}: more than {_MOST_REDIRECTS} redirects")

    def _address(self, parts: SplitResult) -> str:
        """The one address that will be spoken to; every address of the name must be allowed, not only the first."""
        host = parts.hostname or ""
        try:
            found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"url host {host!r}: not resolved ({error})") from error
        addresses = [str(entry[4][0]) for entry in found]
        for text in addresses:
            if not self._may(ipaddress.ip_address(text.partition("%")[0])):
                raise BadRequest(f"url host {host!r}: {text} is not a public address")
        return addresses[0]

    def _may(self, address: Address) -> bool:
        plain = getattr(address, "ipv4_mapped", None) or address
        if any(plain.version == network.version and plain in network for network in self._allowed):
            return True
        return bool(plain.is_global and not plain.is_multicast and not plain.is_reserved)


class _Pinned(http.client.HTTPSConnection):
    """Speaks to the address that was checked, under the name that was asked for (SNI, certificate, Host)."""

    def __init__(self, parts: SplitResult, address: str, context: ssl.SSLContext, deadline: float) -> None:
        super().__init__(parts.hostname or "", parts.port or 443, context=context, timeout=_left(deadline))
        self._pinned, self._trust = address, context

    def connect(self) -> None:
        """Connects to the pinned address."""
        plain = socket.create_connection((self._pinned, self.port), self.timeout)
        try:
            self.sock = self._trust.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadRequest(f"url {url!r}: {error}") from error
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise BadRequest(f"url {url!r}: only https://host/… is fetched")
    if parts.username is not None or any(ord(character) <= 32 for character in url):
        raise BadRequest(f"url {url!r}: no user names, spaces or control characters")
    return parts


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0.0:
        raise TimeoutError("took too long")
    return left


def _answer(connection: _Pinned, parts: SplitResult, limit: int, deadline: float) -> tuple[bytes, str | None]:
    """Body, or the place that a redirect names."""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", path, headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "unmask"})
    response = connection.getresponse()
    if response.status in _REDIRECTS and (location := response.getheader("Location")):
        return b"", location
    if response.status >= 500:
        raise OSError(f"the server answered {response.status}")
    if response.status != 200:
        raise BadRequest(f"url: the server answered {response.status} {response.reason}")
    return _body(connection, response, limit, deadline), None


def _body(connection: _Pinned, response: http.client.HTTPResponse, limit: int, deadline: float) -> bytes:
    body = bytearray()
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(_left(deadline))
        _left(deadline)
        chunk = response.read1(_CHUNK)
        if not chunk:
            return bytes(body)
        body += chunk
        if len(body) > limit:
            raise BadImage(f"the url's body is larger than the {limit} bytes that are read")
