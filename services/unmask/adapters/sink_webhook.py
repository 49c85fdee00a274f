"""EventSink that posts signed events to a case's callback URL (Standard Webhooks: standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from unmask.adapters.pinned_http import Answer, Network, PinnedHttp, Request, Resolve
from unmask.core.domain import Event
from unmask.core.errors import BadConfig, BadRequest, StoreCorrupt, Unavailable
from unmask.core.ports import Clock

_GONE: Final = 410
_SHORT_ANSWER: Final = 4096
_LONGEST_WAIT: Final = 6 * 3600.0
# Tenants know their own secrets, which are derived from the key: a key that can be guessed would give them all others.
_SHORTEST_KEY: Final = 32


def webhook_secret(master: bytes, tenant: str) -> str:
    """The tenant's secret under this master key, as every Standard Webhooks library takes it: `whsec_` and base64."""
    return "whsec_" + base64.b64encode(_secret(master, tenant)).decode()


def event_body(event: Event) -> bytes:
    """What is sent: type, timestamp and data, the same bytes at every attempt.  Raises `StoreCorrupt`."""
    try:
        told = json.loads(event.body)
    except ValueError as error:
        raise StoreCorrupt(f"event {event.id}: its body is no JSON") from error
    if not isinstance(told, dict):
        raise StoreCorrupt(f"event {event.id}: its body is no JSON object")
    data = {**told, "case_id": event.case_id, "tenant": event.tenant, "sequence": event.sequence}
    timestamp = event.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": event.kind, "timestamp": timestamp, "data": data}, separators=(",", ":")).encode()


class WebhookSink:
    """The port `EventSink`: a POST to the event's target.

    `keys` are the master keys, newest first: each signs, so that receivers may change over one by one.  `seconds` bounds an
    attempt as a whole.  Only https, and only public addresses, but for those in `allowed`, which may speak http too (a
    receiver in development).  A redirect is a failure: following it would carry the event to where nobody sent it.
    """

    name = "webhook"

    def __init__(
        self,
        *,
        keys: Sequence[bytes],
        clock: Clock,
        seconds: float = 15.0,
        allowed: Sequence[Network] = (),
        context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        if not keys or any(len(key) < _SHORTEST_KEY for key in keys):
            raise BadConfig(f"webhook keys: one or more are needed, each of at least {_SHORTEST_KEY} bytes")
        self._keys, self._clock = tuple(keys), clock
        self._http = PinnedHttp(seconds=seconds, allowed=allowed, context=context, plain=True, resolve=resolve)

    def takes(self, event: Event) -> bool:
        """Whether the case named a callback."""
        return bool(event.target)

    def endpoint(self, event: Event) -> str:
        """Tenant and origin: one tenant's dead path must not stop another's deliveries to a host that both use."""
        return f"{event.tenant} {_origin(event.target)}"

    def send(self, event: Event) -> None:
        """See `EventSink.send`; `retry_after` is set where the receiver said when to come again."""
        name = f"webhook to {_origin(event.target)}"  # the rest of the URL may hold a secret
        body = event_body(event)
        request = Request("POST", event.target, name, self._headers(event, body), body)
        with self._http.exchange(request, self._http.deadline()) as answer:
            if 200 <= answer.status < 300:
                answer.skip(_SHORT_ANSWER)
                return
            raise self._refusal(name, answer)

    def _headers(self, event: Event, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._clock.now().timestamp()))
        signed = f"{event.id}.{timestamp}.".encode() + body
        return {
            "Content-Type": "application/json",
            "User-Agent": "unmask",
            "Connection": "close",
            "webhook-id": event.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(_signature(_secret(key, event.tenant), signed) for key in self._keys),
        }

    def _refusal(self, name: str, answer: Answer) -> BadRequest | Unavailable:
        if answer.status == _GONE:
            return BadRequest(f"{name}: the receiver answered 410, it is gone for good")
        redirect = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        error = Unavailable(f"{name}: the receiver answered {answer.status}{redirect}")
        error.retry_after = _retry_after(answer.header("Retry-After"), self._clock.now())
        return error


def _secret(master: bytes, tenant: str) -> bytes:
    return hmac.digest(master, f"unmask-webhook:{tenant}".encode(), hashlib.sha256)


def _signature(secret: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def _origin(target: str) -> str:
    """Scheme, host and port; for a text that is no URL, words instead."""
    try:
        parts = urlsplit(target)
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        return "a malformed URL"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header (seconds or a date) asks for, 0 to six hours; None for none that can be read."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    asked = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(max(asked.total_seconds(), 0.0), _LONGEST_WAIT)
