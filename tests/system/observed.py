"""A run of the whole platform in which everything happens that metrics tell of, scraped by a real Prometheus."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kombu import Connection

from tests.conftest import ROOT
from tests.system.tiny_models import dark_picture, face_picture, make_repository
from unmask.adapters.celery_app import transport_options
from unmask.core.domain import Action, BytesSource
from unmask.core.errors import UnknownCase
from unmask.core.review import Ruling, Truth
from unmask.rpc.asking import Request
from unmask.rpc.client import Client
from unmask.rpc.tls import Tls

if TYPE_CHECKING:
    from unmask_dev.prometheus import Prometheus
    from unmask_dev.stack import Stack

RULES = tuple(ROOT / "helm/unmask/rules" / name for name in ("recording.yaml", "alerts.yaml"))
WORKERS = ("ingest align", "classify", "localize", "shadow", "submit", "deliver")
_EVERY = 2.0
# What Prometheus has to have seen after so many rounds: every verdict, what is dead, and most of what the trial says.
_EVERYTHING = "sum(unmask_verdicts_total) == 9 * {rounds} and sum(unmask_stage_outcomes_total{{outcome='failed'}}) == {rounds}"
_SEEN = '{__name__=~"unmask_verdicts_total|unmask_stage_outcomes_total|unmask_dead_items|unmask_shadow_cases_total|up"}'
_DEAD = "sum(max by (kind) (unmask_dead_items)) == 2 * {rounds}"
# Processes follow a pointer within two seconds: of the first round the trial may have missed all.
_SHADOWED = "sum(unmask_shadow_cases_total) >= 9 * ({rounds} - 1)"


class _Receiver(BaseHTTPRequestHandler):
    """Takes what comes to `/`, and is gone for ever elsewhere."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204 if self.path == "/" else 410)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _receiving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Run:
    """The stack, who asks it, and what it has been given so far."""

    stack: Stack
    token: str
    address: str
    tls: Tls
    hook: str
    round: int = 0

    def go_round(self) -> None:
        """Every kind of picture, answer and mishap once more."""
        self.round += 1
        seed = 100 * self.round
        with Client(self.address, token=self.token, tls=self.tls) as client:
            pictures = [face_picture(red=red, blue=blue, seed=seed + red + blue) for red, blue in _FACES]
            cases = [client.submit(Request(BytesSource(picture), callback=f"{self.hook}/")).id for picture in pictures]
            cases.append(client.submit(Request(BytesSource(dark_picture(seed)), callback=f"{self.hook}/gone")).id)
            # The same bytes again: a verdict that is reused.
            last = [(*client.wait_verdict(case, timeout=60),)[-1] for case in cases]
            cases.append(client.submit(pictures[0]).id)
            (*client.wait_verdict(cases[-1], timeout=60),)
            assert all(one.verdict is not None for one in last)
            with suppress(UnknownCase):
                client.get_verdict("0" * 8)
            for case, ruling in zip(cases, _RULINGS, strict=False):
                client.decide(case, ruling)
        self._by_queue(seed)

    def _by_queue(self, seed: int) -> None:
        """What is no picture, what nobody can read, and an import."""
        bad = {"base64": base64.b64encode(b"no picture").decode(), "idempotency_key": f"bad-{seed}"}
        slow = {
            "base64": base64.b64encode(face_picture(seed=seed + 7)).decode(),
            "idempotency_key": f"b-{seed}",
            "priority": "batch",
        }
        bodies = [json.dumps({"token": self.token, **fields}).encode() for fields in (bad, slow)]
        broker = self.stack.broker.url
        with Connection(broker, transport_options=transport_options(broker)) as connection:
            for body in (*bodies, b"nothing that can be read"):
                connection.Producer().publish(
                    body, routing_key="unmask.submissions", content_type="application/json", delivery_mode=2
                )


