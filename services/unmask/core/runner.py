"""The step function that every way of running goes through: load, handle, compare-and-set, publish what follows."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from unmask.core import pipeline
from unmask.core.contract import to_json
from unmask.core.domain import (
    Case,
    CaseUpdate,
    Decision,
    Event,
    Failure,
    Findings,
    Message,
    PictureInfo,
    Stage,
    State,
    Step,
    Verdict,
)
from unmask.core.errors import BadConfig, BadImage, CallerError, StoreCorrupt, UnknownBlob, UnmaskError
from unmask.core.ids import new_case_id
from unmask.core.images import Pixels
from unmask.core.submit import picture_key, publish
from unmask.core.world import World

_log = logging.getLogger(__name__)


def advance(world: World, tenant: str, case_id: str, step: Step) -> Case:
    """Brings the case one step further, or to its end; returns the row as it is now.

    A stale or repeated call (the case waits for another step or for its next attempt, has ended, or somebody else was
    faster) changes nothing.
    Raises `UnknownCase`, and `Unavailable` when the store itself does not answer; every other error ends in the row: the
    caller's as `failed`, all else as another attempt, or as `dead` when the attempts are used up.
    """
    case = world.store.case(tenant, case_id)
    too_early = case.attempts > 0 and world.clock.now() < case.due_at
    if pipeline.waits_for(case) is not step or too_early:
        return case
    started = time.perf_counter()
    try:
        update = _STEPS[step](world, case)
    except CallerError as error:
        update = _ended(world, case, State.FAILED, Failure.of(error))
    except UnmaskError as error:
        update = _again(world, case, Failure.of(error))
    except Exception as error:  # a defect of ours must not lose the case
        _log.exception("case %s: step %s broke", case.id, step)
        update = _again(world, case, Failure("internal", f"{type(error).__name__} in step {step}; see the log"))
    update = _timed(update, step, (time.perf_counter() - started) * 1000.0)
    if not world.store.commit(case, update):
        return world.store.case(tenant, case_id)
    if update.case.failure is None:
        publish(world, update.case)
    return update.case


def run(world: World, message: Message) -> None:
    """What a queue calls with a message."""
    advance(world, message.tenant, message.case_id, message.step)


def _ingest(world: World, case: Case) -> CaseUpdate:
    """Checks and keeps the bytes; where they were judged before under the same release and policy, that verdict is taken."""
    data = _source_bytes(world, case)
    picture = world.handlers.ingest(case.tenant, data)
    if case.source_ref != picture.blob_key:
        world.blobs.put(picture.blob_key, data)
    known = world.store.verdict(case.tenant, picture.sha256, case.release, case.policy)
    if known is not None:
        return replace(_decided(world, replace(case, sha256=picture.sha256), known), picture=picture)
    return CaseUpdate(_moved(world, case, Stage.INGESTED, sha256=picture.sha256), picture=picture)


def _source_bytes(world: World, case: Case) -> bytes:
    if case.source_kind == "url":
        if world.fetcher is None:
            raise BadConfig("a case waits for a url, and this process may fetch none (UNMASK_FETCH)")
        return world.fetcher.fetch(case.source_ref, world.limits.bytes)
    if case.source_kind == "blob" and world.blobs.size(case.source_ref) > world.limits.bytes:
        raise BadImage(f"blob {case.source_ref!r} is larger than the {world.limits.bytes} bytes that are read")
    return world.blobs.get(case.source_ref)


def _align(world: World, case: Case) -> CaseUpdate:
    faces = world.handlers.align(_pixels(world, case), world.catalogue.release(case.release))
    findings = Findings(faces=faces)
    return CaseUpdate(_moved(world, case, pipeline.stage_after(Step.ALIGN, findings)), findings=findings)


def _classify(world: World, case: Case) -> CaseUpdate:
    faces = world.store.findings(case.tenant, case.id).faces or ()
    classified = world.handlers.classify(_pixels(world, case), faces, world.catalogue.release(case.release))
    return CaseUpdate(_moved(world, case, Stage.CLASSIFIED), findings=Findings(classified=classified))


def _localize(world: World, case: Case) -> CaseUpdate:
    found = world.store.findings(case.tenant, case.id)
    release = world.catalogue.release(case.release)
    localized = world.handlers.localize(_pixels(world, case), found.faces or (), found.classified or (), release)
    return CaseUpdate(_moved(world, case, Stage.LOCALIZED), findings=Findings(localized=localized))


def _decide(world: World, case: Case) -> CaseUpdate:
    findings = world.store.findings(case.tenant, case.id)
    release, policy = world.catalogue.release(case.release), world.catalogue.policy(case.policy)
    return _decided(world, case, world.handlers.judge(case, _picture(world, case), findings, release, policy))


_STEPS: Final[Mapping[Step, Callable[[World, Case], CaseUpdate]]] = MappingProxyType(
    {
        Step.INGEST: _ingest,
        Step.ALIGN: _align,
        Step.CLASSIFY: _classify,
        Step.LOCALIZE: _localize,
        Step.DECIDE: _decide,
    }
)


def _picture(world: World, case: Case) -> PictureInfo:
    picture = world.store.picture(case.tenant, case.sha256)
    if picture is None:
        raise StoreCorrupt(f"case {case.id} is {case.stage}, but its picture has no row")
    return picture


def _pixels(world: World, case: Case) -> Pixels:
    def load() -> bytes:
        try:
            return world.blobs.get(picture_key(case.tenant, case.sha256))
        except UnknownBlob as error:
            # Not the caller's doing any more: the case was ingested, so somebody removed the object.
            raise StoreCorrupt(f"case {case.id}: its picture is gone from the blob store") from error

    return world.handlers.decode(case.sha256, load)


def _moved(world: World, case: Case, stage: Stage, sha256: str = "") -> Case:
    """The row after a step went well: next stage, attempts and failure cleared."""
    return replace(
        case,
        stage=stage,
        revision=case.revision + 1,
        attempts=0,
        failure=None,
        due_at=world.clock.now() + world.retry.stuck,
        sha256=sha256 or case.sha256,
    )


def _decided(world: World, case: Case, verdict: Verdict) -> CaseUpdate:
    """Verdict, decision and outgoing event, for one transaction."""
    now = world.clock.now()
    moved = replace(_moved(world, case, Stage.DECIDED), state=State.DECIDED)
    own = replace(verdict, id=case.id, timings_ms=dict(case.timings_ms))
    decision = Decision(case.id, case.tenant, "policy", verdict.action, "policy", "", "", now)
    event = Event(new_case_id(now), case.tenant, case.id, "verdict.decided", json.dumps(to_json(own)), now)
    return CaseUpdate(moved, verdict=own, decision=decision, event=event)


def _ended(world: World, case: Case, state: State, failure: Failure) -> CaseUpdate:
    """A named end without a verdict, and its event."""
    now = world.clock.now()
    body = json.dumps({"id": case.id, "error": failure.code, "detail": failure.detail})
    moved = replace(case, state=state, failure=failure, revision=case.revision + 1, attempts=case.attempts + 1)
    return CaseUpdate(moved, event=Event(new_case_id(now), case.tenant, case.id, f"case.{state}", body, now))


def _again(world: World, case: Case, failure: Failure) -> CaseUpdate:
    """Another attempt later, or the end as a dead row."""
    attempts = case.attempts + 1
    if attempts >= world.retry.limit:
        return _ended(world, case, State.DEAD, failure)
    due_at = world.clock.now() + world.retry.delay(attempts)
    return CaseUpdate(replace(case, revision=case.revision + 1, attempts=attempts, failure=failure, due_at=due_at))


def _timed(update: CaseUpdate, step: Step, milliseconds: float) -> CaseUpdate:
    """Adds what the step took to the case's timings; `total` is their sum."""
    spent = {**update.case.timings_ms}
    spent[step.value] = round(spent.get(step.value, 0.0) + milliseconds, 2)
    spent["total"] = round(sum(value for key, value in spent.items() if key != "total"), 2)
    return replace(update, case=replace(update.case, timings_ms=spent))
