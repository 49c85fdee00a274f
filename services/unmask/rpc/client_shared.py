"""What both clients share: stubs, errors turned back into ours, answers made here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from unmask.core.errors import UnmaskError
from unmask.rpc import asking
from unmask.rpc.asking import Answer, Picture, Request
from unmask.rpc.statuses import from_rpc_error
from unmask.v1 import ingestion_pb2
from unmask.v1.alignment_pb2_grpc import AlignmentServiceStub
from unmask.v1.classification_pb2_grpc import ClassificationServiceStub
from unmask.v1.ingestion_pb2_grpc import IngestionServiceStub
from unmask.v1.localization_pb2_grpc import LocalizationServiceStub
from unmask.v1.review_pb2_grpc import ReviewServiceStub

TIMEOUT: Final = 60.0


class Stubs:
    """The stubs of all services over one channel."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self.ingestion: Any = IngestionServiceStub(channel)  # type: ignore[no-untyped-call]
        self.alignment: Any = AlignmentServiceStub(channel)  # type: ignore[no-untyped-call]
        self.classification: Any = ClassificationServiceStub(channel)  # type: ignore[no-untyped-call]
        self.localization: Any = LocalizationServiceStub(channel)  # type: ignore[no-untyped-call]
        self.review: Any = ReviewServiceStub(channel)  # type: ignore[no-untyped-call]


@contextmanager
def our_errors() -> Iterator[None]:
    """Turns a failed call into the error that the server raised."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except grpc.RpcError as error:
        if not isinstance(error, grpc.Call):
            raise
        raise from_rpc_error(error) from error


def submission(
    request_id: str, asked: Request | Picture, unread: deque[tuple[str, Answer]]
) -> ingestion_pb2.SubmitManyRequest | None:
    """The request of one picture; what cannot be read here is answered here, and the stream goes on."""
    try:
        return ingestion_pb2.SubmitManyRequest(request_id=request_id, submission=asking.request_of(asked).message())
    except UnmaskError as error:
        unread.append((request_id, error))
        return None


def drained(unread: deque[tuple[str, Answer]]) -> Iterator[tuple[str, Answer]]:
    while unread:
        yield unread.popleft()
