"""What `unmask dead` and `unmask erase` share: the parts that they work on, and the door that letters go through."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from unmask.cli.deployment import settings_of

if TYPE_CHECKING:
    from unmask.bootstrap import Parts
    from unmask.core.domain import Case, Message
    from unmask.core.ports import StageQueue

# As `unmask.bootstrap` names it.
_STORE: Final = "unmask.sqlite3"


class NoBroker:
    """The port `StageQueue` of whoever has none: the sweeper of the deployment publishes."""

    def publish(self, message: Message) -> None:
        """Raises `Unavailable`."""
        from unmask.core.errors import Unavailable

        raise Unavailable("no broker is configured here (UNMASK_BROKER)")


@contextmanager
def opened(args: argparse.Namespace, verb: str, *, blobs: bool = False) -> Iterator[Parts]:
    """The parts over the deployment's database; raises `BadConfig` when none is named, or with `blobs` no store of pictures."""
    from unmask.core.errors import BadConfig
    from unmask.distributed import parts_of

    settings = settings_of(args)
    if not settings.distributed and settings.state is None:
        raise BadConfig(f"{verb}: say where cases are kept: UNMASK_DATABASE, or --state DIR (or UNMASK_STATE)")
    # Opened without looking, a folder of something else would be given an empty store.
    if not settings.distributed and settings.state is not None and not (settings.state / _STORE).is_file():
        raise BadConfig(f"{verb}: {settings.state}: no store is there")
    if blobs and settings.state is None and not settings.s3.endpoint:
        raise BadConfig(f"{verb}: say where pictures are kept: UNMASK_S3, or UNMASK_STATE for a folder that processes share")
    parts = parts_of(settings)
    with closing(parts.database):
        yield parts


def broker(parts: Parts) -> StageQueue | None:
    """The broker, where one is told."""
    from unmask.distributed import DistributedParts

    return parts.queue if isinstance(parts, DistributedParts) and parts.settings.broker else None


def submitted(parts: Parts, body: bytes, tenant: str) -> Case:
    """Takes a dead letter through the door again; raises what the door raises."""
    from unmask.core.pipeline import RetryRule
    from unmask.ingestion.door import Door

    world = parts.world(broker(parts) or NoBroker(), RetryRule())
    return Door(world, parts.dead, parts.authenticator.caller).take_again(body, tenant)
