"""ReleaseStore and ShadowStore over SQLAlchemy Core: texts, pointers, shadow scores, each act with its audit entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from unmask.adapters.catalogue_sql import POINTERS, POLICY, RELEASE, stored_release, text_row
from unmask.adapters.database import Database
from unmask.adapters.store_rows import from_microseconds, to_microseconds
from unmask.adapters.store_statements import INSERT
from unmask.adapters.store_tables import audit, cases, pointers, shadow_scores, tenants, texts
from unmask.core.access import AuditEntry
from unmask.core.cards import Release
from unmask.core.domain import Label, State
from unmask.core.errors import UnknownTenant
from unmask.core.policy import Policy
from unmask.core.releases import Cell, Pointers, Role, ShadowScore, StoredRelease

# A shadow that broke on a case has said nothing of it.
_FAILED: Final = "failed"
_RELEASES: Final = (
    sa.select(texts.c.name, texts.c.sha256, texts.c.created_at)
    .where(texts.c.kind == RELEASE)
    .order_by(texts.c.created_at.desc(), texts.c.sha256)
)
# Changes nothing, and makes those who would move pointers take turns: on SQLite too, where a reader cannot become a writer
# once another one has written.
_TURN: Final = sa.update(pointers).where(pointers.c.role == Role.ACTIVE.value).values(share=pointers.c.share)
_DROP: Final = sa.delete(pointers).where(pointers.c.role == bindparam("gone"))
_OWN_POLICY: Final = sa.update(tenants).where(tenants.c.tenant == bindparam("name")).values(policy=bindparam("sha256"))
# The row is held until the score is written: a case that is being erased takes its scores with it, or gets none.
_STATE: Final = (
    sa.select(cases.c.state)
    .where(cases.c.tenant == bindparam("tenant"), cases.c.id == bindparam("case_id"))
    .with_for_update(read=True)
)
_UNKEEP: Final = sa.delete(shadow_scores).where(
    *(shadow_scores.c[name] == bindparam(name) for name in ("tenant", "case_id", "release"))
)
_BOTH: Final = sa.and_(shadow_scores.c.score.is_not(None), shadow_scores.c.active_score.is_not(None))
_COMPARED: Final = (
    sa.select(
        shadow_scores.c.active_label,
        shadow_scores.c.label,
        sa.func.count().label("cases"),
        sa.func.count(sa.case((_BOTH, 1))).label("scored"),
        sa.func.sum(sa.case((_BOTH, sa.func.abs(shadow_scores.c.score - shadow_scores.c.active_score)))).label("difference"),
    )
    .where(shadow_scores.c.release == bindparam("release"), shadow_scores.c.active == bindparam("active"))
    .group_by(shadow_scores.c.active_label, shadow_scores.c.label)
)


class SqlReleases:
    """The port `ReleaseStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        insert = INSERT[database.dialect]
        self._put_text = insert(texts).on_conflict_do_nothing().returning(texts.c.sha256)
        row = insert(pointers)
        changed = {name: row.excluded[name] for name in ("sha256", "share", "changed_at")}
        self._point = row.on_conflict_do_update(index_elements=["role"], set_=changed)

    def put_release(self, release: Release, text: str, entry: AuditEntry) -> bool:
        """See `ReleaseStore.put_release`."""
        row = text_row(RELEASE, release.sha256, release.name, text, entry.at)
        with self._database.transaction() as connection:
            is_new = connection.execute(self._put_text, row).first() is not None
            if is_new:
                _audit(connection, entry)
        return is_new

    def releases(self) -> Sequence[StoredRelease]:
        """See `ReleaseStore.releases`."""
        with self._database.reading() as connection:
            found = connection.execute(_RELEASES).all()
        return [StoredRelease(row.name, row.sha256, from_microseconds(row.created_at)) for row in found]

    def release(self, sha256: str) -> Release:
        """See `ReleaseStore.release`."""
        with self._database.reading() as connection:
            return stored_release(connection, sha256)

    def pointers(self) -> Pointers:
        """See `ReleaseStore.pointers`."""
        with self._database.reading() as connection:
            return _pointers(connection)

    def move(self, before: Pointers, after: Pointers, entry: AuditEntry) -> bool:
        """See `ReleaseStore.move`."""
        with self._database.transaction() as connection:
            connection.execute(_TURN)
            if _pointers(connection) != before:
                return False
            for role, sha256, share in _rows(after):
                self._write(connection, role, sha256, share, entry)
            _audit(connection, entry)
        return True

    def put_policy(self, policy: Policy, tenant: str, entry: AuditEntry) -> None:
        """See `ReleaseStore.put_policy`."""
        with self._database.transaction() as connection:
            connection.execute(self._put_text, text_row(POLICY, policy.sha256, policy.name, policy.text, entry.at))
            if not tenant:
                self._write(connection, Role.POLICY, policy.sha256, 1.0, entry)
            elif connection.execute(_OWN_POLICY, {"name": tenant, "sha256": policy.sha256}).rowcount != 1:
                raise UnknownTenant(f"no tenant {tenant!r}")
            _audit(connection, entry)

    def _write(self, connection: Connection, role: Role, sha256: str, share: float, entry: AuditEntry) -> None:
        if sha256:
            row = {"role": role.value, "sha256": sha256, "share": share, "changed_at": to_microseconds(entry.at)}
            connection.execute(self._point, row)
        else:
            connection.execute(_DROP, {"gone": role.value})


class SqlShadows:
    """The port `ShadowStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keep = INSERT[database.dialect](shadow_scores).on_conflict_do_nothing().returning(shadow_scores.c.case_id)

    def keep(self, score: ShadowScore) -> bool:
        """See `ShadowStore.keep`."""
        row = _score_row(score)
        key = {name: row[name] for name in ("tenant", "case_id", "release")}
        with self._database.transaction() as connection:
            # Written before the case is looked at: what erases cases waits from here on, or has been.
            is_new = connection.execute(self._keep, row).first() is not None
            is_decided = connection.execute(_STATE, key).scalar() == State.DECIDED.value
            if is_new and not is_decided:
                connection.execute(_UNKEEP, key)
        return is_new and is_decided

    def compared(self, release: str, active: str) -> Sequence[Cell]:
        """See `ShadowStore.compared`."""
        with self._database.reading() as connection:
            found = connection.execute(_COMPARED, {"release": release, "active": active}).all()
        return [
            Cell(
                Label(row.active_label),
                None if row.label == _FAILED else Label(row.label),
                row.cases,
                row.scored,
                row.difference or 0.0,
            )
            for row in found
        ]


