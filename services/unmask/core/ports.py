"""What the domain needs from the world, as protocols; adapters implement them, one contract suite each tests them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unmask.core.access import AuditEntry, Tenant, Token
from unmask.core.cards import Card, ModelRef, Release
from unmask.core.dead import DeadItem, DeadKind, Letter
from unmask.core.domain import (
    Case,
    CaseUpdate,
    Decision,
    Event,
    EventState,
    Failure,
    Findings,
    Message,
    Near,
    Outgoing,
    PictureInfo,
    State,
    Step,
    Verdict,
)
from unmask.core.erasing import Erased, ErasureOrder, Selection, Subject
from unmask.core.policy import Policy
from unmask.core.releases import Cell, Pointers, ShadowScore, StoredRelease
from unmask.core.review import CaseFilter, Sample, SampleFilter

Tensors = Mapping[str, NDArray[np.generic]]


class Clock(Protocol):
    """Time; tests move it."""

    def now(self) -> datetime:
        """The present, timezone-aware UTC."""


class BlobStore(Protocol):
    """Objects by key.  A key is slash-separated; the first part is the tenant.  A malformed key raises `BadRequest`."""

    def put(self, key: str, data: bytes) -> None:
        """Stores `data`; the same key again replaces it atomically.  Raises `Unavailable`."""

    def get(self, key: str) -> bytes:
        """The bytes at `key`; raises `UnknownBlob` when there are none."""

    def size(self, key: str) -> int:
        """Length in bytes without reading them; raises `UnknownBlob`."""

    def delete(self, key: str) -> None:
        """Removes the object; a key that does not exist is no error."""

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys that begin with `prefix`, in order."""

    def aged(self, prefix: str, before: datetime) -> Iterator[str]:
        """Keys that begin with `prefix` and were last written before that moment, in any order.

        By the store's own clock and to the second: for what may go after hours, not for what happened first.
        """


class CaseStore(Protocol):
    """The truth: cases, findings, verdicts, decisions and the outbox.  Each method is one transaction.

    All raise `Unavailable` when the store cannot be reached.  No method sees another tenant's rows.
    """

    def accept(self, case: Case) -> Case:
        """Inserts a new case, or returns the one that (tenant, idempotency_key) already has.

        An empty key never matches.  Raises `IdempotencyConflict` when that case has another `body_sha256`.
        """

    def case(self, tenant: str, case_id: str) -> Case:
        """The case; raises `UnknownCase`."""

    def picture(self, tenant: str, sha256: str) -> PictureInfo | None:
        """The stored picture of those bytes, or None."""

    def findings(self, tenant: str, case_id: str) -> Findings:
        """What the stages have stored for the case."""

    def verdict(self, tenant: str, sha256: str, release: str, policy: str) -> Verdict | None:
        """The verdict of that key, or None."""

    def verdict_of(self, tenant: str, case_id: str) -> Verdict | None:
        """The case's verdict under its own id and timings, its action that of the last decision; None before it is decided."""

    def decisions(self, tenant: str, case_id: str) -> Sequence[Decision]:
        """The case's decisions, oldest first."""

    def commit(self, expected: Case, update: CaseUpdate) -> bool:
        """Writes `update` if the row still has expected.stage and expected.revision; False (and nothing written) if not.

        False too where its verdict's key has one already that says something else: of these bytes the first one stands.
        """

    def claim_due(self, now: datetime, limit: int, quiet: timedelta) -> Sequence[Case]:
        """Open cases that are due, oldest first, at most `limit`, over all tenants (for the sweeper).

        A case is given out again only after `quiet`, and each further time after twice as long (to 32 times), unless it
        moved meanwhile: a long queue must not grow by what already waits in it.
        """

    def near(self, tenant: str, phash: str, most: int) -> Sequence[Near]:
        """Known fakes of the tenant whose perceptual hash is at most `most` bits from this one, nearest first."""

    def progress(self, tenant: str, batch: str) -> Mapping[State, int]:
        """How many cases of the batch are in each state."""

    def verdicts(self, tenant: str) -> Iterator[Verdict]:
        """Every verdict of the tenant, oldest first (policy replay)."""

    def outbox(self, limit: int) -> Sequence[Event]:
        """Events that still have to go out, oldest first."""

    def claim_events(self, now: datetime, limit: int, lease: timedelta) -> Sequence[Outgoing]:
        """Due pending events, of each case only its oldest pending one; not given out again before now + lease."""

    def settle_event(
        self,
        event_id: str,
        state: EventState,
        *,
        attempts: int,
        due_at: datetime,
        taken_by: Iterable[str] = (),
        failure: Failure | None = None,
    ) -> None:
        """Writes what came of an attempt; an event that is no longer pending stays as it is."""


