"""Who makes a call and what it needs: one table of methods and scopes, and what is found in a call's metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc

from unmask.core.access import Caller, Scope
from unmask.core.errors import Forbidden, Unauthenticated
from unmask.core.tokens import Authenticator, require
from unmask.rpc.work import Workers

OURS: Final = "/unmask."
HEADER: Final = "authorization"
_BEARER: Final = "bearer "
Needed = frozenset[Scope]
CallerOf = Callable[[grpc.HandlerCallDetails], Awaitable[Caller]]
_SUBMIT, _READ, _REVIEW = (frozenset({scope}) for scope in (Scope.SUBMIT, Scope.READ, Scope.REVIEW))


def _by_subject(request: Any) -> Needed:
    """A picture or chips in hand are looked at as a submission is; a case id reads what was stored."""
    return _READ if request.WhichOneof("subject") == "case_id" else _SUBMIT


# `Submit` and `SubmitMany` answer with no more than the state of the case that was just submitted; `Check` gives a verdict, so
# that a token which may only submit learns none.  A service stands for all its methods.  What is not here is refused.
SCOPES: Final[Mapping[str, Needed | Callable[[Any], Needed]]] = {
    "/unmask.v1.IngestionService/Submit": _SUBMIT,
    "/unmask.v1.IngestionService/SubmitMany": _SUBMIT,
    "/unmask.v1.IngestionService/Check": _SUBMIT | _READ,
    "/unmask.v1.IngestionService/GetVerdict": _READ,
    "/unmask.v1.IngestionService/WaitVerdict": _READ,
    "/unmask.v1.IngestionService/GetBatch": _READ,
    "/unmask.v1.AlignmentService/Align": _by_subject,
    "/unmask.v1.ClassificationService/Classify": _by_subject,
    "/unmask.v1.LocalizationService/Localize": _by_subject,
    "/unmask.v1.ReviewService/": _REVIEW,
}


def allow(caller: Caller, method: str, request: Any) -> None:
    """Raises `Forbidden` unless the caller may make this call; `request` is the message, or a stream of them."""
    rule = SCOPES.get(method) or SCOPES.get(method[: method.rfind("/") + 1])
    if rule is None:
        raise Forbidden(f"{method}: no token is good for this method")
    require(caller, rule(request) if callable(rule) else rule)


async def local_caller(details: grpc.HandlerCallDetails) -> Caller:
    """Without tokens: whoever reaches the loopback address may do everything as tenant `default`."""
    return Caller("default", frozenset(Scope), "local")


def token_callers(authenticator: Authenticator, readers: Workers) -> CallerOf:
    """Finds callers by the token in `authorization: Bearer …`; what is not remembered is looked up on a thread of `readers`."""

    async def caller(details: grpc.HandlerCallDetails) -> Caller:
        text = bearer(details)
        if authenticator.is_known(text):
            return authenticator.caller(text)
        return await readers.run_when_free(lambda: authenticator.caller(text))

    return caller


def bearer(details: grpc.HandlerCallDetails) -> str:
    """The token in the metadata; raises `Unauthenticated` when there is not exactly one."""
    found = [value for name, value in details.invocation_metadata or () if name == HEADER]
    if not found:
        raise Unauthenticated("no token: send the metadata `authorization: Bearer unm_…`")
    value = found[0] if isinstance(found[0], str) else ""
    if len(found) > 1 or not value.lower().startswith(_BEARER):
        raise Unauthenticated("the metadata `authorization` must be there once, as `Bearer unm_…`")
    return value[len(_BEARER) :].strip()
