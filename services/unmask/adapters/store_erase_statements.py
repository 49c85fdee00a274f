"""The statements of the eraser, built once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import ColumnElement, bindparam

from unmask.adapters.store_tables import (
    UNREAD,
    cases,
    decisions,
    findings,
    outbox,
    pictures,
    usage,
    verdicts,
)
from unmask.core.domain import EventState, State

# What goes with a picture, and is counted.
PICTURE_PARTS: Final[Mapping[str, sa.Table]] = MappingProxyType({"pictures": pictures, "verdicts": verdicts})


def _whole(name: str) -> sa.BindParameter[int]:
    return bindparam(name, type_=sa.BigInteger)


def _most() -> sa.BindParameter[int]:
    return bindparam("most", type_=sa.Integer)


def _of_tenant(table: sa.Table) -> ColumnElement[bool]:
    # By another name than the column's, which an UPDATE would take for a value to set.
    return table.c.tenant == bindparam("owner")


def _these(table: sa.Table) -> ColumnElement[bool]:
    """Rows of the cases whose ids are given."""
    column = table.c.id if table is cases else table.c.case_id
    return _of_tenant(table) & column.in_(bindparam("ids", expanding=True))


def _of_picture(table: sa.Table) -> ColumnElement[bool]:
    return _of_tenant(table) & (table.c.sha256 == bindparam("sha256"))


_KEPT: Final = cases.c.state != State.ERASED.value
_UNREAD: Final = _of_tenant(cases) & sa.text(UNREAD) & (cases.c.source_ref == bindparam("key")) & _KEPT
# In one order, so that two who lock the same cases do not wait for each other; and not by an index, which SQLite then prefers.
_LOCKED: Final = sa.select(cases).order_by(cases.c.created_at, cases.c.id).with_for_update()
LOCK_CASE: Final = _LOCKED.where(_of_tenant(cases), cases.c.id == bindparam("id"), _KEPT)
LOCK_READ: Final = _LOCKED.where(_of_picture(cases), _KEPT)
LOCK_UNREAD: Final = _LOCKED.where(_UNREAD)
LOCK_PICTURE: Final = sa.select(pictures.c.sha256).where(_of_picture(pictures)).with_for_update()
# Others than the case in hand.
LIVING: Final = tuple(
    sa.select(cases.c.id).where(condition, cases.c.id != bindparam("id")).limit(1)
    for condition in (_UNREAD, _of_picture(cases) & _KEPT)
)


def _page(condition: ColumnElement[bool]) -> sa.Select[Any]:
    after = cases.c.id > bindparam("after", type_=sa.String)
    return sa.select(cases).where(_of_tenant(cases), _KEPT, after, condition).order_by(cases.c.id).limit(_most())


OF_PICTURE: Final = _page(cases.c.sha256 == bindparam("sha256"))


def labelled(dialect: str) -> sa.Select[Any]:
    """Cases by a label, whatever characters are in its name; each database reads JSON in words of its own."""
    each = "json_each_text(cases.labels)" if dialect == "postgresql" else "json_each(cases.labels)"
    return _page(sa.text(f"EXISTS (SELECT 1 FROM {each} AS label WHERE label.key = :name AND label.value = :value)"))  # type: ignore[arg-type]


TOMBSTONE: Final = (
    sa.update(cases)
    .where(_these(cases), _KEPT)
    .values(
        state=State.ERASED.value,
        revision=cases.c.revision + 1,
        attempts=0,
        failure=bindparam("why", type_=sa.JSON),
        idempotency_key=sa.null(),
        media={"kind": "image", "parent": ""},
        labels={},
        timings_ms={},
        label=sa.null(),
        action=sa.null(),
        reviewed=False,
        **dict.fromkeys(("body_sha256", "source_ref", "callback", "sha256", "batch", "truth"), ""),
    )
)
MUTE_DECISIONS: Final = sa.update(decisions).where(_these(decisions)).values(truth="", note="", generator="")


@cache
def removed_of(table: sa.Table) -> sa.Delete:
    """What hangs on the cases given."""
    return sa.delete(table).where(_these(table))


@cache
def removed(table: sa.Table) -> sa.Delete:
    """What hangs on the picture."""
    return sa.delete(table).where(_of_picture(table))


@cache
def counted_of(table: sa.Table) -> sa.Select[Any]:
    """How much hangs on the cases given."""
    return sa.select(sa.func.count()).select_from(table).where(_these(table))


@cache
def counted(table: sa.Table) -> sa.Select[Any]:
    """How much hangs on the picture."""
    return sa.select(sa.func.count()).select_from(table).where(_of_picture(table))


_WANTED: Final = _of_tenant(cases) & cases.c.source_ref.in_(bindparam("keys", expanding=True))
REFERENCES: Final = (
    sa.select(cases.c.source_ref).where(
        _WANTED, cases.c.source_kind != "url", cases.c.state.in_((State.OPEN.value, State.DEAD.value))
    ),
    sa.select(pictures.c.blob_key).where(_of_tenant(pictures), pictures.c.sha256.in_(bindparam("sha256s", expanding=True))),
)
# A case that ended is due, and hinted at, no more: both columns then say when it last was.
EXPIRED: Final = (
    sa.select(cases)
    .where(_of_tenant(cases), cases.c.state == bindparam("state"), cases.c.hint_at < _whole("before"))
    .order_by(cases.c.hint_at)
    .limit(_most())
)
FADING: Final = (
    sa.select(cases)
    .where(
        _of_tenant(cases),
        cases.c.state.in_(bindparam("states", expanding=True)),
        cases.c.hint_at < _whole("before"),
        cases.c.id.in_(sa.select(findings.c.case_id).where(_of_tenant(findings), findings.c.part == "faces")),
    )
    .order_by(cases.c.id)
    .limit(_most())
    .with_for_update(skip_locked=True)
)
NUMBERED_VERDICT: Final = (
    sa.select(verdicts.c.number, verdicts.c.body)
    .where(_of_picture(verdicts), verdicts.c.release == bindparam("release"), verdicts.c.policy == bindparam("policy"))
    .with_for_update()
)
REWRITE_VERDICT: Final = (
    sa.update(verdicts).where(verdicts.c.number == _whole("of")).values(body=bindparam("text", type_=sa.JSON))
)
_OLD_EVENTS: Final = (
    sa.select(outbox.c.number)
    .where(outbox.c.state.in_((EventState.SENT.value, EventState.DROPPED.value)), outbox.c.due_at < _whole("before"))
    .order_by(outbox.c.due_at)
    .limit(_most())
    .with_for_update(skip_locked=True)
)
PRUNE_EVENTS: Final = sa.delete(outbox).where(outbox.c.number.in_(_OLD_EVENTS))
# Numbers of one kind compare as texts: they have as many digits until the year 2160.
PRUNE_USAGE: Final = sa.delete(usage).where(
    sa.or_(*(usage.c.period.like(f"{kind}:%") & (usage.c.period < bindparam(kind)) for kind in ("minute", "day")))
)