class ReviewStore(Protocol):
    """What reviewers ask of the case store.  All raise `Unavailable`; no method sees another tenant's rows."""

    def cases(self, tenant: str, wanted: CaseFilter, after: str, limit: int) -> Sequence[Case]:
        """At most `limit` decided cases in the filter's order, those after the case of that id; empty begins at the start."""

    def samples(self, tenant: str, wanted: SampleFilter) -> Iterator[Sample]:
        """Pictures by a reviewer's last word, oldest first, each once; truth `unknown` is no sample.

        A picture that was appealed since, or whose case is erased, is none.
        """


class DeadStore(Protocol):
    """Dead cases, dead events and dead letters in one view.  Each method is one transaction; all raise `Unavailable`."""

    def bury(self, letter: Letter) -> None:
        """Keeps a submission that no case could be made of."""

    def list(self, tenant: str | None, kind: DeadKind | None, limit: int, after: str = "") -> Sequence[DeadItem]:
        """At most `limit`, by id (which is by time), those after the one of that id; None is every tenant, every kind."""

    def show(self, item_id: str, tenant: str | None = None) -> DeadItem:
        """One with its labels or body; raises `UnknownCase` when nothing of that id is dead (in the tenant)."""

    def requeue(self, item: DeadItem, now: datetime) -> Case | None:
        """A dead case is open again at its stage, its attempts unused, due now, and returned; an event is pending again.

        A case whose findings were removed meanwhile starts again behind ingestion.  Raises `UnknownCase` when it is dead no
        more, `BadRequest` for a letter: that goes through its door.
        """

    def drop(self, item: DeadItem, actor: str) -> None:
        """A case ends as failed, saying who dropped it; an event is dropped, a letter deleted.  Raises `UnknownCase`."""


class Eraser(Protocol):
    """Tombstones, retention and what refers to blobs.  Each method is one transaction; all raise `Unavailable`."""

    def matching(self, tenant: str, selection: Selection, after: str, limit: int) -> Sequence[Case]:
        """At most `limit` cases by id that are selected and not erased yet; raises `UnknownCase` for a case that never was."""

    def holdings(self, subject: Subject) -> Erased:
        """What `erase` would remove now."""

    def erase(self, subject: Subject, order: ErasureOrder) -> Erased:
        """Makes tombstones and removes all other rows; events that had not gone out give way to one `case.erased` a case.

        Whoever works such a case loses its compare-and-set.  The blobs named are the caller's to delete.
        """

    def referenced(self, tenant: str, keys: Sequence[str]) -> Set[str]:
        """Those of the blobs that a picture's row, or a case still open or dead, refers to."""

    def expired(self, tenant: str, before: datetime, limit: int) -> Sequence[Case]:
        """Cases that ended before then and are not erased."""

    def fade(self, tenant: str, before: datetime, limit: int) -> int:
        """Removes findings, and the landmarks in verdicts, of at most `limit` cases that ended before then; how many."""

    def prune_events(self, before: datetime, limit: int) -> int:
        """Deletes at most `limit` events that were sent or dropped before then; how many."""

    def prune_usage(self, before: datetime) -> int:
        """Deletes counts of minutes and days that were over by then; how many."""


class ModelServer(Protocol):
    """Runs models of exact versions.  Thread-safe; batching across calls is its own business."""

    def card(self, ref: ModelRef) -> Card:
        """The card of that version; raises `BadModel` when it is missing, broken or has another sha256."""

    def infer(self, ref: ModelRef, inputs: Tensors) -> Tensors:
        """Runs one batch (first axis N of every tensor) and returns every output of the card.

        N larger than the card's max_batch_size is split and put together again.  Raises `BadModel` for a wrong name, dtype or
        shape, `Unavailable` when the server does not answer, `DeadlineExceeded` when `core.deadlines` leaves no time.
        """


@runtime_checkable
class ModelControl(Protocol):
    """Which versions a model server holds ready.  Thread-safe; every method raises `Unavailable` when it does not answer."""

    def load(self, ref: ModelRef) -> None:
        """Makes that exact version ready; fine when it is.  Versions that were ready go on serving meanwhile.

        Other versions of the model may become ready too.  Raises `BadModel` when it is missing, cannot be loaded or is not
        what its card says.
        """

    def unload(self, ref: ModelRef) -> None:
        """Gives that version's memory back; fine when it is not loaded.  Other versions, and calls in hand, go on."""

    def loaded(self, ref: ModelRef) -> bool:
        """Whether that exact version is ready now."""


