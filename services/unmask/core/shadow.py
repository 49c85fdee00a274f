"""Shadow scoring: a share of the decided cases is judged once more under a release on trial, and no verdict is touched."""

from __future__ import annotations

import logging
from dataclasses import replace

from unmask.core.cards import Release
from unmask.core.domain import Case, Findings, Message, Priority, State, Step, Verdict
from unmask.core.errors import UnknownCase, UnmaskError
from unmask.core.kept import picture_of, pixels_of
from unmask.core.office_ports import ShadowStore
from unmask.core.pipeline import stage_after
from unmask.core.releases import ShadowScore, is_chosen
from unmask.core.world import World

_log = logging.getLogger(__name__)


def hint(world: World, case: Case) -> None:
    """Publishes the shadow's work on a case that was just decided, where it belongs to the share; never raises.

    A hint that is lost is not sent again: the comparison lacks one case.
    """
    if world.shadows is None or case.state is not State.DECIDED:
        return
    try:
        found = world.catalogue.shadow()
        if found is not None and found[0].sha256 != case.release and is_chosen(case.id, found[1]):
            world.queue.publish(Message(case.tenant, case.id, Step.SHADOW, Priority.BATCH))
    except UnmaskError as error:
        _log.warning("case %s: not handed to the shadow release (%s)", case.id, error.detail)
    except Exception:  # nor may a defect of ours reach the case
        _log.exception("case %s: not handed to the shadow release", case.id)


def shadow(world: World, tenant: str, case_id: str) -> None:
    """Scores a decided case under the shadow release as it is now, and keeps the score beside the verdict's.

    Never raises: whatever goes wrong is logged and counted, and the case is left as it is.  A case that was erased meanwhile,
    and one that comes again, are left out.
    """
    try:
        found = world.catalogue.shadow()
        if world.shadows is None or found is None:
            return
        case = world.store.case(tenant, case_id)
        verdict = world.store.verdict_of(tenant, case_id)
        if verdict is not None and case.release != found[0].sha256:
            _keep(world, world.shadows, _compared(world, case, verdict, found[0]), found[0].name)
    except UnknownCase:
        return
    except UnmaskError as error:
        _log.warning("case %s: no shadow score (%s)", case_id, error.detail)
        _count(world, "shadow_lost")
    except Exception:
        _log.exception("case %s: no shadow score", case_id)
        _count(world, "shadow_lost")


def _compared(world: World, case: Case, verdict: Verdict, release: Release) -> ShadowScore:
    """The shadow's word beside the verdict; a shadow that breaks says None."""
    label = score = None
    try:
        said = _judged(world, case, release)
        label, score = said.label, said.score
    except UnmaskError as error:
        _log.warning("case %s: shadow release %s: %s", case.id, release.name, error.detail)
    except Exception:  # a release on trial must not stop a worker
        _log.exception("case %s: shadow release %s broke", case.id, release.name)
    now = world.clock.now()
    return ShadowScore(case.tenant, case.id, release.sha256, case.release, label, score, verdict.label, verdict.score, now)


def _judged(world: World, case: Case, release: Release) -> Verdict:
    """What the case's verdict would be: all steps anew, under the case's own policy; nothing is stored."""
    picture, pixels = picture_of(world, case), pixels_of(world, case)
    found = Findings(faces=world.handlers.align(pixels, release))
    faces = found.faces or ()
    if stage_after(Step.ALIGN, found) is stage_after(Step.ALIGN):
        classified = world.handlers.classify(pixels, faces, release)
        localized = world.handlers.localize(pixels, faces, classified, release)
        found = replace(found, classified=classified, localized=localized)
    return world.handlers.judge(case, picture, found, release, world.catalogue.policy(case.policy))


def _keep(world: World, shadows: ShadowStore, score: ShadowScore, release: str) -> None:
    if shadows.keep(score):
        _count(world, "shadow_failed" if score.label is None else "shadow_scored")
        if world.observer is not None:
            world.observer.compared(score, release)


def _count(world: World, duty: str) -> None:
    if world.observer is not None:
        world.observer.counted(duty, 1)
