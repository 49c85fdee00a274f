"""Dead things, and what becomes of them: cases and events that ran out of attempts, submissions that nobody could read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from unmask.core.access import AuditEntry
from unmask.core.domain import Case, Message
from unmask.core.errors import BadRequest, Unavailable
from unmask.core.pipeline import waits_for

if TYPE_CHECKING:
    from unmask.core.office_ports import AccessStore, DeadStore
    from unmask.core.ports import Clock, StageQueue

_log = logging.getLogger(__name__)
_PAGE: Final = 200
# Takes a letter's body and its tenant (empty where it proved none) through the door again; raises what the door raises.
Submit = Callable[[bytes, str], Case]


class DeadKind(StrEnum):
    """What it is that died."""

    CASE = "case"
    EVENT = "event"
    LETTER = "letter"


@dataclass(frozen=True, slots=True)
class Letter:
    """A submission as it came, of which no case could be made; `tenant` is empty where it proved none."""

    id: str
    tenant: str
    door: str
    body: bytes = field(repr=False)
    code: str
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True)
class DeadItem:
    """One dead thing.  `at` is when a case or event was last due, and when a letter came.

    `about` is a case's stage, an event's kind, a letter's door; `case_id` whom an event tells of.  Labels (of a case) and
    body (of an event or letter) are there only when it is shown by itself.
    """

    kind: DeadKind
    id: str
    tenant: str
    code: str
    detail: str
    at: datetime
    attempts: int
    about: str
    case_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead things; what is None or empty is not asked for."""

    tenant: str | None = None
    kind: DeadKind | None = None
    code: str = ""


class Revived(StrEnum):
    """How a dead thing goes on."""

    PUBLISHED = "published"
    # The sweeper publishes the case at its next turn.
    DUE = "due"
    # The relay delivers the event at its next turn.
    PENDING = "pending"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class DeadOffice:
    """What acts on dead things need; without a queue the sweeper publishes, without a door letters stay dead."""

    dead: DeadStore
    access: AccessStore
    clock: Clock
    queue: StageQueue | None = None
    submit: Submit | None = None


def dead_items(store: DeadStore, wanted: DeadFilter) -> Iterator[DeadItem]:
    """All that the filter asks for, oldest first; read by pages."""
    after = ""
    while page := store.list(wanted.tenant, wanted.kind, _PAGE, after):
        yield from (item for item in page if wanted.code in {"", item.code})
        after = page[-1].id


def requeue(office: DeadOffice, item: DeadItem, actor: str) -> Revived:
    """Gives a dead thing its attempts again: a case at its stage, an event under its id, a letter at its door.

    Raises `UnknownCase` when it is dead no more, and for a letter what the door raises: it stays dead then.
    """
    if item.kind is DeadKind.LETTER:
        return _requeue_letter(office, item, actor)
    _log_act(office, item, "dead.requeue", actor)
    case = office.dead.requeue(item, office.clock.now())
    if case is None:
        return Revived.PENDING
    return Revived.PUBLISHED if _published(office.queue, case) else Revived.DUE


def drop(office: DeadOffice, item: DeadItem, actor: str) -> None:
    """Gives a dead thing up: the case ends as failed, the event is never sent, the letter is deleted.

    Nobody is told: that the case died was an event of its own.  Raises `UnknownCase` when it is dead no more.
    """
    _log_act(office, item, "dead.drop", actor)
    office.dead.drop(item, actor)


def requeue_case(office: DeadOffice, tenant: str, case_id: str, actor: str) -> Revived:
    """`requeue` for a dead case by its id; raises `UnknownCase`."""
    return requeue(office, office.dead.show(case_id, tenant), actor)


def _requeue_letter(office: DeadOffice, item: DeadItem, actor: str) -> Revived:
    """The letter goes only after its case is there: one that dies in between is taken twice rather than lost."""
    if office.submit is None:
        raise BadRequest(f"letter {item.id}: no door is open here that takes submissions")
    letter = office.dead.show(item.id, item.tenant)
    _log_act(office, item, "dead.requeue", actor)
    office.submit(letter.body, letter.tenant)
    office.dead.drop(letter, actor)
    return Revived.ACCEPTED


def _published(queue: StageQueue | None, case: Case) -> bool:
    step = waits_for(case)
    if queue is None or step is None:
        return False
    try:
        queue.publish(Message(case.tenant, case.id, step, case.priority))
    except Unavailable as error:
        _log.warning("case %s: step %s not published (%s); the sweeper will", case.id, step, error.detail)
        return False
    return True


def _log_act(office: DeadOffice, item: DeadItem, act: str, actor: str) -> None:
    """Before it is done: better one too many in the log than one that is missing."""
    detail = {"code": item.code, "about": item.about}
    office.access.audit(AuditEntry(office.clock.now(), item.tenant, actor, act, f"{item.kind} {item.id}", detail))
