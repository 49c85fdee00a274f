"""Puts a world together from settings: which adapters stand behind the ports, and the handlers bound to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Final

from unmask.adapters import c2pa_reader
from unmask.adapters.blobs_files import FileBlobs
from unmask.adapters.blobs_memory import MemoryBlobs
from unmask.adapters.catalogue import BlobCatalogue
from unmask.adapters.catalogue_sql import SqlCatalogue
from unmask.adapters.clock import SystemClock
from unmask.adapters.database import Database
from unmask.adapters.fetch_http import HttpFetcher
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_local import LocalModels
from unmask.adapters.queue_memory import InlineQueue, MemoryQueue
from unmask.adapters.releases_sql import SqlReleases, SqlShadows
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_dead import SqlDead
from unmask.adapters.store_erase import SqlEraser
from unmask.adapters.store_memory import MemoryStore
from unmask.adapters.store_review import SqlReview
from unmask.adapters.store_sql import SqlStore
from unmask.alignment.handler import align
from unmask.classification.handler import classify
from unmask.core.cards import Release
from unmask.core.domain import Case, Classified, FaceRow, Findings, Localized, Message, PictureInfo, Verdict
from unmask.core.erasing import EraseOffice
from unmask.core.errors import BadConfig
from unmask.core.faces import DetectorSettings
from unmask.core.images import Pixels
from unmask.core.judge import judge
from unmask.core.limits import Admission
from unmask.core.pictures import DecodedCache, ImageLimits, decode
from unmask.core.pipeline import RetryRule
from unmask.core.policy import Policy
from unmask.core.policy_text import DEFAULT_POLICY, parse_policy
from unmask.core.ports import BlobStore, CaseStore, ModelServer, StageQueue
from unmask.core.runner import run
from unmask.core.tokens import Authenticator
from unmask.core.world import Catalogue, World
from unmask.ingestion import phash
from unmask.ingestion.credentials import verifier
from unmask.ingestion.handler import ingest
from unmask.ingestion.phash import perceptual_hash
from unmask.ingestion.provenance import Verify
from unmask.localization.handler import localize
from unmask.review.handler import Desk
from unmask.review.links import LinkOf, links
from unmask.settings import Settings

# Room for one picture at the pixel limit (150 MB), so that its later steps need not decode it again.
_CACHE_BYTES: Final = 160 * 1024 * 1024


def runtime_versions() -> dict[str, str]:
    """What replay depends on beside bytes, release and policy."""
    packages = {"unmask": "unmask", "onnxruntime": "onnxruntime", "pillow": "pillow", "opencv": "opencv-python-headless"}
    return {name: version(package) for name, package in packages.items()}


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def find_models(explicit: Path | None) -> Path:
    """The model repository: as told, else the installed data folder, else the checkout's; never by the working directory."""
    if explicit is not None:
        return explicit
    installed = Path(sys.prefix) / "share" / "unmask" / "model_repository"
    checkout = Path(__file__).resolve().parents[2] / "model_repository"
    return installed if installed.is_dir() else checkout


def read_policy(path: Path | None) -> Policy:
    """The policy in a file, or the default; raises `BadConfig` (unreadable) or `BadPolicy` (naming the line)."""
    if path is None:
        return parse_policy(DEFAULT_POLICY, "the default policy")
    try:
        return parse_policy(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"policy {path}: {error}") from error


def read_anchors(path: Path | None) -> str:
    """The certificates in a PEM file, or none; raises `BadConfig` when it cannot be read."""
    try:
        return "" if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"trust anchors {path}: {error}") from error


@dataclass(frozen=True, slots=True)
class BoundHandlers:
    """The services' pure steps with limits, cache and model server filled in (port `Handlers`)."""

    models: ModelServer
    limits: ImageLimits
    cache: DecodedCache
    faces: DetectorSettings
    runtime: Mapping[str, str]
    verify: Verify | None = None
    fingerprint: Callable[[Pixels], str] | None = None

    def ingest(self, tenant: str, data: bytes) -> PictureInfo:
        """See `Handlers.ingest`."""
        limits, cache = self.limits, self.cache
        return ingest(tenant, data, limits=limits, cache=cache, verify=self.verify, fingerprint=self.fingerprint)

    def decode(self, sha256: str, load: Callable[[], bytes]) -> Pixels:
        """See `Handlers.decode`."""
        return self.cache.get(sha256, lambda: decode(load(), self.limits))

    def align(self, picture: Pixels, release: Release) -> tuple[FaceRow, ...]:
        """See `Handlers.align`."""
        return align(picture, release, self.models, self.faces)

    def classify(self, picture: Pixels, faces: tuple[FaceRow, ...], release: Release) -> tuple[Classified, ...]:
        """See `Handlers.classify`."""
        return classify(picture, faces, release, self.models)

    def localize(
        self, picture: Pixels, faces: tuple[FaceRow, ...], classified: tuple[Classified, ...], release: Release
    ) -> tuple[Localized, ...]:
        """See `Handlers.localize`."""
        return localize(picture, faces, classified, release, self.models)

    def judge(self, case: Case, picture: PictureInfo, findings: Findings, release: Release, policy: Policy) -> Verdict:
        """See `Handlers.judge`."""
        return judge(case, picture, findings, release, policy, self.runtime)


