"""What every Catalogue promises; beyond that what the shared one does, with the stores that move its pointers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.contract.adapters import Backends, postgres
from tests.contract.samples import NOW, a_case, decided
from tests.unit.core.test_cards import RELEASE
from unmask.adapters.blobs_memory import MemoryBlobs
from unmask.adapters.catalogue import BlobCatalogue
from unmask.adapters.catalogue_sql import SqlCatalogue
from unmask.adapters.database import Database
from unmask.adapters.releases_sql import SqlReleases, SqlShadows
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_sql import SqlStore
from unmask.adapters.store_tables import pointers, shadow_scores, texts
from unmask.core.access import AuditEntry, Tenant
from unmask.core.cards import Release
from unmask.core.domain import Label, State
from unmask.core.errors import BadConfig, BadModel, Unavailable, UnknownTenant
from unmask.core.policy import Policy
from unmask.core.policy_text import DEFAULT_POLICY, parse_policy
from unmask.core.releases import Cell, Pointers, ShadowScore, promoted, shadowed
from unmask.core.world import Catalogue
from unmask.distributed import none_yet

POLICY = parse_policy(DEFAULT_POLICY)
STRICT = parse_policy(DEFAULT_POLICY.replace("name: default", "name: strict").replace("then: allow", "then: review"))
Opened = Callable[..., Catalogue]


def text_of(name: str) -> bytes:
    """A release of that name."""
    return json.dumps(RELEASE | {"name": name}).encode()


def a_release(name: str) -> Release:
    return Release.parse(text_of(name), hashlib.sha256(text_of(name)).hexdigest())


def entry(act: str = "test", tenant: str = "") -> AuditEntry:
    return AuditEntry(NOW, tenant, "cli:tester", act, "what", {"so": "on"})


@pytest.fixture
def open_database(request: pytest.FixtureRequest, backends: Backends) -> Iterator[Callable[[], Database]]:
    """Opens the test's database once more, as another process would."""
    with ExitStack() as stack:
        if request.param == "postgres":
            first = stack.enter_context(closing(postgres(backends)))
            url = first.database.engine.url.render_as_string(hide_password=False)
        else:
            url = f"sqlite:///{backends.folder / 'shared.sqlite3'}"
        yield lambda: stack.enter_context(closing(Database(url)))


shared = pytest.mark.parametrize("open_database", ["sqlite-file", "postgres"], indirect=True)


@pytest.fixture(params=["blobs", "sqlite-file", "postgres"])
def opened(request: pytest.FixtureRequest, backends: Backends) -> Iterator[Opened]:
    """Makes a catalogue over the same store, again and again, each with what its process finds on its disk."""
    blobs = MemoryBlobs()
    if request.param == "blobs":
        yield lambda release="first", policy=POLICY: BlobCatalogue(blobs, text_of(release), policy)
        return
    with ExitStack() as stack:
        if request.param == "postgres":
            database = stack.enter_context(closing(postgres(backends))).database
        else:
            database = stack.enter_context(closing(Database(f"sqlite:///{backends.folder / 'shared.sqlite3'}")))
        yield lambda release="first", policy=POLICY: catalogue(database, release, policy)


def catalogue(database: Database, release: str = "first", policy: Policy = POLICY) -> SqlCatalogue:
    return SqlCatalogue(database, lambda: text_of(release), lambda: policy, seconds=0.0)


class TestEveryCatalogue:
    """Embedded and shared."""

    def test_what_the_first_start_finds_is_active(self, opened: Opened) -> None:
        made = opened()
        assert made.active_release() == a_release("first")
        assert made.active_policy("anybody") == POLICY
        assert made.release(a_release("first").sha256) == a_release("first")
        assert made.policy(POLICY.sha256) == POLICY
        assert made.shadow() is None

    def test_a_later_start_finds_what_older_cases_are_pinned_to(self, opened: Opened) -> None:
        before = opened()
        pinned = before.active_release(), before.active_policy("a")
        after = opened(release="second", policy=STRICT)
        assert (after.active_release(), after.active_policy("a")) is not None
        assert (after.release(pinned[0].sha256), after.policy(pinned[1].sha256)) == pinned

    def test_what_is_gone_is_the_operators_trouble(self, opened: Opened) -> None:
        made = opened()
        with pytest.raises(BadModel, match="eeeeeeeeeeee"):
            made.release("e" * 64)
        with pytest.raises(BadConfig, match="eeeeeeeeeeee"):
            made.policy("e" * 64)


