"""The Python client, synchronous and asynchronous: domain objects in and out, Unmask's own errors raised."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, TypeVar

import grpc

from unmask.core.domain import Verdict
from unmask.core.errors import UnmaskError
from unmask.rpc import asking, convert
from unmask.rpc.asking import Aligned, Answer, Classifications, Localizations, Picture, Progress, Request
from unmask.rpc.convert import CaseStatus
from unmask.rpc.statuses import from_rpc_error
from unmask.v1 import alignment_pb2, classification_pb2, common_pb2, ingestion_pb2, localization_pb2
from unmask.v1.alignment_pb2_grpc import AlignmentServiceStub
from unmask.v1.classification_pb2_grpc import ClassificationServiceStub
from unmask.v1.ingestion_pb2_grpc import IngestionServiceStub
from unmask.v1.localization_pb2_grpc import LocalizationServiceStub

_Message = TypeVar("_Message")
TIMEOUT: Final = 60.0


class _Stubs:
    """The stubs of all four services over one channel."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self.ingestion: Any = IngestionServiceStub(channel)  # type: ignore[no-untyped-call]
        self.alignment: Any = AlignmentServiceStub(channel)  # type: ignore[no-untyped-call]
        self.classification: Any = ClassificationServiceStub(channel)  # type: ignore[no-untyped-call]
        self.localization: Any = LocalizationServiceStub(channel)  # type: ignore[no-untyped-call]


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turns a failed call into the error that the server raised."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except grpc.RpcError as error:
        if not isinstance(error, grpc.Call):
            raise
        raise from_rpc_error(error) from error


