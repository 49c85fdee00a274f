"""Reads what no known family explains: the faces of recent cases of tenants that agreed, and their embeddings."""

from __future__ import annotations

import hashlib
import heapq
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from unmask.cli.output import note
from unmask.core.cards import Card, Release
from unmask.core.discover import DISTANCE, MEMORY, Embeddings, Originals, centre_of_memory, strange_face
from unmask.core.domain import Case, FaceRow, FaceVerdict, Label, PictureInfo
from unmask.core.errors import BadImage, BadModel, UnknownBlob
from unmask.core.geometry import iou
from unmask.core.images import Pixels, ViewContract, chips_of, cut
from unmask.core.pictures import decode
from unmask.core.review import CaseFilter, Order, SampleFilter, Standing

if TYPE_CHECKING:
    from unmask.bootstrap import Parts

_PAGE: Final = 200
_BATCH: Final = 16
_SAME_FACE: Final = 0.5


@dataclass(slots=True)
class Stranger:
    """One picture with a face to be explained, the newest of its near-duplicates; `copies` are their cases."""

    case: Case
    picture: PictureInfo
    face: FaceVerdict
    row: FaceRow
    copies: list[Case] = field(default_factory=list)

    @property
    def cases(self) -> list[Case]:
        """Its own case and those of its copies."""
        return [self.case, *self.copies]


@dataclass(slots=True)
class Looked:
    """What was found: the strangers, and of what was passed over how many."""

    found: list[Stranger] = field(default_factory=list)
    cases: int = 0
    gone: int = 0
    lost: int = 0


class Faces:
    """The active release's eyes: finds a judged face again, cuts it and embeds it.

    Raises `BadModel` when the release's detector gives no embedding.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.release: Release = parts.catalogue.active_release()
        self.ref = self.release.model("detector")
        self.card: Card = parts.models.card(self.ref)
        if "embedding" not in {output.name for output in self.card.outputs}:
            raise BadModel(
                f"model {self.card.name} {self.card.version} gives no embedding: discover needs a detector that does"
            )
        if self.card.view is None:
            raise BadModel(f"model {self.card.name} {self.card.version}: a detector's card must state a view, not 'canvas'")
        self.view: ViewContract = self.card.view

    def data(self, picture: PictureInfo) -> bytes:
        """The picture's bytes; raises `UnknownBlob` when it is gone, `BadImage` when they are not those that were judged."""
        data = self._parts.blobs.get(picture.blob_key)
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            raise BadImage("its bytes are not those of its sha256")
        return data

    def pixels(self, data: bytes) -> Pixels:
        """The picture as displayed, (H, W, 3) uint8 RGB; ingestion has decoded these bytes before, under limits of its own."""
        return decode(data, self._parts.limits)

    def row(self, pixels: Pixels, face: FaceVerdict) -> FaceRow | None:
        """The judged face with its landmarks: as the verdict kept them, else found again; None when it is not."""
        if len(face.landmarks) == 5:
            eye_r, eye_l, nose, mouth_r, mouth_l = face.landmarks
            return FaceRow(face.box, (eye_r, eye_l, nose, mouth_r, mouth_l), 1.0)
        rows = self._parts.handlers.align(pixels, self.release)
        if not rows:
            return None
        overlaps = iou(np.array(face.box), np.array([row.box for row in rows]))
        best = int(np.argmax(overlaps))
        return rows[best] if overlaps[best] >= _SAME_FACE else None

    def cut(self, pixels: Pixels, row: FaceRow) -> Pixels:
        """The detector's view of the face."""
        return cut(chips_of(pixels, [row])[0], self.view)

    def embed(self, views: Sequence[Pixels]) -> Embeddings:
        """(N, C) of (size, size, 3) views; raises `BadModel` when a number is not finite."""
        outputs = self._parts.models.infer(self.ref, {self.card.input.name: np.stack(views)}, ["embedding"])
        embeddings = outputs["embedding"].astype(np.float32)
        if not np.isfinite(embeddings).all():
            raise BadModel(f"model {self.card.name} {self.card.version}: output 'embedding' is not finite")
        return embeddings

    @property
    def distance(self) -> float:
        """Average cosine distance at which groups of this detector's embeddings are no longer one."""
        return self.card.thresholds.get("cluster_distance", DISTANCE)

    def centre(self) -> Embeddings | None:
        """The middle of what the detector was shown, where its version carries replay memory; else None, and it is said."""
        if MEMORY not in self.card.files:
            note(
                f"{self.card.name} {self.card.version} carries no replay memory: faces are compared by what sets them apart "
                "from one another, which hides a generator that made nearly all of them"
            )
            return None
        [width] = [output.shape[-1] for output in self.card.outputs if output.name == "embedding"]
        return centre_of_memory(self._parts.repository.file(self.ref, MEMORY), MEMORY, width)