@shared
class TestSharedCatalogue:
    """Over a database."""

    def test_a_later_start_does_not_move_the_pointers(self, open_database: Callable[[], Database]) -> None:
        catalogue(open_database()).active_release()
        later = catalogue(open_database(), "second", STRICT)
        assert (later.active_release().name, later.active_policy("a").name) == ("first", "default")

    def test_a_later_start_needs_neither_file(self, open_database: Callable[[], Database]) -> None:
        catalogue(open_database()).active_release()

        def gone() -> Any:
            raise BadModel("no repository here")

        assert SqlCatalogue(open_database(), gone, gone).active_release().name == "first"

    def test_a_sweeper_looks_and_begins_nothing(self, open_database: Callable[[], Database]) -> None:
        looking = SqlCatalogue(open_database(), none_yet, none_yet, seconds=0.0)
        with pytest.raises(Unavailable, match="no release is in the store yet"):
            looking.active_release()
        catalogue(open_database(), "second").active_release()
        assert looking.active_release().name == "second"

    def test_of_starts_at_once_one_is_first(self, open_database: Callable[[], Database]) -> None:
        made = [catalogue(open_database(), f"r{number}") for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            found = {release.sha256 for release in pool.map(lambda each: each.active_release(), made)}
        assert len(found) == 1

    def test_a_promotion_reaches_another_process_in_time(self, open_database: Callable[[], Database]) -> None:
        passed = 0.0
        other = SqlCatalogue(open_database(), lambda: text_of("first"), lambda: POLICY, seconds=10.0, now=lambda: passed)
        store = SqlReleases(open_database())
        assert other.active_release().name == "first"
        before = store.pointers()
        second = a_release("second")
        store.put_release(second, text_of("second").decode(), entry())
        assert store.move(before, promoted(before, second.sha256), entry())
        passed = 9.9
        assert other.active_release().name == "first", "looked up again at every call"
        passed = 10.0
        assert other.active_release().name == "second"
        assert other.release(before.active).name == "first"

    def test_a_pointer_to_nothing_leaves_the_last_release_serving(self, open_database: Callable[[], Database]) -> None:
        made, database = catalogue(open_database()), open_database()
        made.active_release()
        with database.transaction() as connection:
            connection.execute(sa.update(pointers).where(pointers.c.role == "active").values(sha256="e" * 64))
        assert made.active_release().name == "first"
        with pytest.raises(BadModel):
            catalogue(open_database()).active_release()

    def test_a_text_that_was_changed_is_no_release(self, open_database: Callable[[], Database]) -> None:
        database = open_database()
        catalogue(database).active_release()
        with database.transaction() as connection:
            connection.execute(sa.update(texts).values(text=text_of("other").decode()))
        with pytest.raises(Exception, match="another text"):
            catalogue(open_database()).release(a_release("first").sha256)

    def test_a_broken_shadow_is_none_and_nobody_elses_trouble(self, open_database: Callable[[], Database]) -> None:
        made, store = catalogue(open_database()), SqlReleases(open_database())
        made.active_release()
        before = store.pointers()
        second = a_release("second")
        store.put_release(second, text_of("second").decode(), entry())
        assert store.move(before, shadowed(before, second.sha256, 0.25), entry())
        assert made.shadow() == (second, 0.25)
        assert store.move(store.pointers(), shadowed(before, "e" * 64, 0.25), entry())
        assert (made.shadow(), made.active_release().name) == (None, "first")

    def test_tenants_have_their_own(self, open_database: Callable[[], Database]) -> None:
        database = open_database()
        made, store, access = catalogue(database), SqlReleases(database), SqlAccess(database)
        access.put_tenant(Tenant("acme", NOW, keep_landmarks_days=3))
        access.put_tenant(Tenant("plain", NOW))
        assert [made.keeps_landmarks(name) for name in ("acme", "plain", "nobody")] == [True, False, False]
        assert made.active_policy("acme") == POLICY
        store.put_policy(STRICT, "acme", entry("policy.put", "acme"))
        assert (made.active_policy("acme"), made.active_policy("plain")) == (STRICT, POLICY)
        assert access.tenant("acme").policy == STRICT.sha256 and access.tenant("acme").keep_landmarks_days == 3
        store.put_policy(STRICT, "", entry("policy.put"))
        assert made.active_policy("plain") == STRICT and made.policy(POLICY.sha256) == POLICY
        assert [(found.act, found.tenant) for found in access.audited(None, 9)] == [("policy.put", ""), ("policy.put", "acme")]

    def test_an_unknown_tenants_policy_leaves_nothing(self, open_database: Callable[[], Database]) -> None:
        database = open_database()
        with pytest.raises(UnknownTenant, match="nobody"):
            SqlReleases(database).put_policy(STRICT, "nobody", entry())
        with pytest.raises(BadConfig):
            catalogue(database).policy(STRICT.sha256)
        assert SqlAccess(database).audited(None, 9) == []


@pytest.mark.parametrize("open_database", ["postgres"], indirect=True)
def test_a_store_that_is_down_leaves_the_last_known_serving(open_database: Callable[[], Database], backends: Backends) -> None:
    database = open_database()
    SqlAccess(database).put_tenant(Tenant("acme", NOW, keep_landmarks_days=3))
    made = catalogue(database)
    known = made.active_release(), made.active_policy("acme"), made.keeps_landmarks("acme")
    backends.get("postgres").stop()
    try:
        assert (made.active_release(), made.active_policy("acme"), made.keeps_landmarks("acme")) == known
        assert made.release(known[0].sha256) == known[0]
        with pytest.raises(Unavailable):
            made.active_policy("never asked for")
    finally:
        backends.get("postgres").start()


@shared
class TestReleaseStore:
    """Pointers and texts."""

    def test_of_two_who_move_at_once_one_does(self, open_database: Callable[[], Database]) -> None:
        stores = [SqlReleases(open_database()) for _ in range(6)]
        catalogue(open_database()).active_release()
        before = stores[0].pointers()
        after = [promoted(before, f"{number}" * 64) for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            done = list(pool.map(lambda pair: pair[0].move(before, pair[1], entry("move")), zip(stores, after, strict=True)))
        assert sorted(done) == [False] * 5 + [True]
        assert stores[0].pointers() == after[done.index(True)]
        assert [found.act for found in SqlAccess(open_database()).audited(None, 9)] == ["move"]

    def test_pointers_go_and_come(self, open_database: Callable[[], Database]) -> None:
        store = SqlReleases(open_database())
        assert store.pointers() == Pointers()
        for after in (Pointers("a" * 64), Pointers("b" * 64, "a" * 64, "c" * 64, 0.5), Pointers("a" * 64, "b" * 64)):
            assert store.move(store.pointers(), after, entry())
            assert store.pointers() == after

    def test_a_release_is_kept_once(self, open_database: Callable[[], Database]) -> None:
        store = SqlReleases(open_database())
        for name in ("one", "two"):
            put = replace(entry("put"), at=NOW.replace(year=2026 if name == "one" else 2027))
            assert store.put_release(a_release(name), text_of(name).decode(), put)
            assert not store.put_release(a_release(name), text_of(name).decode(), put)
        assert [found.name for found in store.releases()] == ["two", "one"]
        assert store.release(a_release("one").sha256) == a_release("one")
        assert len(SqlAccess(open_database()).audited(None, 9)) == 2


def a_score(case_id: str, label: Label | None = Label.REAL, score: float | None = 0.25, **fields: Any) -> ShadowScore:
    plain = ShadowScore("default", case_id, "r" * 64, "b" * 64, label, score, Label.SYNTHETIC, 0.75, NOW)
    return replace(plain, **fields)


@shared
class TestShadowStore:
    """What a release on trial says."""

    def test_only_a_decided_case_has_scores_and_one_a_release(self, open_database: Callable[[], Database]) -> None:
        database = open_database()
        cases, shadows = SqlStore(database), SqlShadows(database)
        case = cases.accept(a_case())
        assert not shadows.keep(a_score(case.id)), "an open case"
        assert not shadows.keep(a_score("nobody"))
        update = decided(case)
        assert cases.commit(case, update)
        assert shadows.keep(a_score(case.id))
        assert not shadows.keep(a_score(case.id, Label.MANIPULATED)), "again"
        assert shadows.keep(a_score(case.id, release="s" * 64))
        erased = replace(update.case, state=State.ERASED, revision=update.case.revision + 1)
        assert cases.commit(update.case, replace(update, case=erased, event=None, decisions=()))
        assert not shadows.keep(a_score(case.id, release="t" * 64)), "an erased case"
        with database.reading() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(shadow_scores)).scalar() == 2

    def test_scores_are_counted_by_both_labels(self, open_database: Callable[[], Database]) -> None:
        database = open_database()
        cases, shadows = SqlStore(database), SqlShadows(database)
        rows: list[tuple[Label | None, float | None, str]] = [
            (Label.REAL, 0.25, "b"), (Label.REAL, 0.5, "b"), (Label.NO_FACE, None, "b"), (None, None, "b"),
            (Label.REAL, 0.1, "z"),
        ]  # fmt: skip
        for label, score, active in rows:
            case = cases.accept(a_case())
            cases.commit(case, decided(case))
            assert shadows.keep(a_score(case.id, label, score, active=active * 64))
        found = sorted(shadows.compared("r" * 64, "b" * 64), key=lambda cell: str(cell.shadow))
        assert found == [
            Cell(Label.SYNTHETIC, None, 1, 0, 0.0),
            Cell(Label.SYNTHETIC, Label.NO_FACE, 1, 0, 0.0),
            Cell(Label.SYNTHETIC, Label.REAL, 2, 2, 0.75),
        ]
