"""The gRPC edge of review: lists, cases, decisions, appeals."""

from __future__ import annotations

from typing import Final

import grpc

from unmask.core.review import CaseFilter
from unmask.review.handler import Desk, appeal, decide, list_cases, look
from unmask.review.links import LinkOf
from unmask.rpc.convert_review import ReviewCase, case_to, file_to, filter_from, ruling_from
from unmask.rpc.interceptors import Context, caller
from unmask.rpc.work import Workers
from unmask.v1 import review_pb2 as pb
from unmask.v1 import review_pb2_grpc as pb_grpc

# Nobody's: the probe asks for rows and wants none.
_NOBODY: Final = "-"


class ReviewServer(pb_grpc.ReviewServiceServicer):
    """What reviewers need of the store, on threads of `readers`; `link_of` gives a picture's short-lived address, or ''."""

    name: Final[str] = pb.DESCRIPTOR.services_by_name["ReviewService"].full_name

    def __init__(self, desk: Desk, readers: Workers, link_of: LinkOf) -> None:
        self._desk, self._readers, self._link_of = desk, readers, link_of

    def add_to(self, server: grpc.aio.Server) -> None:
        """See `unmask.rpc.serving.Service`."""
        pb_grpc.add_ReviewServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def probe(self) -> None:
        """See `unmask.rpc.serving.Service`: one read of the store."""
        self._desk.reviews.cases(_NOBODY, CaseFilter(), "", 1)

    async def ListCases(self, request: pb.ListCasesRequest, context: Context) -> pb.ListCasesResponse:
        """See review.proto."""
        who, wanted = caller(), filter_from(request)
        page = await self._readers.run_when_free(
            lambda: list_cases(self._desk, who, wanted, request.page_size, request.page_token)
        )
        return pb.ListCasesResponse(
            cases=[case_to(ReviewCase.of(case)) for case in page.cases], next_page_token=page.next_token
        )

    async def GetCase(self, request: pb.GetCaseRequest, context: Context) -> pb.GetCaseResponse:
        """See review.proto."""
        who = caller()

        def seen() -> pb.GetCaseResponse:
            file = look(self._desk, who, request.case_id)
            return file_to(file, "" if file.picture is None else self._link_of(file.picture))

        return await self._readers.run_when_free(seen)

    async def Decide(self, request: pb.DecideRequest, context: Context) -> pb.DecideResponse:
        """See review.proto."""
        who, ruling = caller(), ruling_from(request)
        case = await self._readers.run_when_free(lambda: decide(self._desk, who, request.case_id, ruling))
        return pb.DecideResponse(case=case_to(ReviewCase.of(case)))

    async def Appeal(self, request: pb.AppealRequest, context: Context) -> pb.AppealResponse:
        """See review.proto."""
        who = caller()
        case = await self._readers.run_when_free(lambda: appeal(self._desk, who, request.case_id, request.reason, request.note))
        return pb.AppealResponse(case=case_to(ReviewCase.of(case)))
