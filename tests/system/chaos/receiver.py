"""A receiver of webhooks that writes down what it was sent, and at times is as bad as real ones are."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True)
class Delivery:
    """One POST: what it said, whether its signature held and it was answered with 200 (or hung up on); Unix time."""

    event: str
    tenant: str
    case: str
    kind: str
    signed: bool
    answered: bool
    at: float


@dataclass
class Receiver:
    """Every 40th event it refuses once (503), every 25th it takes and hangs up on: both have to come again under their id."""

    secrets: dict[str, str]
    port: int = 0
    deliveries: list[Delivery] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Writes the delivery down; the status to answer with, 0 for none at all."""
        data = json.loads(body)["data"]
        event, tenant = headers.get("webhook-id", ""), str(data["tenant"])
        try:
            Webhook(self.secrets[tenant]).verify(body, headers)
            signed = True
        except (KeyError, WebhookVerificationError):
            signed = False
        with self._lock:
            first = event not in self._seen
            self._seen.add(event)
            number = len(self._seen)
            status = 401 if not signed else 503 if first and number % 40 == 7 else 0 if first and number % 25 == 3 else 200
            kind = str(json.loads(body)["type"])
            self.deliveries.append(Delivery(event, tenant, str(data["case_id"]), kind, signed, status == 200, time.time()))
        return status


@contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    """The receiver, on a port of its own on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.take({name.lower(): value for name, value in self.headers.items()}, body)
            if status:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, name="receiver", daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
