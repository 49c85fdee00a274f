"""Fetcher for https URLs: pictures under the rules of `pinned_http`, redirects followed and checked anew."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Sequence
from typing import Final
from urllib.parse import urljoin

from unmask.adapters.pinned_http import Answer, Network, PinnedHttp, Request, Resolve
from unmask.core.errors import BadImage, BadRequest, Unavailable

# Request timeout, too early, too many requests: the same request may work later.
_LATER: Final = frozenset({408, 425, 429})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 3
_HEADERS: Final = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "unmask"}


class HttpFetcher:
    """The port `Fetcher`.

    `seconds` bounds each fetch, looking names up and redirects included; addresses in `allowed` are let through though they
    are not global (a deployment's own network); `context` replaces the system's trust, for private certificate authorities.
    """

    def __init__(
        self,
        *,
        seconds: float = 10.0,
        allowed: Sequence[Network] = (),
        context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._http = PinnedHttp(seconds=seconds, allowed=allowed, context=context, resolve=resolve)

    def fetch(self, url: str, limit: int) -> bytes:
        """See `Fetcher.fetch`."""
        deadline = self._http.deadline()
        for _ in range(_MOST_REDIRECTS + 1):
            request = Request("GET", url, f"url {url!r}", _HEADERS)
            with self._http.exchange(request, deadline) as answer:
                location = _redirect(answer)
                if location is None:
                    return _picture(answer, request.name, limit)
            url = urljoin(url, location)
        raise BadRequest(f"url {url!r}: more than {_MOST_REDIRECTS} redirects")


def _redirect(answer: Answer) -> str | None:
    """The place that the answer points to, or None."""
    return (answer.header("Location") or None) if answer.status in _REDIRECTS else None


def _picture(answer: Answer, name: str, limit: int) -> bytes:
    if 400 <= answer.status < 500 and answer.status not in _LATER:
        raise BadRequest(f"{name}: the server answered {answer.status}")
    if answer.status != http.client.OK:
        raise Unavailable(f"{name}: the server answered {answer.status}")
    encoding = answer.header("Content-Encoding") or "identity"
    if encoding.lower() != "identity":
        raise Unavailable(f"{name}: the server sent {encoding[:20]!r} though the plain bytes were asked for")
    body = answer.body(limit)
    if body is None:
        raise BadImage(f"the url's body is larger than the {limit} bytes that are read")
    return body
