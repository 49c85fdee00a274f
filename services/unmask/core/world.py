"""What the runner works with: the ports, the pure handlers and the catalogue, put together once by bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from unmask.core.cards import Release
from unmask.core.domain import Case, Classified, FaceRow, Findings, Localized, PictureInfo, Verdict
from unmask.core.images import Pixels
from unmask.core.office_ports import ShadowStore
from unmask.core.pictures import ImageLimits
from unmask.core.pipeline import RetryRule
from unmask.core.policy import Policy
from unmask.core.ports import BlobStore, CaseStore, Clock, Fetcher, Observer, StageQueue


class Handlers(Protocol):
    """The pure step of each service; bootstrap binds limits, cache and model server."""

    def ingest(self, tenant: str, data: bytes) -> PictureInfo:
        """Checks the bytes; raises `BadImage`."""

    def decode(self, sha256: str, load: Callable[[], bytes]) -> Pixels:
        """The picture as displayed, (H, W, 3) uint8 RGB; `load` reads its bytes where it is not at hand."""

    def align(self, picture: Pixels, release: Release) -> tuple[FaceRow, ...]:
        """Faces, largest first."""

    def classify(self, picture: Pixels, faces: tuple[FaceRow, ...], release: Release) -> tuple[Classified, ...]:
        """One result a face; all faces are one batch."""

    def localize(
        self, picture: Pixels, faces: tuple[FaceRow, ...], classified: tuple[Classified, ...], release: Release
    ) -> tuple[Localized, ...]:
        """One result a face; all faces are one batch."""

    def judge(self, case: Case, picture: PictureInfo, findings: Findings, release: Release, policy: Policy) -> Verdict:
        """The verdict of the findings under the policy."""


class Catalogue(Protocol):
    """Releases and policies: the active ones, and those that open cases are pinned to."""

    def active_release(self) -> Release:
        """The release that new cases are pinned to; raises `BadModel`."""

    def release(self, sha256: str) -> Release:
        """The release of a pinned case; raises `BadModel` when it is gone."""

    def active_policy(self, tenant: str) -> Policy:
        """The policy that the tenant's new cases are pinned to."""

    def policy(self, sha256: str) -> Policy:
        """The policy of a pinned case; raises `BadConfig` when it is gone."""

    def shadow(self) -> tuple[Release, float] | None:
        """The release on trial beside the active one, and its share of the cases (0 to 1); None where there is none."""

    def keeps_landmarks(self, tenant: str) -> bool:
        """Whether the tenant keeps faces' landmarks beyond the decision."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a step may touch."""

    store: CaseStore
    blobs: BlobStore
    queue: StageQueue
    clock: Clock
    handlers: Handlers
    catalogue: Catalogue
    limits: ImageLimits
    retry: RetryRule
    fetcher: Fetcher | None = None
    observer: Observer | None = None
    # Where a shadow release's scores go; None where none is ever tried.
    shadows: ShadowStore | None = None
