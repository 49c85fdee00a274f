"""Errors to gRPC statuses and back: google.rpc ErrorInfo names the error, RetryInfo says when to come again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from unmask.core import errors
from unmask.core.errors import UnmaskError
from unmask.rpc.wire import text

DOMAIN: Final = "unmask"
RETRY_SECONDS: Final = 1
# Statuses travel in HTTP/2 trailers, of which peers take 8 KiB by default, and the text travels twice.
_LONGEST: Final = 1000
# Looked up along an error's classes, so that a new error takes the status of what it is derived from.
_CODES: Final[dict[type[UnmaskError], grpc.StatusCode]] = {
    errors.CallerError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownCase: grpc.StatusCode.NOT_FOUND,
    errors.UnknownBlob: grpc.StatusCode.NOT_FOUND,
    errors.NotReady: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Overtaken: grpc.StatusCode.ABORTED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.UnknownTenant: grpc.StatusCode.NOT_FOUND,
    errors.IdempotencyConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    UnmaskError: grpc.StatusCode.INTERNAL,
}
# What gRPC itself says, without our ErrorInfo.
_PLAIN: Final[dict[grpc.StatusCode, type[UnmaskError]]] = {
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.QuotaExceeded,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: errors.BadConfig,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
}
# What a handshake that failed says, in words that say what to do; the first that fits.
_HANDSHAKE: Final = (
    ("certificate has expired", "the server's certificate has expired"),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate comes from no authority that is trusted here"),
    ("Hostname Verification", "the server's certificate is for another host"),
    ("WRONG_VERSION_NUMBER", "the server speaks no TLS"),
    ("Socket closed", "the server closed the connection: it may want TLS, or a client certificate that it trusts"),
)


def code_of(error: UnmaskError) -> grpc.StatusCode:
    """The status code of an error."""
    return next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)


def to_status(error: UnmaskError) -> status_pb2.Status:
    """The google.rpc.Status of an error, with its details."""
    code = code_of(error)
    detail = text(error.detail)
    status = status_pb2.Status(code=code.value[0], message=detail if len(detail) <= _LONGEST else f"{detail[:_LONGEST]}…")
    _attach(status, error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN))
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}:
        retry = error_details_pb2.RetryInfo()
        seconds = RETRY_SECONDS if error.retry_after is None else max(error.retry_after, 0.0)
        retry.retry_delay.FromMilliseconds(math.ceil(seconds * 1000))
        _attach(status, retry)
    return status


def _attach(status: status_pb2.Status, detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def from_rpc_error(error: grpc.Call | grpc.aio.AioRpcError) -> UnmaskError:
    """The error that a failed call stands for: the same class as on the server where that said so."""
    try:
        # A finished aio error answers the same questions as a synchronous call, without being awaited.
        status = rpc_status.from_call(cast(grpc.Call, error))
    except ValueError:  # a proxy on the way changed the code or the text
        status = None
    details = tuple(status.details) if status is not None else ()
    for packed in details:
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info) and info.domain == DOMAIN:
            known = errors.from_code(info.reason, status.message)
            known.retry_after = _retry_after(details)
            return known
    return _plain(error.code(), error.details() or "")


def _retry_after(details: Iterable[AnyMessage]) -> float | None:
    """Seconds, where the server said so."""
    retry = error_details_pb2.RetryInfo()
    return next((retry.retry_delay.ToMilliseconds() / 1000 for packed in details if packed.Unpack(retry)), None)


def _plain(code: grpc.StatusCode, said: str) -> UnmaskError:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in said:
        return errors.BadRequest(f"the message is larger than the other side takes ({said})")
    why = next((why for words, why in _HANDSHAKE if words in said), "") if code is grpc.StatusCode.UNAVAILABLE else ""
    return _PLAIN.get(code, UnmaskError)(f"{why} ({said})" if why else said or code.name.lower())
