"""The ledger: what was promised, held against what the stores, the producer and the receiver each wrote down themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.system.chaos.orders import Order
from tests.system.chaos.producer import Sent
from tests.system.chaos.receiver import Delivery
from tests.system.chaos.stores import Row, Stored

Kind = Literal["lost", "duplicated", "wrong"]
_SHOWN: Final = 5
_ENDS: Final = {"decided", "failed"}


@dataclass(frozen=True)
class Books:
    """What each side wrote down."""

    sent: Sequence[Sent]
    deliveries: Sequence[Delivery]
    stored: Stored

    @property
    def accepted(self) -> dict[tuple[str, str], Order]:
        """By tenant and key: what was acknowledged and is to be a case."""
        owed = (one.order for one in self.sent if one.acknowledged and one.order.end != "refused")
        return {(order.tenant, order.stored_key): order for order in owed}

    @property
    def by_key(self) -> dict[tuple[str, str], list[Row]]:
        """The cases of each tenant and key."""
        found = defaultdict(list)
        for row in self.stored.cases:
            found[row["tenant"], row["idempotency_key"]].append(row)
        return dict(found)

    @property
    def events_of(self) -> dict[tuple[str, str], list[Row]]:
        """The outbox's rows of each case."""
        found = defaultdict(list)
        for row in self.stored.events:
            found[row["tenant"], row["case_id"]].append(row)
        return dict(found)


@dataclass(frozen=True)
class Check:
    """A promise, what its breaking means, and every breach of it."""

    promise: str
    kind: Kind
    breaches: tuple[str, ...]


