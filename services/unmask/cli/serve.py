"""`unmask serve`: the services over gRPC, in this process, with the embedded adapters behind them."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from unmask.bootstrap import Parts
    from unmask.core.world import World
    from unmask.rpc.serving import ServerSettings, Service
    from unmask.rpc.work import Changes, Workers
    from unmask.settings import Settings

SERVICES: Final = ("ingestion", "alignment", "classification", "localization")
# Calls that may wait for a thread; each holds its picture meanwhile.
_WAITING: Final = 32
# Threads that look into the store: short reads, apart from the work that takes a processor.
_READERS: Final = 2
_LONGEST_GRACE: Final = 3600.0


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "serve",
        help="serve ingestion, alignment, classification or localization over gRPC",
        description="Serves over gRPC, with health checks and reflection, until SIGTERM. Services in processes of their own "
        "share what is stored when they name the same --state folder.",
    )
    parser.add_argument(
        "services", nargs="+", choices=SERVICES, metavar="SERVICE", help=f"one or more of {', '.join(SERVICES)}"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:50051", metavar="HOST:PORT", help="loopback address (default %(default)s; port 0: any)"
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
    from unmask.rpc.serving import ServerSettings
    from unmask.settings import Settings

    if not 0.0 <= args.grace <= _LONGEST_GRACE:
        raise BadConfig(f"--grace {args.grace}: expected 0 to {_LONGEST_GRACE:.0f} seconds")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    told = {name: getattr(args, name) for name in ("state", "models") if getattr(args, name) is not None}
    settings = replace(Settings.from_environment(), **told)
    serving = ServerSettings(listen=args.listen, byte_limit=settings.max_bytes, grace=args.grace)
    asyncio.run(_serve(args.services, settings, serving))
    return 0


async def _serve(names: Sequence[str], settings: Settings, serving: ServerSettings) -> None:
    from unmask.rpc.serving import checked_address, serve_until_signalled

    checked_address(serving.listen)  # before models are read: a wrong word is told at once
    with wired(dict.fromkeys(names), settings) as services:
        await serve_until_signalled(
            services, serving, lambda address: print(f"serving {' '.join(names)} on {address}", flush=True)
        )


@contextmanager
def wired(names: Mapping[str, object] | Sequence[str], settings: Settings) -> Iterator[list[Service]]:
    """The services over one set of parts; ingestion brings the workers of the whole pipeline and the sweeper with it."""
    from unmask.bootstrap import Parts
    from unmask.rpc.work import Changes, Workers

    parts, changes = Parts(settings), Changes()
    workers, readers = Workers(parts.threads, _WAITING), Workers(_READERS, 0)
    make = _pipeline if "ingestion" in names else _readers
    with make(parts, changes) as world:
        try:
            yield [_SERVERS[name](parts, world, workers, readers, changes) for name in names]
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
def _readers(parts: Parts, changes: Changes) -> Iterator[World]:
    """A world for services that only look: nothing is ever published in it."""
    from unmask.bootstrap import inline_world

    yield inline_world(parts)


def _ingestion(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.ingestion.server import IngestionServer

    return IngestionServer(world, parts.models, workers, readers, changes)


def _alignment(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.alignment.server import AlignmentServer

    return AlignmentServer(world, parts.models, workers)


def _classification(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.classification.server import ClassificationServer

    return ClassificationServer(world, parts.models, workers)


def _localization(parts: Parts, world: World, workers: Workers, readers: Workers, changes: Changes) -> Service:
    from unmask.localization.server import LocalizationServer

    return LocalizationServer(world, parts.models, workers)


_SERVERS: Final[Mapping[str, Callable[[Parts, World, Workers, Workers, Changes], Service]]] = {
    "ingestion": _ingestion,
    "alignment": _alignment,
    "classification": _classification,
    "localization": _localization,
}
