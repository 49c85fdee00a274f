"""The Python client for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any

from unmask.core.batches import BatchProgress
from unmask.core.domain import Verdict
from unmask.core.errors import UnmaskError
from unmask.rpc import asking, channels, convert
from unmask.rpc.asking import Aligned, Answer, Classifications, Localizations, Picture, Progress, Request
from unmask.rpc.client_review import AsyncReviewCalls
from unmask.rpc.client_shared import TIMEOUT, Stubs, drained, our_errors, submission
from unmask.rpc.convert import CaseStatus
from unmask.rpc.tls import Tls
from unmask.v1 import alignment_pb2, classification_pb2, common_pb2, ingestion_pb2, localization_pb2


class AsyncClient(AsyncReviewCalls):
    """`Client` for asyncio: the same methods, to be awaited or iterated with `async for`."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = TIMEOUT,
        token: str = "",
        tls: Tls | None = None,
    ) -> None:
        self._metadata = channels.metadata(address, token, tls)
        self._channel = channels.open_aio_channel(address, tls)
        self._stubs, self._timeout = Stubs(self._channel), timeout

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
                    if (message := submission(request_id, one, unread)) is not None:
                        yield message
            except Exception as error:
                broken.append(error)
                raise

        call = self._stubs.ingestion.SubmitMany(requests(), timeout=timeout, metadata=self._metadata)
        try:
            with our_errors():
                async for message in call:
                    for early in drained(unread):
                        yield early
                    yield message.request_id, asking.answer_from(message)
        except (UnmaskError, asyncio.CancelledError):
            # grpc.aio cancels its own call when the requests break off.
            if broken:
                raise broken[0] from None
            raise
        finally:
            call.cancel()
        for late in drained(unread):
            yield late

    async def get_verdict(self, case_id: str) -> Progress:
        """See `Client.get_verdict`."""
        request = ingestion_pb2.GetVerdictRequest(case_id=case_id)
        return asking.progress_from(await self._call(self._stubs.ingestion.GetVerdict, request))

    async def wait_verdict(self, case_id: str, *, timeout: float | None = None) -> AsyncIterator[Progress]:
        """See `Client.wait_verdict`."""
        request = ingestion_pb2.WaitVerdictRequest(case_id=case_id)
        call = self._stubs.ingestion.WaitVerdict(request, timeout=timeout or self._timeout, metadata=self._metadata)
        try:
            with our_errors():
                async for message in call:
                    yield asking.progress_from(message)
        finally:
            call.cancel()

    async def check(self, asked: Request | Picture) -> Verdict:
        """See `Client.check`."""
        request = ingestion_pb2.CheckRequest(submission=asking.request_of(asked).message())
        answer = await self._call(self._stubs.ingestion.Check, request)
        return asking.with_path(convert.verdict_from(answer.verdict), asked)

    async def get_batch(self, name: str) -> BatchProgress:
        """See `Client.get_batch`."""
        request = ingestion_pb2.GetBatchRequest(name=name)
        return asking.batch_from(await self._call(self._stubs.ingestion.GetBatch, request))

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
        with_heat: bool = False,
    ) -> Localizations:
        """See `Client.localize`."""
        request = asking.subject(localization_pb2.LocalizeRequest, picture, case_id, chips)
        request.with_heat = with_heat
        return asking.localizations_from(await self._call(self._stubs.localization.Localize, request))

    async def _call(self, method: Callable[..., Any], request: object) -> Any:
        with our_errors():
            return await method(request, timeout=self._timeout, metadata=self._metadata)

    async def close(self) -> None:
        """Ends the connection and the calls in hand."""
        await self._channel.close(None)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
