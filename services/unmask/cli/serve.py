"""`unmask serve`: the services over gRPC; alone in one process, or on the platform where the settings name one."""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from unmask.bootstrap import Parts
    from unmask.core.world import World
    from unmask.rpc.callers import CallerOf
    from unmask.rpc.interceptors import Heard
    from unmask.rpc.serving import ServerSettings, Service
    from unmask.rpc.tls import Certificates
    from unmask.rpc.work import Changes, Workers
    from unmask.settings import Settings, TlsSettings

SERVICES: Final = ("ingestion", "alignment", "classification", "localization", "review")
# Calls that may wait for a thread; each holds its picture meanwhile.
_WAITING: Final = 32
# Threads that look into the store: short reads, apart from the work that takes a processor.
_READERS: Final = 2
_LONGEST_GRACE: Final = 3600.0


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "serve",
        help="serve ingestion, alignment, classification, localization or review over gRPC",
        description="Serves over gRPC, with health checks and reflection, until SIGTERM. Services in processes of their own "
        "share what is stored when they name the same --state folder.",
    )
    parser.add_argument(
        "services", nargs="+", choices=SERVICES, metavar="SERVICE", help=f"one or more of {', '.join(SERVICES)}"
    )
    parser.add_argument(
        "--listen",
        default="127.0.0.1:50051",
        metavar="HOST:PORT",
        help="address; other than loopback only with TLS and tokens (default %(default)s; port 0: any)",
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep cases and pictures here (default: in memory, or UNMASK_STATE)"
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="model repository (default: UNMASK_MODELS, else the one that comes along)"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long calls in hand may take at the end (default %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until a signal; exit code 0 after a drain.  Raises `BadConfig`, `BadModel`."""
    from unmask.core.errors import BadConfig
    from unmask.logs import set_up
    from unmask.rpc.serving import ServerSettings
    from unmask.settings import Settings

    if not 0.0 <= args.grace <= _LONGEST_GRACE:
        raise BadConfig(f"--grace {args.grace}: expected 0 to {_LONGEST_GRACE:.0f} seconds")
    told = {name: getattr(args, name) for name in ("state", "models") if getattr(args, name) is not None}
    settings = replace(Settings.from_environment(), **told)
    set_up(settings.log, sys.stderr)
    serving = ServerSettings(
        listen=args.listen,
        byte_limit=settings.max_bytes,
        grace=args.grace,
        tls=certificates(settings.tls),
        heard=_heard(settings),
    )
    with _watched(settings, serving.serving):
        asyncio.run(_serve(args.services, settings, serving))
    return 0


def _heard(settings: Settings) -> Heard | None:
    """What counts and times calls, where there is a page to show it on."""
    if not settings.distributed or not settings.metrics:
        return None
    from unmask.distributed import DistributedParts

    return DistributedParts(settings).observer.answered


def _watched(settings: Settings, serving: threading.Event) -> AbstractContextManager[None]:
    """Status page and traces of a process of the platform; it is ready while its gRPC health says so too."""
    if not settings.distributed:
        return nullcontext()
    from unmask.core.errors import Unavailable
    from unmask.working import status, traced

    def takes_calls() -> None:
        if not serving.is_set():
            raise Unavailable("gRPC: NOT_SERVING (starting, draining, or a model does not answer; see the log)")

    traced(settings, "serve")
    return status(settings, ("serve",), also=takes_calls)


async def _serve(names: Sequence[str], settings: Settings, serving: ServerSettings) -> None:
    from unmask.rpc.serving import checked_address, serve_until_signalled

    # Before models are read: a wrong word is told at once.
    checked_address(serving.listen, tls=serving.tls is not None, tokens=uses_tokens(settings))
    with wired_with_callers(dict.fromkeys(names), settings) as (services, caller_of):
        await serve_until_signalled(
            services, serving, lambda address: print(f"serving {' '.join(names)} on {address}", flush=True), caller_of
        )


def uses_tokens(settings: Settings) -> bool:
    """Whether callers show tokens: as told, else where there is a database; raises `BadConfig` where none could be kept."""
    from unmask.core.errors import BadConfig

    auth = settings.auth or ("tokens" if settings.distributed else "none")
    if auth == "tokens" and not settings.database and settings.state is None:
        raise BadConfig("UNMASK_AUTH=tokens: tokens are kept in a database; set UNMASK_DATABASE, or --state DIR")
    return auth == "tokens"


def certificates(tls: TlsSettings) -> Certificates | None:
    """The server's certificates, read once now; None for plaintext.  Raises `BadConfig`."""
    from unmask.core.errors import BadConfig
    from unmask.rpc.tls import PemFiles

    if tls.cert is None or tls.key is None:
        if tls.cert is not None or tls.key is not None or tls.ca is not None:
            raise BadConfig("UNMASK_TLS_CERT and UNMASK_TLS_KEY go together, and UNMASK_TLS_CA needs both")
        return None
    files = PemFiles(tls.cert, tls.key, tls.ca)
    files()
    return files


@contextmanager
def wired(names: Mapping[str, object] | Sequence[str], settings: Settings) -> Iterator[list[Service]]:
    """The services over one set of parts; ingestion brings the workers of the whole pipeline and the sweeper with it."""
    with wired_with_callers(names, settings) as (services, _):
        yield services


@contextmanager
def wired_with_callers(
    names: Mapping[str, object] | Sequence[str], settings: Settings
) -> Iterator[tuple[list[Service], CallerOf]]:
    """The same, and what says who calls them."""
    from unmask.distributed import parts_of
    from unmask.rpc.callers import local_caller, token_callers
    from unmask.rpc.work import Changes, Workers

    parts, changes = parts_of(settings), Changes()
    workers, readers = Workers(parts.threads, _WAITING), Workers(_READERS, 0)
    caller_of = token_callers(parts.authenticator, readers) if uses_tokens(settings) else local_caller
    make = _shared if settings.broker else _pipeline if "ingestion" in names else _readers
    with make(parts, changes) as world:
        try:
            yield [_SERVERS[name](parts, world, workers, readers, changes) for name in names], caller_of
        finally:
            workers.close()
            readers.close()


@contextmanager
def _pipeline(parts: Parts, changes: Changes) -> Iterator[World]:
    """A world whose steps run on worker threads."""
    from unmask.bootstrap import queued_world
    from unmask.delivery.sweeper import Sweeper

    world, queue = queued_world(parts, lambda message: changes.changed(message.case_id))
    sweeper = Sweeper(world)
    sweeper.start()
    try:
        yield world
    finally:
        sweeper.close()
        queue.close()


@contextmanager
def _shared(parts: Parts, changes: Changes) -> Iterator[World]:
    """A world of the platform: other processes work what is published here."""
    from unmask.core.errors import BadConfig
    from unmask.distributed import DistributedParts

    if not isinstance(parts, DistributedParts):
        raise BadConfig("UNMASK_BROKER needs UNMASK_DATABASE: whoever works a message must find its case")
    yield parts.distributed_world()
    parts.queue.close()


@contextmanager
def _readers(parts: Parts, changes: Changes) -> Iterator[World]:
    """A world for services that only look: nothing is ever published in it."""
    from unmask.bootstrap import inline_world

    yield inline_world(parts)


def _ingestion(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.ingestion.server import IngestionServer

    return IngestionServer(world, parts.models, workers, readers, changes, accept=parts.admission.accept)


def _alignment(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.alignment.server import AlignmentServer

    return AlignmentServer(world, parts.models, workers)


def _classification(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.classification.server import ClassificationServer

    return ClassificationServer(world, parts.models, workers)


def _localization(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.localization.server import LocalizationServer

    return LocalizationServer(world, parts.models, workers)


def _review(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.review.server import ReviewServer

    return ReviewServer(parts.desk, readers, parts.link_of)


_SERVERS: Final[Mapping[str, Callable[[Parts, World, Workers, Workers, Changes], Service]]] = {
    "ingestion": _ingestion,
    "alignment": _alignment,
    "classification": _classification,
    "localization": _localization,
    "review": _review,
}