@dataclass(frozen=True)
class Ledger:
    """All checks, and figures for people."""

    checks: tuple[Check, ...]
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept."""
        return [check.promise for check in self.checks if check.breaches]

    def count(self, kind: Kind) -> int:
        """How many breaches of that kind."""
        return sum(len(check.breaches) for check in self.checks if check.kind == kind)

    def text(self) -> str:
        """For people, a line each."""
        lines = [f"  {name:<34}{value}" for name, value in self.figures.items()]
        for check in self.checks:
            lines.append(f"  {'BROKEN' if check.breaches else 'kept':<8}{check.promise}")
            lines += [f"          {breach}" for breach in check.breaches[:_SHOWN]]
            if len(check.breaches) > _SHOWN:
                lines.append(f"          … {len(check.breaches)} in all")
        lines.append(f"lost {self.count('lost')}, duplicated {self.count('duplicated')}, wrong {self.count('wrong')}")
        return "\n".join(lines)


def _acknowledged(books: Books) -> Iterator[str]:
    for one in books.sent:
        if not one.acknowledged:
            yield f"order {one.order.number} by {one.order.door}: never, in {one.attempts} attempts"


def _have_cases(books: Books) -> Iterator[str]:
    found = books.by_key
    for key, order in books.accepted.items():
        if key not in found:
            yield f"order {order.number} ({order.kind} by {order.door}): no case under {key[1]!r} of {key[0]}"


def _told_cases(books: Books) -> Iterator[str]:
    found = books.by_key
    for one in books.sent:
        key = (one.order.tenant, one.order.stored_key)
        if one.case and one.case not in {row["id"] for row in found.get(key, [])}:
            yield f"order {one.order.number}: gRPC told case {one.case}, which is not its key's"


def _one_case_a_key(books: Books) -> Iterator[str]:
    asked = {(one.order.tenant, one.order.stored_key) for one in books.sent if one.order.end != "refused"}
    for key, rows in books.by_key.items():
        if len(rows) != 1:
            yield f"{key[0]}: {len(rows)} cases under key {key[1]!r}"
        if key not in asked:
            yield f"{key[0]}: a case under {key[1]!r}, which nobody asked for"


def _ended_as_expected(books: Books) -> Iterator[str]:
    found = books.by_key
    for key, order in books.accepted.items():
        for row in found.get(key, []):
            if row["state"] not in _ENDS:
                continue
            says = row["label"] if row["state"] == "decided" else (row["failure"] or {}).get("code")
            if (row["state"], says) != (order.end, order.says):
                yield f"case {row['id']}: {row['state']} {says}, expected {order.end} {order.says}"


def _exactly_one_end(books: Books) -> Iterator[str]:
    """Decided, with its verdict and one decision of the policy; or failed, with a reason and neither."""
    verdicts = {tuple(row[part] for part in ("tenant", "sha256", "release", "policy")) for row in books.stored.verdicts}
    policy = Counter((row["tenant"], row["case_id"]) for row in books.stored.decisions if row["actor"] == "policy")
    for row in books.stored.cases:
        key, decided = (row["tenant"], row["id"]), row["state"] == "decided"
        if row["state"] not in {*_ENDS, "dead"}:
            yield f"case {row['id']}: {row['state']} at {row['stage']}, {row['attempts']} attempts, {row['failure']}"
        elif policy[key] != int(decided):
            yield f"case {row['id']}: {row['state']} with {policy[key]} decisions of the policy"
        elif decided and tuple(row[part] for part in ("tenant", "sha256", "release", "policy")) not in verdicts:
            yield f"case {row['id']}: decided without a verdict"
        elif decided == bool(row["failure"]):
            yield f"case {row['id']}: {row['state']}, failure {row['failure']}"


def _none_dead(books: Books) -> Iterator[str]:
    for row in books.stored.cases:
        if row["state"] == "dead":
            yield f"case {row['id']} at {row['stage']}: {row['failure']}"


def _one_verdict(books: Books) -> Iterator[str]:
    rows = Counter(tuple(row[part] for part in ("tenant", "sha256", "release", "policy")) for row in books.stored.verdicts)
    used = {tuple(row[part] for part in ("tenant", "sha256", "release", "policy")) for row in books.stored.cases}
    for key, count in rows.items():
        if count != 1:
            yield f"{key[0]} {key[1][:12]}: {count} verdicts"
        if key not in used:
            yield f"{key[0]} {key[1][:12]}: a verdict of no case"


def _one_event(books: Books) -> Iterator[str]:
    ended = {(row["tenant"], row["id"]) for row in books.stored.cases if row["state"] != "open"}
    events = books.events_of
    for key in ended:
        if key not in events:
            yield f"case {key[1]}: ended, and no event tells of it"
    for key in events:
        if key not in ended:
            yield f"case {key[1]}: an event, and no end"


def _event_once(books: Books) -> Iterator[str]:
    for key, rows in books.events_of.items():
        if len(rows) > 1:
            yield f"case {key[1]}: {len(rows)} events ({', '.join(row['kind'] for row in rows)})"


def _all_sent(books: Books) -> Iterator[str]:
    for row in books.stored.events:
        if row["state"] != "sent":
            yield f"event {row['id']}: {row['state']} after {row['attempts']} attempts, {row['failure']}"


def _delivered(books: Books) -> Iterator[str]:
    """By what the receiver wrote down, held against the cases that ended."""
    heard = {(one.tenant, one.case) for one in books.deliveries if one.signed and one.answered}
    for row in books.stored.cases:
        if row["state"] != "open" and (row["tenant"], row["id"]) not in heard:
            yield f"case {row['id']}: no delivery that the receiver accepted"


def _one_id(books: Books) -> Iterator[str]:
    ids = defaultdict(set)
    for one in books.deliveries:
        ids[one.tenant, one.case].add(one.event)
    own = {key: {row["id"] for row in rows} for key, rows in books.events_of.items()}
    for key, told in ids.items():
        if len(told) != 1:
            yield f"case {key[1]}: delivered under {len(told)} event ids"
        elif told != own.get(key, set()):
            yield f"case {key[1]}: delivered under an id that the outbox does not have"


def _signed(books: Books) -> Iterator[str]:
    for one in books.deliveries:
        if not one.signed:
            yield f"event {one.event}: its signature does not hold"


def _on_exchange(books: Books) -> Iterator[str]:
    if books.stored.exchange is None:
        return
    ids, seen = {row["id"] for row in books.stored.events}, set(books.stored.exchange)
    for event in ids - seen:
        yield f"event {event}: not on the exchange"
    for event in seen - ids:
        yield f"event {event}: on the exchange, and not in the outbox"


def _letters(books: Books) -> Iterator[str]:
    """A refusal by a queue is a letter, one by gRPC an answer; nothing else is either."""
    bodies = [bytes(row["body"]).decode(errors="replace") for row in books.stored.letters]
    refused = [one.order for one in books.sent if one.acknowledged and one.order.end == "refused"]
    marks = {order.number: _mark_in_letter(order) for order in refused if order.door != "grpc"}
    for number, mark in marks.items():
        if not any(mark in body for body in bodies):
            yield f"order {number} was to be a dead letter"
    for row, body in zip(books.stored.letters, bodies, strict=True):
        if not any(mark in body for mark in marks.values()):
            yield f"letter {row['id']} ({row['door']}, {row['code']}: {row['detail'][:100]})"


def _mark_in_letter(order: Order) -> str:
    """What tells its letter from others: a text of its own, or its picture."""
    import base64

    return order.mark if order.kind == "unreadable" else base64.b64encode(order.picture).decode()


def _answers(books: Books) -> Iterator[str]:
    for one in books.sent:
        meant = one.order.says if one.order.end == "refused" and one.order.door == "grpc" else ""
        if one.acknowledged and one.refused != meant:
            yield f"order {one.order.number} by {one.order.door}: refused with {one.refused!r}, expected {meant!r}"


def _blobs(books: Books) -> Iterator[str]:
    rows = {row["blob_key"] for row in books.stored.pictures}
    for key in sorted(books.stored.blobs - rows):
        yield f"{key}: no picture's row refers to it"


def _pictures_have_blobs(books: Books) -> Iterator[str]:
    for row in books.stored.pictures:
        if "/pictures/" in row["blob_key"] and row["blob_key"] not in books.stored.blobs:
            yield f"{row['blob_key']}: its blob is gone"


_CHECKS: Final[tuple[tuple[str, Kind, Callable[[Books], Iterator[str]]], ...]] = (
    ("every submission was acknowledged", "wrong", _acknowledged),
    ("every acknowledged submission has its case", "lost", _have_cases),
    ("gRPC told each caller its own case", "wrong", _told_cases),
    ("a key has one case, and nobody else does", "duplicated", _one_case_a_key),
    ("every case has exactly one end", "lost", _exactly_one_end),
    ("every case ended as its picture asks", "wrong", _ended_as_expected),
    ("no case is dead", "wrong", _none_dead),
    ("a picture has one verdict a release and policy", "duplicated", _one_verdict),
    ("every end is told by an event", "lost", _one_event),
    ("no case has two events", "duplicated", _event_once),
    ("every event is sent", "lost", _all_sent),
    ("the receiver accepted an event of every case", "lost", _delivered),
    ("a case's deliveries all have one id, the outbox's", "duplicated", _one_id),
    ("every delivery is signed", "wrong", _signed),
    ("every event is on the exchange", "lost", _on_exchange),
    ("dead letters are those that were meant", "wrong", _letters),
    ("gRPC refused what was to be refused", "wrong", _answers),
    ("no blob is orphaned", "wrong", _blobs),
    ("every picture has its blob", "lost", _pictures_have_blobs),
)


def audit(books: Books) -> Ledger:
    """Every check."""
    return Ledger(tuple(Check(promise, kind, tuple(find(books))) for promise, kind, find in _CHECKS))
