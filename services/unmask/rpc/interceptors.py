"""What happens around every call: whose it is, and errors to statuses, in one place for all four kinds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast

import grpc
from grpc_status import rpc_status

from unmask.core.errors import CallerError, Unavailable, UnmaskError
from unmask.rpc.statuses import to_status

_log = logging.getLogger(__name__)
_OURS: Final = "/unmask."
_tenant: ContextVar[str] = ContextVar("unmask_tenant")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
if TYPE_CHECKING:
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor  # generic only in its stubs
TenantOf = Callable[[grpc.HandlerCallDetails], str]


def tenant() -> str:
    """The tenant of the call in hand, as the interceptor found it; never the caller's own word."""
    return _tenant.get()


def one_tenant(details: grpc.HandlerCallDetails) -> str:
    """Every call is tenant `default`'s until there are tokens to tell them apart."""
    return "default"


class Edge(_Interceptor):
    """Sets the tenant and turns errors into statuses, for our own services; health and reflection pass untouched."""

    def __init__(self, tenant_of: TenantOf = one_tenant) -> None:
        self._tenant_of = tenant_of

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
        if not method.startswith(_OURS):
            return handler
        return _wrapped(handler, method, lambda: _tenant.set(self._tenant_of(handler_call_details)))


def _wrapped(handler: Handler, method: str, enter: Callable[[], object]) -> Handler:
    """The same kind of handler with the edge around its behaviour."""
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    behaviour = getattr(handler, kind)

    async def once(request: Any, context: Context) -> Any:
        try:
            enter()
            return await behaviour(request, context)
        except Exception as error:
            await _abort(error, method, context)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            enter()
            async for response in behaviour(request, context):
                yield response
        except Exception as error:
            await _abort(error, method, context)

    make = getattr(grpc, f"{kind}_rpc_method_handler")
    around = stream if handler.response_streaming else once
    wrapped: Handler = make(around, handler.request_deserializer, handler.response_serializer)
    return wrapped


async def _abort(error: Exception, method: str, context: Context) -> NoReturn:
    """Ends the call with the error's status; a defect of ours is logged here and told to nobody else."""
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    known = as_unmask(error, method)
    status = rpc_status.to_status(to_status(known))
    await context.abort(status.code, status.details or "", tuple(status.trailing_metadata or ()))


def as_unmask(error: Exception, where: str) -> UnmaskError:
    """The error as callers may see it; what is not theirs to repair goes to the log."""
    if not isinstance(error, UnmaskError):
        _log.error("%s broke", where, exc_info=error)
        return UnmaskError("an error inside the server; its log says more")
    if not isinstance(error, CallerError | Unavailable):
        _log.error("%s: %s: %s", where, error.code, error.detail)
    return error
