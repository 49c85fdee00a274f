"""What the stores hold, read past the product's own code: rows by the tables, events off their queue, blobs by their keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from kombu import Connection

from unmask.adapters.celery_app import transport_options
from unmask.adapters.store_tables import cases, dead_letters, decisions, outbox, pictures, verdicts

Row = sa.RowMapping | Mapping[str, Any]
_PICTURE: Final = re.compile(r"[^/_][^/]*/pictures/")


@dataclass(frozen=True)
class Stored:
    """Rows as they are; keys of pictures' blobs; ids of the events on the exchange, None where nobody looked."""

    cases: tuple[Row, ...]
    verdicts: tuple[Row, ...]
    decisions: tuple[Row, ...]
    events: tuple[Row, ...]
    pictures: tuple[Row, ...]
    letters: tuple[Row, ...]
    blobs: frozenset[str]
    exchange: tuple[str, ...] | None = None


def read_rows(connection: sa.Connection) -> dict[str, tuple[Row, ...]]:
    """The tables that the ledger looks at."""
    tables = {"cases": cases, "verdicts": verdicts, "decisions": decisions, "events": outbox}
    tables |= {"pictures": pictures, "letters": dead_letters}
    return {name: tuple(connection.execute(sa.select(table)).mappings().all()) for name, table in tables.items()}


def counts(engine: sa.Engine) -> dict[str, int]:
    """How many of each there are, and how many still move."""
    asked = {
        "cases": sa.select(sa.func.count()).select_from(cases),
        "open": sa.select(sa.func.count()).where(cases.c.state == "open"),
        "pending": sa.select(sa.func.count()).where(outbox.c.state == "pending"),
        "letters": sa.select(sa.func.count()).select_from(dead_letters),
    }
    with engine.connect() as connection:
        return {name: connection.execute(statement).scalar_one() for name, statement in asked.items()}


def picture_keys(client: Any, bucket: str) -> frozenset[str]:
    """The keys of pictures' blobs in a bucket."""
    names = (entry.object_name or "" for entry in client.list_objects(bucket, recursive=True))
    return frozenset(name for name in names if _PICTURE.match(name))


def drained(broker: str, name: str) -> tuple[str, ...]:
    """The ids of all events on the queue of that name, which is empty then."""
    found: list[str] = []
    with Connection(broker, transport_options=transport_options(broker)) as connection, connection.channel() as channel:
        while (message := channel.basic_get(name)) is not None:
            found.append(str(message.properties["message_id"]))
            channel.basic_ack(message.delivery_tag)
    return tuple(found)