class StageQueue(Protocol):
    """Carries hints; may lose, repeat or reorder them: the store is the truth."""

    def publish(self, message: Message) -> None:
        """Hands a message to whoever works its step.  Raises `Unavailable`; the sweeper repairs what was not published."""


class EventSink(Protocol):
    """Takes outgoing events; at least once, always the same event id."""

    @property
    def name(self) -> str:
        """Its name in what is remembered of an event's deliveries."""

    def takes(self, event: Event) -> bool:
        """Whether this event goes here."""

    def endpoint(self, event: Event) -> str:
        """What fails as one (scheme, host and port; an exchange), for circuit breaking."""

    def send(self, event: Event) -> None:
        """Delivers one event; raises `Unavailable` when it was not accepted, a `CallerError` when it never will be."""


class Observer(Protocol):
    """Hears what is done, for metrics; never raises."""

    def stepped(self, case: Case, step: Step, seconds: float) -> None:
        """A step was worked and its result stored; `case` is the row after it."""

    def counted(self, duty: str, count: int) -> None:
        """A background duty did `count` things."""


class Fetcher(Protocol):
    """Reads a URL under the deployment's rules (schemes, addresses, size, time)."""

    def fetch(self, url: str, limit: int) -> bytes:
        """At most `limit` bytes.

        Raises `BadRequest` for a refused address or a 4xx answer, `BadImage` past the limit, else `Unavailable`.
        """


class AccessStore(Protocol):
    """Tenants, tokens, usage and the audit log.  All raise `Unavailable` when the store cannot be reached."""

    def put_tenant(self, tenant: Tenant) -> None:
        """Makes the tenant, or replaces what is kept of it."""

    def tenant(self, name: str) -> Tenant:
        """The tenant; raises `UnknownTenant`."""

    def tenants(self) -> Sequence[Tenant]:
        """All, by name."""

    def add_token(self, token: Token, sha256: str) -> None:
        """Keeps a token with the hash of its secret; raises `UnknownTenant`."""

    def token(self, token_id: str) -> tuple[Token, str] | None:
        """The token and the hash of its secret, revoked and expired ones too; None for an unknown id."""

    def tokens(self, tenant: str) -> Sequence[Token]:
        """The tenant's tokens, oldest first."""

    def revoke(self, token_id: str, at: datetime) -> bool:
        """Revokes it from then on; False when there is none or it was revoked before."""

    def count(self, tenant: str, period: str, amount: int) -> int:
        """Adds to the tenant's usage in that period (`minute:29701234`, `day:20784`); returns the sum, exact over processes."""

    def audit(self, entry: AuditEntry) -> None:
        """Appends to the audit log."""

    def audited(self, tenant: str | None, limit: int) -> Sequence[AuditEntry]:
        """The newest entries, of one tenant or of all, newest first."""


class ReleaseStore(Protocol):
    """Releases and policies as rows.  Each act is one transaction, its audit entry in it; all raise `Unavailable`."""

    def put_release(self, release: Release, text: str, entry: AuditEntry) -> bool:
        """Keeps the release under the sha256 of its text; False when it is there already."""

    def releases(self) -> Sequence[StoredRelease]:
        """All that are kept, newest first."""

    def release(self, sha256: str) -> Release:
        """The release; raises `BadModel` when it is not kept."""

    def pointers(self) -> Pointers:
        """Which releases are in use."""

    def move(self, before: Pointers, after: Pointers, entry: AuditEntry) -> bool:
        """Writes the pointers if they still are as `before`; False (and nothing written) if not."""

    def put_policy(self, policy: Policy, tenant: str, entry: AuditEntry) -> None:
        """Keeps the policy and makes it the tenant's, or with an empty tenant the deployment's; raises `UnknownTenant`."""


class ShadowStore(Protocol):
    """What shadow releases say of cases.  All raise `Unavailable`."""

    def keep(self, score: ShadowScore) -> bool:
        """Keeps the score; False where the case is not decided any more (erased) or was scored under that release before."""

    def compared(self, release: str, active: str) -> Sequence[Cell]:
        """The cases scored by `release` whose verdict `active` gave, counted by label."""
