"""What both clients share: requests built from pictures, answers read, errors turned back into ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from unmask.core.batches import BatchProgress
from unmask.core.domain import (
    BlobSource,
    BytesSource,
    Classified,
    Localized,
    Media,
    Named,
    Priority,
    Source,
    State,
    Submission,
    UrlSource,
    Verdict,
)
from unmask.core.errors import BadImage, BadRequest, UnmaskError, from_code
from unmask.rpc import convert
from unmask.rpc.convert import CaseStatus, FoundFace
from unmask.rpc.wire import enum_from
from unmask.v1 import alignment_pb2, classification_pb2, common_pb2, ingestion_pb2, localization_pb2

Picture = bytes | str | os.PathLike[str]
Answer = CaseStatus | UnmaskError
_NOBODY: Final = "-"
_Request = TypeVar("_Request", alignment_pb2.AlignRequest, classification_pb2.ClassifyRequest, localization_pb2.LocalizeRequest)


@dataclass(frozen=True, slots=True)
class Request:
    """A picture to submit, as bytes, a path, or a source elsewhere, with what goes along."""

    picture: Picture | Source
    idempotency_key: str = ""
    media: Media = field(default_factory=Media)
    labels: Mapping[str, str] = field(default_factory=dict)
    callback: str = ""
    priority: Priority = Priority.LIVE
    batch: str = ""

    def submission(self, tenant: str) -> Submission:
        """The submission of that tenant; raises `BadImage` when a file cannot be read."""
        picture = self.picture
        source = picture if isinstance(picture, BytesSource | BlobSource | UrlSource) else BytesSource(read(picture))
        return Submission(
            tenant, source, self.idempotency_key, self.media, self.labels, self.callback, self.priority, self.batch
        )

    def message(self) -> common_pb2.Submission:
        """The message; raises `BadImage` when a file cannot be read, `BadRequest` when a text is not Unicode."""
        asked = self.submission(_NOBODY)
        try:
            return convert.submission_to(asked)
        except ValueError as error:
            raise BadRequest(f"a text of the request is not Unicode: {error}") from error


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a case is, and its verdict once it is decided."""

    case: CaseStatus
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Aligned:
    """Faces of a picture, its sides in pixels as displayed, and the chips where they were asked for."""

    faces: tuple[FoundFace, ...]
    width: int
    height: int
    release: Named
    chips: tuple[common_pb2.Chip, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Classifications:
    """One result a face or chip; `faces` is empty where chips were given."""

    classified: tuple[Classified, ...]
    faces: tuple[FoundFace, ...]
    release: Named


@dataclass(frozen=True, slots=True)
class Localizations:
    """One result a face or chip; `faces` is empty where chips were given."""

    localized: tuple[Localized, ...]
    faces: tuple[FoundFace, ...]
    release: Named


def read(picture: Picture) -> bytes:
    """The bytes of a picture; raises `BadImage` when its file cannot be read."""
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise BadImage(f"cannot be read: {error.strerror}") from error


def request_of(asked: Request | Picture) -> Request:
    """A request with nothing but its picture, unless it is one already."""
    return asked if isinstance(asked, Request) else Request(asked)


def with_path(verdict: Verdict, asked: Request | Picture) -> Verdict:
    """The verdict under the name of the file that was asked about."""
    picture = asked.picture if isinstance(asked, Request) else asked
    return replace(verdict, path=os.fspath(picture)) if isinstance(picture, str | os.PathLike) else verdict


def subject(
    kind: Callable[..., _Request], picture: Picture | None, case_id: str | None, chips: Sequence[common_pb2.Chip] | None = None
) -> _Request:
    """The request about exactly one of a picture, chips (as `Aligned.chips`) or a case; raises `BadRequest` otherwise."""
    given = [thing for thing in (picture, case_id, chips) if thing is not None]
    if len(given) != 1:
        raise BadRequest("give exactly one of picture, case_id and chips")
    if picture is not None:
        return kind(picture=read(picture))
    return kind(case_id=case_id) if chips is None else kind(chips=common_pb2.Chips(chips=chips))


def answer_from(message: ingestion_pb2.SubmitManyResponse) -> Answer:
    """The case's status, or the error that stands in its place."""
    if message.WhichOneof("outcome") == "case":
        return convert.status_from(message.case)
    return from_code(message.error.reason, message.error.message)


def progress_from(message: ingestion_pb2.GetVerdictResponse | ingestion_pb2.WaitVerdictResponse) -> Progress:
    """Status and verdict of an answer."""
    verdict = convert.verdict_from(message.verdict) if message.HasField("verdict") else None
    return Progress(convert.status_from(message.case), verdict)


def batch_from(message: ingestion_pb2.GetBatchResponse) -> BatchProgress:
    """How far a batch is."""
    return BatchProgress(message.name, {enum_from(common_pb2.State, State, one.state): one.cases for one in message.states})


def aligned_from(message: alignment_pb2.AlignResponse) -> Aligned:
    """Faces and chips of an answer."""
    faces = tuple(convert.found_face_from(face) for face in message.faces)
    return Aligned(faces, message.width, message.height, _release(message.release), tuple(message.chips))


def classifications_from(message: classification_pb2.ClassifyResponse) -> Classifications:
    """What classification answered."""
    faces = tuple(convert.found_face_from(face) for face in message.faces)
    found = tuple(convert.classified_from(one) for one in message.classifications)
    return Classifications(found, faces, _release(message.release))


def localizations_from(message: localization_pb2.LocalizeResponse) -> Localizations:
    """What localization answered."""
    faces = tuple(convert.found_face_from(face) for face in message.faces)
    found = tuple(convert.localized_from(one) for one in message.localizations)
    return Localizations(found, faces, _release(message.release))


def _release(message: common_pb2.Release) -> Named:
    return Named(message.name, message.sha256)
