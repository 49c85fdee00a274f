"""AccessStore over SQLAlchemy Core: tenants, tokens, usage and the audit log in the tables of the case store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping, bindparam

from unmask.adapters.database import Database
from unmask.adapters.store_rows import from_microseconds, to_microseconds
from unmask.adapters.store_statements import INSERT
from unmask.adapters.store_tables import audit, tenants, tokens, usage
from unmask.core.access import AuditEntry, Scope, Tenant, Token
from unmask.core.errors import UnknownTenant

_TENANT: Final = sa.select(tenants).where(tenants.c.tenant == bindparam("name"))
_TENANTS: Final = sa.select(tenants)
_ADD_TOKEN: Final = sa.insert(tokens)
_TOKEN: Final = sa.select(tokens).where(tokens.c.id == bindparam("token_id"))
_TOKENS: Final = sa.select(tokens).where(tokens.c.tenant == bindparam("name")).order_by(tokens.c.created_at, tokens.c.id)
_REVOKE: Final = (
    sa.update(tokens)
    .where(tokens.c.id == bindparam("token_id"), tokens.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("at"))
)
_AUDIT: Final = sa.insert(audit)
_AUDITED: Final = sa.select(audit).order_by(audit.c.number.desc()).limit(bindparam("most", type_=sa.Integer))
_AUDITED_OF: Final = _AUDITED.where(audit.c.tenant == bindparam("name"))
# Windows behind these are of no use to anybody: clocks of machines do not differ by so much.  Their numbers compare as
# text, having the same count of digits until the year 2160.
_WINDOWS_KEPT: Final = 3
_FORGET_USAGE: Final = sa.delete(usage).where(
    usage.c.tenant == bindparam("name"), usage.c.period.like(bindparam("kind")), usage.c.period < bindparam("oldest")
)
# Columns whose value is the field's own.
_OWN: Final = ("disabled", "per_minute", "per_day", "keep_days", "keep_landmarks_days", "discover")


class SqlAccess:
    """The port `AccessStore`; one transaction a method, thread-safe."""

    def __init__(self, database: Database) -> None:
        self.database = database
        insert = INSERT[database.dialect]
        row = insert(tenants)
        changed = {column.name: row.excluded[column.name] for column in tenants.c if not column.primary_key}
        self._put_tenant = row.on_conflict_do_update(index_elements=["tenant"], set_=changed)
        one = insert(usage)
        # One statement: the row's lock makes the sum exact whoever else counts.
        self._count = one.on_conflict_do_update(
            index_elements=["tenant", "period"], set_={"count": usage.c.count + one.excluded.count}
        ).returning(usage.c.count)

    def put_tenant(self, tenant: Tenant) -> None:
        """See `AccessStore.put_tenant`."""
        with self.database.transaction() as connection:
            connection.execute(self._put_tenant, _tenant_row(tenant))

    def tenant(self, name: str) -> Tenant:
        """See `AccessStore.tenant`."""
        with self.database.reading() as connection:
            return _tenant(connection, name)

    def tenants(self) -> Sequence[Tenant]:
        """See `AccessStore.tenants`."""
        with self.database.reading() as connection:
            found = [_tenant_of(row) for row in connection.execute(_TENANTS).mappings()]
        # Databases do not sort text alike.
        return sorted(found, key=lambda tenant: tenant.name)

    def add_token(self, token: Token, sha256: str) -> None:
        """See `AccessStore.add_token`."""
        with self.database.transaction() as connection:
            _tenant(connection, token.tenant)
            connection.execute(_ADD_TOKEN, _token_row(token) | {"sha256": sha256})

    def token(self, token_id: str) -> tuple[Token, str] | None:
        """See `AccessStore.token`."""
        with self.database.reading() as connection:
            row = connection.execute(_TOKEN, {"token_id": token_id}).mappings().first()
        return None if row is None else (_token_of(row), row["sha256"])

    def tokens(self, tenant: str) -> Sequence[Token]:
        """See `AccessStore.tokens`."""
        with self.database.reading() as connection:
            return [_token_of(row) for row in connection.execute(_TOKENS, {"name": tenant}).mappings()]

    def revoke(self, token_id: str, at: datetime) -> bool:
        """See `AccessStore.revoke`."""
        with self.database.transaction() as connection:
            return connection.execute(_REVOKE, {"token_id": token_id, "at": to_microseconds(at)}).rowcount == 1

    def count(self, tenant: str, period: str, amount: int) -> int:
        """See `AccessStore.count`; the first count of a period forgets those long over."""
        with self.database.transaction() as connection:
            used: int = connection.execute(self._count, {"tenant": tenant, "period": period, "count": amount}).scalar_one()
            kind, _, number = period.partition(":")
            if used == amount and number.isdecimal():
                oldest = f"{kind}:{int(number) - _WINDOWS_KEPT}"
                connection.execute(_FORGET_USAGE, {"name": tenant, "kind": f"{kind}:%", "oldest": oldest})
        return used

    def audit(self, entry: AuditEntry) -> None:
        """See `AccessStore.audit`."""
        with self.database.transaction() as connection:
            connection.execute(_AUDIT, _audit_row(entry))

    def audited(self, tenant: str | None, limit: int) -> Sequence[AuditEntry]:
        """See `AccessStore.audited`."""
        asked: Mapping[str, Any] = {"most": limit} if tenant is None else {"most": limit, "name": tenant}
        with self.database.reading() as connection:
            found = connection.execute(_AUDITED if tenant is None else _AUDITED_OF, asked)
            return [_audit_of(row) for row in found.mappings()]


def _tenant(connection: Connection, name: str) -> Tenant:
    row = connection.execute(_TENANT, {"name": name}).mappings().first()
    if row is None:
        raise UnknownTenant(f"no tenant {name!r}")
    return _tenant_of(row)


def _tenant_row(tenant: Tenant) -> dict[str, Any]:
    return {name: getattr(tenant, name) for name in _OWN} | {
        "tenant": tenant.name,
        "created_at": to_microseconds(tenant.created_at),
        "policy": tenant.policy or None,
    }


def _tenant_of(row: RowMapping) -> Tenant:
    own = {name: row[name] for name in _OWN}
    return Tenant(name=row["tenant"], created_at=from_microseconds(row["created_at"]), policy=row["policy"] or "", **own)


def _token_row(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "tenant": token.tenant,
        "name": token.name,
        "scopes": sorted(scope.value for scope in token.scopes),
        "created_at": to_microseconds(token.created_at),
        "expires_at": _or_none(token.expires_at),
        "revoked_at": _or_none(token.revoked_at),
    }


def _token_of(row: RowMapping) -> Token:
    return Token(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"]),
        created_at=from_microseconds(row["created_at"]),
        expires_at=None if row["expires_at"] is None else from_microseconds(row["expires_at"]),
        revoked_at=None if row["revoked_at"] is None else from_microseconds(row["revoked_at"]),
    )


def _audit_row(entry: AuditEntry) -> dict[str, Any]:
    own = {name: getattr(entry, name) for name in ("tenant", "actor", "act", "subject")}
    return own | {"at": to_microseconds(entry.at), "detail": dict(entry.detail)}


def _audit_of(row: RowMapping) -> AuditEntry:
    return AuditEntry(from_microseconds(row["at"]), row["tenant"], row["actor"], row["act"], row["subject"], row["detail"])


def _or_none(time: datetime | None) -> int | None:
    return None if time is None else to_microseconds(time)
