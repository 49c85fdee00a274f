"""Tokens: how they are written, made and checked; and who a call with one is from."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from unmask.core.access import Caller, Scope, Tenant, Token
from unmask.core.errors import Forbidden, Unauthenticated
from unmask.core.office_ports import AccessStore
from unmask.core.ports import Clock

_Kept = TypeVar("_Kept")
# `unm_<id>_<secret>`: the prefix lets scanners find tokens that were committed or logged.  The secret has 256 bits.
_FORM: Final = re.compile(r"unm_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
# What is known of a token or tenant is used for so long: a revoked token stops, and a changed limit holds, within that time.
FRESH: Final = timedelta(seconds=10)
_MOST_KEPT: Final = 10_000
# Why a token is not known is nobody's business who cannot show its secret.
_NOT_VALID: Final = "the token is not valid"


def new_token(
    tenant: str, name: str, scopes: Iterable[Scope], now: datetime, expires_at: datetime | None = None
) -> tuple[Token, str]:
    """A new token and its text, which is not kept anywhere; what is kept is `hashed(text)`."""
    token = Token(secrets.token_hex(_ID_BYTES), tenant, name, frozenset(scopes), now, expires_at)
    return token, f"unm_{token.id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def token_id(text: str) -> str | None:
    """The id within a token's text; None for a text that is no token."""
    match = _FORM.fullmatch(text)
    return None if match is None else match[1]


def hashed(text: str) -> str:
    """What is kept of a token's text: with 256 random bits in it, a fast hash is as good as a slow one."""
    return hashlib.sha256(text.encode()).hexdigest()


class Recent(Generic[_Kept]):
    """Values by name, each looked up again once it is older than `FRESH`; the oldest go first.  Thread-safe."""

    def __init__(self, clock: Clock, most: int = _MOST_KEPT) -> None:
        self._clock, self._most = clock, most
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[datetime, _Kept]] = OrderedDict()

    def known(self, name: str) -> _Kept | None:
        """The value, if it is fresh."""
        with self._lock:
            found = self._kept.get(name)
        # A clock that went back makes what was read "later" old too.
        is_fresh = found is not None and timedelta(0) <= self._clock.now() - found[0] <= FRESH
        return found[1] if found is not None and is_fresh else None

    def get(self, name: str, look_up: Callable[[], _Kept | None]) -> _Kept | None:
        """The fresh value, else what `look_up` gives, which is kept unless it is None."""
        found = self.known(name)
        if found is not None:
            return found
        asked_at = self._clock.now()
        value = look_up()
        if value is not None:
            self.keep(name, value, asked_at)
        return value

    def keep(self, name: str, value: _Kept, read_at: datetime) -> None:
        """Remembers what was true at `read_at`."""
        with self._lock:
            self._kept[name] = (read_at, value)
            self._kept.move_to_end(name)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store says of a token."""

    token: Token
    sha256: str
    tenant: Tenant


class Authenticator:
    """Says who shows a token.  Thread-safe.

    What the store said is remembered for ten seconds (`FRESH`): a revoked token and a disabled tenant are refused that much
    later at the latest, in every process.  Expiry is looked at in every call.
    """

    def __init__(self, access: AccessStore, clock: Clock) -> None:
        self._access, self._clock = access, clock
        self._recent: Recent[_Known] = Recent(clock)

    def is_known(self, text: str) -> bool:
        """Whether `caller` will answer without asking the store (a text that is no token needs no store either)."""
        known_id = token_id(text)
        return known_id is None or self._recent.known(known_id) is not None

    def caller(self, text: str) -> Caller:
        """Who shows this token's text.

        Raises `Unauthenticated` for one that is unknown, wrong, revoked or expired, `Forbidden` when its tenant is disabled,
        `Unavailable` when the store cannot be asked.
        """
        known_id = token_id(text)
        known = None if known_id is None else self._recent.get(known_id, lambda: self._look_up(known_id))
        if known is None or not hmac.compare_digest(known.sha256, hashed(text)):
            raise Unauthenticated(_NOT_VALID)
        token = known.token
        if token.revoked_at is not None:
            raise Unauthenticated("the token was revoked")
        if token.expires_at is not None and token.expires_at <= self._clock.now():
            raise Unauthenticated(f"the token has expired ({token.expires_at:%Y-%m-%dT%H:%M:%SZ})")
        if known.tenant.disabled:
            raise Forbidden(f"tenant {token.tenant!r} is disabled")
        return Caller(token.tenant, token.scopes, f"token:{token.id}")

    def _look_up(self, known_id: str) -> _Known | None:
        found = self._access.token(known_id)
        if found is None:
            return None
        token, sha256 = found
        return _Known(token, sha256, self._access.tenant(token.tenant))


def require(caller: Caller, needed: Iterable[Scope]) -> None:
    """Raises `Forbidden` naming what the caller's token lacks."""
    missing = sorted(scope.value for scope in frozenset(needed) - caller.scopes)
    if missing:
        raise Forbidden(f"the token lacks the scope {' and '.join(missing)}")
