"""A small world for the runner's tests: real stores and policy, handlers whose answers a test chooses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from tests.unit.core.test_cards import RELEASE
from unmask.adapters.blobs_memory import MemoryBlobs
from unmask.adapters.catalogue import BlobCatalogue
from unmask.adapters.store_memory import MemoryStore
from unmask.core.cards import Release
from unmask.core.domain import Case, Classified, FaceRow, Findings, Localized, Message, PictureInfo, Step, Verdict
from unmask.core.errors import UnmaskError
from unmask.core.images import Pixels
from unmask.core.judge import judge
from unmask.core.pictures import ImageLimits
from unmask.core.pipeline import RetryRule
from unmask.core.policy import Policy
from unmask.core.policy_text import DEFAULT_POLICY, parse_policy
from unmask.core.submit import picture_key
from unmask.core.world import World

FACE = FaceRow((10.0, 10.0, 110.0, 120.0), ((40.0, 50.0), (80.0, 50.0), (60.0, 70.0), (45.0, 95.0), (75.0, 95.0)), 0.99)


class StillClock:
    """Time that stands until a test moves it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The set time."""
        return self.time

    def pass_(self, seconds: float) -> None:
        """Moves the clock on."""
        self.time += timedelta(seconds=seconds)


class ListQueue:
    """Keeps messages until a test works them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.down: UnmaskError | None = None

    def publish(self, message: Message) -> None:
        """Keeps the message, or is down."""
        if self.down is not None:
            raise self.down
        self.messages.append(message)


@dataclass
class ChosenHandlers:
    """Handlers that answer what the test put here, or raise it."""

    faces: tuple[FaceRow, ...] = (FACE,)
    synthetic: float | None = 0.02
    manipulated: float | None = 0.03
    errors: dict[Step, Exception] = field(default_factory=dict)
    calls: list[Step] = field(default_factory=list)

    def _called(self, step: Step) -> None:
        self.calls.append(step)
        if step in self.errors:
            raise self.errors[step]

    def ingest(self, tenant: str, data: bytes) -> PictureInfo:
        """A 200 x 150 PNG, whatever the bytes."""
        self._called(Step.INGEST)
        sha256 = hashlib.sha256(data).hexdigest()
        return PictureInfo(tenant, sha256, picture_key(tenant, sha256), len(data), "PNG", 200, 150)

    def decode(self, sha256: str, load: Callable[[], bytes]) -> Pixels:
        """A black picture; the bytes must be there."""
        load()
        return np.zeros((150, 200, 3), dtype=np.uint8)

    def align(self, picture: Pixels, release: Release) -> tuple[FaceRow, ...]:
        """The chosen faces."""
        self._called(Step.ALIGN)
        return self.faces

    def classify(self, picture: Pixels, faces: tuple[FaceRow, ...], release: Release) -> tuple[Classified, ...]:
        """The chosen probability for each face."""
        self._called(Step.CLASSIFY)
        return tuple(Classified(self.synthetic) for _ in faces)

    def localize(
        self, picture: Pixels, faces: tuple[FaceRow, ...], classified: tuple[Classified, ...], release: Release
    ) -> tuple[Localized, ...]:
        """The chosen probability for each face."""
        self._called(Step.LOCALIZE)
        return tuple(Localized(self.manipulated) for _ in faces)

    def judge(self, case: Case, picture: PictureInfo, findings: Findings, release: Release, policy: Policy) -> Verdict:
        """The real one."""
        self._called(Step.DECIDE)
        return judge(case, picture, findings, release, policy, {"unmask": "test"})


def make_world(handlers: ChosenHandlers, queue: ListQueue, clock: StillClock, retry: RetryRule | None = None) -> World:
    """Memory stores, the default policy and the sample release."""
    blobs = MemoryBlobs()
    catalogue = BlobCatalogue(blobs, json.dumps(RELEASE).encode(), parse_policy(DEFAULT_POLICY, "default"))
    rule = retry or RetryRule(limit=3, first=timedelta(seconds=2), outage=timedelta(0))
    return World(MemoryStore(), blobs, queue, clock, handlers, catalogue, ImageLimits(), rule)
