"""Cases, findings and verdicts for the stores' suite."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from unmask.core.domain import (
    Action,
    Case,
    CaseUpdate,
    Claim,
    Classified,
    Decision,
    Defence,
    Event,
    FaceRow,
    FaceVerdict,
    Findings,
    Label,
    Localized,
    Media,
    ModelVersion,
    Named,
    PictureInfo,
    Reason,
    Region,
    Stage,
    State,
    Verdict,
)
from unmask.core.ids import new_case_id

NOW = datetime(2026, 3, 1, 12, 30, 15, 123457, tzinfo=UTC)
SHA, RELEASE, POLICY = "a" * 64, "b" * 64, "c" * 64
MARKS = ((40.13, 50.0), (80.0, 50.3), (60.0, 70.0), (45.0, 95.0), (75.0, 95.0))
REGION = Region(((1.5, 2.25), (30.0, 2.0), (30.0, 40.0)), 0.9, "mouth", 0.04)
FINDINGS = Findings(
    faces=(FaceRow((10.123456789, 10.0, 110.0, 120.0), ((40.123456789, 50.0), *MARKS[1:]), 0.987654321),),
    classified=(Classified(0.123456789, {"stylegan2": 0.8, "unknown": 0.2}, Defence(0.1, 0.2), None),),
    localized=(Localized(0.3, (REGION,)),),
)


def a_case(tenant: str = "default", **fields: Any) -> Case:
    """An accepted case of its own id."""
    plain = Case(
        id=new_case_id(NOW),
        tenant=tenant,
        idempotency_key="",
        body_sha256="d" * 64,
        source_kind="bytes",
        source_ref=f"{tenant}/pictures/{SHA}",
        media=Media("image", "post-1"),
        labels={"uploader": "Zoë 🦊", "空": "'; drop table cases; --"},
        callback="https://example.com/hook",
        release=RELEASE,
        policy=POLICY,
        created_at=NOW,
        due_at=NOW + timedelta(minutes=5),
    )
    return replace(plain, **fields)


def a_verdict(case: Case, **fields: Any) -> Verdict:
    """A verdict of everything the contract can say."""
    face = FaceVerdict(
        (10.12, 10.0, 110.0, 120.0), MARKS, Label.MANIPULATED, 0.97, 0.04, 0.2, 0.96, {"stylegan2": 0.8}, None, (REGION,)
    )
    plain = Verdict(
        id=case.id,
        sha256=SHA,
        width=200,
        height=150,
        label=Label.MANIPULATED,
        score=0.97,
        doubt=None,
        action=Action.REVIEW,
        faces=(face, replace(face, defence=Defence(0.1, 0.2), generator=None, regions=())),
        claims=(Claim("exif", "Software", "naïve editor 2"),),
        release=Named("first", RELEASE),
        models=(ModelVersion("detector", 1, "e" * 64),),
        policy=Named("default", POLICY),
        reasons=(Reason("manipulated", "a region was changed", 0), Reason("claims", "metadata says so")),
        runtime={"unmask": "0.1.0"},
        timings_ms={"total": 41.25},
    )
    return replace(plain, **fields)


def a_picture(tenant: str = "default", **fields: Any) -> PictureInfo:
    """The row of the picture that the verdict is of."""
    plain = PictureInfo(tenant, SHA, f"{tenant}/pictures/{SHA}", 1234, "PNG", 200, 150, (Claim("xmp", "Tool", "x"),))
    return replace(plain, **fields)


def moved(case: Case, stage: Stage, **fields: Any) -> Case:
    """The row after one more step."""
    return replace(case, stage=stage, revision=case.revision + 1, **fields)


def a_decision(case: Case, action: Action = Action.REVIEW, **fields: Any) -> Decision:
    """What the policy said of the case."""
    return replace(Decision(case.id, case.tenant, "policy", action, "policy", "", "", NOW), **fields)


def an_event(case: Case, body: str = "{}") -> Event:
    """An outgoing message about the case."""
    return Event(new_case_id(NOW), case.tenant, case.id, "verdict.decided", body, NOW)


def decided(case: Case, **fields: Any) -> CaseUpdate:
    """The last step's update."""
    row = moved(case, Stage.DECIDED, state=State.DECIDED, sha256=SHA, timings_ms={"total": 9.5})
    return CaseUpdate(row, a_picture(case.tenant), FINDINGS, a_verdict(case, **fields), (a_decision(case),), an_event(case))
