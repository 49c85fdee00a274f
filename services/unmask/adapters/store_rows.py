"""Rows of the case store to domain objects and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping

from unmask.core.contract import findings_to_json, to_json
from unmask.core.domain import (
    Action,
    Case,
    Claim,
    Decision,
    Event,
    EventState,
    Failure,
    Findings,
    Label,
    Media,
    Outgoing,
    PictureInfo,
    Priority,
    Stage,
    State,
    Verdict,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Columns whose value is the field's own.
_CASE: Final = (
    *("tenant", "id", "body_sha256", "source_kind", "source_ref", "callback", "release", "policy", "revision", "attempts"),
    *("sha256", "labels", "timings_ms", "batch", "truth", "reviewed"),
)
_PICTURE: Final = ("tenant", "sha256", "blob_key", "bytes", "format", "width", "height", "phash")
_DECISION: Final = ("case_id", "tenant", "actor", "reason", "truth", "note", "generator")
_EVENT: Final = ("id", "tenant", "case_id", "kind", "body", "target", "sequence")


def to_microseconds(time: datetime) -> int:
    """Whole microseconds since 1970 UTC; a naive time raises `TypeError`."""
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The inverse of `to_microseconds`."""
    return _EPOCH + value * _MICROSECOND


def case_row(case: Case) -> dict[str, Any]:
    """A case as column values."""
    return {name: getattr(case, name) for name in _CASE} | {
        # Null is never equal to null: cases without a key do not meet.
        "idempotency_key": case.idempotency_key or None,
        "media": {"kind": case.media.kind, "parent": case.media.parent},
        "labels": dict(case.labels),
        "timings_ms": dict(case.timings_ms),
        "created_at": to_microseconds(case.created_at),
        "due_at": to_microseconds(case.due_at),
        "stage": case.stage.value,
        "state": case.state.value,
        "failure": failure_json(case.failure),
        "priority": case.priority.value,
        "label": None if case.label is None else case.label.value,
        "action": None if case.action is None else case.action.value,
        # A case that moved is left alone until it is due again.
        "hint_at": to_microseconds(case.due_at),
        "hints": 0,
    }


def failure_json(failure: Failure | None) -> dict[str, str] | None:
    """A failure as a JSON column's value."""
    return None if failure is None else {"code": failure.code, "detail": failure.detail}


def failure_of(body: dict[str, str] | None) -> Failure | None:
    """The inverse of `failure_json`."""
    return None if body is None else Failure(**body)


def case_of(row: RowMapping) -> Case:
    """A case out of its columns."""
    return Case(
        **{name: row[name] for name in _CASE},
        idempotency_key=row["idempotency_key"] or "",
        media=Media(**row["media"]),
        created_at=from_microseconds(row["created_at"]),
        due_at=from_microseconds(row["due_at"]),
        stage=Stage(row["stage"]),
        state=State(row["state"]),
        failure=failure_of(row["failure"]),
        priority=Priority(row["priority"]),
        label=None if row["label"] is None else Label(row["label"]),
        action=None if row["action"] is None else Action(row["action"]),
    )


def picture_row(picture: PictureInfo) -> dict[str, Any]:
    """A picture as column values."""
    claims = [{"kind": claim.kind, "field": claim.field, "value": claim.value} for claim in picture.claims]
    return {name: getattr(picture, name) for name in _PICTURE} | {"claims": claims}


def picture_of(row: RowMapping) -> PictureInfo:
    """A picture out of its columns."""
    claims = tuple(Claim(**claim) for claim in row["claims"])
    return PictureInfo(**{name: row[name] for name in _PICTURE}, claims=claims)


def findings_rows(case: Case, findings: Findings) -> list[dict[str, Any]]:
    """A row for each stage that has run."""
    key = {"tenant": case.tenant, "case_id": case.id}
    return [{**key, "part": part, "body": body} for part, body in findings_to_json(findings).items()]


def verdict_row(tenant: str, verdict: Verdict) -> dict[str, Any]:
    """A verdict under its key."""
    key = {"sha256": verdict.sha256, "release": verdict.release.sha256, "policy": verdict.policy.sha256}
    return {"tenant": tenant, **key, "body": to_json(verdict)}


def decision_row(decision: Decision) -> dict[str, Any]:
    """A decision as column values."""
    own = {"action": decision.action.value, "at": to_microseconds(decision.at)}
    return {name: getattr(decision, name) for name in _DECISION} | own


def decision_of(row: RowMapping) -> Decision:
    """A decision out of its columns."""
    return Decision(**{name: row[name] for name in _DECISION}, action=Action(row["action"]), at=from_microseconds(row["at"]))


def event_row(event: Event) -> dict[str, Any]:
    """An event as column values, due at once."""
    at = to_microseconds(event.at)
    return {name: getattr(event, name) for name in _EVENT} | {"at": at, "due_at": at, "taken_by": []}


def event_of(row: RowMapping) -> Event:
    """An event out of its columns."""
    return Event(**{name: row[name] for name in _EVENT}, at=from_microseconds(row["at"]))


def outgoing_of(row: RowMapping) -> Outgoing:
    """An event with its deliveries out of its columns."""
    due_at, failure = from_microseconds(row["due_at"]), failure_of(row["failure"])
    return Outgoing(event_of(row), row["attempts"], due_at, tuple(row["taken_by"]), failure, EventState(row["state"]))