class Parts:
    """The adapters that one process shares, each made when first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.threads = settings.threads or cores()

    @cached_property
    def limits(self) -> ImageLimits:
        """What is refused before decoding."""
        told = self.settings
        return ImageLimits(bytes=told.max_bytes, pixels=told.max_pixels, side=told.max_side)

    @cached_property
    def repository(self) -> ModelRepository:
        """Cards, releases and files of the models."""
        return ModelRepository(find_models(self.settings.models))

    @cached_property
    def models(self) -> ModelServer:
        """Models run in this process."""
        return LocalModels(self.repository, threads=self.threads)

    @cached_property
    def handlers(self) -> BoundHandlers:
        """The services' steps."""
        cache, faces = DecodedCache(_CACHE_BYTES), DetectorSettings(limit=self.settings.max_faces)
        # Where nothing is kept there is nothing to be near to, and loading imagehash takes longer than a picture.
        keeps = self.settings.state is not None or self.settings.distributed
        fingerprint = perceptual_hash if keeps and phash.is_available() else None
        return BoundHandlers(self.models, self.limits, cache, faces, runtime_versions(), self.verify, fingerprint)

    @cached_property
    def verify(self) -> Verify | None:
        """The reading of Content Credentials, where its library is installed; raises `BadConfig` for bad trust anchors."""
        if not c2pa_reader.is_available():
            return None
        return verifier(c2pa_reader.C2paReader(read_anchors(self.settings.c2pa_trust)).read)

    @cached_property
    def blobs(self) -> BlobStore:
        """The folder of the state, or memory."""
        state = self.settings.state
        return MemoryBlobs() if state is None else FileBlobs(state / "blobs")

    @cached_property
    def database(self) -> Database:
        """The database that is told, else the SQLite file of the state, or memory."""
        if self.settings.database:
            return Database(self.settings.database)
        state = self.settings.state
        if state is None:
            return Database.in_memory()
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadConfig(f"state folder {state}: {error.strerror}") from error
        return Database(f"sqlite:///{state / 'unmask.sqlite3'}")

    @cached_property
    def store(self) -> CaseStore:
        """Cases, verdicts, decisions, outgoing events."""
        return SqlStore(self.database)

    @cached_property
    def access(self) -> SqlAccess:
        """Tenants, tokens, usage and the audit log."""
        return SqlAccess(self.database)

    @cached_property
    def authenticator(self) -> Authenticator:
        """Says who shows a token."""
        return Authenticator(self.access, SystemClock())

    @cached_property
    def admission(self) -> Admission:
        """Lets submissions in as their tenants' limits allow."""
        return Admission(self.access, SystemClock())

    @cached_property
    def desk(self) -> Desk:
        """What reviewers work with."""
        return Desk(self.store, SqlReview(self.database), SystemClock(), self.access.audit)

    @cached_property
    def link_of(self) -> LinkOf:
        """A picture's address for a reviewer's screen."""
        return links(self.blobs)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The active release and policy; those of older cases are found in the shared database, or in the state."""
        told = self.settings
        if told.distributed:
            return SqlCatalogue(self.database, self.repository.release_text, lambda: read_policy(told.policy))
        return BlobCatalogue(self.blobs, self.repository.release_text(), read_policy(told.policy))

    @cached_property
    def releases(self) -> SqlReleases:
        """Releases, policies and the pointers to them, for whoever moves these."""
        return SqlReleases(self.database)

    @cached_property
    def shadows(self) -> SqlShadows:
        """What a release on trial says."""
        return SqlShadows(self.database)

    @cached_property
    def dead(self) -> SqlDead:
        """Dead cases, events and letters."""
        return SqlDead(self.database)

    @cached_property
    def erasing(self) -> EraseOffice:
        """Erasure, retention and the collection of orphans."""
        return EraseOffice(SqlEraser(self.database), self.blobs, self.access, SystemClock())

    def world(self, queue: StageQueue, retry: RetryRule) -> World:
        """A world over these parts."""
        fetcher = HttpFetcher(allowed=self.settings.allow_private) if self.settings.fetch else None
        clock = SystemClock()
        world = World(self.store, self.blobs, queue, clock, self.handlers, self.catalogue, self.limits, retry, fetcher)
        return replace(world, shadows=self.shadows) if self.settings.distributed else world


def inline_world(parts: Parts) -> World:
    """The embedded check's world: each case runs to its end on the thread that submits it, one attempt a step."""
    queue = InlineQueue()
    # Whoever waits for one picture does not wait for a release on trial.
    world = replace(parts.world(queue, RetryRule(limit=1, outage=timedelta(0))), shadows=None)
    queue.bind(lambda message: run(world, message))
    return world


def forgetful(world: World) -> World:
    """The same world with stores of its own, gone with the answer."""
    queue = InlineQueue()
    own = replace(world, store=MemoryStore(), blobs=MemoryBlobs(), queue=queue)
    queue.bind(lambda message: run(own, message))
    return own


def queued_world(parts: Parts, on_change: Callable[[Message], None]) -> tuple[World, MemoryQueue]:
    """A server's world: steps run on worker threads; `on_change` hears of every message that was worked."""
    holder: list[World] = []

    def work(message: Message) -> None:
        run(holder[0], message)
        on_change(message)

    queue = MemoryQueue(work, workers=parts.threads + 1)
    holder.append(parts.world(queue, RetryRule()))
    return holder[0], queue
