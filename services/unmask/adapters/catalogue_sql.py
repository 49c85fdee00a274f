"""Releases and policies in the database that all processes share: a pointer moved there reaches each of them, live."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from unmask.adapters.database import Database
from unmask.adapters.store_rows import to_microseconds
from unmask.adapters.store_statements import INSERT
from unmask.adapters.store_tables import pointers, tenants, texts
from unmask.core.cards import Release
from unmask.core.errors import BadConfig, BadModel, CallerError, StoreCorrupt, Unavailable, UnmaskError
from unmask.core.policy import Policy
from unmask.core.policy_text import parse_policy
from unmask.core.releases import Role

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
RELEASE: Final = "release"
POLICY: Final = "policy"
_SECONDS: Final = 2.0
# Of tenants whose rows are remembered for these seconds; a deployment with more of them asks more often.
_TENANTS: Final = 10_000
TEXT: Final = sa.select(texts.c.text).where(texts.c.kind == bindparam("kind"), texts.c.sha256 == bindparam("sha256"))
POINTERS: Final = sa.select(pointers)
_TENANT: Final = sa.select(tenants.c.policy, tenants.c.keep_landmarks_days).where(tenants.c.tenant == bindparam("name"))


def text_row(kind: str, sha256: str, name: str, text: str, at: datetime) -> dict[str, Any]:
    """A release or policy as column values."""
    return {"kind": kind, "sha256": sha256, "name": name[:255], "text": text, "created_at": to_microseconds(at)}


def stored_release(connection: Connection, sha256: str) -> Release:
    """A kept release; raises `BadModel` when it is gone and `StoreCorrupt` when it is another text than its name says."""
    text = connection.execute(TEXT, {"kind": RELEASE, "sha256": sha256}).scalar()
    if text is None:
        raise BadModel(f"release {sha256[:12]} is not in the store")
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise StoreCorrupt(f"release {sha256[:12]}: the store holds another text under its sha256")
    return Release.parse(text.encode(), sha256, f"stored release {sha256[:12]}")


def stored_policy(connection: Connection, sha256: str) -> Policy:
    """A kept policy; raises `BadConfig` when it is gone or cannot be used, `StoreCorrupt` as `stored_release` does."""
    text = connection.execute(TEXT, {"kind": POLICY, "sha256": sha256}).scalar()
    if text is None:
        raise BadConfig(f"policy {sha256[:12]} is not in the store")
    try:
        policy = parse_policy(text, f"stored policy {sha256[:12]}")
    except CallerError as error:  # of whoever wrote the row, and no fault of a case that is pinned to it
        raise BadConfig(error.detail) from error
    if policy.sha256 != sha256:
        raise StoreCorrupt(f"policy {sha256[:12]}: the store holds another text under its sha256")
    return policy


class _Fresh(Generic[_T]):
    """A value that is read again once it is `seconds` old; the last known one where reading it fails."""

    def __init__(self, what: str, read: Callable[[], _T], seconds: float, now: Callable[[], float]) -> None:
        self._what, self._read, self._seconds, self._now = what, read, seconds, now
        self._turn = threading.Lock()
        self._known: tuple[_T, float] | None = None

    def get(self) -> _T:
        """The value; the first reading's error is raised, a later one's is logged."""
        known = self._known
        if known is not None and self._now() - known[1] < self._seconds:
            return known[0]
        # While one thread asks, the others go on with what is known: a store that hangs must not hold up all of them.
        if not self._turn.acquire(blocking=known is None):
            return known[0] if known is not None else self._read()
        try:
            return self._again()
        finally:
            self._turn.release()

    def _again(self) -> _T:
        known, now = self._known, self._now()
        if known is not None and now - known[1] < self._seconds:
            return known[0]
        try:
            value = self._read()
        except UnmaskError as error:
            if known is None:
                raise
            _log.warning("%s: the last known serves on (%s)", self._what, error.detail)
            value = known[0]
        self._known = value, now
        return value


@dataclass(frozen=True, slots=True)
class _InUse:
    """What the pointers lead to."""

    active: Release
    policy: Policy
    shadow: tuple[Release, float] | None


class SqlCatalogue:
    """The port `Catalogue` over a database; thread-safe.

    What is active is known for `seconds` before it is looked up again, and longer only while the store does not answer or a
    pointer leads to nothing that can be used.  Releases and policies themselves never change and are kept for good.
    In an empty database the texts that `release_text` and `policy` give are made the first ones; where pointers are there
    already neither is asked.
    """

    def __init__(
        self,
        database: Database,
        release_text: Callable[[], bytes],
        policy: Callable[[], Policy],
        *,
        seconds: float = _SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._seconds, self._now = database, seconds, now
        self._first_release, self._first_policy = release_text, policy
        self._insert = INSERT[database.dialect]
        self._releases: dict[str, Release] = {}
        self._policies: dict[str, Policy] = {}
        self._in_use = _Fresh("active release and policy", self._read, seconds, now)
        self._tenants: dict[str, _Fresh[tuple[str, bool]]] = {}

    def active_release(self) -> Release:
        """See `Catalogue.active_release`."""
        return self._in_use.get().active

    def shadow(self) -> tuple[Release, float] | None:
        """See `Catalogue.shadow`."""
        return self._in_use.get().shadow

    def active_policy(self, tenant: str) -> Policy:
        """See `Catalogue.active_policy`: the tenant's own, else the deployment's."""
        own, _ = self._tenant(tenant).get()
        return self.policy(own) if own else self._in_use.get().policy

    def keeps_landmarks(self, tenant: str) -> bool:
        """See `Catalogue.keeps_landmarks`; a tenant that nobody made keeps none."""
        return self._tenant(tenant).get()[1]

    def release(self, sha256: str) -> Release:
        """See `Catalogue.release`."""
        found = self._releases.get(sha256)
        if found is None:
            with self._database.reading() as connection:
                found = self._releases[sha256] = stored_release(connection, sha256)
        return found

    def policy(self, sha256: str) -> Policy:
        """See `Catalogue.policy`."""
        found = self._policies.get(sha256)
        if found is None:
            with self._database.reading() as connection:
                found = self._policies[sha256] = stored_policy(connection, sha256)
        return found

    def _tenant(self, name: str) -> _Fresh[tuple[str, bool]]:
        found = self._tenants.get(name)
        if found is None:
            if len(self._tenants) >= _TENANTS:
                self._tenants.clear()
            found = self._tenants[name] = _Fresh(f"tenant {name}", lambda: self._read_tenant(name), self._seconds, self._now)
        return found

    def _read_tenant(self, name: str) -> tuple[str, bool]:
        with self._database.reading() as connection:
            row = connection.execute(_TENANT, {"name": name}).first()
        own, keeps = ("", False) if row is None else (row.policy or "", row.keep_landmarks_days > 0)
        if own:
            self.policy(own)  # one that cannot be read leaves the tenant's last one in use
        return own, keeps

    def _read(self) -> _InUse:
        found = self._pointers()
        if Role.ACTIVE not in found or Role.POLICY not in found:
            self._begin()
            found = self._pointers()
        active, policy = self.release(found[Role.ACTIVE][0]), self.policy(found[Role.POLICY][0])
        return _InUse(active, policy, self._on_trial(found.get(Role.SHADOW)))

    def _pointers(self) -> Mapping[str, tuple[str, float]]:
        with self._database.reading() as connection:
            return {row.role: (row.sha256, row.share) for row in connection.execute(POINTERS)}

    def _on_trial(self, pointer: tuple[str, float] | None) -> tuple[Release, float] | None:
        """The shadow; one that cannot be read is none, and nobody else's trouble."""
        if pointer is None:
            return None
        try:
            return self.release(pointer[0]), pointer[1]
        except Unavailable:
            raise
        except UnmaskError as error:
            _log.warning("shadow release: %s", error.detail)
            return None

    def _begin(self) -> None:
        """Puts the first release and policy; of several processes that start at once one is first, the others find its."""
        text, policy, at = self._first_release(), self._first_policy(), datetime.now(UTC)
        release = Release.parse(text, hashlib.sha256(text).hexdigest())
        rows = [
            text_row(RELEASE, release.sha256, release.name, release_text(text), at),
            text_row(POLICY, policy.sha256, policy.name, policy.text, at),
        ]
        changed = to_microseconds(at)
        roles = [(Role.ACTIVE, release.sha256), (Role.POLICY, policy.sha256)]
        first = [{"role": role.value, "sha256": sha256, "share": 1.0, "changed_at": changed} for role, sha256 in roles]
        with self._database.transaction() as connection:
            connection.execute(self._insert(texts).on_conflict_do_nothing(), rows)
            connection.execute(self._insert(pointers).on_conflict_do_nothing(), first)


def release_text(data: bytes) -> str:
    """A release's bytes as the text that rows hold; raises `BadModel` unless the bytes come back from it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadModel(f"the release is not UTF-8 text ({error.reason})") from error
    if "\0" in text:
        raise BadModel("the release holds a NUL character")
    return text