# One flag is confirmed, another one overruled.
_RULINGS = (
    Ruling(Action.BLOCK, "confirmed", Truth.SYNTHETIC, "stylegan9"),
    Ruling(Action.ALLOW, "false_positive", Truth.REAL),
)
# Red is synthetic, blue manipulated, neither real, (160, 10) unsure.
_FACES = ((240, 10), (230, 10), (10, 240), (10, 10), (20, 20), (160, 10))


@contextmanager
def observed(folder: Path) -> Iterator[tuple[Run, Prometheus]]:
    """A platform after two rounds of everything, and the Prometheus that has watched it.  Raises `ServerMissing`."""
    from unmask_dev.certs import write_certificates
    from unmask_dev.ports import LOOPBACK, free_port
    from unmask_dev.prometheus import Prometheus, binary
    from unmask_dev.stack import Stack

    binary()
    write_certificates(folder / "certs")
    shown = {"UNMASK_TLS_CERT": folder / "certs/server.pem", "UNMASK_TLS_KEY": folder / "certs/server.key"}
    quick = {"UNMASK_RETRY_SECONDS": "0.2", "UNMASK_ATTEMPTS": "3", **{name: str(path) for name, path in shown.items()}}
    with _receiving() as hook, Stack(folder / "stack", make_repository(folder / "models", knowing=True), env=quick) as stack:
        stack.command("tenant", "create", "acme", "--discover", "on")
        token = stack.command(
            "token", "create", "acme", *(part for scope in ("submit", "read", "review") for part in ("--scope", scope))
        ).strip()
        address = f"{LOOPBACK}:{free_port()}"
        _work(stack, address)
        _try_out(stack, folder)
        run = Run(stack, token, address, Tls(ca=folder / "certs/ca.pem"), hook)
        run.go_round()
        stack.command("discover", "--since", "1h")
        # Now: it looks at reviews, releases and discoveries when it starts, and then only every half minute.
        stack.work("sweep")
        stack.wait_ready()
        targets = {"unmask": list(stack.metrics.values())}
        if stack.triton is not None:
            targets["triton"] = [stack.triton.metrics_url.split("/")[2]]
        with _serving(Prometheus(folder / "prometheus", targets, RULES, every=_EVERY)) as prometheus:
            _wait(prometheus, "min(count_over_time(up[2m])) >= 3 and min(up) == 1", "everything is scraped")
            run.go_round()
            for said in (_EVERYTHING, _DEAD, _SHADOWED):
                _wait(prometheus, said.format(rounds=run.round), "the second round is seen")
            # Once more, and the rules over it.
            time.sleep(2 * _EVERY + 1)
            yield run, prometheus


def _wait(prometheus: Prometheus, expression: str, what: str) -> None:
    """Returns when the expression gives something."""
    from unmask_dev.process import ServerFailed, wait_until

    try:
        wait_until(lambda: prometheus.query(expression), 30, f"{what} ({expression})")
    except ServerFailed as error:
        seen = [(one["metric"], one["value"][1]) for one in prometheus.query(_SEEN)]
        raise AssertionError(f"{error}; seen: {seen}") from None


def _work(stack: Stack, address: str) -> None:
    """Every process but the sweeper, ready."""
    stack.spawn("serve", "serve", "ingestion", "review", "--listen", address)
    for kinds in WORKERS:
        stack.work(kinds, concurrency=2)
    stack.wait_ready(120)


@contextmanager
def _serving(prometheus: Prometheus) -> Iterator[Prometheus]:
    prometheus.start()
    try:
        yield prometheus
    finally:
        prometheus.stop()


def _try_out(stack: Stack, folder: Path) -> None:
    """A release on trial that is stricter than the active one, for every case."""
    told = json.loads((stack.models / "release.json").read_text())
    told["name"] = "stricter"
    told["thresholds"] |= {"synthetic_real": 0.01, "synthetic": 0.02}
    (folder / "stricter.json").write_text(json.dumps(told))
    stack.command("models", "put-release", str(folder / "stricter.json"))
    stack.command("models", "shadow", "stricter", "--share", "1.0")
