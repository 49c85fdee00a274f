"""Erasure: tombstones for cases, everything of their pictures gone; by order, and by a tenant's retention."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from unmask.core.access import AuditEntry, Tenant
from unmask.core.domain import Case
from unmask.core.errors import BadRequest, UnknownBlob

if TYPE_CHECKING:
    from unmask.core.office_ports import AccessStore, Eraser
    from unmask.core.ports import BlobStore, Clock

_PAGE: Final = 200
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REASON: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
# What comes in of a picture while it is being erased is erased with it, so many times.
_PASSES: Final = 5
_PICTURE: Final = re.compile(r"([^/_][^/]*)/pictures/[0-9a-f]{64}", re.ASCII)
RETENTION: Final = "retention"
# The door writes the blob first and then the row, and a worker likewise: a younger blob may be about to get its row.
GRACE: Final = timedelta(hours=1)
SENT_KEPT: Final = timedelta(days=7)
USAGE_KEPT: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be erased: exactly one of a case, a picture, and all cases with a label.  A case means its picture too."""

    case_id: str = ""
    sha256: str = ""
    label: tuple[str, str] | None = None

    def checked(self) -> Selection:
        """The selection; raises `BadRequest` unless exactly one thing is selected, and well formed."""
        if sum((bool(self.case_id), bool(self.sha256), self.label is not None)) != 1:
            raise BadRequest("erase: name exactly one of a case, a picture's sha256 and a label")
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise BadRequest(f"sha256 {self.sha256[:80]!r}: 64 hexadecimal digits in lower case are needed")
        return self

    @property
    def said(self) -> str:
        """For the audit log, which must not keep what is erased: no hash, and of a label its name only."""
        if self.label is not None:
            return f"label {self.label[0]}"
        return f"case {self.case_id}" if self.case_id else "picture"


@dataclass(frozen=True, slots=True)
class Subject:
    """What goes in one transaction: a picture with every case of it; or, with a case id, that case alone.

    The picture of a case alone goes too, if no other case of the tenant is left that has it.
    """

    tenant: str
    sha256: str = ""
    case_id: str = ""


@dataclass(frozen=True, slots=True)
class ErasureOrder:
    """Who erases, and why (a code); both stay on the tombstone."""

    actor: str
    reason: str
    at: datetime

    def checked(self) -> ErasureOrder:
        """The order; raises `BadRequest` for a reason that is no code."""
        if not _REASON.fullmatch(self.reason):
            raise BadRequest(f"reason {self.reason[:80]!r}: a code is needed: lower case letters, digits and _")
        return self


@dataclass(frozen=True, slots=True)
class Erased:
    """What went, or would go.  `blobs` are keys: of pictures, and of the uploads that cases were made of.

    `shared` are pictures of an erased case that other cases still have.
    """

    cases: int = 0
    pictures: int = 0
    verdicts: int = 0
    decisions: int = 0
    events: int = 0
    blobs: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def __add__(self, other: Erased) -> Erased:
        return Erased(
            self.cases + other.cases,
            self.pictures + other.pictures,
            self.verdicts + other.verdicts,
            self.decisions + other.decisions,
            self.events + other.events,
            tuple(dict.fromkeys((*self.blobs, *other.blobs))),
            tuple(dict.fromkeys((*self.shared, *other.shared))),
        )

    @property
    def counts(self) -> dict[str, int]:
        """How many of each, by name."""
        names = ("cases", "pictures", "verdicts", "decisions", "events")
        return {**{name: getattr(self, name) for name in names}, "blobs": len(self.blobs)}


# Whether a long duty is to end early.
Halt = Callable[[], bool]


def never() -> bool:
    """The `Halt` of whoever has the time."""
    return False


@dataclass(frozen=True, slots=True)
class EraseOffice:
    """What erasure, retention and the collection of orphans need."""

    eraser: Eraser
    blobs: BlobStore
    access: AccessStore
    clock: Clock


def erase(office: EraseOffice, tenant: str, selection: Selection, order: ErasureOrder, *, dry_run: bool = False) -> Erased:
    """Erases and returns what went; with `dry_run` only says what would.  Again it changes nothing more.

    Rows of a picture go in one transaction, then its blobs: whatever dies in between leaves blobs that `collect_orphans`
    finds.  Of uploads by the tenant those under `TENANT/uploads/` go with the cases that were made of them; what else lies
    under the tenant's prefix is its own affair.  Raises `BadRequest`, `UnknownCase` and `Unavailable`.
    """
    selection, order, total = selection.checked(), order.checked(), Erased()
    if not dry_run:
        _log_act(office, tenant, order, "erase", selection.said)
    for subject in _subjects(office.eraser, tenant, selection):
        total += _previewed(office, subject) if dry_run else _erased(office, subject, order)
    if not dry_run:
        _log_act(office, tenant, order, "erase.done", selection.said, total)
    return total


