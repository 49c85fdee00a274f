"""The gRPC edge of ingestion: pictures in, verdicts out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, cast

import grpc

from unmask.core.batches import BatchProgress
from unmask.core.domain import Case, State, Submission, Verdict
from unmask.core.errors import BadRequest, DeadlineExceeded, StoreCorrupt, UnmaskError, from_code
from unmask.core.ports import ModelServer
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.rpc.convert import CaseStatus, status_to, submission_from, verdict_to
from unmask.rpc.interceptors import Context, as_unmask, tenant
from unmask.rpc.serving import probe_model
from unmask.rpc.statuses import to_status
from unmask.rpc.wire import enum_to
from unmask.rpc.work import Changes, Workers
from unmask.v1 import common_pb2
from unmask.v1 import ingestion_pb2 as pb
from unmask.v1 import ingestion_pb2_grpc as pb_grpc

Accept = Callable[[World, Submission], Case]
# Of one stream; each may hold a picture of the byte limit.
IN_FLIGHT: Final = 16
# So much of the caller's time is left for telling it that its time is up.
_LAST_WORDS: Final = 0.1


class IngestionServer(pb_grpc.IngestionServiceServicer):
    """Takes pictures, answers how far they are.

    `workers` take submissions, `readers` look into the store: those who wait look often, and must keep nobody else out.
    `changes` hears of every step worked in this process; the store stays the truth.  `accept` is `core.submit.accept`, or what
    holds it against the tenant's limits (`core.limits.Admission`).
    """

    name: Final[str] = pb.DESCRIPTOR.services_by_name["IngestionService"].full_name

    def __init__(
        self,
        world: World,
        models: ModelServer,
        workers: Workers,
        readers: Workers,
        changes: Changes,
        *,
        accept: Accept = accept,
    ) -> None:
        self._world, self._models, self._accept = world, models, accept
        self._workers, self._readers, self._changes = workers, readers, changes

    def add_to(self, server: grpc.aio.Server) -> None:
        """See `unmask.rpc.serving.Service`."""
        pb_grpc.add_IngestionServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def probe(self) -> None:
        """See `unmask.rpc.serving.Service`; the whole pipeline runs behind this door."""
        for ref in self._world.catalogue.active_release().models.values():
            probe_model(self._models, ref)

    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        """See ingestion.proto."""
        asked = submission_from(request.submission, tenant())
        case = await self._workers.run(lambda: self._accept(self._world, asked))
        return pb.SubmitResponse(case=status_to(CaseStatus.of(case)))

    async def SubmitMany(
        self, requests: AsyncIterator[pb.SubmitManyRequest], context: Context
    ) -> AsyncIterator[pb.SubmitManyResponse]:
        """See ingestion.proto."""
        answers: asyncio.Queue[pb.SubmitManyResponse | None] = asyncio.Queue()
        places = asyncio.Semaphore(IN_FLIGHT)
        reader = asyncio.create_task(self._read(requests, answers, places))
        try:
            while (answer := await answers.get()) is not None:
                yield answer
                # Only now: a caller that does not read its answers is not read either.
                places.release()
            await reader
        finally:
            reader.cancel()

    async def _read(
        self,
        requests: AsyncIterator[pb.SubmitManyRequest],
        answers: asyncio.Queue[pb.SubmitManyResponse | None],
        places: asyncio.Semaphore,
    ) -> None:
        owner, refused = tenant(), None
        try:
            async with asyncio.TaskGroup() as tasks:
                try:
                    async for request in requests:
                        await places.acquire()
                        tasks.create_task(self._answer(owner, request, answers))
                except UnmaskError as error:  # the caller may go no further; what was taken is answered first
                    refused = error
        finally:
            answers.put_nowait(None)
        if refused is not None:
            raise refused

    async def _answer(
        self, owner: str, request: pb.SubmitManyRequest, answers: asyncio.Queue[pb.SubmitManyResponse | None]
    ) -> None:
        answer = pb.SubmitManyResponse(request_id=request.request_id)
        try:
            case = await self._accepted(owner, request)
            answer.case.CopyFrom(status_to(CaseStatus.of(case)))
        except Exception as error:
            known = as_unmask(error, "SubmitMany")
            status = to_status(known)
            answer.error.CopyFrom(common_pb2.Error(code=status.code, reason=known.code, message=status.message))
        answers.put_nowait(answer)

    async def _accepted(self, owner: str, request: pb.SubmitManyRequest) -> Case:
        if not request.request_id:
            raise BadRequest("request_id is empty: its answer could not be told from others")
        asked = submission_from(request.submission, owner)
        return await self._workers.run_when_free(lambda: self._accept(self._world, asked))

    async def GetVerdict(self, request: pb.GetVerdictRequest, context: Context) -> pb.GetVerdictResponse:
        """See ingestion.proto."""
        owner = tenant()
        case, verdict = await self._readers.run_when_free(lambda: self._look(owner, request.case_id))
        return pb.GetVerdictResponse(
            case=status_to(CaseStatus.of(case)), verdict=None if verdict is None else verdict_to(verdict)
        )

    async def WaitVerdict(self, request: pb.WaitVerdictRequest, context: Context) -> AsyncIterator[pb.WaitVerdictResponse]:
        """See ingestion.proto."""
        async for case, verdict in self._until_ended(tenant(), request.case_id, context):
            yield pb.WaitVerdictResponse(
                case=status_to(CaseStatus.of(case)), verdict=None if verdict is None else verdict_to(verdict)
            )

    async def Check(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        """See ingestion.proto."""
        asked = submission_from(request.submission, tenant())
        accepted = await self._workers.run(lambda: self._accept(self._world, asked))
        case, verdict = [seen async for seen in self._until_ended(asked.tenant, accepted.id, context)][-1]
        if verdict is not None:
            return pb.CheckResponse(verdict=verdict_to(verdict))
        if case.failure is None:
            raise StoreCorrupt(f"case {case.id} ended neither decided nor failed (state {case.state}, stage {case.stage})")
        raise from_code(case.failure.code, f"case {case.id}: {case.failure.detail}")

    async def GetBatch(self, request: pb.GetBatchRequest, context: Context) -> pb.GetBatchResponse:
        """See ingestion.proto."""
        owner = tenant()
        if not request.name:
            raise BadRequest("name is empty: it would be all cases without a batch")
        states = await self._readers.run_when_free(lambda: self._world.store.progress(owner, request.name))
        batch = BatchProgress(request.name, states)
        counts = [pb.StateCount(state=enum_to(common_pb2.State, state), cases=count) for state, count in states.items()]
        return pb.GetBatchResponse(name=batch.name, states=counts, total=batch.total, done=batch.done)

    async def _until_ended(self, owner: str, case_id: str, context: Context) -> AsyncIterator[tuple[Case, Verdict | None]]:
        """The case now and after each change, until it has ended; raises `DeadlineExceeded` just before the caller's own."""
        left = cast("float | None", context.time_remaining())
        deadline = None if left is None else asyncio.get_running_loop().time() + max(left - _LAST_WORDS, 0.0)
        seen = -1
        async with aclosing(self._changes.ticks(case_id, deadline)) as ticks:
            async for _ in ticks:
                case, verdict = await self._readers.run_when_free(lambda: self._look(owner, case_id))
                if case.revision != seen:
                    seen = case.revision
                    yield case, verdict
                if case.ended:
                    return
        raise DeadlineExceeded(f"case {case_id} goes on; ask for its verdict later")

    def _look(self, owner: str, case_id: str) -> tuple[Case, Verdict | None]:
        case = self._world.store.case(owner, case_id)
        return case, self._world.store.verdict_of(owner, case_id) if case.state is State.DECIDED else None
