"""How a case ends: the update that holds verdict, decisions and outgoing event, or a named end without a verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from unmask.core.contract import to_json
from unmask.core.domain import Action, Case, CaseUpdate, Decision, Event, Failure, Label, Stage, State, Verdict
from unmask.core.ids import new_case_id
from unmask.core.near import MATCH
from unmask.core.reasons import decision_reason
from unmask.core.world import World

# From harmless to grave.
GRAVITY: Final = (Action.ALLOW, Action.REVIEW, Action.BLOCK)
FAKES: Final = frozenset({Label.SYNTHETIC, Label.MANIPULATED})
NEAR_ACTOR: Final = "near_duplicate"


def decided(world: World, moved: Case, verdict: Verdict, phash: str) -> CaseUpdate:
    """Verdict, decisions and outgoing event for one transaction; `moved` is the row after the step."""
    now = world.clock.now()
    first = Decision(moved.id, moved.tenant, "policy", verdict.action, "policy", "", "", now)
    decisions = (first, *_raised(world, moved, verdict, phash, now))
    action = decisions[-1].action
    case = replace(moved, stage=Stage.DECIDED, state=State.DECIDED, label=verdict.label, action=action)
    keeps = world.catalogue.keeps_landmarks(case.tenant)
    own = replace(verdict if keeps else without_landmarks(verdict), id=case.id, timings_ms=dict(case.timings_ms))
    told = with_decisions(own, decisions)
    return CaseUpdate(
        case,
        verdict=own,
        decisions=decisions,
        event=event_of(case, "verdict.decided", to_json(told), now),
        forget_findings=not keeps,
        known_fake=True if phash and verdict.label in FAKES else None,
    )


def with_decisions(verdict: Verdict, decisions: Sequence[Decision]) -> Verdict:
    """The verdict as told: its action that of the last decision, and why somebody else than the policy decided."""
    later = tuple(decision_reason(decision) for decision in decisions if decision.actor != "policy")
    return replace(verdict, action=decisions[-1].action, reasons=(*verdict.reasons, *later))


def same_judgement(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts of the same bytes, release and policy say the same; scores as the contract rounds them."""
    return (one.label, one.score, one.action) == (other.label, other.score, other.action)


def without_landmarks(verdict: Verdict) -> Verdict:
    """Landmarks are biometric data: what is kept beyond the decision has none, unless the tenant keeps them."""
    return replace(verdict, faces=tuple(replace(face, landmarks=()) for face in verdict.faces))


def ended(world: World, case: Case, state: State, failure: Failure) -> CaseUpdate:
    """A named end without a verdict, and its event."""
    now = world.clock.now()
    # `due_at` is when it ended: what a tenant keeps for some days is kept from then on.
    moved = replace(case, state=state, failure=failure, revision=case.revision + 1, attempts=case.attempts + 1, due_at=now)
    body = {"id": case.id, "error": failure.code, "detail": failure.detail}
    return CaseUpdate(moved, event=event_of(moved, f"case.{state}", body, now))


def event_of(case: Case, kind: str, body: object, now: datetime) -> Event:
    """An outgoing message about the case as it then is."""
    return Event(new_case_id(now), case.tenant, case.id, kind, json.dumps(body), now, case.callback, case.revision)


def _raised(world: World, case: Case, verdict: Verdict, phash: str, now: datetime) -> tuple[Decision, ...]:
    """A second decision where the picture nearly equals a known fake: it raises `allow` to `review`, and never lowers.

    It is a decision and no part of the verdict, which depends on bytes, release and policy alone.
    """
    if not phash or GRAVITY.index(verdict.action) >= GRAVITY.index(Action.REVIEW):
        return ()
    matches = [match for match in world.store.near(case.tenant, phash, MATCH) if match.sha256 != verdict.sha256]
    if not matches:
        return ()
    nearest = matches[0]
    note = f"{nearest.distance} of 256 bits from picture {nearest.sha256[:16]}, which was found to be no photograph"
    return (Decision(case.id, case.tenant, NEAR_ACTOR, Action.REVIEW, "near_duplicate", "", note, now),)