def _pointers(connection: Connection) -> Pointers:
    found = {row.role: row for row in connection.execute(POINTERS)}
    names = {role: found[role].sha256 if role in found else "" for role in (Role.ACTIVE, Role.PREVIOUS, Role.SHADOW)}
    share = found[Role.SHADOW].share if Role.SHADOW in found else 0.0
    return Pointers(names[Role.ACTIVE], names[Role.PREVIOUS], names[Role.SHADOW], share)


def _rows(after: Pointers) -> tuple[tuple[Role, str, float], ...]:
    active, previous = (Role.ACTIVE, after.active, 1.0), (Role.PREVIOUS, after.previous, 1.0)
    return active, previous, (Role.SHADOW, after.shadow, after.share)


def _score_row(score: ShadowScore) -> dict[str, Any]:
    return {
        "tenant": score.tenant,
        "case_id": score.case_id,
        "release": score.release,
        "active": score.active,
        "label": _FAILED if score.label is None else score.label.value,
        "score": score.score,
        "active_label": score.active_label.value,
        "active_score": score.active_score,
        "at": to_microseconds(score.at),
    }


def _audit(connection: Connection, entry: AuditEntry) -> None:
    """In the transaction of what it tells, so that nothing moves unlogged."""
    row = {"at": to_microseconds(entry.at), "tenant": entry.tenant, "actor": entry.actor, "act": entry.act}
    connection.execute(sa.insert(audit), {**row, "subject": entry.subject, "detail": dict(entry.detail)})
