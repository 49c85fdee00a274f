"""Rate limit and quota of a tenant, at every door through which pictures come in."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from unmask.core.access import Tenant
from unmask.core.domain import Case, Submission
from unmask.core.errors import CallerError, QuotaExceeded, Unavailable, UnknownTenant, UnmaskError
from unmask.core.office_ports import AccessStore
from unmask.core.ports import Clock
from unmask.core.submit import accept
from unmask.core.tokens import Recent
from unmask.core.world import World

_log = logging.getLogger(__name__)
_SECONDS: Final = {"minute": 60, "day": 86_400}


def admit(access: AccessStore, clock: Clock, tenant: Tenant, amount: int = 1) -> None:
    """Counts `amount` submissions of the tenant in the minute and the day (UTC) that are running.

    Raises `QuotaExceeded`, its `retry_after` the seconds until the window ends; what did not fit is not counted in it, so that
    a smaller amount still may.  What is refused by the minute does not use up the day.
    """
    now = clock.now()
    full = _first_full(access, tenant, now, amount)
    if full is not None:
        raise _exceeded(tenant, full, now)


def _first_full(
    access: AccessStore, tenant: Tenant, now: datetime, amount: int, kinds: Iterable[str] = tuple(_SECONDS)
) -> str | None:
    """Counts; returns the kind of the window that has no room."""
    for kind in kinds:
        limit, period = _limit(tenant, kind), _period(kind, now)
        if limit is not None and access.count(tenant.name, period, amount) > limit:
            access.count(tenant.name, period, -amount)
            return kind
    return None


def _limit(tenant: Tenant, kind: str) -> int | None:
    return tenant.per_minute if kind == "minute" else tenant.per_day


def _period(kind: str, now: datetime) -> str:
    return f"{kind}:{int(now.timestamp() // _SECONDS[kind])}"


def _exceeded(tenant: Tenant, kind: str, now: datetime) -> QuotaExceeded:
    left = _SECONDS[kind] - now.timestamp() % _SECONDS[kind]
    limit = _limit(tenant, kind)
    error = QuotaExceeded(
        f"tenant {tenant.name!r} may submit {limit} pictures a {kind}; the next {kind} begins in {left:.0f} s"
    )
    error.retry_after = left
    return error


@dataclass(frozen=True, slots=True)
class _Full:
    """A window that had no room, under the limits that the tenant then had."""

    tenant: Tenant
    kind: str
    period: str


class Admission:
    """Lets submissions in as their tenants' limits allow.  Thread-safe.

    The limit a minute counts requests, those too that come to nothing: it protects the deployment.  The quota a day counts
    pictures: what was not accepted by no fault of the caller's, and a repeated idempotency key, are given back to it.
    A tenant's limits are read again every ten seconds (`tokens.FRESH`), and a window found full is taken as full for so long: a
    flood does not reach the store.  A tenant that is not kept (there need be none without tokens) has no
    limits.
    Unless `rated` only the quota holds: a queue is a buffer itself.
    """

    def __init__(self, access: AccessStore, clock: Clock, *, rated: bool = True) -> None:
        self._access, self._clock, self._rated = access, clock, rated
        self._tenants: Recent[Tenant] = Recent(clock)
        self._full: Recent[_Full] = Recent(clock)

    def accept(self, world: World, submission: Submission) -> Case:
        """`core.submit.accept` within the limits; raises `QuotaExceeded` too."""
        tenant, before = self._tenant(submission.tenant), self._clock.now()
        if tenant is None or (tenant.per_minute is None and tenant.per_day is None):
            return accept(world, submission)
        self._admit(tenant, before)
        try:
            case = accept(world, submission)
        except UnmaskError as error:
            if not isinstance(error, CallerError):
                self._give_back(tenant, before)
            raise
        if submission.idempotency_key and case.created_at < before:
            self._give_back(tenant, before)
        return case

    def _tenant(self, name: str) -> Tenant | None:
        def look_up() -> Tenant:
            try:
                found = self._access.tenant(name)
            except UnknownTenant:
                return Tenant(name, self._clock.now())
            return found if self._rated else replace(found, per_minute=None)

        return self._tenants.get(name, look_up)

    def _admit(self, tenant: Tenant, now: datetime) -> None:
        known = self._full.known(tenant.name)
        if known is not None and known.tenant == tenant and known.period == _period(known.kind, now):
            raise _exceeded(tenant, known.kind, now)
        kind = _first_full(self._access, tenant, now, 1, _SECONDS if self._rated else ("day",))
        if kind is not None:
            self._full.keep(tenant.name, _Full(tenant, kind, _period(kind, now)), now)
            raise _exceeded(tenant, kind, now)

    def _give_back(self, tenant: Tenant, at: datetime) -> None:
        if tenant.per_day is None:
            return
        try:
            self._access.count(tenant.name, _period("day", at), -1)
        except Unavailable as error:
            _log.warning("tenant %s: one submission too many counted (%s)", tenant.name, error.detail)
