"""Tokens and who shows them, over a real store with a clock that is moved."""

from __future__ import annotations

import string
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from tests.unit.core.worlds import StillClock
from unmask.adapters.database import Database
from unmask.adapters.store_access import SqlAccess
from unmask.core.access import Caller, Scope, Tenant, Token
from unmask.core.errors import Forbidden, Unauthenticated, Unavailable
from unmask.core.tokens import FRESH, Authenticator, Recent, hashed, new_token, require, token_id

START = StillClock().now()
STALE = FRESH.total_seconds() + 0.001


class Counted(SqlAccess):
    """The store, counting look-ups of tokens; it can be down."""

    looks = 0
    down = False

    def token(self, token_id: str) -> tuple[Token, str] | None:
        self.looks += 1
        if self.down:
            raise Unavailable("case store: down")
        return super().token(token_id)


@pytest.fixture
def access() -> Iterator[Counted]:
    with closing(Database.in_memory()) as database:
        store = Counted(database)
        store.put_tenant(Tenant("acme", START))
        yield store


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def issued(access: SqlAccess, expires_at: datetime | None = None) -> tuple[Token, str]:
    token, text = new_token("acme", "for a test", [Scope.READ], START, expires_at)
    access.add_token(token, hashed(text))
    return token, text


def test_the_text_holds_id_and_256_random_bits() -> None:
    made = [new_token("acme", "", [], START) for _ in range(200)]
    assert len({token.id for token, _ in made}) == len({text for _, text in made}) == 200
    for token, text in made:
        prefix, found_id, secret = text.split("_", 2)
        assert (prefix, found_id) == ("unm", token.id) and token_id(text) == token.id
        assert len(secret) * 6 >= 256 and set(secret) <= set(string.ascii_letters + string.digits + "-_")


@pytest.mark.parametrize(
    "text",
    ["", "unm_", "unm__", "unm_0123456789abcdef_short", "x" * 100_000, "unm_0123456789abcdef_" + "é" * 43, "\0", "\ud800"],
)
def test_what_is_no_token_is_not_looked_up(access: Counted, clock: StillClock, text: str) -> None:
    assert token_id(text) is None
    authenticator = Authenticator(access, clock)
    assert authenticator.is_known(text)
    with pytest.raises(Unauthenticated):
        authenticator.caller(text)
    assert access.looks == 0


def test_a_good_token_names_its_caller_and_is_remembered(access: Counted, clock: StillClock) -> None:
    token, text = issued(access)
    authenticator = Authenticator(access, clock)
    assert not authenticator.is_known(text)
    for _ in range(3):
        assert authenticator.caller(text) == Caller("acme", frozenset({Scope.READ}), f"token:{token.id}")
    assert authenticator.is_known(text) and access.looks == 1


def test_a_guesser_learns_nothing_of_what_there_is(access: Counted, clock: StillClock) -> None:
    token, text = issued(access, START - timedelta(days=1))
    access.revoke(token.id, START)
    authenticator, said = Authenticator(access, clock), set()
    # Unknown id, known id with another secret (of an expired and revoked token), no token at all.
    for guess in ("unm_0123456789abcdef" + text[20:], text[:-1] + ("A" if text[-1] != "A" else "B"), "hello"):
        with pytest.raises(Unauthenticated) as caught:
            authenticator.caller(guess)
        said.add(caught.value.detail)
    assert said == {"the token is not valid"}


def test_what_is_kept_is_no_token(access: Counted, clock: StillClock) -> None:
    _, text = issued(access)
    assert text not in hashed(text) and len(hashed(text)) == 64
    with pytest.raises(Unauthenticated):
        Authenticator(access, clock).caller(text[:21] + hashed(text)[:43])


def test_expiry_is_seen_in_every_call(access: Counted, clock: StillClock) -> None:
    _, text = issued(access, START + timedelta(seconds=5))
    authenticator = Authenticator(access, clock)
    clock.pass_(4)
    authenticator.caller(text)
    clock.pass_(1)
    with pytest.raises(Unauthenticated, match="expired"):
        authenticator.caller(text)
    assert access.looks == 1


def test_a_revoked_token_stops_within_ten_seconds(access: Counted, clock: StillClock) -> None:
    token, text = issued(access)
    authenticator = Authenticator(access, clock)
    authenticator.caller(text)
    access.revoke(token.id, clock.now())
    clock.pass_(STALE)
    with pytest.raises(Unauthenticated, match="revoked"):
        authenticator.caller(text)
    assert timedelta(seconds=10) >= FRESH


def test_a_disabled_tenant_stops_within_ten_seconds(access: Counted, clock: StillClock) -> None:
    _, text = issued(access)
    authenticator = Authenticator(access, clock)
    authenticator.caller(text)
    access.put_tenant(Tenant("acme", START, disabled=True))
    clock.pass_(STALE)
    with pytest.raises(Forbidden, match="'acme' is disabled"):
        authenticator.caller(text)


def test_a_store_that_is_down_lets_nobody_in_for_longer_than_ten_seconds(access: Counted, clock: StillClock) -> None:
    _, text = issued(access)
    authenticator = Authenticator(access, clock)
    authenticator.caller(text)
    access.down = True
    clock.pass_(FRESH.total_seconds())
    authenticator.caller(text)
    clock.pass_(0.001)
    with pytest.raises(Unavailable):
        authenticator.caller(text)


def test_what_is_remembered_is_bounded_and_no_older_than_ten_seconds() -> None:
    clock = StillClock()
    recent: Recent[int] = Recent(clock, most=3)
    for number in range(5):
        assert recent.get(str(number), lambda number=number: number) == number  # type: ignore[misc]
    assert [recent.known(str(number)) for number in range(5)] == [None, None, 2, 3, 4]
    assert recent.get("9", lambda: None) is None and recent.known("9") is None
    clock.pass_(-3600)  # what was read "later" is not fresh for an hour
    assert recent.known("4") is None
    assert recent.get("4", lambda: 7) == 7


def test_a_missing_scope_is_named() -> None:
    caller = Caller("acme", frozenset({Scope.SUBMIT}), "x")
    require(caller, [Scope.SUBMIT])
    with pytest.raises(Forbidden, match="lacks the scope read and review"):
        require(caller, [Scope.SUBMIT, Scope.REVIEW, Scope.READ])
