"""Rows of the case store to domain objects and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from unmask.core.domain import (
    Action,
    Case,
    Claim,
    Decision,
    Event,
    Failure,
    Media,
    PictureInfo,
    Stage,
    State,
)

Row = Mapping[str, Any]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_microseconds(time: datetime) -> int:
    """Whole microseconds since 1970 UTC; a naive time raises `TypeError`."""
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The inverse of `to_microseconds`."""
    return _EPOCH + value * _MICROSECOND


def case_row(case: Case) -> dict[str, Any]:
    """A case as column values."""
    return {
        "tenant": case.tenant,
        "id": case.id,
        # Null is never equal to null: cases without a key do not meet.
        "idempotency_key": case.idempotency_key or None,
        "body_sha256": case.body_sha256,
        "source_kind": case.source_kind,
        "source_ref": case.source_ref,
        "media": {"kind": case.media.kind, "parent": case.media.parent},
        "labels": dict(case.labels),
        "callback": case.callback,
        "release": case.release,
        "policy": case.policy,
        "created_at": to_microseconds(case.created_at),
        "due_at": to_microseconds(case.due_at),
        "stage": case.stage.value,
        "state": case.state.value,
        "revision": case.revision,
        "attempts": case.attempts,
        "failure": None if case.failure is None else {"code": case.failure.code, "detail": case.failure.detail},
        "sha256": case.sha256,
        "timings_ms": dict(case.timings_ms),
    }


def case_of(row: Row) -> Case:
    """A case out of its columns."""
    same = ("tenant", "id", "body_sha256", "source_kind", "source_ref", "labels", "callback", "release", "policy")
    numbers = ("revision", "attempts", "sha256", "timings_ms")
    return Case(
        **{name: row[name] for name in (*same, *numbers)},
        idempotency_key=row["idempotency_key"] or "",
        media=Media(**row["media"]),
        created_at=from_microseconds(row["created_at"]),
        due_at=from_microseconds(row["due_at"]),
        stage=Stage(row["stage"]),
        state=State(row["state"]),
        failure=None if row["failure"] is None else Failure(**row["failure"]),
    )


def picture_row(picture: PictureInfo) -> dict[str, Any]:
    """A picture as column values."""
    names = ("tenant", "sha256", "blob_key", "bytes", "format", "width", "height")
    claims = [{"kind": claim.kind, "field": claim.field, "value": claim.value} for claim in picture.claims]
    return {name: getattr(picture, name) for name in names} | {"claims": claims}


def picture_of(row: Row) -> PictureInfo:
    """A picture out of its columns."""
    return PictureInfo(**{**row, "claims": tuple(Claim(**claim) for claim in row["claims"])})


def decision_row(decision: Decision) -> dict[str, Any]:
    """A decision as column values."""
    names = ("case_id", "tenant", "actor", "reason", "truth", "note")
    own = {"action": decision.action.value, "at": to_microseconds(decision.at)}
    return {name: getattr(decision, name) for name in names} | own


def decision_of(row: Row) -> Decision:
    """A decision out of its columns."""
    names = ("case_id", "tenant", "actor", "reason", "truth", "note")
    return Decision(**{name: row[name] for name in names}, action=Action(row["action"]), at=from_microseconds(row["at"]))


def event_row(event: Event) -> dict[str, Any]:
    """An event as column values, not sent yet."""
    names = ("id", "tenant", "case_id", "kind", "body")
    return {name: getattr(event, name) for name in names} | {"at": to_microseconds(event.at), "sent": 0}


def event_of(row: Row) -> Event:
    """An event out of its columns."""
    names = ("id", "tenant", "case_id", "kind", "body")
    return Event(**{name: row[name] for name in names}, at=from_microseconds(row["at"]))