class Client:
    """Talks to one server (`unmask serve …`), synchronously; thread-safe.

    `timeout` is in seconds, for each call; a stream's is for the whole stream, and None waits for ever.
    Every method raises the `UnmaskError` that the server raised, `Unavailable` when there is none to talk to.
    """

    def __init__(self, address: str, *, timeout: float | None = TIMEOUT) -> None:
        self._channel = grpc.insecure_channel(address, options=asking.CHANNEL_OPTIONS)
        self._stubs, self._timeout = _Stubs(self._channel), timeout

    def submit(self, asked: Request | Picture) -> CaseStatus:
        """Submits a picture; its case exists when this returns."""
        request = ingestion_pb2.SubmitRequest(submission=asking.request_of(asked).message())
        return convert.status_from(self._call(self._stubs.ingestion.Submit, request).case)

    def submit_many(
        self, asked: Iterable[tuple[str, Request | Picture]], *, timeout: float | None = None
    ) -> Iterator[tuple[str, Answer]]:
        """Submits (request id, picture) pairs as they come; yields one (request id, status or error) each, as they are done."""
        unread: deque[tuple[str, Answer]] = deque()
        broken: list[Exception] = []

        def requests() -> Iterator[ingestion_pb2.SubmitManyRequest]:
            try:
                for request_id, one in asked:
                    if (message := _submission(request_id, one, unread)) is not None:
                        yield message
            except Exception as error:  # gRPC reads this on a thread of its own and would only log it
                broken.append(error)
                raise

        call = self._stubs.ingestion.SubmitMany(requests(), timeout=timeout)
        try:
            with _our_errors():
                for message in call:
                    yield from _drained(unread)
                    yield message.request_id, asking.answer_from(message)
        except UnmaskError:
            if broken:
                raise broken[0] from None
            raise
        finally:
            call.cancel()
        yield from _drained(unread)

    def get_verdict(self, case_id: str) -> Progress:
        """How far a case is, and its verdict once it is decided."""
        request = ingestion_pb2.GetVerdictRequest(case_id=case_id)
        return asking.progress_from(self._call(self._stubs.ingestion.GetVerdict, request))

    def wait_verdict(self, case_id: str, *, timeout: float | None = None) -> Iterator[Progress]:
        """The case's progress now and after each change, until it has ended."""
        request = ingestion_pb2.WaitVerdictRequest(case_id=case_id)
        call = self._stubs.ingestion.WaitVerdict(request, timeout=timeout or self._timeout)
        try:
            with _our_errors():
                yield from map(asking.progress_from, call)
        finally:
            call.cancel()

    def check(self, asked: Request | Picture) -> Verdict:
        """Submits a picture and waits for its verdict."""
        request = ingestion_pb2.CheckRequest(submission=asking.request_of(asked).message())
        return asking.with_path(convert.verdict_from(self._call(self._stubs.ingestion.Check, request).verdict), asked)

    def align(self, picture: Picture | None = None, *, case_id: str | None = None, with_chips: bool = False) -> Aligned:
        """Faces of a picture (nothing is stored), or what was stored for a case."""
        request = asking.subject(alignment_pb2.AlignRequest, picture, case_id)
        request.with_chips = with_chips
        return asking.aligned_from(self._call(self._stubs.alignment.Align, request))

    def classify(
        self,
        picture: Picture | None = None,
        *,
        chips: Sequence[common_pb2.Chip] | None = None,
        case_id: str | None = None,
    ) -> Classifications:
        """How likely each face is synthetic: of a picture, of chips (`Aligned.chips`), or as stored for a case."""
        request = asking.subject(classification_pb2.ClassifyRequest, picture, case_id, chips)
        return asking.classifications_from(self._call(self._stubs.classification.Classify, request))

    def localize(
        self,
        picture: Picture | None = None,
        *,
        chips: Sequence[common_pb2.Chip] | None = None,
        case_id: str | None = None,
    ) -> Localizations:
        """Where each face was manipulated: of a picture, of chips (`Aligned.chips`), or as stored for a case."""
        request = asking.subject(localization_pb2.LocalizeRequest, picture, case_id, chips)
        return asking.localizations_from(self._call(self._stubs.localization.Localize, request))

    def _call(self, method: Callable[..., _Message], request: object) -> _Message:
        with _our_errors():
            return method(request, timeout=self._timeout)

    def close(self) -> None:
        """Ends the connection and the calls in hand."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same methods, to be awaited or iterated with `async for`."""

    def __init__(self, address: str, *, timeout: float | None = TIMEOUT) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=asking.CHANNEL_OPTIONS)
        self._stubs, self._timeout = _Stubs(self._channel), timeout

    async def submit(self, asked: Request | Picture) -> CaseStatus:
        """See `Client.submit`."""
        request = ingestion_pb2.SubmitRequest(submission=asking.request_of(asked).message())
        return convert.status_from((await self._call(self._stubs.ingestion.Submit, request)).case)

    async def submit_many(
        self, asked: AsyncIterable[tuple[str, Request | Picture]], *, timeout: float | None = None
    ) -> AsyncIterator[tuple[str, Answer]]:
        """See `Client.submit_many`."""
        unread: deque[tuple[str, Answer]] = deque()
        broken: list[Exception] = []

        async def requests() -> AsyncIterator[ingestion_pb2.SubmitManyRequest]:
            try:
                async for request_id, one in asked:
                    if (message := _submission(request_id, one, unread)) is not None:
                        yield message
            except Exception as error:
                broken.append(error)
                raise

        call = self._stubs.ingestion.SubmitMany(requests(), timeout=timeout)
        try:
            with _our_errors():
                async for message in call:
                    for early in _drained(unread):
                        yield early
                    yield message.request_id, asking.answer_from(message)
        except (UnmaskError, asyncio.CancelledError):
            # grpc.aio cancels its own call when the requests break off.
            if broken:
                raise broken[0] from None
            raise
        finally:
            call.cancel()
        for late in _drained(unread):
            yield late

    async def get_verdict(self, case_id: str) -> Progress:
        """See `Client.get_verdict`."""
        request = ingestion_pb2.GetVerdictRequest(case_id=case_id)
        return asking.progress_from(await self._call(self._stubs.ingestion.GetVerdict, request))

    async def wait_verdict(self, case_id: str, *, timeout: float | None = None) -> AsyncIterator[Progress]:
        """See `Client.wait_verdict`."""
        request = ingestion_pb2.WaitVerdictRequest(case_id=case_id)
        call = self._stubs.ingestion.WaitVerdict(request, timeout=timeout or self._timeout)
        try:
            with _our_errors():
                async for message in call:
                    yield asking.progress_from(message)
        finally:
            call.cancel()

    async def check(self, asked: Request | Picture) -> Verdict:
        """See `Client.check`."""
        request = ingestion_pb2.CheckRequest(submission=asking.request_of(asked).message())
        answer = await self._call(self._stubs.ingestion.Check, request)
        return asking.with_path(convert.verdict_from(answer.verdict), asked)

    async def align(self, picture: Picture | None = None, *, case_id: str | None = None, with_chips: bool = False) -> Aligned:
        """See `Client.align`."""
        request = asking.subject(alignment_pb2.AlignRequest, picture, case_id)
        request.with_chips = with_chips
        return asking.aligned_from(await self._call(self._stubs.alignment.Align, request))

    async def classify(
        self,
        picture: Picture | None = None,
        *,
        chips: Sequence[common_pb2.Chip] | None = None,
        case_id: str | None = None,
    ) -> Classifications:
        """See `Client.classify`."""
        request = asking.subject(classification_pb2.ClassifyRequest, picture, case_id, chips)
        return asking.classifications_from(await self._call(self._stubs.classification.Classify, request))

    async def localize(
        self,
        picture: Picture | None = None,
        *,
        chips: Sequence[common_pb2.Chip] | None = None,
        case_id: str | None = None,
    ) -> Localizations:
        """See `Client.localize`."""
        request = asking.subject(localization_pb2.LocalizeRequest, picture, case_id, chips)
        return asking.localizations_from(await self._call(self._stubs.localization.Localize, request))

    async def _call(self, method: Callable[..., Any], request: object) -> Any:
        with _our_errors():
            return await method(request, timeout=self._timeout)

    async def close(self) -> None:
        """Ends the connection and the calls in hand."""
        await self._channel.close(None)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _submission(
    request_id: str, asked: Request | Picture, unread: deque[tuple[str, Answer]]
) -> ingestion_pb2.SubmitManyRequest | None:
    """The request of one picture; what cannot be read here is answered here, and the stream goes on."""
    try:
        return ingestion_pb2.SubmitManyRequest(request_id=request_id, submission=asking.request_of(asked).message())
    except UnmaskError as error:
        unread.append((request_id, error))
        return None


def _drained(unread: deque[tuple[str, Answer]]) -> Iterator[tuple[str, Answer]]:
    while unread:
        yield unread.popleft()
