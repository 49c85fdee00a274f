"""Between the domain and the protos, both ways and without loss: what is unset stays unset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unmask.core.domain import (
    Action,
    BlobSource,
    Box,
    BytesSource,
    Case,
    Claim,
    Classified,
    Defence,
    FaceRow,
    FaceVerdict,
    Failure,
    Heat,
    Label,
    Localized,
    Media,
    ModelVersion,
    Named,
    Point,
    Priority,
    Reason,
    Region,
    Source,
    Stage,
    State,
    Submission,
    UrlSource,
    Verdict,
)
from unmask.core.errors import BadRequest
from unmask.rpc.wire import enum_from, enum_to, filled, maybe, text
from unmask.v1 import common_pb2 as pb


@dataclass(frozen=True, slots=True)
class CaseStatus:
    """How far a case is, as told over the wire."""

    id: str
    stage: Stage
    state: State
    attempts: int = 0
    failure: Failure | None = None
    sha256: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state is not State.OPEN

    @staticmethod
    def of(case: Case) -> CaseStatus:
        """What the outside is told of a row."""
        return CaseStatus(case.id, case.stage, case.state, case.attempts, case.failure, case.sha256)


@dataclass(frozen=True, slots=True)
class FoundFace:
    """What alignment found, in picture pixels; a case that reused a verdict knows no `confidence`."""

    box: Box
    landmarks: tuple[Point, ...]
    confidence: float | None = None

    @staticmethod
    def of(row: FaceRow) -> FoundFace:
        """What the outside is told of a row."""
        return FoundFace(row.box, row.landmarks, row.confidence)


def submission_to(asked: Submission) -> pb.Submission:
    """The message of a submission; the tenant does not travel, the server knows it."""
    return pb.Submission(
        source=_source_to(asked.source),
        idempotency_key=asked.idempotency_key,
        media=pb.Media(kind=asked.media.kind, parent=asked.media.parent),
        labels=dict(asked.labels),
        callback=asked.callback,
        priority=enum_to(pb.Priority, asked.priority),
        batch=asked.batch,
    )


def _source_to(source: Source) -> pb.Source:
    if isinstance(source, BytesSource):
        return pb.Source(data=source.data)
    if isinstance(source, BlobSource):
        return pb.Source(blob=pb.BlobRef(key=source.key))
    return pb.Source(url=source.url)


def submission_from(message: pb.Submission, tenant: str) -> Submission:
    """The submission of a message; raises `BadRequest` when it has no source."""
    return Submission(
        tenant=tenant,
        source=_source_from(message.source),
        idempotency_key=message.idempotency_key,
        media=Media(message.media.kind or "image", message.media.parent),
        labels=dict(message.labels),
        callback=message.callback,
        priority=enum_from(pb.Priority, Priority, message.priority) if message.priority else Priority.LIVE,
        batch=message.batch,
    )


def _source_from(message: pb.Source) -> Source:
    kind = message.WhichOneof("source")
    if kind is None:
        raise BadRequest("submission.source is not set: give data, blob or url")
    if kind == "data":
        return BytesSource(message.data)
    return BlobSource(message.blob.key) if kind == "blob" else UrlSource(message.url)


def status_to(status: CaseStatus) -> pb.CaseStatus:
    """The message of a status."""
    failure = status.failure
    return pb.CaseStatus(
        id=status.id,
        stage=enum_to(pb.Stage, status.stage),
        state=enum_to(pb.State, status.state),
        attempts=status.attempts,
        failure=None if failure is None else pb.Failure(code=failure.code, detail=text(failure.detail)),
        sha256=status.sha256,
    )


def status_from(message: pb.CaseStatus) -> CaseStatus:
    """The status of a message."""
    failure = maybe(message, "failure")
    return CaseStatus(
        id=message.id,
        stage=enum_from(pb.Stage, Stage, message.stage),
        state=enum_from(pb.State, State, message.state),
        attempts=message.attempts,
        failure=None if failure is None else Failure(failure.code, failure.detail),
        sha256=message.sha256,
    )


def box_to(box: Box) -> pb.Box:
    """The message of a box."""
    return pb.Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3])


def box_from(message: pb.Box) -> Box:
    """The box of a message."""
    return message.x0, message.y0, message.x1, message.y1


def _points_to(points: Iterable[Point]) -> list[pb.Point]:
    return [pb.Point(x=x, y=y) for x, y in points]


def _points_from(messages: Iterable[pb.Point]) -> tuple[Point, ...]:
    return tuple((point.x, point.y) for point in messages)


def found_face_to(face: FoundFace) -> pb.DetectedFace:
    """The message of what alignment found."""
    return pb.DetectedFace(box=box_to(face.box), landmarks=_points_to(face.landmarks), confidence=face.confidence)


def found_face_from(message: pb.DetectedFace) -> FoundFace:
    """What alignment found; raises `BadRequest` when there is no box."""
    return FoundFace(box_from(filled(message, "box")), _points_from(message.landmarks), maybe(message, "confidence"))


def classified_to(found: Classified) -> pb.Classification:
    """The message of what classification says of a face."""
    return pb.Classification(
        synthetic=found.synthetic,
        generator=None if found.generator is None else pb.Generator(shares=dict(found.generator)),
        defence=_defence_to(found.defence),
        doubt=found.doubt,
    )


def classified_from(message: pb.Classification) -> Classified:
    """What classification says of a face."""
    generator = maybe(message, "generator")
    return Classified(
        synthetic=maybe(message, "synthetic"),
        generator=None if generator is None else dict(generator.shares),
        defence=_defence_from(message),
        doubt=maybe(message, "doubt"),
    )


def _defence_to(defence: Defence | None) -> pb.Defence | None:
    return None if defence is None else pb.Defence(plain=defence.plain, blurred=defence.blurred)


def _defence_from(message: pb.Classification | pb.Face) -> Defence | None:
    defence = maybe(message, "defence")
    return None if defence is None else Defence(filled(defence, "plain"), filled(defence, "blurred"))


def _region_to(region: Region) -> pb.Region:
    return pb.Region(polygon=_points_to(region.polygon), score=region.score, name=region.name, area=region.area)


def _region_from(message: pb.Region) -> Region:
    return Region(_points_from(message.polygon), filled(message, "score"), message.name, filled(message, "area"))


def _heat_to(heat: Heat | None) -> pb.Heat | None:
    if heat is None:
        return None
    return pb.Heat(width=heat.width, height=heat.height, values=heat.values, to_picture=heat.to_picture)


def _heat_from(message: pb.Localization) -> Heat | None:
    heat = maybe(message, "heat")
    if heat is None:
        return None
    a, b, c, d, e, f = heat.to_picture
    return Heat(heat.width, heat.height, heat.values, (a, b, c, d, e, f))


def localized_to(found: Localized) -> pb.Localization:
    """The message of what localization says of a face."""
    regions = [_region_to(region) for region in found.regions]
    return pb.Localization(manipulated=found.manipulated, regions=regions, heat=_heat_to(found.heat))


def localized_from(message: pb.Localization) -> Localized:
    """What localization says of a face."""
    regions = tuple(_region_from(region) for region in message.regions)
    return Localized(maybe(message, "manipulated"), regions, _heat_from(message))


def _face_to(face: FaceVerdict) -> pb.Face:
    return pb.Face(
        box=box_to(face.box),
        landmarks=_points_to(face.landmarks),
        label=enum_to(pb.Label, face.label),
        score=face.score,
        doubt=face.doubt,
        synthetic=face.synthetic,
        manipulated=face.manipulated,
        generator=None if face.generator is None else pb.Generator(shares=dict(face.generator)),
        defence=_defence_to(face.defence),
        regions=[_region_to(region) for region in face.regions],
    )


def _face_from(message: pb.Face) -> FaceVerdict:
    generator = maybe(message, "generator")
    return FaceVerdict(
        box=box_from(filled(message, "box")),
        landmarks=_points_from(message.landmarks),
        label=enum_from(pb.Label, Label, message.label),
        score=maybe(message, "score"),
        doubt=maybe(message, "doubt"),
        synthetic=maybe(message, "synthetic"),
        manipulated=maybe(message, "manipulated"),
        generator=None if generator is None else dict(generator.shares),
        defence=_defence_from(message),
        regions=tuple(_region_from(region) for region in message.regions),
    )


def verdict_to(verdict: Verdict) -> pb.Verdict:
    """The message of a verdict."""
    return pb.Verdict(
        id=verdict.id,
        sha256=verdict.sha256,
        width=verdict.width,
        height=verdict.height,
        label=enum_to(pb.Label, verdict.label),
        score=verdict.score,
        doubt=verdict.doubt,
        action=enum_to(pb.Action, verdict.action),
        faces=[_face_to(face) for face in verdict.faces],
        claims=[pb.Claim(kind=text(c.kind), field=text(c.field), value=text(c.value)) for c in verdict.claims],
        release=pb.Release(name=verdict.release.name, sha256=verdict.release.sha256),
        models=[pb.ModelVersion(name=m.name, version=m.version, sha256=m.sha256) for m in verdict.models],
        policy=pb.Policy(name=verdict.policy.name, sha256=verdict.policy.sha256),
        reasons=[pb.Reason(code=r.code, text=text(r.text), face=r.face) for r in verdict.reasons],
        runtime=dict(verdict.runtime),
        timings_ms=dict(verdict.timings_ms),
        path=verdict.path,
    )


def verdict_from(message: pb.Verdict) -> Verdict:
    """The verdict of a message."""
    return Verdict(
        id=message.id,
        sha256=message.sha256,
        width=message.width,
        height=message.height,
        label=enum_from(pb.Label, Label, message.label),
        score=maybe(message, "score"),
        doubt=maybe(message, "doubt"),
        action=enum_from(pb.Action, Action, message.action),
        faces=tuple(_face_from(face) for face in message.faces),
        claims=tuple(Claim(claim.kind, claim.field, claim.value) for claim in message.claims),
        release=Named(message.release.name, message.release.sha256),
        models=tuple(ModelVersion(model.name, model.version, model.sha256) for model in message.models),
        policy=Named(message.policy.name, message.policy.sha256),
        reasons=tuple(Reason(reason.code, reason.text, maybe(reason, "face")) for reason in message.reasons),
        runtime=dict(message.runtime),
        timings_ms=dict(message.timings_ms),
        path=maybe(message, "path"),
    )
