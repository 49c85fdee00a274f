"""The Python client, synchronous and asynchronous: domain objects in and out, Unmask's own errors raised."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar

from unmask.core.batches import BatchProgress
from unmask.core.domain import Verdict
from unmask.core.errors import UnmaskError
from unmask.rpc import asking, channels, convert
from unmask.rpc.asking import Aligned, Answer, Classifications, Localizations, Picture, Progress, Request
from unmask.rpc.client_async import AsyncClient
from unmask.rpc.client_review import ReviewCalls
from unmask.rpc.client_shared import TIMEOUT, Stubs, drained, our_errors, submission
from unmask.rpc.convert import CaseStatus
from unmask.rpc.tls import Tls
from unmask.v1 import alignment_pb2, classification_pb2, common_pb2, ingestion_pb2, localization_pb2

__all__ = ["TIMEOUT", "AsyncClient", "Client"]
_Message = TypeVar("_Message")


class Client(ReviewCalls):
    """Talks to one server (`unmask serve …`), synchronously; thread-safe.

    `timeout` is in seconds, for each call; a stream's is for the whole stream, and None waits for ever.
    `token` says who calls; `tls` says whom to trust (`Tls()`: the public authorities), None speaks plaintext.  A token goes in
    plaintext over loopback only, else the constructor raises `BadConfig`.
    Every method raises the `UnmaskError` that the server raised, `Unavailable` when there is none to talk to.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = TIMEOUT,
        token: str = "",
        tls: Tls | None = None,
    ) -> None:
        self._metadata = channels.metadata(address, token, tls)
        self._channel = channels.open_channel(address, tls)
        self._stubs, self._timeout = Stubs(self._channel), timeout

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
                    if (message := submission(request_id, one, unread)) is not None:
                        yield message
            except Exception as error:  # gRPC reads this on a thread of its own and would only log it
                broken.append(error)
                raise

        call = self._stubs.ingestion.SubmitMany(requests(), timeout=timeout, metadata=self._metadata)
        try:
            with our_errors():
                for message in call:
                    yield from drained(unread)
                    yield message.request_id, asking.answer_from(message)
        except UnmaskError:
            if broken:
                raise broken[0] from None
            raise
        finally:
            call.cancel()
        yield from drained(unread)

    def get_verdict(self, case_id: str) -> Progress:
        """How far a case is, and its verdict once it is decided."""
        request = ingestion_pb2.GetVerdictRequest(case_id=case_id)
        return asking.progress_from(self._call(self._stubs.ingestion.GetVerdict, request))

    def wait_verdict(self, case_id: str, *, timeout: float | None = None) -> Iterator[Progress]:
        """The case's progress now and after each change, until it has ended."""
        request = ingestion_pb2.WaitVerdictRequest(case_id=case_id)
        call = self._stubs.ingestion.WaitVerdict(request, timeout=timeout or self._timeout, metadata=self._metadata)
        try:
            with our_errors():
                yield from map(asking.progress_from, call)
        finally:
            call.cancel()

    def check(self, asked: Request | Picture) -> Verdict:
        """Submits a picture and waits for its verdict."""
        request = ingestion_pb2.CheckRequest(submission=asking.request_of(asked).message())
        return asking.with_path(convert.verdict_from(self._call(self._stubs.ingestion.Check, request).verdict), asked)

    def get_batch(self, name: str) -> BatchProgress:
        """How far the cases of a batch are."""
        return asking.batch_from(self._call(self._stubs.ingestion.GetBatch, ingestion_pb2.GetBatchRequest(name=name)))

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
        with_heat: bool = False,
    ) -> Localizations:
        """Where each face was manipulated: of a picture, of chips (`Aligned.chips`), or as stored for a case.

        `with_heat` adds heat maps, which a stored case has none of.
        """
        request = asking.subject(localization_pb2.LocalizeRequest, picture, case_id, chips)
        request.with_heat = with_heat
        return asking.localizations_from(self._call(self._stubs.localization.Localize, request))

    def _call(self, method: Callable[..., _Message], request: object) -> _Message:
        with our_errors():
            return method(request, timeout=self._timeout, metadata=self._metadata)

    def close(self) -> None:
        """Ends the connection and the calls in hand."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
