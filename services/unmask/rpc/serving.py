"""A grpc.aio server with health, reflection and a drain: what every service runs in."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from unmask.core.cards import ModelRef, TensorSpec
from unmask.core.errors import BadConfig, BadModel, Unavailable, UnmaskError
from unmask.core.ports import ModelServer
from unmask.rpc.callers import CallerOf, local_caller
from unmask.rpc.interceptors import Edge, Heard
from unmask.rpc.tls import Certificates, server_credentials

_log = logging.getLogger(__name__)
# What a message holds beside the picture: idempotency key, labels, callback, framing.
ENVELOPE: Final = 64 * 1024
_PROBE_CANVAS: Final = 64


class Service(Protocol):
    """One service of a server."""

    @property
    def name(self) -> str:
        """Full name in the proto, as health and reflection say it."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the servicer."""

    def probe(self) -> None:
        """Blocks; raises an `UnmaskError` while the service could not answer a call."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where and how to serve: address, longest picture in bytes, seconds to drain, seconds between probes; TLS or none."""

    listen: str = "127.0.0.1:50051"
    byte_limit: int = 20 * 1024 * 1024
    # Below the 30 s that Kubernetes gives before it kills.
    grace: float = 20.0
    probe_every: float = 30.0
    tls: Certificates | None = None
    # Set while health says SERVING: for whoever cannot ask over gRPC (Kubernetes' own gRPC probe speaks no TLS).
    serving: threading.Event = field(default_factory=threading.Event)
    heard: Heard | None = None


def probe_model(models: ModelServer, ref: ModelRef) -> None:
    """One inference on an empty picture; raises `BadModel` or `Unavailable` unless every output comes back finite."""
    card = models.card(ref)
    outputs = models.infer(ref, {card.input.name: np.zeros(_probe_shape(card.input), dtype=np.uint8)})
    for spec in card.outputs:
        if spec.name not in outputs or not np.isfinite(outputs[spec.name]).all():
            raise BadModel(f"model {ref.name} {ref.version}: the probe's output {spec.name!r} is missing or not finite")


def _probe_shape(spec: TensorSpec) -> tuple[int, ...]:
    batch, *sides = spec.shape
    return (1 if batch < 0 else batch, *(_PROBE_CANVAS if side < 0 else side for side in sides))


def checked_address(listen: str, *, tls: bool = False, tokens: bool = False) -> str:
    """The address to bind; raises `BadConfig` unless it is HOST:PORT, with a loopback host where TLS or tokens are missing."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BadConfig(f"--listen {listen!r}: expected HOST:PORT, for example 127.0.0.1:50051 (port 0: any free one)")
    bare = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise BadConfig(f"--listen {listen!r}: the host must be an address, not a name") from None
    missing = " and ".join(name for name, there in (("TLS", tls), ("tokens", tokens)) if not there)
    if missing and not address.is_loopback:
        raise BadConfig(f"--listen {listen!r}: without {missing} only loopback addresses are served (127.0.0.1 or [::1])")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


class Server:
    """A started server: its address, and the way to end it.  `failed` is the task that probes."""

    def __init__(
        self,
        server: grpc.aio.Server,
        state: HealthServicer,
        address: str,
        services: Sequence[Service],
        settings: ServerSettings,
    ) -> None:
        self._server, self._health, self._serving = server, state, settings.serving
        self.address = address
        self._stopping = False
        self.failed = asyncio.create_task(self._watch(services, settings.probe_every))

    async def stop(self, grace: float) -> None:
        """Takes no new calls, says so in its health, and lets those in hand finish for at most `grace` seconds."""
        self._stopping = True
        self._serving.clear()
        self.failed.cancel()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def _watch(self, services: Sequence[Service], every: float) -> None:
        """Probes for ever; a service is SERVING only after its probe went well.

        Raises the error of a first probe that no waiting will repair (a broken model, a wrong setting).
        """
        seen = False
        while True:
            ready = [await self._probed(service, must_hold=seen) for service in services]
            await self._say("", all(ready))
            self._tell(all(ready))
            if all(ready) and not seen:
                _log.info("ready on %s: %s", self.address, ", ".join(service.name for service in services))
            seen = seen or all(ready)
            await asyncio.sleep(every if all(ready) else min(every, 1.0))

    async def _probed(self, service: Service, *, must_hold: bool) -> bool:
        try:
            await asyncio.to_thread(service.probe)
        except UnmaskError as error:
            _log.warning("%s does not serve: %s", service.name, error.detail)
            await self._say(service.name, False)
            if not must_hold and not isinstance(error, Unavailable):
                raise
            return False
        await self._say(service.name, True)
        return True

    def _tell(self, serving: bool) -> None:
        if serving and not self._stopping:
            self._serving.set()
        else:
            self._serving.clear()

    async def _say(self, name: str, serving: bool) -> None:
        answers = health_pb2.HealthCheckResponse
        if not self._stopping:
            await self._health.set(name, answers.SERVING if serving else answers.NOT_SERVING)


@asynccontextmanager
async def started(
    services: Sequence[Service], settings: ServerSettings, caller_of: CallerOf = local_caller
) -> AsyncIterator[Server]:
    """A server that takes calls until the block ends, then drains.  Raises `BadConfig` when it cannot bind.

    It answers NOT_SERVING until its probes went well; `Server.failed` ends with the error that no waiting repairs.
    """
    address = checked_address(settings.listen, tls=settings.tls is not None, tokens=caller_of is not local_caller)
    limit = settings.byte_limit + ENVELOPE
    options = [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        # A second server on the same port must fail, not take half of the calls.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(interceptors=[Edge(caller_of, settings.heard)], options=options)
    state = await _with_health(server, services)
    try:
        port = _bound(server, address, settings.tls)
    except RuntimeError as error:
        raise BadConfig(f"--listen {address}: cannot bind (is another server there?)") from error
    await server.start()
    running = Server(server, state, f"{address.rpartition(':')[0]}:{port}", services, settings)
    try:
        yield running
    finally:
        await running.stop(settings.grace)


def _bound(server: grpc.aio.Server, address: str, tls: Certificates | None) -> int:
    return server.add_insecure_port(address) if tls is None else server.add_secure_port(address, server_credentials(tls))


async def _with_health(server: grpc.aio.Server, services: Sequence[Service]) -> HealthServicer:
    """Registers the services, health (all NOT_SERVING yet) and reflection."""
    state = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    for name in ("", *(service.name for service in services)):
        await state.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    for service in services:
        service.add_to(server)
    names = [*(service.name for service in services), health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    return state


async def serve_until_signalled(
    services: Sequence[Service], settings: ServerSettings, bound: Callable[[str], None], caller_of: CallerOf = local_caller
) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once.  `bound` is told the address.

    Raises `BadConfig` when it cannot bind, and what a first probe raised that waiting will not repair.
    """
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        async with started(services, settings, caller_of) as server:
            bound(server.address)
            asked = asyncio.create_task(signals.get())
            await asyncio.wait({asked, server.failed}, return_when=asyncio.FIRST_COMPLETED)
            if server.failed.done():
                asked.cancel()
                await server.stop(0.0)
                server.failed.result()
            _log.info("draining: no new calls, at most %.0f s for those in hand", settings.grace)
            drained = asyncio.create_task(server.stop(settings.grace))
            impatient = asyncio.create_task(signals.get())
            await asyncio.wait({drained, impatient}, return_when=asyncio.FIRST_COMPLETED)
            impatient.cancel()
            if not drained.done():
                await server.stop(0.0)
            await drained
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
