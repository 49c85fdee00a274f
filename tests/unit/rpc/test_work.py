"""Bounded work and waiting without threads."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing

import pytest

from unmask.core.errors import Unavailable
from unmask.rpc.work import Changes, Workers


async def test_a_full_house_refuses_at_once_and_a_stream_waits() -> None:
    workers, gate = Workers(1, 1), threading.Event()
    try:
        held = [asyncio.create_task(workers.run(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="1 calls wait"):
            await workers.run(lambda: None)
        patient = asyncio.create_task(workers.run_when_free(lambda: "done"))
        await asyncio.sleep(0.01)
        assert not patient.done()
        gate.set()
        assert await patient == "done"
        assert await asyncio.gather(*held) == [True, True]
    finally:
        gate.set()
        workers.close()


async def test_a_caller_that_gives_up_does_not_free_a_thread_that_still_runs() -> None:
    workers, gate = Workers(1, 0), threading.Event()
    try:
        caller = asyncio.create_task(workers.run(gate.wait))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        with pytest.raises(Unavailable):
            await workers.run(lambda: None)
        gate.set()
        assert await asyncio.wait_for(workers.run_when_free(lambda: 1), 5) == 1
    finally:
        gate.set()
        workers.close()


async def test_places_come_back_after_errors() -> None:
    workers = Workers(1, 0)
    try:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await workers.run_when_free(lambda: 1 // 0)
        assert await workers.run_when_free(lambda: 1) == 1
    finally:
        workers.close()


async def test_closed_workers_say_so() -> None:
    workers = Workers(1, 0)
    workers.close()
    for _ in range(3):  # each refusal gives its place back
        with pytest.raises(Unavailable, match="shutting down"):
            await workers.run(lambda: None)


async def test_a_change_wakes_and_nothing_is_left_behind() -> None:
    changes = Changes()
    loop = asyncio.get_running_loop()
    async with aclosing(changes.ticks("case", None)) as ticks:
        await anext(ticks)
        for _ in range(7):  # polling alone would by now look every 1.3 seconds
            await anext(ticks)
        waiting = asyncio.create_task(anext(ticks))
        await asyncio.sleep(0.01)
        started = loop.time()
        await asyncio.to_thread(changes.changed, "case")
        await waiting
        assert loop.time() - started < 0.5
    assert changes._waiting == {}


async def test_a_change_between_look_and_wait_is_not_missed() -> None:
    changes = Changes()
    loop = asyncio.get_running_loop()
    async with aclosing(changes.ticks("case", None)) as ticks:
        for _ in range(8):
            await anext(ticks)
        changes.changed("case")  # while the caller still looks at what it got
        started = loop.time()
        await anext(ticks)
        assert loop.time() - started < 0.5


async def test_ticks_end_with_the_deadline() -> None:
    started = time.monotonic()
    deadline = asyncio.get_running_loop().time() + 0.2
    assert [tick async for tick in Changes().ticks("case", deadline)]
    assert 0.15 < time.monotonic() - started < 1.0


async def test_a_deadline_that_is_past_still_gives_one_look() -> None:
    assert len([tick async for tick in Changes().ticks("case", 0.0)]) == 1
