"""What every StageQueue promises, and what the two in this process add."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.contract.adapters import QUEUES, Backends
from unmask.adapters.queue_memory import InlineQueue, MemoryQueue
from unmask.core.domain import Message, Step
from unmask.core.errors import Unavailable

MANY = 200


def message(number: int, step: Step = Step.INGEST) -> Message:
    """A message of a case named by a number."""
    return Message("default", str(number), step)


@pytest.mark.parametrize("adapter", QUEUES)
class TestStageQueue:
    """Over every adapter."""

    def test_every_message_is_worked_once_when_nothing_breaks(self, adapter: str, backends: Backends) -> None:
        seen, done = [], threading.Event()

        def run(worked: Message) -> None:
            seen.append(worked)
            if len(seen) == MANY:
                done.set()

        with QUEUES[adapter](backends, run) as queue:
            for number in range(MANY):
                queue.publish(message(number))
            assert done.wait(20)
        assert sorted(seen, key=lambda m: int(m.case_id)) == [message(number) for number in range(MANY)]

    def test_a_worker_may_publish_what_follows(self, adapter: str, backends: Backends) -> None:
        steps, seen, done = list(Step), [], threading.Event()

        def run(worked: Message) -> None:
            seen.append(worked.step)
            if worked.step is steps[-1]:
                done.set()
            else:
                queue.publish(message(1, steps[steps.index(worked.step) + 1]))

        with QUEUES[adapter](backends, run) as queue:
            queue.publish(message(1))
            assert done.wait(20)
        assert seen == steps

    def test_many_threads_may_publish(self, adapter: str, backends: Backends) -> None:
        seen, done, lock = set[str](), threading.Event(), threading.Lock()

        def run(worked: Message) -> None:
            with lock:
                seen.add(worked.case_id)
                if len(seen) == 5 * MANY:
                    done.set()

        def publish(first: int) -> None:
            for number in range(first, first + MANY):
                queue.publish(message(number))

        with QUEUES[adapter](backends, run) as queue:
            threads = [threading.Thread(target=publish, args=(n * MANY,)) for n in range(5)]
            for thread in threads:
                thread.start()
            assert done.wait(20)
            for thread in threads:
                thread.join()


class TestInline:
    """The queue that works on the publishing thread."""

    def test_a_long_chain_does_not_recurse(self) -> None:
        seen: list[int] = []

        def run(worked: Message) -> None:
            seen.append(int(worked.case_id))
            if len(seen) < 5000:
                queue.publish(message(len(seen)))

        queue = InlineQueue(run)
        queue.publish(message(0))
        assert seen == list(range(5000))

    def test_an_error_reaches_the_publisher_and_the_next_message_is_worked(self) -> None:
        seen: list[str] = []

        def run(worked: Message) -> None:
            if worked.case_id == "1":
                queue.publish(message(9))
                raise Unavailable("the store is away")
            seen.append(worked.case_id)

        queue = InlineQueue(run)
        with pytest.raises(Unavailable, match="away"):
            queue.publish(message(1))
        queue.publish(message(2))
        assert seen == ["2"]

    def test_unbound_is_unavailable(self) -> None:
        with pytest.raises(Unavailable, match="bound"):
            InlineQueue().publish(message(1))


class TestThreads:
    """The queue with workers."""

    def test_starts_no_thread_before_the_first_message(self) -> None:
        before = threading.active_count()
        queue = MemoryQueue(lambda _: None, workers=4)
        assert threading.active_count() == before
        queue.close()

    def test_an_exception_is_logged_and_kills_no_worker(self, caplog: pytest.LogCaptureFixture) -> None:
        done = threading.Event()

        def run(worked: Message) -> None:
            if worked.case_id == "99":
                done.set()
            raise RuntimeError(f"case {worked.case_id} broke")

        queue = MemoryQueue(run, workers=2)
        with caplog.at_level(logging.ERROR):
            for number in range(100):
                queue.publish(message(number))
            assert done.wait(20)
            queue.close()
        assert len(caplog.records) == 100 and "case 7 broke" in caplog.text

    def test_works_in_parallel_and_no_wider_than_told(self) -> None:
        together, widest, all_in, lock = threading.Barrier(3, timeout=20), [0], [0], threading.Lock()

        def run(_: Message) -> None:
            with lock:
                all_in[0] += 1
                widest[0] = max(widest[0], all_in[0])
            together.wait()
            with lock:
                all_in[0] -= 1
            finished.release()

        finished = threading.Semaphore(0)
        queue = MemoryQueue(run, workers=3)
        for number in range(12):
            queue.publish(message(number))
        for _ in range(12):
            assert finished.acquire(timeout=20)
        queue.close()
        assert widest == [3]

    def test_close_finishes_what_is_in_hand_and_takes_no_more(self) -> None:
        begun, go, seen = threading.Event(), threading.Event(), []

        def run(worked: Message) -> None:
            begun.set()
            assert go.wait(20)
            seen.append(worked.case_id)

        queue = MemoryQueue(run, workers=1)
        queue.publish(message(1))
        queue.publish(message(2))
        assert begun.wait(20)
        closing = threading.Thread(target=queue.close)
        closing.start()
        with pytest.raises(Unavailable, match="closing"):
            while closing.is_alive():  # until it has emptied the queue
                queue.publish(message(2))
        assert closing.is_alive()
        go.set()
        closing.join(20)
        assert seen == ["1"] and not closing.is_alive()
        with pytest.raises(Unavailable, match="closing"):
            queue.publish(message(3))
        queue.close()
