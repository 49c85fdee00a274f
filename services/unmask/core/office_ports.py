"""What administration and review need from the store, as protocols; the pipeline's own are in `unmask.core.ports`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime
from typing import Protocol

from unmask.core.access import AuditEntry, Tenant, Token
from unmask.core.cards import Release
from unmask.core.dead import DeadItem, DeadKind, Letter
from unmask.core.domain import (
    Case,
)
from unmask.core.erasing import Erased, ErasureOrder, Selection, Subject
from unmask.core.policy import Policy
from unmask.core.releases import Cell, Pointers, ShadowScore, StoredRelease
from unmask.core.review import CaseFilter, Sample, SampleFilter
from unmask.core.watching import Backlog, Discovery, Reviewed, Waiting


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


class WatchStore(Protocol):
    """What is counted and timed of the rows, over all tenants, for metrics.  Each is one read; all raise `Unavailable`."""

    def waiting(self) -> Sequence[Waiting]:
        """Open cases by stage and lane."""

    def outgoing(self) -> Backlog:
        """Events that still have to go out."""

    def dead(self) -> Mapping[DeadKind, int]:
        """How many cases, events and letters are dead."""

    def reviewed(self, since: datetime) -> Sequence[Reviewed]:
        """Cases accepted since then that a reviewer has decided, saying what they are."""

    def discovery(self) -> Discovery | None:
        """What the last `unmask discover` came to; None where none is among the newest acts of the audit log."""

    def first_tenants(self, limit: int) -> Sequence[str]:
        """The tenants that were there first, at most `limit`."""


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
