"""What happens around every call: whose it is, what it may do, and errors to statuses, in one place for all four kinds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast

import grpc
from grpc_status import rpc_status

from unmask.core.access import Caller
from unmask.core.deadlines import deadline
from unmask.core.errors import CallerError, Unavailable, UnmaskError
from unmask.core.metrics import CANCELLED, OK
from unmask.rpc.callers import OURS, CallerOf, allow, local_caller
from unmask.rpc.statuses import to_status

_log = logging.getLogger(__name__)
_caller: ContextVar[Caller] = ContextVar("unmask_caller")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor  # generic only in its stubs
_Enter = Callable[[Any], Awaitable[None]]
# Told of each call that ended: its method, the code of its error or `ok`, seconds.
Heard = Callable[[str, str, float], None]
_KINDS: Final = {
    (requests, responses): f"{'stream' if requests else 'unary'}_{'stream' if responses else 'unary'}"
    for requests in (False, True)
    for responses in (False, True)
}


def caller() -> Caller:
    """Who makes the call in hand, as the interceptor found it; never the caller's own word."""
    return _caller.get()


def tenant() -> str:
    """The tenant of the call in hand."""
    return caller().tenant


class Edge(_Interceptor):
    """Sets the caller, holds the call against its scopes and turns errors into statuses, for our own services.

    Health and reflection pass untouched: they say what is served, and nothing of anybody's.  A stream's caller is looked at
    again with every message, so that a revoked token ends it too.
    """

    def __init__(self, caller_of: CallerOf = local_caller, heard: Heard | None = None) -> None:
        self._caller_of, self._heard = caller_of, heard

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """See `grpc.aio.ServerInterceptor`."""
        handler = cast("Handler | None", await continuation(handler_call_details))
        method = handler_call_details.method
        if handler is None:  # a method that nobody offers: gRPC answers UNIMPLEMENTED by itself
            return handler  # type: ignore[return-value]
        if not method.startswith(OURS):
            return handler

        async def enter(request: Any) -> None:
            found = await self._caller_of(handler_call_details)
            allow(found, method, request)
            _caller.set(found)

        return _wrapped(handler, method, enter, self._heard)


def _wrapped(handler: Handler, method: str, enter: _Enter, heard: Heard | None) -> Handler:
    """The same kind of handler with the edge around its behaviour."""
    kind = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
    behaviour = getattr(handler, kind)

    async def once(request: Any, context: Context) -> Any:
        _hold_to_deadline(context)
        async with _ended_well(method, context, heard):
            await enter(request)
            return await behaviour(_each(request, enter) if handler.request_streaming else request, context)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        _hold_to_deadline(context)
        async with _ended_well(method, context, heard):
            await enter(request)
            async for response in behaviour(_each(request, enter) if handler.request_streaming else request, context):
                # What was asked over a stream was looked at when it came.
                if not handler.request_streaming:
                    await enter(request)
                yield response

    make = getattr(grpc, f"{kind}_rpc_method_handler")
    around = stream if handler.response_streaming else once
    wrapped: Handler = make(around, handler.request_deserializer, handler.response_serializer)
    return wrapped


def _hold_to_deadline(context: Context) -> None:
    """What the call waits for (a model server) is waited for no longer than its caller does."""
    left = cast("float | None", context.time_remaining())
    deadline.set(None if left is None else time.monotonic() + left)


async def _each(requests: AsyncIterator[Any], enter: _Enter) -> AsyncIterator[Any]:
    async for request in requests:
        await enter(request)
        yield request


@asynccontextmanager
async def _ended_well(method: str, context: Context, heard: Heard | None) -> AsyncIterator[None]:
    """Turns what is raised meanwhile into the call's status, and tells `heard` how the call ended."""
    started, code = time.monotonic(), OK
    try:
        yield
    except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit):
        code = CANCELLED
        raise
    except Exception as error:
        known = as_unmask(error, method)
        code = known.code
        await _abort(known, context)
    finally:
        if heard is not None:
            heard(method.rpartition(".")[2], code, time.monotonic() - started)


async def _abort(known: UnmaskError, context: Context) -> NoReturn:
    """Ends the call with the error's status."""
    status = rpc_status.to_status(to_status(known))
    await context.abort(status.code, status.details or "", tuple(status.trailing_metadata or ()))


def as_unmask(error: Exception, where: str) -> UnmaskError:
    """The error as callers may see it; what is not theirs to repair, a defect of ours above all, goes to the log."""
    if not isinstance(error, UnmaskError):
        _log.error("%s broke", where, exc_info=error)
        return UnmaskError("an error inside the server; its log says more")
    if not isinstance(error, CallerError | Unavailable):
        _log.error("%s: %s: %s", where, error.code, error.detail)
    return error
