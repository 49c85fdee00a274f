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
    Failure,
    Findings,
    Media,
    PictureInfo,
    Stage,
    State,
    Verdict,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Columns whose value is the field's own.
_CASE: Final = ("tenant", "id", "body_sha256", "source_kind", "source_ref", "callback", "release", "policy", "revision")
_PICTURE: Final = ("tenant", "sha256", "blob_key", "bytes", "format", "width", "height")
_DECISION: Final = ("case_id", "tenant", "actor", "reason", "truth", "note")
_EVENT: Final = ("id", "tenant", "case_id", "kind", "body")


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
        "created_at": to_microseconds(case.created_at),
        "due_at": to_microseconds(case.due_at),
        "stage": case.stage.value,
        "state": case.state.value,
        "attempts": case.attempts,
        "failure": None if case.failure is None else {"code": case.failure.code, "detail": case.failure.detail},
        "sha256": case.sha256,
        "timings_ms": dict(case.timings_ms),
    }


def case_of(row: RowMapping) -> Case:
    """A case out of its columns."""
    return Case(
        **{name: row[name] for name in _CASE},
        idempotency_key=row["idempotency_key"] or "",
        media=Media(**row["media"]),
        labels=row["labels"],
        created_at=from_microseconds(row["created_at"]),
        due_at=from_microseconds(row["due_at"]),
        stage=Stage(row["stage"]),
        state=State(row["state"]),
        attempts=row["attempts"],
        failure=None if row["failure"] is None else Failure(**row["failure"]),
        sha256=row["sha256"],
        timings_ms=row["timings_ms"],
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
    """An event as column values, not sent yet."""
    return {name: getattr(event, name) for name in _EVENT} | {"at": to_microseconds(event.at), "sent": 0}


def event_of(row: RowMapping) -> Event:
    """An event out of its columns."""
    return Event(**{name: row[name] for name in _EVENT}, at=from_microseconds(row["at"]))