def expire(office: EraseOffice, *, batch: int = _PAGE, halt: Halt = never) -> int:
    """Does what the tenants' retention asks for and returns how many rows that were; stops early when `halt` says so."""
    count, now = 0, office.clock.now()
    for tenant in office.access.tenants():
        count += _expired(office, tenant, now, batch, halt)
        faded = now - timedelta(days=tenant.keep_landmarks_days)
        count += _in_batches(partial(office.eraser.fade, tenant.name, faded, batch), batch, halt)
    count += _in_batches(partial(office.eraser.prune_events, now - SENT_KEPT, batch), batch, halt)
    return count + office.eraser.prune_usage(now - USAGE_KEPT)


def collect_orphans(office: EraseOffice, grace: timedelta = GRACE, *, halt: Halt = never) -> int:
    """Deletes pictures' blobs older than `grace` that neither a picture's row nor a case still to be worked refers to."""
    before, count = office.clock.now() - grace, 0
    for tenant, keys in _pages(office.blobs.aged("", before)):
        if halt():
            break
        for key in sorted(set(keys) - office.eraser.referenced(tenant, keys)):
            # Somebody may have sent the same picture again meanwhile, and is about to write its row.
            if key in office.blobs.aged(key, before):
                office.blobs.delete(key)
                count += 1
    return count


def _subjects(eraser: Eraser, tenant: str, selection: Selection) -> Iterator[Subject]:
    """What the selection comes to; a picture once, however many of its cases are selected."""
    if selection.sha256:
        yield Subject(tenant, selection.sha256)
        return
    seen: set[str] = set()
    after = ""
    while page := eraser.matching(tenant, selection, after, _PAGE):
        for case in page:
            sha256 = sha256_of(case)
            if sha256 not in seen:
                yield Subject(tenant, sha256) if sha256 else Subject(tenant, case_id=case.id)
            seen |= {sha256} - {""}
        after = page[-1].id


def sha256_of(case: Case) -> str:
    """Of the case's picture, as far as it is known: bytes lie under their hash before anybody has looked at them."""
    return case.sha256 or (case.source_ref.rpartition("/")[2] if case.source_kind == "bytes" else "")


def _previewed(office: EraseOffice, subject: Subject) -> Erased:
    found = office.eraser.holdings(subject)
    return replace(found, blobs=tuple(key for key in found.blobs if _is_there(office.blobs, key)))


def _erased(office: EraseOffice, subject: Subject, order: ErasureOrder) -> Erased:
    """One picture, with what comes in of it meanwhile."""
    # Uploads first, as far as nobody still waits for them: once its row is empty nothing tells whose an upload was.
    uploads = tuple(key for key in office.eraser.holdings(subject).blobs if key.startswith(f"{subject.tenant}/uploads/"))
    total = Erased(blobs=_delete_free(office, subject.tenant, uploads))
    for _ in range(_PASSES):
        gone = office.eraser.erase(subject, order)
        total += replace(gone, blobs=_delete_free(office, subject.tenant, gone.blobs), shared=())
        for sha256 in gone.shared:
            total += _erased(office, Subject(subject.tenant, sha256), order)
        if not gone.cases:
            break
    return total


def _delete_free(office: EraseOffice, tenant: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Deletes the blobs that nobody refers to; returns those that were there."""
    wanted = office.eraser.referenced(tenant, keys)
    free = [key for key in keys if key not in wanted and _is_there(office.blobs, key)]
    for key in free:
        office.blobs.delete(key)
    return tuple(free)


def _is_there(blobs: BlobStore, key: str) -> bool:
    try:
        blobs.size(key)
    except (UnknownBlob, BadRequest):
        return False
    return True


def _expired(office: EraseOffice, tenant: Tenant, now: datetime, batch: int, halt: Halt) -> int:
    if tenant.keep_days is None:
        return 0
    before, order, total = now - timedelta(days=tenant.keep_days), ErasureOrder(RETENTION, RETENTION, now), Erased()
    while not halt() and (page := office.eraser.expired(tenant.name, before, batch)):
        for case in page:
            gone = office.eraser.erase(Subject(tenant.name, case_id=case.id), order)
            total += replace(gone, blobs=_delete_free(office, tenant.name, gone.blobs), shared=())
    if total.cases:
        _log_act(office, tenant.name, order, "expire", f"cases that ended before {before.isoformat()}", total)
    return total.cases


def _in_batches(do: Callable[[], int], batch: int, halt: Halt) -> int:
    total = 0
    while not halt():
        count = do()
        total += count
        if count < batch:
            break
    return total


def _pages(keys: Iterator[str]) -> Iterator[tuple[str, list[str]]]:
    """The pictures among the keys, by tenant and in pages."""
    tenant, page = "", list[str]()
    for key in keys:
        found = _PICTURE.fullmatch(key)
        if found is None:
            continue
        if page and (found[1] != tenant or len(page) >= _PAGE):
            yield tenant, page
            page = []
        tenant = found[1]
        page.append(key)
    if page:
        yield tenant, page


def _log_act(office: EraseOffice, tenant: str, order: ErasureOrder, act: str, subject: str, done: Erased | None = None) -> None:
    counts = {} if done is None else {name: str(count) for name, count in done.counts.items()}
    office.access.audit(AuditEntry(order.at, tenant, order.actor, act, subject, {"reason": order.reason, **counts}))
