"""Who may do what: tenants with their limits, tokens with their scopes, callers, and the log of what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Scope(StrEnum):
    """What a token may be used for."""

    SUBMIT = "submit"
    READ = "read"
    REVIEW = "review"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One customer of the deployment; a limit that is None is not set.

    `keep_days` is how long pictures and verdicts stay after a case ended (None: for ever), `keep_landmarks_days` how long
    landmarks do (0: gone at the decision), `policy` the sha256 of its own policy (empty: the deployment's), `discover`
    whether it agreed that the operator looks through its unexplained pictures for new generators (`unmask discover`).
    """

    name: str
    created_at: datetime
    disabled: bool = False
    per_minute: int | None = None
    per_day: int | None = None
    keep_days: int | None = None
    keep_landmarks_days: int = 0
    policy: str = ""
    discover: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret, which is shown once and kept as a hash only."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever makes a call: never the caller's own word.  `actor` is what the audit log and decisions say."""

    tenant: str
    scopes: frozenset[Scope]
    actor: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One admin or review act."""

    at: datetime
    tenant: str
    actor: str
    act: str
    subject: str
    detail: Mapping[str, str] = field(default_factory=dict)
