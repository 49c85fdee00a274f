"""What the stage services share: the subject of a call, pictures decoded and never stored, stored findings read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unmask.core.cards import Release
from unmask.core.domain import Case, Classified, FaceRow, Localized, Stage, Verdict
from unmask.core.errors import BadRequest, NotReady
from unmask.core.images import Pixels
from unmask.core.pictures import decode
from unmask.core.pipeline import reached
from unmask.core.world import World
from unmask.rpc.convert import FoundFace
from unmask.v1 import common_pb2 as pb


def subject_of(message: Any) -> str:
    """Which of the subjects a request names; raises `BadRequest` when it names none."""
    kind: str | None = message.WhichOneof("subject")
    if kind is None:
        raise BadRequest(f"{type(message).__name__}.subject is not set: give a picture or a case_id")
    return kind


@dataclass(frozen=True, slots=True)
class Stored:
    """What the stages stored for a case; a stage that has not run has none."""

    case: Case
    faces: tuple[FoundFace, ...]
    classified: tuple[Classified, ...]
    localized: tuple[Localized, ...]


def stored_at(world: World, tenant: str, case_id: str, stage: Stage) -> Stored:
    """What the case's stages stored; raises `UnknownCase`, and `NotReady` before it has reached `stage`."""
    case = world.store.case(tenant, case_id)
    if not reached(case, stage):
        failure = f"; it ended {case.state}: {case.failure.detail}" if case.ended and case.failure is not None else ""
        raise NotReady(f"case {case_id!r} is {case.stage}, not yet {stage}{failure}")
    found = world.store.findings(tenant, case_id)
    verdict = world.store.verdict_of(tenant, case_id)
    if found.faces is None and verdict is not None:
        return _of_verdict(case, verdict)
    faces = tuple(FoundFace.of(row) for row in found.faces or ())
    return Stored(case, faces, found.classified or (), found.localized or ())


def _of_verdict(case: Case, verdict: Verdict) -> Stored:
    """A case that took the verdict of the same bytes went through no stage: what that verdict says is what was found."""
    return Stored(
        case,
        tuple(FoundFace(face.box, face.landmarks) for face in verdict.faces),
        tuple(Classified(face.synthetic, face.generator, face.defence, face.doubt) for face in verdict.faces),
        tuple(Localized(face.manipulated, face.regions) for face in verdict.faces),
    )


def faces_in(world: World, data: bytes, release: Release) -> tuple[Pixels, tuple[FaceRow, ...]]:
    """Pixels and faces of a picture that is looked at once and kept nowhere; raises `BadImage`."""
    picture = decode(data, world.limits)
    return picture, world.handlers.align(picture, release)


def release_to(release: Release) -> pb.Release:
    """The message that names a release."""
    return pb.Release(name=release.name, sha256=release.sha256)
