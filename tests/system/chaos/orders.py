"""What is submitted: a plan of submissions, each with the end that it has to come to."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tests.system.tiny_models import dark_picture, face_picture

Door = Literal["grpc", "json", "celery"]
QUEUES: Final[Mapping[str, str]] = {"json": "unmask.submissions", "celery": "unmask.submit"}
TENANTS: Final = ("acme", "globex", "initech")
_QUEUED: Final[tuple[Door, ...]] = ("json", "celery")
_DOORS: Final[tuple[Door, ...]] = ("grpc", *_QUEUED)
# Red and blue of a "face", and what the tiny models make of it.
_FACES: Final = ((10, 10, "real"), (210, 10, "synthetic"), (10, 210, "manipulated"))
# Of twenty submissions; the rest are pictures with a face.
_RARE: Final = ("dark", "dark", "text", "again", "repeat", "other_body", "unreadable", "blob", "keyless")


@dataclass(frozen=True)
class Order:
    """One submission.  `end` is `decided`, `failed` or `refused`, `says` the label or the error's code that goes with it.

    `blob` is where the producer puts the picture itself.  With `after` the order of that number has to be acknowledged first.
    """

    number: int
    tenant: str
    door: Door
    picture: bytes
    key: str
    end: str
    says: str
    kind: str = "face"
    blob: str = ""
    after: int = -1
    batch: bool = False

    @property
    def mark(self) -> str:
        """What the order is recognised by in a message of its own."""
        return f"order-{self.number}-"

    @property
    def message_id(self) -> str:
        """The same at every attempt."""
        return f"{self.mark}message"

    @property
    def stored_key(self) -> str:
        """The key under which its case is kept: without one of its own, what the queue says stays the same."""
        return self.key or f"{QUEUES[self.door]}:{self.message_id}"


def make_orders(count: int, seed: int) -> list[Order]:
    """That many orders; the same for the same seed."""
    chance = random.Random(seed)
    orders: list[Order] = []
    for number in range(count):
        kind = chance.choice((*_RARE, *["face"] * (20 - len(_RARE))))
        orders.append(_order(number, kind, chance, orders))
    return orders


def _order(number: int, kind: str, chance: random.Random, before: list[Order]) -> Order:
    told: dict[str, Any] = {"number": number, "tenant": chance.choice(TENANTS), "door": chance.choice(_DOORS)}
    told |= {"key": f"key-{number}", "batch": chance.random() < 0.25, "kind": kind}
    earlier = [order for order in before if order.kind in {"face", "dark", "text"}]
    if kind in {"again", "repeat", "other_body"} and earlier:
        return _echo(told, kind, chance.choice(earlier), before)
    if kind == "dark":
        return Order(**told, picture=dark_picture(number), end="decided", says="no_face")
    if kind == "text":
        return Order(**told, picture=b"no picture, number %d" % number, end="failed", says="bad_image")
    if kind == "unreadable":
        return Order(**told | {"door": chance.choice(_QUEUED)}, picture=b"", end="refused", says="")
    red, blue, label = chance.choice(_FACES)
    more: dict[str, Any] = {"kind": "face"} if kind in {"again", "repeat", "other_body"} else {}
    if kind == "blob":
        more = {"blob": f"{told['tenant']}/uploads/{number}.png"}
    if kind == "keyless":
        more = {"key": "", "door": chance.choice(_QUEUED)}
    return Order(**told | more, picture=face_picture(red, blue, seed=number), end="decided", says=label)


def _echo(told: dict[str, Any], kind: str, first: Order, before: list[Order]) -> Order:
    """The bytes of an earlier order under a key of their own; its very submission again; or its key with another body.

    Which of two bodies comes first decides which is refused, so there the earlier one goes by gRPC: acknowledged, it is a case.
    """
    told |= {"tenant": first.tenant, "picture": first.picture, "end": first.end, "says": first.says}
    if kind == "again":
        return Order(**told)
    told |= {"key": first.key, "batch": first.batch}
    if kind == "repeat":
        return Order(**told)
    before[first.number] = Order(**{**first.__dict__, "door": "grpc"})
    changes = {"picture": dark_picture(10_000_000 + told["number"]), "end": "refused", "says": "idempotency_conflict"}
    return Order(**told | changes, after=first.number)
