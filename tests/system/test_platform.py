"""The platform for real: Postgres, a broker, S3, Triton, and a process for each kind of work; pictures come in by the queue."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
import pytest
from celery import Celery
from kombu import Connection, Queue

from tests.conftest import missing
from tests.pictures import png
from tests.system.backends import open_folder
from tests.system.tiny_models import dark_picture, face_picture, make_repository
from unmask.adapters.celery_app import transport_options
from unmask.core.dead import DeadItem
from unmask.core.domain import Case, Label, State
from unmask.core.errors import Unauthenticated
from unmask.distributed import DistributedParts
from unmask.ingestion.door import without_token
from unmask.rpc.client import Client
from unmask.settings import Settings

if TYPE_CHECKING:
    from unmask_dev.stack import Stack

WORKERS = ("ingest", "align", "classify", "localize", "submit", "deliver", "sweep")
QUICK = {"UNMASK_RETRY_SECONDS": "0.2", "UNMASK_ATTEMPTS": "3", "UNMASK_STUCK_SECONDS": "5", "UNMASK_CHILD_MEMORY": "600"}


@dataclass(frozen=True)
class Platform:
    """A running stack, the parts to look into its stores, and a token of tenant `acme`."""

    stack: Stack
    parts: DistributedParts
    token: str
    address: str

    def publish(self, queue: str, body: bytes, **how: Any) -> None:
        """Plain JSON, as a producer in any language would."""
        broker = self.stack.broker.url
        with Connection(broker, transport_options=transport_options(broker)) as connection:
            connection.Producer().publish(body, routing_key=queue, content_type="application/json", delivery_mode=2, **how)

    def case(self, key: str) -> Case:
        """The case of that idempotency key, once it has ended."""
        return self.until(lambda: self._ended(key), f"case {key!r} ended")

    def _ended(self, key: str) -> Case | None:
        import sqlalchemy as sa

        from unmask.adapters.store_rows import case_of
        from unmask.adapters.store_tables import cases

        with self.parts.database.reading() as connection:
            asked = sa.select(cases).where(cases.c.tenant == "acme", cases.c.idempotency_key == key)
            row = connection.execute(asked).mappings().first()
        found = None if row is None else case_of(row)
        return found if found is not None and found.ended else None

    def letters(self, detail: str) -> list[DeadItem]:
        """Dead letters that say so."""
        return [letter for letter in self.parts.dead.list(None, None, 200, "") if detail in letter.detail]

    def until(self, look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """What `look` gives once it is something; a process's log where it never is."""
        from unmask_dev.process import ServerFailed, wait_until

        found: list[Any] = []
        try:
            wait_until(lambda: found.append(look()) or found[-1], seconds, what)
        except ServerFailed as error:
            logs = "\n".join(f"== {name}\n{process.tail()[-1500:]}" for name, process in self.stack.processes.items())
            raise AssertionError(f"{error}\n{logs}") from None
        return found[-1]


