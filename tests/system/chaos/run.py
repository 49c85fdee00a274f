"""A run: the platform up, pictures in flight, faults one after the other, quiet, the ledger."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from tests.system.chaos.faults import FAULTS
from tests.system.chaos.figures import figures
from tests.system.chaos.ledger import Books, Ledger, audit
from tests.system.chaos.orders import TENANTS, make_orders
from tests.system.chaos.producer import Doors, Producer
from tests.system.chaos.receiver import Receiver, receiving
from tests.system.chaos.stores import Stored, counts, drained, picture_keys, read_rows
from tests.system.chaos.watch import Watch
from tests.system.tiny_models import make_repository
from unmask.adapters.clock import SystemClock
from unmask.adapters.sink_webhook import webhook_secret
from unmask.core.access import Scope, Tenant
from unmask.core.erasing import collect_orphans
from unmask.core.tokens import hashed, new_token
from unmask.distributed import DistributedParts
from unmask.settings import Settings

if TYPE_CHECKING:
    from unmask_dev.stack import Broker, Stack

# Twelve attempts from half a second on are seventeen minutes: no outage here is a death.  A message that is lost is missed
# after ten seconds instead of a minute.
QUICK: Final = {
    "UNMASK_ATTEMPTS": "12",
    "UNMASK_RETRY_SECONDS": "0.5",
    "UNMASK_STUCK_SECONDS": "10",
    "UNMASK_TRITON_SECONDS": "3",
    "UNMASK_CHILD_MEMORY": "600",
}
WORKERS: Final = ("ingest", "align", "classify", "localize", "submit", "deliver", "sweep")
_QUIET_SECONDS: Final = 480.0
# Nothing has changed for so long, and nothing is open or pending: nothing moves.
_STILL: Final = 4.0
# Volumes of 1 MB: the blob store's limit.
_VOLUMES: Final = 60
_AGAIN: Final = re.compile(r"sweeper: published_again: (\d+)")


@dataclass(frozen=True)
class Plan:
    """How many pictures, on which broker, through which faults in this order."""

    pictures: int
    broker: Broker
    faults: Sequence[str]
    seed: int = 1


def run(plan: Plan, folder: Path, say: Callable[[str], None] = print) -> Ledger:
    """One run; `folder` has to let other users through.  Raises `ServerMissing` or `ServerFailed`."""
    with ExitStack() as exits:
        stack, doors, receiver = exits.enter_context(_platform(plan, folder))
        engine = sa.create_engine(stack.environment["UNMASK_DATABASE"], pool_pre_ping=True, isolation_level="AUTOCOMMIT")
        exits.callback(engine.dispose)
        producer = Producer(make_orders(plan.pictures, plan.seed), doors)
        watch = Watch(engine)
        watch.start()
        exits.callback(watch.close)
        producer.start()
        began = time.monotonic()
        _strike_all(plan, stack, producer, watch, say)
        if not producer.join(_QUIET_SECONDS):
            say("the producer did not finish")
        _until_quiet(engine, producer, say)
        took = time.monotonic() - began
        stored = _stored(stack, engine)
        books = Books(list(producer.sent), list(receiver.deliveries), stored)
        more = {
            "longest a case stood still, s": f"{watch.longest:.1f} ({watch.where})",
            "most attempts at a step": f"{watch.attempts} of {QUICK['UNMASK_ATTEMPTS']}",
            "published again by the sweeper": str(_published_again(stack)),
            "seconds": f"{took:.0f}",
        }
        return replace(audit(books), figures={**figures(books), **more})


@contextmanager
def _platform(plan: Plan, folder: Path) -> Iterator[tuple[Stack, Doors, Receiver]]:
    """Everything up and ready, tenants with tokens, a receiver that knows their secrets."""
    from unmask_dev.ports import LOOPBACK, free_port
    from unmask_dev.seaweedfs import SeaweedFS
    from unmask_dev.stack import Stack

    stack = Stack(folder / "stack", make_repository(folder / "models"), broker=plan.broker, env=QUICK)
    stack.blobs = SeaweedFS(stack.folder / "seaweedfs", volumes=_VOLUMES, volume_mb=1)
    master = stack.environment["UNMASK_WEBHOOK_KEYS"].encode()
    receiver = Receiver({tenant: webhook_secret(master, tenant) for tenant in TENANTS})
    with stack, receiving(receiver):
        address = f"{LOOPBACK}:{free_port()}"
        stack.spawn("ingestion", "serve", "ingestion", "--listen", address)
        for kind in WORKERS:
            stack.work(kind, concurrency=2)
        tokens = _tokens(stack)
        stack.wait_ready(180)
        callback = f"http://{LOOPBACK}:{receiver.port}/events"
        yield stack, Doors(address, stack.broker.url, stack.blobs.client(), tokens, callback), receiver


def _parts(stack: Stack) -> DistributedParts:
    told = {name: value for name, value in stack.environment.items() if name.startswith("UNMASK_")}
    return DistributedParts(Settings.from_environment(told))


def _tokens(stack: Stack) -> dict[str, str]:
    """A token of each tenant, which is made here too."""
    parts, now, texts = _parts(stack), SystemClock().now(), dict[str, str]()
    for name in TENANTS:
        parts.access.put_tenant(Tenant(name, now))
        token, texts[name] = new_token(name, "chaos", {Scope.SUBMIT, Scope.READ}, now)
        parts.access.add_token(token, hashed(texts[name]))
    parts.database.close()
    return texts


def _strike_all(plan: Plan, stack: Stack, producer: Producer, watch: Watch, say: Callable[[str], None]) -> None:
    """A share of the pictures before each fault and after the last, so that each meets some in flight."""
    began, share = time.monotonic(), plan.pictures // (len(plan.faults) + 1)
    for number, name in enumerate(plan.faults):
        producer.allow(share)
        _until(lambda least=share * number + share // 3: len(producer.sent) >= least and watch.open >= share // 4, 20)  # type: ignore[misc]
        struck, moving = time.monotonic(), watch.open
        FAULTS[name](stack)
        say(
            f"  +{struck - began:5.1f} s  {name:<16} over after {time.monotonic() - struck:4.1f} s; when it struck: "
            f"{len(producer.sent)} acknowledged, {moving} cases open"
        )
    producer.allow(plan.pictures)


def _until(check: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _until_quiet(engine: sa.Engine, producer: Producer, say: Callable[[str], None]) -> None:
    """Until nothing moves and everything that was acknowledged is a case or a letter, or the time is up."""
    owed = Books(list(producer.sent), (), Stored((), (), (), (), (), (), frozenset())).accepted
    letters = sum(one.order.end == "refused" and one.order.door != "grpc" for one in producer.sent if one.acknowledged)
    last, since = dict[str, int](), time.monotonic()

    def is_quiet() -> bool:
        nonlocal last, since
        now = counts(engine)
        if now != last:
            last, since = now, time.monotonic()
        moves = now["open"] or now["pending"] or now["cases"] < len(owed) or now["letters"] < letters
        return not moves and time.monotonic() - since > _STILL

    if not _until(is_quiet, _QUIET_SECONDS):
        say(f"not quiet after {_QUIET_SECONDS:.0f} s: {last}; cases owed {len(owed)}, letters {letters}")


def _stored(stack: Stack, engine: sa.Engine) -> Stored:
    """What is there once the sweeper's collector has been, with a grace of a second."""
    parts = _parts(stack)
    # SeaweedFS counts in whole seconds; nothing has been written for longer than the grace.
    collect_orphans(parts.erasing, timedelta(seconds=1))
    parts.database.close()
    blobs, events = picture_keys(stack.blobs.client(), "unmask"), drained(stack.broker.url, "unmask.events")
    with engine.connect() as connection:
        return Stored(**read_rows(connection), blobs=blobs, exchange=events)


def _published_again(stack: Stack) -> int:
    """By the sweeper's log, which outlives its process."""
    return sum(int(found) for found in _AGAIN.findall((stack.folder / "sweep-1.log").read_text(errors="replace")))
