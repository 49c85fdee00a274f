"""The step function that every way of running goes through: load, handle, compare-and-set, publish what follows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, cast

from unmask.core import pipeline
from unmask.core.domain import Case, CaseUpdate, FaceRow, Failure, Findings, Message, Stage, State, Step
from unmask.core.errors import (
    BadConfig,
    BadImage,
    CallerError,
    OperatorError,
    StoreCorrupt,
    Unavailable,
    UnmaskError,
    from_code,
)
from unmask.core.kept import picture_of, pixels_of
from unmask.core.outcomes import decided, ended
from unmask.core.ports import CaseStore
from unmask.core.remembering import Remembering
from unmask.core.shadow import hint, shadow
from unmask.core.submit import publish
from unmask.core.world import World

_log = logging.getLogger(__name__)


def advance(world: World, tenant: str, case_id: str, step: Step, *, redelivered: bool = False) -> Case:
    """Brings the case one step further, or to its end; returns the row as it is now.

    `redelivered` says that somebody took this message before and did not finish.  That counts as an attempt before the step
    begins, so that a picture which kills its worker ends as a dead row and not as a message that goes round for ever.

    A stale or repeated call (the case waits for another step or for its next attempt, has ended, or somebody else was
    faster) changes nothing.
    Raises `UnknownCase`, and `Unavailable` when the store itself does not answer; every other error ends in the row: the
    caller's as `failed`, all else as another attempt, or as `dead` when the attempts are used up.
    """
    return _advanced(world, tenant, case_id, step, redelivered=redelivered)[0]


def _advanced(
    world: World, tenant: str, case_id: str, step: Step, *, redelivered: bool = False, also: Collection[Step] = ()
) -> tuple[Case, bool]:
    """`advance`, and whether it was this call that moved the case; what waits for a step in `also` is not published."""
    case = world.store.case(tenant, case_id)
    if pipeline.waits_for(case) is not step or pipeline.too_early(case, world.clock.now()):
        return case, False
    if redelivered:
        begun = _begun_again(world, case, step)
        if not world.store.commit(case, begun):
            return world.store.case(tenant, case_id), False
        case = begun.case
        if world.observer is not None:
            world.observer.stepped(case, step, None)
        if case.ended:
            return case, True
    started = time.perf_counter()
    update = _committed(world, case, _worked(world, case, step), step)
    if update is None:
        now = world.store.case(tenant, case_id)
        # The row is as it was: another case gave these bytes their verdict meanwhile, which is the one to take.
        return _advanced(world, tenant, case_id, step, also=also) if now == case else (now, False)
    if world.observer is not None:
        world.observer.stepped(update.case, step, time.perf_counter() - started, update.verdict)
    if update.case.failure is None:
        if pipeline.waits_for(update.case) not in also:
            publish(world, update.case)
        hint(world, update.case)
    return update.case, True


def _worked(world: World, case: Case, step: Step) -> CaseUpdate:
    """What the step made of the case; no error leaves here."""
    started = time.perf_counter()
    try:
        update = _STEPS[step](world, case)
    except CallerError as error:
        update = ended(world, case, State.FAILED, Failure.of(error))
    except UnmaskError as error:
        update = _again(world, case, Failure.of(error))
    except Exception as error:  # a defect of ours must not lose the case
        _log.exception("case %s: step %s broke", case.id, step)
        update = _again(world, case, Failure("internal", f"{type(error).__name__} in step {step}; see the log"))
    return _timed(update, step, (time.perf_counter() - started) * 1000.0)


def _committed(world: World, case: Case, update: CaseUpdate, step: Step) -> CaseUpdate | None:
    """What was written, None when somebody was faster; an update that the store cannot hold is one more failed attempt."""
    try:
        return update if world.store.commit(case, update) else None
    except Unavailable:
        raise
    except Exception as error:
        _log.exception("case %s: what step %s found was not stored", case.id, step)
        known = error if isinstance(error, UnmaskError) else StoreCorrupt(f"{type(error).__name__}; see the log")
        again = _again(world, case, Failure.of(known))
        return again if world.store.commit(case, again) else None


def run(world: World, message: Message, *, redelivered: bool = False, also: Collection[Step] = ()) -> None:
    """What a queue calls with a message; `also` are the other steps that its worker takes.

    While a case waits for one of those it goes on here, without a message and with its pixels at hand.  A worker that dies on
    the way leaves the message of its first step: delivered again, it goes on with whatever the case waits for by then.
    A shadow's work that somebody did not finish is dropped, it moves no case.
    """
    if message.step is Step.SHADOW:
        if not redelivered:
            shadow(world, message.tenant, message.case_id)
        return
    if len(also) > 1:
        world = replace(world, store=cast(CaseStore, Remembering(world.store)))
    step: Step | None = message.step
    while step is not None:
        case, moved = _advanced(world, message.tenant, message.case_id, step, redelivered=redelivered, also=also)
        step = _next_here(world, case, step, also) if moved or redelivered else None
        # One attempt is counted for the worker that was lost, at the step that it was lost at.
        redelivered = redelivered and not moved


def _next_here(world: World, case: Case, done: Step, also: Collection[Step]) -> Step | None:
    """The step to go on with in this worker, if there is one."""
    step = pipeline.waits_for(case)
    return None if step is done or step not in also or pipeline.too_early(case, world.clock.now()) else step


def _ingest(world: World, case: Case) -> CaseUpdate:
    """Checks and keeps the bytes; where they were judged before under the same release and policy, that verdict is taken."""
    data = _source_bytes(world, case)
    picture = world.handlers.ingest(case.tenant, data)
    if case.source_ref != picture.blob_key:
        world.blobs.put(picture.blob_key, data)
    known = world.store.verdict(case.tenant, picture.sha256, case.release, case.policy)
    if known is not None:
        update = decided(world, _moved(world, case, Stage.DECIDED, sha256=picture.sha256), known, picture.phash)
        return replace(update, picture=picture)
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
    faces = world.handlers.align(pixels_of(world, case), world.catalogue.release(case.release))
    findings = Findings(faces=faces)
    return CaseUpdate(_moved(world, case, pipeline.stage_after(Step.ALIGN, findings)), findings=findings)


def _classify(world: World, case: Case) -> CaseUpdate:
    faces = _faces(case, world.store.findings(case.tenant, case.id))
    classified = world.handlers.classify(pixels_of(world, case), faces, world.catalogue.release(case.release))
    return CaseUpdate(_moved(world, case, Stage.CLASSIFIED), findings=Findings(classified=classified))


def _localize(world: World, case: Case) -> CaseUpdate:
    found = world.store.findings(case.tenant, case.id)
    release = world.catalogue.release(case.release)
    localized = world.handlers.localize(pixels_of(world, case), _faces(case, found), found.classified or (), release)
    return CaseUpdate(_moved(world, case, Stage.LOCALIZED), findings=Findings(localized=localized))


def _faces(case: Case, found: Findings) -> tuple[FaceRow, ...]:
    """The faces that were found; a case that is aligned and knows of none must not pass for a picture without faces."""
    if found.faces is None:
        raise StoreCorrupt(f"case {case.id} is {case.stage}, but its faces are not stored")
    return found.faces


def _decide(world: World, case: Case) -> CaseUpdate:
    findings = world.store.findings(case.tenant, case.id)
    release, policy = world.catalogue.release(case.release), world.catalogue.policy(case.policy)
    picture = picture_of(world, case)
    # A verdict is immutable: the first one of these bytes is what every later case of them is told.
    verdict = world.store.verdict(case.tenant, case.sha256, case.release, case.policy)
    if verdict is None:
        verdict = world.handlers.judge(case, picture, findings, release, policy)
    return decided(world, _moved(world, case, Stage.DECIDED), verdict, picture.phash)


_STEPS: Final[Mapping[Step, Callable[[World, Case], CaseUpdate]]] = MappingProxyType(
    {
        Step.INGEST: _ingest,
        Step.ALIGN: _align,
        Step.CLASSIFY: _classify,
        Step.LOCALIZE: _localize,
        Step.DECIDE: _decide,
    }
)


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


def _again(world: World, case: Case, failure: Failure) -> CaseUpdate:
    """Another attempt later, or the end as a dead row.

    Attempts that met an outage do not count against a step that then breaks by itself.
    """
    now, outage = world.clock.now(), _is_outage(failure)
    met_outage = case.failure is not None and _is_outage(case.failure)
    attempts = 1 if met_outage and not outage else case.attempts + 1
    if world.retry.is_spent(attempts, now - case.created_at, outage=outage):
        return ended(world, case, State.DEAD, failure)
    due_at = now + world.retry.delay(attempts)
    return CaseUpdate(replace(case, revision=case.revision + 1, attempts=attempts, failure=failure, due_at=due_at))


def _is_outage(failure: Failure) -> bool:
    """Whether time or an operator repairs it."""
    return isinstance(from_code(failure.code, ""), Unavailable | OperatorError)


def _begun_again(world: World, case: Case, step: Step) -> CaseUpdate:
    """An attempt that is counted before it begins, due at once."""
    counted = _again(world, case, Failure("worker_lost", f"a worker that had taken step {step} did not finish it"))
    return counted if counted.case.ended else replace(counted, case=replace(counted.case, due_at=world.clock.now()))


def _timed(update: CaseUpdate, step: Step, milliseconds: float) -> CaseUpdate:
    """Adds what the step took to the case's timings; `total` is their sum."""
    spent = {**update.case.timings_ms}
    spent[step.value] = round(spent.get(step.value, 0.0) + milliseconds, 2)
    spent["total"] = round(sum(value for key, value in spent.items() if key != "total"), 2)
    return replace(update, case=replace(update.case, timings_ms=spent))