@pytest.fixture(scope="module", params=["valkey", "rabbitmq"])
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The whole of it, on either broker."""
    from unmask_dev.ports import LOOPBACK, free_port
    from unmask_dev.process import ServerMissing
    from unmask_dev.stack import Stack

    with open_folder() as folder:
        stack = Stack(folder / "stack", make_repository(folder / "models"), broker=request.param, env=QUICK)
        try:
            stack.start()
        except ServerMissing as error:
            missing(str(error))
        with closing(stack):
            stack.command("tenant", "create", "acme")
            token = stack.command("token", "create", "acme", "--scope", "submit", "--scope", "read").strip()
            for kind in WORKERS:
                stack.work(kind, concurrency=2)
            stack.spawn(
                "serve", "serve", "ingestion", "alignment", "review", "--listen", (address := f"{LOOPBACK}:{free_port()}")
            )
            stack.wait_ready(120)
            told = {name: value for name, value in stack.environment.items() if name.startswith("UNMASK_")}
            yield Platform(stack, DistributedParts(Settings.from_environment(told)), token, address)


def submission(platform: Platform, picture: bytes, key: str, **more: Any) -> dict[str, Any]:
    """The fields of a submission by value."""
    return {"token": platform.token, "base64": base64.b64encode(picture).decode(), "idempotency_key": key, **more}


def test_plain_json_becomes_a_verdict(platform: Platform) -> None:
    platform.publish("unmask.submissions", json.dumps(submission(platform, face_picture(red=210, blue=10), "json")).encode())
    case = platform.case("json")
    assert (case.state, case.label) == (State.DECIDED, Label.SYNTHETIC), case.failure
    verdict = platform.parts.store.verdict_of("acme", case.id)
    assert verdict is not None and verdict.faces[0].landmarks == () and verdict.faces[0].synthetic is not None
    assert set(case.timings_ms) >= {"ingest", "align", "classify", "decide"}


def test_a_celery_producer_needs_nothing_of_ours(platform: Platform) -> None:
    broker = platform.stack.broker.url
    producer = Celery(broker=broker, set_as_current=False)
    producer.conf.update(broker_transport_options=transport_options(broker), task_create_missing_queue_type="quorum")
    fields = submission(platform, dark_picture(1), "celery", priority="batch", batch="import")
    for _ in range(3):
        producer.send_task("unmask.submit", kwargs=fields, queue="unmask.submit", ignore_result=True)
    assert platform.case("celery").label is Label.NO_FACE
    assert dict(platform.parts.store.progress("acme", "import")) == {State.DECIDED: 1}
    producer.close()


def test_a_blob_that_the_tenant_put_there_is_taken_by_reference(platform: Platform) -> None:
    platform.parts.blobs.put("acme/uploads/one.png", face_picture(red=10, blue=10))
    fields = {"token": platform.token, "blob": "acme/uploads/one.png", "idempotency_key": "blob"}
    platform.publish("unmask.submissions", json.dumps(fields).encode())
    assert platform.case("blob").label is Label.REAL


@pytest.mark.parametrize(
    ("queue", "body", "headers", "said"),
    [
        ("unmask.submissions", b"\xffnot json", {}, "not JSON"),
        ("unmask.submissions", b'{"token": "unm_0123456789abcdef_x", "blob": "acme/x"}', {}, "token is not valid"),
        ("unmask.submit", b"[[], {}, {}]", {"task": "unmask.nonsense", "id": "1"}, "unknown task 'unmask.nonsense'"),
        ("unmask.submit", b"no body of Celery's", {"task": "unmask.submit", "id": "2"}, "not Celery's JSON"),
    ],
    ids=["not-json", "token", "task", "body"],
)
def test_what_cannot_be_taken_is_a_dead_letter(
    platform: Platform, queue: str, body: bytes, headers: dict[str, str], said: str
) -> None:
    platform.publish(queue, body, headers=headers)
    (letter, *_) = platform.until(lambda: platform.letters(said), f"a letter that says {said!r}")
    assert letter.about == queue and letter.tenant == ""
    assert platform.parts.dead.show(letter.id).body == without_token(body)


def test_anothers_blob_is_a_dead_letter_of_the_tenant_that_asked(platform: Platform) -> None:
    fields = {"token": platform.token, "blob": "other/uploads/secret.png"}
    platform.publish("unmask.submissions", json.dumps(fields).encode())
    (letter, *_) = platform.until(lambda: platform.letters("other/uploads/secret.png"), "its letter")
    assert letter.tenant == "acme" and platform.token.encode() not in platform.parts.dead.show(letter.id).body


def test_no_picture_ends_as_failed_with_its_reason(platform: Platform) -> None:
    platform.publish("unmask.submissions", json.dumps(submission(platform, b"no picture at all", "text")).encode())
    case = platform.case("text")
    assert case.state is State.FAILED and case.failure is not None and case.failure.code == "bad_image"


def test_a_picture_that_needs_more_memory_than_a_child_has_ends_as_dead_and_harms_nobody(platform: Platform) -> None:
    bomb = png(np.zeros((6900, 7000, 3), dtype=np.uint8), compress_level=1)
    platform.publish("unmask.submissions", json.dumps(submission(platform, bomb, "bomb")).encode())
    platform.publish("unmask.submissions", json.dumps(submission(platform, face_picture(seed=77), "beside")).encode())
    assert platform.case("beside").state is State.DECIDED
    case = platform.case("bomb")
    assert case.state is State.DEAD and case.failure is not None
    assert case.failure.code in {"internal", "worker_lost"}, case.failure
    item = platform.parts.dead.show(case.id)
    assert item.attempts == 3


def test_every_end_is_an_event_on_the_exchange_once(platform: Platform) -> None:
    platform.publish("unmask.submissions", json.dumps(submission(platform, dark_picture(5), "told")).encode())
    case = platform.case("told")
    broker, seen = platform.stack.broker.url, []
    with Connection(broker, transport_options=transport_options(broker)) as connection:

        def keep(message: Any) -> None:
            seen.append(json.loads(message.body))
            message.ack()

        def take() -> bool:
            connection.drain_events(timeout=5)
            return any(event["data"]["case_id"] == case.id for event in seen)

        with connection.Consumer([Queue("unmask.events", no_declare=True)], on_message=keep):
            platform.until(take, "the event")
    (event,) = [event for event in seen if event["data"]["case_id"] == case.id]
    assert event["type"] == "verdict.decided" and event["data"]["label"] == "no_face" and event["data"]["tenant"] == "acme"


def test_a_worker_killed_in_the_middle_loses_nothing(platform: Platform) -> None:
    for number in range(20):
        fields = submission(platform, face_picture(seed=1000 + number), f"kill-{number}")
        platform.publish("unmask.submissions", json.dumps(fields).encode())
    for kind in ("ingest", "align", "classify", "localize"):
        process = platform.stack.processes[f"{kind}-1"]
        process.kill()
        process.start()
    assert {platform.case(f"kill-{number}").state for number in range(20)} == {State.DECIDED}


def test_sigterm_lets_a_worker_finish_and_exit_by_itself(platform: Platform) -> None:
    for kind in ("localize", "submit", "deliver", "sweep"):
        process = platform.stack.processes[f"{kind}-1"]
        process.stop(20, signal.SIGTERM)
        assert process.returncode == 0, f"{kind}: {process.tail()}"
        process.start()


def test_a_grpc_caller_waits_for_what_other_processes_work(platform: Platform) -> None:
    with Client(platform.address, token=platform.token) as client:
        case = client.submit(face_picture(red=10, blue=210, seed=9))
        *_, last = client.wait_verdict(case.id, timeout=60)
        assert last.verdict is not None and last.verdict.label is Label.MANIPULATED
        again = client.check(face_picture(red=10, blue=210, seed=9))
        assert again.label is Label.MANIPULATED and again.id != case.id
        assert len(client.align(face_picture(seed=3)).faces) == 1
    with Client(platform.address, token="unm_0123456789abcdef_" + "x" * 43) as stranger, pytest.raises(Unauthenticated):
        stranger.get_verdict(case.id)


def test_the_platform_says_what_it_did(platform: Platform) -> None:
    counted = urlopen(f"http://{platform.stack.metrics['localize-1']}/metrics", timeout=10).read().decode()
    assert 'unmask_stage_seconds_count{step="decide"}' in counted
    children = urlopen(f"http://{platform.stack.metrics['ingest-1']}/metrics", timeout=10).read().decode()
    assert 'unmask_stage_seconds_count{step="ingest"}' in children
