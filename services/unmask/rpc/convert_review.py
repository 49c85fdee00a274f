"""What reviewers see and say, to messages and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from unmask.core.domain import Action, Case, Claim, Decision, Label, Media, Verdict
from unmask.core.errors import BadRequest
from unmask.core.review import CaseFile, CaseFilter, Order, Ruling, Standing, Truth
from unmask.rpc.convert import CaseStatus, status_from, status_to, verdict_from, verdict_to
from unmask.rpc.wire import enum_from, enum_to, maybe, text
from unmask.v1 import common_pb2
from unmask.v1 import review_pb2 as pb

_Name = TypeVar("_Name", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class ReviewCase:
    """A case as reviewers see it; what nobody has said yet is None."""

    status: CaseStatus
    created_at: datetime
    label: Label | None = None
    action: Action | None = None
    truth: Truth | None = None
    reviewed: bool = False
    revision: int = 0
    batch: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    media: Media = field(default_factory=Media)

    @staticmethod
    def of(case: Case) -> ReviewCase:
        """What reviewers are told of a row."""
        return ReviewCase(
            CaseStatus.of(case),
            case.created_at,
            case.label,
            case.action,
            Truth(case.truth) if case.truth else None,
            case.reviewed,
            case.revision,
            case.batch,
            case.labels,
            case.media,
        )


@dataclass(frozen=True, slots=True)
class CasePage:
    """Some cases, and the token for those after them; empty at the end."""

    cases: tuple[ReviewCase, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class ReviewFile:
    """All that is told of a case; `picture_url` is empty where the blob store gives no links."""

    case: ReviewCase
    verdict: Verdict | None
    decisions: tuple[Decision, ...]
    claims: tuple[Claim, ...]
    picture_url: str = ""


def _enum_or_unset(kind: Any, name: StrEnum | None) -> Any:
    return 0 if name is None else enum_to(kind, name)


def _enum_or_none(kind: Any, names: type[_Name], number: int) -> _Name | None:
    return enum_from(kind, names, number) if number else None


def _time_to(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _time_from(stamp: Timestamp) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"a time is out of range: {error}") from error


def case_to(case: ReviewCase) -> pb.ReviewCase:
    """The message of a case."""
    return pb.ReviewCase(
        status=status_to(case.status),
        created_at=_time_to(case.created_at),
        label=_enum_or_unset(common_pb2.Label, case.label),
        action=_enum_or_unset(common_pb2.Action, case.action),
        truth=_enum_or_unset(pb.Truth, case.truth),
        reviewed=case.reviewed,
        revision=case.revision,
        batch=case.batch,
        labels=dict(case.labels),
        media=common_pb2.Media(kind=case.media.kind, parent=case.media.parent),
    )


def case_from(message: pb.ReviewCase) -> ReviewCase:
    """The case of a message."""
    return ReviewCase(
        status=status_from(message.status),
        created_at=_time_from(message.created_at),
        label=_enum_or_none(common_pb2.Label, Label, message.label),
        action=_enum_or_none(common_pb2.Action, Action, message.action),
        truth=_enum_or_none(pb.Truth, Truth, message.truth),
        reviewed=message.reviewed,
        revision=message.revision,
        batch=message.batch,
        labels=dict(message.labels),
        media=Media(message.media.kind, message.media.parent),
    )


def decision_to(decision: Decision) -> pb.Decision:
    """The message of a decision."""
    return pb.Decision(
        actor=text(decision.actor),
        action=enum_to(common_pb2.Action, decision.action),
        reason=decision.reason,
        truth=_enum_or_unset(pb.Truth, Truth(decision.truth) if decision.truth else None),
        generator=decision.generator,
        note=text(decision.note),
        at=_time_to(decision.at),
    )


def decision_from(message: pb.Decision, case_id: str) -> Decision:
    """The decision of a message; whose tenant it is does not travel."""
    truth = _enum_or_none(pb.Truth, Truth, message.truth)
    action = enum_from(common_pb2.Action, Action, message.action)
    said = "" if truth is None else truth.value
    at = _time_from(message.at)
    return Decision(case_id, "", message.actor, action, message.reason, said, message.note, at, message.generator)


def filter_to(wanted: CaseFilter, size: int, token: str) -> pb.ListCasesRequest:
    """The request of a page."""
    return pb.ListCasesRequest(
        standing=enum_to(pb.Standing, wanted.standing),
        label=_enum_or_unset(common_pb2.Label, wanted.label),
        action=_enum_or_unset(common_pb2.Action, wanted.action),
        batch=wanted.batch,
        order=enum_to(pb.Order, wanted.order),
        page_size=size,
        page_token=token,
    )


def filter_from(message: pb.ListCasesRequest) -> CaseFilter:
    """What a page is asked of; unset is what waits, oldest first."""
    return CaseFilter(
        standing=_enum_or_none(pb.Standing, Standing, message.standing) or Standing.WAITING,
        label=_enum_or_none(common_pb2.Label, Label, message.label),
        action=_enum_or_none(common_pb2.Action, Action, message.action),
        batch=message.batch,
        order=_enum_or_none(pb.Order, Order, message.order) or Order.OLDEST,
    )


def page_from(message: pb.ListCasesResponse) -> CasePage:
    """The page of an answer."""
    return CasePage(tuple(case_from(case) for case in message.cases), message.next_page_token)


def ruling_to(case_id: str, ruling: Ruling) -> pb.DecideRequest:
    """The request of a ruling."""
    return pb.DecideRequest(
        case_id=case_id,
        action=enum_to(common_pb2.Action, ruling.action),
        reason=ruling.reason,
        truth=enum_to(pb.Truth, ruling.truth),
        generator=ruling.generator,
        note=text(ruling.note),
        revision=ruling.revision,
    )


def ruling_from(message: pb.DecideRequest) -> Ruling:
    """The ruling of a request; raises `BadRequest` where action or truth is not set."""
    return Ruling(
        action=enum_from(common_pb2.Action, Action, message.action),
        reason=message.reason,
        truth=enum_from(pb.Truth, Truth, message.truth),
        generator=message.generator,
        note=message.note,
        revision=maybe(message, "revision"),
    )


def file_to(file: CaseFile, picture_url: str) -> pb.GetCaseResponse:
    """The message of all there is to see."""
    return pb.GetCaseResponse(
        case=case_to(ReviewCase.of(file.case)),
        verdict=None if file.verdict is None else verdict_to(file.verdict),
        decisions=[decision_to(decision) for decision in file.decisions],
        claims=[common_pb2.Claim(kind=text(c.kind), field=text(c.field), value=text(c.value)) for c in file.claims],
        picture_url=picture_url,
    )


def file_from(message: pb.GetCaseResponse) -> ReviewFile:
    """What a message shows."""
    case = case_from(message.case)
    return ReviewFile(
        case=case,
        verdict=verdict_from(message.verdict) if message.HasField("verdict") else None,
        decisions=tuple(decision_from(decision, case.status.id) for decision in message.decisions),
        claims=tuple(Claim(claim.kind, claim.field, claim.value) for claim in message.claims),
        picture_url=message.picture_url,
    )
