"""Every error Unmask raises, split by who must act: the caller, time, or the operator."""

from __future__ import annotations

from typing import ClassVar, Final


class UnmaskError(Exception):
    """Base of all; `code` is the stable name that reaches callers (JSON, ErrorInfo.reason, failure rows)."""

    code: ClassVar[str] = "internal"
    # Seconds after which the same request may work, where whoever raised it knows.
    retry_after: float | None = None

    @property
    def detail(self) -> str:
        """One line in plain words: what is wrong with which thing, and what to do."""
        return " ".join(str(self).split()) or type(self).__doc__ or self.code


class CallerError(UnmaskError):
    """The caller must change the request; the same request fails again."""

    code = "bad_request"


class BadRequest(CallerError):
    """A field is missing, malformed or out of range."""

    code = "bad_field"


class BadImage(CallerError):
    """The bytes are no picture this plugin reads, or one beyond its limits."""

    code = "bad_image"


class UnknownCase(CallerError):
    """No case of that id in this tenant."""

    code = "unknown_case"


class UnknownBlob(CallerError):
    """No object of that key in the blob store."""

    code = "unknown_blob"


class NotReady(CallerError):
    """The case has not reached the stage that was asked for."""

    code = "not_ready"


class Overtaken(CallerError):
    """Somebody else changed the case since the caller looked."""

    code = "overtaken"


class IdempotencyConflict(CallerError):
    """The idempotency key was used before with another body."""

    code = "idempotency_conflict"


class BadPolicy(CallerError):
    """A policy text that cannot be used; the message names the line."""

    code = "bad_policy"


class Unauthenticated(CallerError):
    """No token, or one that is unknown, expired or revoked."""

    code = "unauthenticated"


class Forbidden(CallerError):
    """The token is good, but not for this."""

    code = "forbidden"


class UnknownTenant(CallerError):
    """No tenant of that name."""

    code = "unknown_tenant"


class QuotaExceeded(CallerError):
    """The tenant's rate or quota is used up."""

    code = "quota_exceeded"


class Unavailable(UnmaskError):
    """Something is down or slow; the same request may work later."""

    code = "unavailable"


class DeadlineExceeded(Unavailable):
    """The time allowed ran out before an answer."""

    code = "deadline_exceeded"


class OperatorError(UnmaskError):
    """Whoever runs Unmask must act."""

    code = "misconfigured"


class BadConfig(OperatorError):
    """A setting is missing, malformed or contradicts another."""

    code = "bad_config"


class BadModel(OperatorError):
    """A model file, card or release is missing, corrupt or contradicts its card."""

    code = "bad_model"


class StoreCorrupt(OperatorError):
    """The store holds what its own rules forbid."""

    code = "store_corrupt"


def _tree(kind: type[UnmaskError]) -> list[type[UnmaskError]]:
    return [kind, *(child for sub in kind.__subclasses__() for child in _tree(sub))]


def from_code(code: str, detail: str) -> UnmaskError:
    """The error that a stored or transmitted `code` names; an unknown code gives the base class."""
    kinds = {kind.code: kind for kind in _tree(UnmaskError)}
    return kinds.get(code, UnmaskError)(detail)


# Every code that a failure may have: those of the tree, and of a worker that was lost (`core.runner`).
CODES: Final = frozenset({"worker_lost", *(kind.code for kind in _tree(UnmaskError))})
