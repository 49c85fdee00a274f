"""What Unmask talks about: submissions, cases, pictures, what each stage finds, verdicts and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from unmask.core.errors import UnmaskError

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class Label(StrEnum):
    """What a face or picture is said to be."""

    REAL = "real"
    SYNTHETIC = "synthetic"
    MANIPULATED = "manipulated"
    UNSURE = "unsure"
    NO_FACE = "no_face"


class Action(StrEnum):
    """What the platform is told to do."""

    ALLOW = "allow"
    REVIEW = "review"
    BLOCK = "block"


class Stage(StrEnum):
    """The last stage that a case has completed."""

    ACCEPTED = "accepted"
    INGESTED = "ingested"
    ALIGNED = "aligned"
    CLASSIFIED = "classified"
    LOCALIZED = "localized"
    DECIDED = "decided"


class State(StrEnum):
    """Whether a case is still on its way, or how it ended."""

    OPEN = "open"
    DECIDED = "decided"
    FAILED = "failed"
    DEAD = "dead"
    ERASED = "erased"


class Step(StrEnum):
    """Work on a case, also the name of its queue: what brings the case to its next stage, and `SHADOW`, which moves none."""

    INGEST = "ingest"
    ALIGN = "align"
    CLASSIFY = "classify"
    LOCALIZE = "localize"
    DECIDE = "decide"
    SHADOW = "shadow"


class Priority(StrEnum):
    """Which lane a case takes: somebody waits for it, or it is one of very many."""

    LIVE = "live"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class BytesSource:
    """The picture itself."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlobSource:
    """A key in the deployment's blob store; copied and hashed."""

    key: str


@dataclass(frozen=True, slots=True)
class UrlSource:
    """An https URL; fetched, copied and hashed."""

    url: str


Source = BytesSource | BlobSource | UrlSource


@dataclass(frozen=True, slots=True)
class Media:
    """What the picture is of: kind `image`, and the id of what it was taken from (a video, a post), if any."""

    kind: str = "image"
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Submission:
    """One request to judge one picture."""

    tenant: str
    source: Source
    idempotency_key: str = ""
    media: Media = Media()
    labels: Mapping[str, str] = field(default_factory=dict)
    callback: str = ""
    priority: Priority = Priority.LIVE
    # Name of the batch that it counts to; empty for none.
    batch: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a case ended without a verdict, or why its last attempt did."""

    code: str
    detail: str

    @staticmethod
    def of(error: UnmaskError) -> Failure:
        """The failure row of an error."""
        return Failure(error.code, error.detail)


@dataclass(frozen=True, slots=True)
class Case:
    """One accepted submission: the row that the store keeps, compare-and-set on (stage, revision)."""

    id: str
    tenant: str
    idempotency_key: str
    body_sha256: str
    source_kind: str
    source_ref: str
    media: Media
    labels: Mapping[str, str]
    callback: str
    release: str
    policy: str
    created_at: datetime
    due_at: datetime
    stage: Stage = Stage.ACCEPTED
    state: State = State.OPEN
    revision: int = 0
    attempts: int = 0
    failure: Failure | None = None
    sha256: str = ""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    priority: Priority = Priority.LIVE
    batch: str = ""
    # Of the verdict and of the last decision; `truth` is what a reviewer said the picture is.
    label: Label | None = None
    action: Action | None = None
    truth: str = ""
    reviewed: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state is not State.OPEN


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement about a picture's origin found in its metadata; never lowers a score."""

    kind: str
    field: str
    value: str


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """A stored picture: (tenant, sha256), never shared between tenants.  Sides in pixels as displayed."""

    tenant: str
    sha256: str
    blob_key: str
    bytes: int
    format: str
    width: int
    height: int
    claims: tuple[Claim, ...] = ()
    # Perceptual hash, 64 hex digits; empty where there is none (nearly flat pictures).
    phash: str = ""


@dataclass(frozen=True, slots=True)
class FaceRow:
    """What alignment finds, in pixels of the picture as displayed; landmarks in the contract's order."""

    box: Box
    landmarks: tuple[Point, Point, Point, Point, Point]
    confidence: float

    @property
    def side(self) -> float:
        """Long side of the box, pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True, slots=True)
class Defence:
    """The detector's calibrated p(synthetic) on the plain and on the blurred view."""

    plain: float
    blurred: float


