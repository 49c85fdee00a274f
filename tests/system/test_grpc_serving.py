"""The server itself: errors over the wire, tenants, health, reflection, addresses and the drain."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.conftest import ROOT, missing
from tests.system.grpc_servers import ANY_PORT, Stuck, all_served, served, stuck
from tests.system.tiny_models import dark_picture, face_picture
from unmask.cli.serve import SERVICES, wired
from unmask.core.access import Caller, Scope
from unmask.core.domain import Case, Label
from unmask.core.errors import (
    BadConfig,
    BadModel,
    Unavailable,
    UnknownCase,
    UnmaskError,
    from_code,
)
from unmask.core.ports import CaseStore
from unmask.rpc.client import AsyncClient, Client
from unmask.rpc.serving import ServerSettings, checked_address, serve_until_signalled, started
from unmask.settings import Settings

NAMES = [f"unmask.v1.{name.capitalize()}Service" for name in SERVICES]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def kinds(base: type[UnmaskError]) -> list[type[UnmaskError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


@pytest.fixture
async def still(tiny: Path) -> AsyncIterator[Stuck]:
    async with stuck(tiny) as world:
        yield world


class Broken:
    """A real store whose look-up of a case breaks in the way that the id names."""

    def __init__(self, store: CaseStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def case(self, tenant: str, case_id: str) -> Case:
        if case_id == "defect":
            raise KeyError("a secret of the inside")
        raise from_code(case_id, f"what {case_id} says")


async def test_every_error_comes_back_as_itself(still: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    broken = still.with_store(Broken(still.world.store))  # type: ignore[arg-type]
    async with served(broken.services()) as server, AsyncClient(server.address) as client:
        for kind in kinds(UnmaskError):
            calls = (client.get_verdict(kind.code), client.align(case_id=kind.code), anext(client.wait_verdict(kind.code)))
            for call in calls:
                with pytest.raises(UnmaskError) as caught:
                    await call
                assert type(caught.value) is kind
                assert caught.value.detail == f"what {kind.code} says"
        with caplog.at_level(logging.ERROR), pytest.raises(UnmaskError) as caught:
            await client.get_verdict("defect")
        assert type(caught.value) is UnmaskError and "secret" not in caught.value.detail
        assert "a secret of the inside" in caplog.text

        def use() -> None:
            with Client(server.address) as synchronous:
                for kind in kinds(UnmaskError):
                    with pytest.raises(UnmaskError) as caught:
                        synchronous.get_verdict(kind.code)
                    assert type(caught.value) is kind

        await asyncio.to_thread(use)


async def test_a_call_is_its_tenants_and_the_callers_word_for_it_does_not_count(still: Stuck) -> None:
    async def me(details: grpc.HandlerCallDetails) -> Caller:
        return Caller("mine", frozenset(Scope), "me")

    mine = served(still.services(), me)
    async with (
        mine as one,
        served(still.services()) as two,
        AsyncClient(one.address) as owner,
        AsyncClient(two.address) as other,
    ):
        case = await owner.submit(dark_picture())
        assert still.world.store.case("mine", case.id).tenant == "mine"
        assert (await owner.get_verdict(case.id)).case.id == case.id
        with pytest.raises(UnknownCase):
            await other.get_verdict(case.id)
        with pytest.raises(UnknownCase):
            await other.align(case_id=case.id)
        stub: Any = other._stubs.ingestion
        from unmask.v1 import ingestion_pb2

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetVerdict(ingestion_pb2.GetVerdictRequest(case_id=case.id), metadata=[("x-unmask-tenant", "mine")])
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_and_reflection_answer(tiny: Path) -> None:
    async with all_served(tiny) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        for name in ("", *NAMES):
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20):
                if answer.status == SERVING:
                    break
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]

        async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")
            yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="unmask.v1.Verdict")

        answers = [answer async for answer in reflect.ServerReflectionInfo(ask())]
        assert {service.name for service in answers[0].list_services_response.service} >= {*NAMES, "grpc.health.v1.Health"}
        assert answers[1].file_descriptor_response.file_descriptor_proto


async def test_a_service_serves_only_after_its_probe(tiny: Path) -> None:
    class Slow:
        name = NAMES[1]
        ready = threading.Event()

        def add_to(self, server: grpc.aio.Server) -> None:
            """Nothing is called here."""

        def probe(self) -> None:
            if not self.ready.is_set():
                raise Unavailable("the model server does not answer yet")

    slow = Slow()
    settings = ServerSettings(ANY_PORT, grace=1.0, probe_every=0.05)
    async with started([slow], settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]

        async def until(status: int) -> None:
            for name in ("", slow.name):
                while (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status != status:
                    await asyncio.sleep(0.02)
            while settings.serving.is_set() != (status == SERVING):  # what the status page goes by
                await asyncio.sleep(0.02)

        await asyncio.sleep(0.2)
        await asyncio.wait_for(until(NOT_SERVING), 5)
        slow.ready.set()
        await asyncio.wait_for(until(SERVING), 5)
        slow.ready.clear()  # and it is looked at again
        await asyncio.wait_for(until(NOT_SERVING), 5)
        slow.ready.set()
        await asyncio.wait_for(until(SERVING), 5)
        await server.stop(0.0)
        assert not settings.serving.is_set()


async def test_a_service_of_another_server_is_not_offered(tiny: Path) -> None:
    with wired(["alignment"], Settings(models=tiny)) as services:
        async with served(services) as server, AsyncClient(server.address) as client:
            assert (await client.align(face_picture())).faces
            with pytest.raises(BadConfig):
                await client.check(face_picture())


# Review runs no model.
@pytest.mark.parametrize("service", [service for service in SERVICES if service != "review"])
async def test_a_corrupt_model_ends_the_server_with_its_name(tiny: Path, tmp_path: Path, service: str) -> None:
    models = tmp_path / "models"
    shutil.copytree(tiny, models)
    name = {"classification": "detector", "localization": "localizer"}.get(service, "face_detector")
    (models / name / "1" / "model.onnx").write_bytes(b"not a model")
    with wired([service], Settings(models=models)) as services, pytest.raises(BadModel, match=f"{name}/1/model.onnx"):
        await serve_until_signalled(services, ServerSettings(ANY_PORT), lambda address: None)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("localhost:50051", "127.0.0.1:50051"),
        ("[::1]:1", "[::1]:1"),
        ("127.9.9.9:1", "127.9.9.9:1"),
    ],
)
def test_loopback_is_served(listen: str, address: str) -> None:
    assert checked_address(listen) == address


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("0.0.0.0:50051", "without TLS"),
        ("[::]:50051", "without TLS"),
        ("192.168.1.5:50051", "without TLS"),
        ("example.org:50051", "must be an address"),
        ("50051", "HOST:PORT"),
        (":50051", "HOST:PORT"),
        ("127.0.0.1:", "HOST:PORT"),
        ("127.0.0.1:99999", "HOST:PORT"),
        ("127.0.0.1:http", "HOST:PORT"),
    ],
)
def test_what_is_no_loopback_address_is_refused(listen: str, says: str) -> None:
    with pytest.raises(BadConfig, match=says):
        checked_address(listen)


async def test_a_taken_port_is_refused(still: Stuck) -> None:
    async with served(still.services()) as server:
        with pytest.raises(BadConfig, match="cannot bind"):
            async with started(still.services(), ServerSettings(server.address)):
                pass


class Process:
    """`unmask serve` in a process of its own."""

    def __init__(self, models: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "unmask.cli.main", "serve", *arguments, "--listen", ANY_PORT, "--models", str(models)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "services"), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.address = line.rpartition(" on ")[2].strip()
        assert self.address.startswith("127.0.0.1:"), line

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Exit code and log after a signal."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_drain_finishes_what_is_in_hand_and_takes_nothing_new(tiny: Path, number: signal.Signals) -> None:
    server = await asyncio.to_thread(Process, tiny, "ingestion")
    try:
        async with AsyncClient(server.address) as client:
            await client.check(face_picture())
            in_hand = [asyncio.create_task(client.check(dark_picture(i))) for i in range(12)]
            await asyncio.sleep(0.3)
            assert not all(task.done() for task in in_hand)
            ended = asyncio.create_task(asyncio.to_thread(server.end, number))
            verdicts = await asyncio.gather(*in_hand)
            code, log = await ended
            assert {verdict.label for verdict in verdicts} == {Label.NO_FACE}
            assert code == 0 and "draining" in log and "Traceback" not in log
            with pytest.raises(Unavailable):
                await client.check(face_picture())
    finally:
        server.process.kill()
        server.process.wait()


async def test_a_state_folder_outlives_its_server(tiny: Path, tmp_path: Path) -> None:
    for _ in range(2):
        async with all_served(tiny, tmp_path / "state") as address, AsyncClient(address) as client:
            verdict = await client.check(face_picture())
            if _ == 0:
                first = verdict
            assert (await client.get_verdict(first.id)).verdict == first
    assert first.id != verdict.id and "align" not in verdict.timings_ms


async def test_services_in_servers_of_their_own_share_a_state_folder(tiny: Path, tmp_path: Path) -> None:
    settings = Settings(models=tiny, state=tmp_path / "state")
    alone = wired(["alignment"], Settings(models=tiny))
    with wired(["ingestion"], settings) as front, wired(["alignment"], settings) as back, alone as apart:
        async with served(front) as door, served(back) as reader, served(apart) as stranger:
            async with AsyncClient(door.address) as client:
                verdict = await client.check(face_picture())
            async with AsyncClient(reader.address) as client:
                assert [face.box for face in (await client.align(case_id=verdict.id)).faces] == [verdict.faces[0].box]
            async with AsyncClient(stranger.address) as client:
                with pytest.raises(UnknownCase):
                    await client.align(case_id=verdict.id)


async def test_a_second_signal_ends_it_at_once(still: Stuck) -> None:
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve_until_signalled(still.services(), ServerSettings(ANY_PORT), address.set_result))
    async with AsyncClient(await address) as client:
        case = await client.submit(dark_picture())  # nobody will ever work it

        async def wait() -> None:
            async for _ in client.wait_verdict(case.id):
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert not serving.done() and not waiting.done()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 5)
        with pytest.raises(Unavailable):
            await waiting


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ingestion", "--listen", "0.0.0.0:50051"], 2, "without TLS"),
        (["alignment", "--grace", "-1"], 2, "--grace"),
        (["alignment", "--models", "/nonexistent"], 3, "no model repository"),
        (["everything"], 2, "invalid choice"),
    ],
)
async def test_the_command_says_what_is_wrong_in_a_line(arguments: list[str], code: int, says: str) -> None:
    command = [sys.executable, "-m", "unmask.cli.main", "serve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "services")}
    done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert says in done.stderr and "Traceback" not in done.stderr


async def test_the_shipped_models_serve(models: Path) -> None:
    if not (models / "release.json").is_file():
        missing("the checkout has no release yet")
    async with all_served(models) as address, AsyncClient(address) as client:
        verdict = await client.check(dark_picture())
        assert verdict.label is Label.NO_FACE and {model.name for model in verdict.models} >= {"face_detector", "detector"}
        assert dataclasses.replace(verdict, id="").release.sha256