def look(parts: Parts, faces: Faces, tenants: Sequence[str], since: datetime, limit: int) -> tuple[Looked, Embeddings]:
    """At most `limit` strangers of those tenants, newest first, with their embeddings, (N, C); copies do not count."""
    from tqdm import tqdm

    watch = _Look(parts, faces)
    views = (view for case in _unreviewed(parts, tenants, since) if (view := watch.view(case)) is not None)
    # A bar for people alone: it hides itself where stderr is no terminal.
    limited = iter(tqdm(islice(views, limit), unit=" pictures", file=sys.stderr, disable=None))
    embeddings: list[Embeddings] = []
    while batch := list(islice(limited, _BATCH)):
        embeddings.append(faces.embed(batch))
    return watch.looked, np.concatenate(embeddings) if embeddings else np.zeros((0, 1), np.float32)


class _Look:
    """One pass over cases, remembering the pictures it has had."""

    def __init__(self, parts: Parts, faces: Faces) -> None:
        self._parts, self._faces = parts, faces
        self._originals = Originals()
        self.looked = Looked()

    def view(self, case: Case) -> Pixels | None:
        """The view of the case's strange face, now the last of `looked.found`; None where there is none, or a copy of one."""
        self.looked.cases += 1
        store = self._parts.store
        verdict, picture = store.verdict_of(case.tenant, case.id), store.picture(case.tenant, case.sha256)
        face = None if verdict is None else strange_face(verdict, self._faces.release.thresholds.min_face)
        if picture is None or face is None or self._is_copy(case, picture.sha256, picture.phash):
            return None
        try:
            pixels = self._faces.pixels(self._faces.data(picture))
        except (UnknownBlob, BadImage) as error:
            self.looked.gone += 1
            note(f"case {case.id}: its picture cannot be read ({error.detail}); left out")
            return None
        return self._new(case, picture, face, pixels)

    def _new(self, case: Case, picture: PictureInfo, face: FaceVerdict, pixels: Pixels) -> Pixels | None:
        fingerprint = self._parts.handlers.fingerprint
        phash = picture.phash or ("" if fingerprint is None else fingerprint(pixels))
        if self._is_copy(case, picture.sha256, phash):
            return None
        row = self._faces.row(pixels, face)
        if row is None:
            self.looked.lost += 1
            return None
        self._originals.add(picture.sha256, phash)
        self.looked.found.append(Stranger(case, picture, face, row))
        return self._faces.cut(pixels, row)

    def _is_copy(self, case: Case, sha256: str, phash: str) -> bool:
        same = self._originals.find(sha256, phash)
        if same is not None:
            self.looked.found[same].copies.append(case)
        return same is not None


def _unreviewed(parts: Parts, tenants: Sequence[str], since: datetime) -> Iterator[Case]:
    """Decided cases whose label leaves something to explain, newest first over all tenants, but none that people explained."""
    labels = (Label.UNSURE, Label.SYNTHETIC, Label.MANIPULATED)
    said = {(name, sample.case.sha256) for name in tenants for sample in parts.desk.reviews.samples(name, SampleFilter())}
    streams = [_pages(parts, name, label, since) for name in tenants for label in labels]
    for case in heapq.merge(*streams, key=lambda case: case.id, reverse=True):
        if not case.reviewed and (case.tenant, case.sha256) not in said:
            yield case


def _pages(parts: Parts, tenant: str, label: Label, since: datetime) -> Iterator[Case]:
    wanted, after = CaseFilter(Standing.ALL, label, order=Order.NEWEST, since=since), ""
    while page := parts.desk.reviews.cases(tenant, wanted, after, _PAGE):
        yield from page
        after = page[-1].id