@dataclass(frozen=True, slots=True)
class Classified:
    """What classification says of one face; None is unset, not 0."""

    synthetic: float | None
    generator: Mapping[str, float] | None = None
    defence: Defence | None = None
    doubt: float | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """A manipulated region: polygon in picture pixels, score, name in words, share of the face box."""

    polygon: tuple[Point, ...]
    score: float
    name: str
    area: float


@dataclass(frozen=True, slots=True)
class Heat:
    """How manipulated each cell of a grid looks: `width` * `height` 255ths by rows, on the scale of a region's raw score.

    `to_picture` is the affine map (two rows of three) of a cell's column and row to its centre in picture pixels.
    """

    width: int
    height: int
    values: bytes
    to_picture: tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Localized:
    """What localization says of one face; `manipulated` is None when it was skipped.

    `heat` explains on request and is stored nowhere.
    """

    manipulated: float | None
    regions: tuple[Region, ...] = ()
    heat: Heat | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the stages have found for a case so far; a stage that has not run is None."""

    faces: tuple[FaceRow, ...] | None = None
    classified: tuple[Classified, ...] | None = None
    localized: tuple[Localized, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a verdict is what it is: stable code, plain words, index of the face or None for the picture."""

    code: str
    text: str
    face: int | None = None


@dataclass(frozen=True, slots=True)
class FaceVerdict:
    """One face of a verdict (contract unmask.verdict/1)."""

    box: Box
    landmarks: tuple[Point, ...]
    label: Label
    score: float | None
    doubt: float | None
    synthetic: float | None
    manipulated: float | None
    generator: Mapping[str, float] | None
    defence: Defence | None
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A release or policy: name and sha256."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model that took part in a verdict."""

    name: str
    version: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The contract unmask.verdict/1; immutable, keyed (tenant, sha256, release, policy).

    `id` is the case's and `path` and `timings_ms` are the asking's: a reused verdict carries those of the new case.
    """

    id: str
    sha256: str
    width: int
    height: int
    label: Label
    score: float | None
    doubt: float | None
    action: Action
    faces: tuple[FaceVerdict, ...]
    claims: tuple[Claim, ...]
    release: Named
    models: tuple[ModelVersion, ...]
    policy: Named
    reasons: tuple[Reason, ...]
    runtime: Mapping[str, str]
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Append-only: who said what is done with a case, and why."""

    case_id: str
    tenant: str
    actor: str
    action: Action
    reason: str
    truth: str
    note: str
    at: datetime
    # Which generator made the picture, where a reviewer named one.
    generator: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """An outgoing message, written in the transaction of what it tells; `id` never changes over retries.

    `target` is the case's callback (empty for none), `sequence` the case's revision: receivers order by it.
    """

    id: str
    tenant: str
    case_id: str
    kind: str
    body: str
    at: datetime
    target: str = ""
    sequence: int = 0


class EventState(StrEnum):
    """Where an outgoing event is."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event with what its deliveries have come to: failed attempts, and the sinks that have taken it already."""

    event: Event
    attempts: int
    due_at: datetime
    taken_by: tuple[str, ...] = ()
    failure: Failure | None = None
    state: EventState = EventState.PENDING


@dataclass(frozen=True, slots=True)
class Near:
    """A picture known to be no photograph that another one nearly equals; `distance` in bits of the perceptual hash."""

    sha256: str
    distance: int


@dataclass(frozen=True, slots=True)
class CaseUpdate:
    """What one step writes, all or nothing.

    `case` is the row after the step, its revision one more than before.  Findings are merged: fields that are None keep
    what is stored.  A verdict that is already there under its key stays, being immutable.
    """

    case: Case
    picture: PictureInfo | None = None
    findings: Findings | None = None
    verdict: Verdict | None = None
    decisions: tuple[Decision, ...] = ()
    event: Event | None = None
    # Faces, landmarks and model outputs of the case go (biometric data); its verdict stays.
    forget_findings: bool = False
    # Whether the case's picture is henceforth one that near-duplicates are looked for among; None leaves it as it is.
    known_fake: bool | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A hint that a case may be advanced: ids only, never pixels."""

    tenant: str
    case_id: str
    step: Step
    priority: Priority = Priority.LIVE
