"""The reviewers' part of both clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

from unmask.core.review import CaseFilter, Ruling
from unmask.rpc import convert_review as convert
from unmask.rpc.client_shared import Stubs
from unmask.rpc.convert_review import CasePage, ReviewCase, ReviewFile
from unmask.rpc.wire import text
from unmask.v1 import review_pb2 as pb


class _Sync(Protocol):
    _stubs: Stubs

    def _call(self, method: Callable[..., Any], request: object) -> Any:
        """The answer, or the error that the server raised."""


class _Async(Protocol):
    _stubs: Stubs

    def _call(self, method: Callable[..., Any], request: object) -> Awaitable[Any]:
        """The answer, or the error that the server raised."""


class ReviewCalls:
    """What `Client` adds for reviewers."""

    def list_cases(self: _Sync, wanted: CaseFilter | None = None, *, size: int = 0, token: str = "") -> CasePage:
        """A page of cases with a verdict: those that wait, oldest first, unless told otherwise."""
        request = convert.filter_to(wanted or CaseFilter(), size, token)
        return convert.page_from(self._call(self._stubs.review.ListCases, request))

    def cases(self, wanted: CaseFilter | None = None) -> Iterator[ReviewCase]:
        """All of them, page after page."""
        token = ""
        while True:
            page = self.list_cases(wanted, token=token)  # type: ignore[misc]
            yield from page.cases
            if not (token := page.next_token):
                return

    def get_case(self: _Sync, case_id: str) -> ReviewFile:
        """All there is to see of a case."""
        return convert.file_from(self._call(self._stubs.review.GetCase, pb.GetCaseRequest(case_id=case_id)))

    def decide(self: _Sync, case_id: str, ruling: Ruling) -> ReviewCase:
        """Records a decision."""
        return convert.case_from(self._call(self._stubs.review.Decide, convert.ruling_to(case_id, ruling)).case)

    def appeal(self: _Sync, case_id: str, reason: str, note: str = "") -> ReviewCase:
        """Puts a case back into review."""
        request = pb.AppealRequest(case_id=case_id, reason=reason, note=text(note))
        return convert.case_from(self._call(self._stubs.review.Appeal, request).case)


class AsyncReviewCalls:
    """What `AsyncClient` adds for reviewers."""

    async def list_cases(self: _Async, wanted: CaseFilter | None = None, *, size: int = 0, token: str = "") -> CasePage:
        """See `Client.list_cases`."""
        request = convert.filter_to(wanted or CaseFilter(), size, token)
        return convert.page_from(await self._call(self._stubs.review.ListCases, request))

    async def get_case(self: _Async, case_id: str) -> ReviewFile:
        """See `Client.get_case`."""
        return convert.file_from(await self._call(self._stubs.review.GetCase, pb.GetCaseRequest(case_id=case_id)))

    async def decide(self: _Async, case_id: str, ruling: Ruling) -> ReviewCase:
        """See `Client.decide`."""
        answer = await self._call(self._stubs.review.Decide, convert.ruling_to(case_id, ruling))
        return convert.case_from(answer.case)

    async def appeal(self: _Async, case_id: str, reason: str, note: str = "") -> ReviewCase:
        """See `Client.appeal`."""
        request = pb.AppealRequest(case_id=case_id, reason=reason, note=text(note))
        return convert.case_from((await self._call(self._stubs.review.Appeal, request)).case)
