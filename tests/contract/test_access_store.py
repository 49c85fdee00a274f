"""What every AccessStore promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa

from tests.contract.samples import NOW
from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_tables import usage
from unmask.core.access import AuditEntry, Scope, Tenant, Token
from unmask.core.errors import UnknownTenant
from unmask.core.office_ports import AccessStore

FULL: Final = Tenant("acme", NOW, True, 60, 10_000, 30, 7, "c" * 64)


def a_token(token_id: str = "t1", tenant: str = "acme", **fields: object) -> Token:
    """A token that may submit and read, for ever."""
    plain = Token(token_id, tenant, "uploader Zoë 🦊", frozenset({Scope.SUBMIT, Scope.READ}), NOW)
    return replace(plain, **fields)  # type: ignore[arg-type]


def opened(kind: str, folder: Path, request: pytest.FixtureRequest) -> Callable[[], Database]:
    """What opens that database, again and again."""
    if kind == "sqlite-file":
        return lambda: Database(f"sqlite:///{folder / 'access.sqlite3'}")
    url: str = request.getfixturevalue("database")
    with closing(Database(url, check=False)) as empty:
        upgrade(empty)
    return lambda: Database(url)


@pytest.fixture(params=["sqlite-memory", "sqlite-file", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AccessStore]:
    """A store over a fresh database of each kind."""
    kind = request.param
    database = Database.in_memory() if kind == "sqlite-memory" else opened(kind, tmp_path, request)()
    with closing(database):
        yield SqlAccess(database)


class TestTenants:
    """Who there is."""

    def test_a_tenant_comes_back_as_it_was(self, store: AccessStore) -> None:
        store.put_tenant(FULL)
        assert store.tenant("acme") == FULL
        plain = Tenant("plain", NOW)
        store.put_tenant(plain)
        assert store.tenant("plain") == plain

    def test_put_again_replaces_every_field(self, store: AccessStore) -> None:
        store.put_tenant(FULL)
        later = Tenant("acme", NOW + timedelta(days=1))
        store.put_tenant(later)
        assert store.tenant("acme") == later and list(store.tenants()) == [later]

    def test_all_are_listed_by_name(self, store: AccessStore) -> None:
        names = ["b", "a-b", "a_b", "B", "a", "ab"]
        for name in names:
            store.put_tenant(Tenant(name, NOW))
        assert [tenant.name for tenant in store.tenants()] == sorted(names)

    @pytest.mark.parametrize("name", ["", "nobody", "ACME", "acme%", "' or 1=1 --"])
    def test_another_name_is_unknown(self, store: AccessStore, name: str) -> None:
        store.put_tenant(FULL)
        with pytest.raises(UnknownTenant, match="no tenant"):
            store.tenant(name)


class TestTokens:
    """What they show."""

    def test_a_token_comes_back_with_its_hash(self, store: AccessStore) -> None:
        store.put_tenant(FULL)
        token = a_token(expires_at=NOW + timedelta(hours=1), revoked_at=NOW + timedelta(minutes=1))
        store.add_token(token, "5" * 64)
        assert store.token("t1") == (token, "5" * 64)

    def test_an_unknown_id_gives_none(self, store: AccessStore) -> None:
        assert store.token("t1") is None

    def test_a_token_needs_its_tenant(self, store: AccessStore) -> None:
        with pytest.raises(UnknownTenant):
            store.add_token(a_token(), "5" * 64)
        assert store.token("t1") is None

    def test_tokens_are_a_tenants_own_and_oldest_first(self, store: AccessStore) -> None:
        store.put_tenant(FULL)
        store.put_tenant(Tenant("other", NOW))
        mine = [a_token("t2"), a_token("t1", created_at=NOW + timedelta(seconds=1))]
        for token in (mine[1], a_token("t3", "other"), mine[0]):
            store.add_token(token, "5" * 64)
        assert list(store.tokens("acme")) == mine
        assert [token.id for token in store.tokens("other")] == ["t3"] and not store.tokens("nobody")

    def test_revoked_once_and_from_then_on(self, store: AccessStore) -> None:
        store.put_tenant(FULL)
        store.add_token(a_token(), "5" * 64)
        store.add_token(a_token("t2"), "6" * 64)
        assert store.revoke("t1", NOW) and not store.revoke("t1", NOW + timedelta(days=1)) and not store.revoke("t9", NOW)
        assert store.token("t1") == (a_token(revoked_at=NOW), "5" * 64)
        assert store.token("t2") == (a_token("t2"), "6" * 64)


class TestCount:
    """How much was used."""

    def test_adds_by_tenant_and_period(self, store: AccessStore) -> None:
        assert [store.count("acme", "minute:1", amount) for amount in (1, 5, 0)] == [1, 6, 6]
        assert store.count("acme", "minute:2", 1) == 1 and store.count("acme", "day:1", 1) == 1
        assert store.count("other", "minute:1", 1) == 1 and store.count("acme", "minute:1", 1) == 7

    @pytest.mark.parametrize("kind", ["sqlite-file", "postgres"])
    def test_exact_whoever_counts_at_once(self, kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        connect = opened(kind, tmp_path, request)
        with closing(connect()) as one, closing(connect()) as two:
            stores = [SqlAccess(one), SqlAccess(two)]
            with ThreadPoolExecutor(8) as pool:
                seen = list(pool.map(lambda index: stores[index % 2].count("acme", "minute:1", 2), range(200)))
        # Every sum was given out once: no two callers can both have been the last within a limit.
        assert sorted(seen) == list(range(2, 402, 2))

    def test_periods_long_over_are_forgotten_and_no_others(self, tmp_path: Path) -> None:
        with closing(Database(f"sqlite:///{tmp_path / 'a.sqlite3'}")) as database:
            store = SqlAccess(database)
            for period in ("day:20700", "minute:29999996", "minute:29999997", "minute:30000000"):
                store.count("acme", period, 1)
            store.count("other", "minute:29999990", 1)
            with database.reading() as connection:
                left = {tuple(row) for row in connection.execute(sa.select(usage.c.tenant, usage.c.period))}
        mine = {("acme", period) for period in ("day:20700", "minute:29999997", "minute:30000000")}
        assert left == mine | {("other", "minute:29999990")}


class TestAudit:
    """What was done."""

    def test_newest_first_of_one_or_all(self, store: AccessStore) -> None:
        entries = [
            AuditEntry(NOW, "acme", "cli:root", "token.create", "t1", {"scopes": "read submit", "name": "Zoë"}),
            AuditEntry(NOW, "other", "cli:root", "tenant.create", "other"),
            AuditEntry(NOW - timedelta(days=1), "acme", "token:t1", "review.decide", "case", {}),
        ]
        for entry in entries:
            store.audit(entry)
        assert list(store.audited(None, 10)) == entries[::-1]
        assert list(store.audited("acme", 10)) == [entries[2], entries[0]]
        assert list(store.audited("acme", 1)) == [entries[2]] and not store.audited("nobody", 10)
