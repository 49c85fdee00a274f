"""The processes of the platform that no caller talks to: step workers, the queue's doors, the relay, the sweeper."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from unmask.bootstrap import cores, runtime_versions
from unmask.core.domain import Message, Priority, Step
from unmask.core.errors import BadConfig
from unmask.core.runner import run
from unmask.distributed import DistributedParts
from unmask.settings import Settings

if TYPE_CHECKING:
    from unmask.adapters.door_kombu import DoorConsumer, Taker
    from unmask.adapters.door_redis import RedisDoors

_log = logging.getLogger(__name__)
# What each kind of worker takes; `decide` needs no model and goes with the last stage.
STEPS: Final[Mapping[str, tuple[Step, ...]]] = MappingProxyType(
    {
        "ingest": (Step.INGEST,),
        "align": (Step.ALIGN,),
        "classify": (Step.CLASSIFY,),
        "localize": (Step.LOCALIZE, Step.DECIDE),
        "shadow": (Step.SHADOW,),
    }
)
# Hostile bytes are decoded where a child can be killed by time and memory; what waits for Triton waits in threads.
_IN_PROCESSES: Final = frozenset({"ingest", "align", "shadow"})
# In the order of the pipeline; one worker may take several.
_STAGES: Final = ("ingest", "align", "classify", "localize")
_ROLES: Final = {"align": "face_detector", "classify": "detector", "localize": "localizer"}
_PARENT_SECONDS: Final = 1.0
# Bytes that a door may write to: a message that unpacks to more is refused, and the process goes on.
_DOOR_MEMORY: Final = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Work:
    """How a worker is to run: one kind, or several stages that a case then goes through in one worker."""

    kinds: tuple[str, ...]
    concurrency: int
    lanes: tuple[Priority, ...] = (Priority.LIVE, Priority.BATCH)

    @property
    def name(self) -> str:
        """For logs, traces and Celery."""
        return "-".join(self.kinds)

    @property
    def is_forked(self) -> bool:
        """Whether it works in child processes."""
        return not _IN_PROCESSES.isdisjoint(self.kinds)


def work_of(kinds: Sequence[str], concurrency: int, lanes: tuple[Priority, ...]) -> Work:
    """How to run that worker; 0 stands for the default concurrency.  Raises `BadConfig` for kinds that do not go together."""
    if len(kinds) > 1 and (alone := [kind for kind in kinds if kind not in _STAGES]):
        raise BadConfig(f"work {alone[0]}: runs by itself; only {', '.join(_STAGES)} go together")
    return Work(tuple(dict.fromkeys(kinds)), concurrency or default_concurrency(kinds), lanes)


def default_concurrency(kinds: Sequence[str]) -> int:
    """Threads for what waits: enough that Triton can make batches.  Children for what decodes: one a processor, and as many
    again where they wait for the models of later stages too.
    """
    if _IN_PROCESSES.isdisjoint(kinds):
        return {"submit": 2, "deliver": 8, "sweep": 1}.get(kinds[0], 4 * cores())
    return cores() if _IN_PROCESSES.issuperset(kinds) else 2 * cores()


def run_work(settings: Settings, work: Work) -> int:
    """Works until SIGTERM; returns the exit code."""
    return KINDS[work.kinds[0]](settings, work)


def checked(settings: Settings) -> Settings:
    """The settings, if they are a platform's; raises `BadConfig` saying what is missing."""
    for name, told in (("UNMASK_DATABASE", settings.database), ("UNMASK_BROKER", settings.broker)):
        if not told:
            raise BadConfig(f"{name} is not set: workers share a database and a broker (`unmask up` starts both)")
    return settings


def work_steps(settings: Settings, work: Work) -> int:
    """Works the steps of `work` until SIGTERM; returns the exit code."""
    from unmask.adapters.celery_app import make_app
    from unmask.adapters.celery_worker import WorkerSettings, run_worker

    steps = tuple(step for kind in work.kinds for step in STEPS[kind])

    def make_run() -> Callable[[Message, bool], None]:
        traced(settings, work.name)
        world = DistributedParts(settings).distributed_world()
        return lambda message, redelivered: run(world, message, redelivered=redelivered, also=steps)

    told = WorkerSettings(steps, work.lanes, work.concurrency, work.is_forked, settings.child_memory * 1024 * 1024)
    name = f"{work.name}-{os.getpid()}@{socket.gethostname()}"
    shown = status_process if work.is_forked else status
    with shown(settings, work.kinds, work.concurrency):
        return run_worker(make_app(settings.broker), told, make_run, name)


def traced(settings: Settings, kind: str) -> None:
    """Exports traces from this process, where the settings ask for them."""
    if settings.traces:
        from unmask.adapters.tracing import start_tracing

        start_tracing(f"unmask-{kind}")


def a_door(broker: str, taker: Taker) -> DoorConsumer | RedisDoors:
    """What takes submissions from this kind of broker."""
    from unmask.adapters.celery_app import is_amqp

    if is_amqp(broker):
        from unmask.adapters.door_kombu import DoorConsumer

        return DoorConsumer(broker, taker)
    from unmask.adapters.door_redis import RedisDoors

    return RedisDoors(broker, taker)


def work_doors(settings: Settings, work: Work) -> int:
    """Takes submissions from the queue until SIGTERM."""
    resource.setrlimit(resource.RLIMIT_DATA, (_DOOR_MEMORY, _DOOR_MEMORY))
    traced(settings, work.name)
    parts = DistributedParts(settings)
    taker = parts.door(parts.distributed_world())
    consumers = [a_door(settings.broker, taker) for _ in range(work.concurrency)]
    threads = [threading.Thread(target=consumer.run, name=f"door-{number}") for number, consumer in enumerate(consumers)]
    with status(settings, work.kinds, work.concurrency):
        for thread in threads:
            thread.start()
        wait_for_signal()
        for consumer in consumers:
            consumer.stop()
        for thread in threads:
            thread.join()
    return 0


def work_delivery(settings: Settings, work: Work) -> int:
    """Delivers events until SIGTERM."""
    parts = DistributedParts(settings)
    relay = parts.relay(work.concurrency)
    with status(settings, work.kinds, work.concurrency):
        relay.start()
        wait_for_signal()
        relay.close()
    return 0


def work_sweep(settings: Settings, work: Work) -> int:
    """Publishes again what is due, and does the slow duties, until SIGTERM."""
    parts = DistributedParts(settings)
    sweeper = parts.sweeper(parts.distributed_world())
    with status(settings, work.kinds, work.concurrency):
        sweeper.start()
        wait_for_signal()
        sweeper.close()
    return 0


KINDS: Final[Mapping[str, Callable[[Settings, Work], int]]] = MappingProxyType(
    {**dict.fromkeys(STEPS, work_steps), "submit": work_doors, "deliver": work_delivery, "sweep": work_sweep}
)


def wait_for_signal() -> None:
    """Returns after SIGTERM or SIGINT; main thread only."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    asked.wait()
    _log.info("stopping: what is in hand is finished")


@contextmanager
def status(settings: Settings, kinds: Sequence[str], slots: int = 0, also: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Serves /livez, /readyz (which calls `also` too) and /metrics meanwhile, from a thread, where the settings say on which
    address.

    `slots` is how much the process works at once, 0 where that is not known.
    """
    if not settings.metrics:
        yield
        return
    from unmask.adapters.http_status import StatusServer

    parts = DistributedParts(settings)

    def ready() -> None:
        also()
        probe(parts, kinds)

    server = StatusServer(settings.metrics, ready, page_of(parts, "-".join(kinds), slots))
    server.start()
    try:
        yield
    finally:
        server.close()


@contextmanager
def status_process(settings: Settings, kinds: Sequence[str], slots: int = 0) -> Iterator[None]:
    """The same from a process of its own.

    A process that forks its workers must have no threads: a child would inherit whatever lock a probe holds at that moment,
    and gRPC's threads not at all.
    """
    if not settings.metrics:
        yield
        return
    from unmask.adapters.metrics_prometheus import forget_processes, share_over_processes

    folder = share_over_processes()
    told = (settings, kinds, slots, os.getpid())
    process = get_context("spawn").Process(target=_serve_status, args=told, name="status", daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()
        forget_processes(folder)


def _serve_status(settings: Settings, kinds: Sequence[str], slots: int, parent: int) -> None:
    """The status process: until its parent ends it, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with status(settings, kinds, slots):
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)


def page_of(parts: DistributedParts, process: str, slots: int) -> Callable[[], bytes]:
    """The metrics page of a process, with what it says of the process itself."""
    from unmask.adapters.certificates import expires_at
    from unmask.core import metrics

    observer, certificate = parts.observer, parts.settings.tls.cert
    observer.gauged(metrics.BUILD_INFO, {(runtime_versions()["unmask"], process): 1.0})
    observer.gauged(metrics.WORKER_SLOTS, {(process,): float(slots)} if slots else {})

    def page() -> bytes:
        if certificate is not None:
            expires = expires_at(certificate)
            observer.gauged(metrics.CERTIFICATE_EXPIRY, {} if expires is None else {(process,): expires.timestamp()})
        return observer.page()

    return page


def probe(parts: DistributedParts, kinds: Sequence[str]) -> None:
    """Uses what a worker of these kinds needs once: database, blobs, broker, an inference; raises what they raise."""
    from unmask.rpc.serving import probe_model

    parts.probe()
    for role in (_ROLES[kind] for kind in kinds if kind in _ROLES):
        probe_model(parts.models, parts.catalogue.active_release().model(role))
