"""What comes through the queue: fields, refusals that name them, dead letters without secrets."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.unit.core.worlds import ChosenHandlers, ListQueue, StillClock, make_world
from unmask.adapters.database import Database
from unmask.adapters.store_dead import SqlDead
from unmask.core.access import Caller, Scope
from unmask.core.domain import Priority
from unmask.core.errors import BadImage, BadRequest, CallerError, Forbidden, IdempotencyConflict, Unauthenticated
from unmask.ingestion.door import Door, parsed, without_token

PICTURE = base64.b64encode(b"any bytes").decode()
CALLERS = {
    "good": Caller("acme", frozenset({Scope.SUBMIT}), "token:1"),
    "reader": Caller("acme", frozenset({Scope.READ}), "token:2"),
    "theirs": Caller("other", frozenset({Scope.SUBMIT}), "token:3"),
}


def authenticate(text: str) -> Caller:
    """Knows three tokens."""
    if text not in CALLERS:
        raise Unauthenticated("the token is not valid")
    return CALLERS[text]


@pytest.fixture
def door() -> Iterator[Door]:
    with closing(Database.in_memory()) as database:
        yield Door(make_world(ChosenHandlers(), ListQueue(), StillClock()), SqlDead(database), authenticate)


def body(**fields: object) -> bytes:
    """A submission of a good token with a small picture."""
    plain: dict[str, object] = {"token": "good", "base64": PICTURE}
    return json.dumps({name: value for name, value in (plain | fields).items() if value is not None}).encode()


def test_a_submission_becomes_a_case_of_its_tokens_tenant(door: Door) -> None:
    told = {"priority": "batch", "batch": "import", "labels": {"post": "7"}, "callback": "https://x.test/h", "parent": "p"}
    case = door.take(body(idempotency_key="k", **told))
    stored = door.world.store.case("acme", case.id)
    assert (stored.tenant, stored.idempotency_key, stored.priority, stored.batch) == ("acme", "k", Priority.BATCH, "import")
    assert (dict(stored.labels), stored.callback, stored.media.parent) == ({"post": "7"}, "https://x.test/h", "p")
    assert door.world.blobs.get(stored.source_ref) == b"any bytes"


def test_the_same_delivery_again_is_the_same_case(door: Door) -> None:
    first = door.take(body(), "unmask.submit:task-1")
    assert door.take(body(), "unmask.submit:task-1").id == first.id
    assert door.take(body(), "unmask.submit:task-2").id != first.id
    keyed = door.take(body(idempotency_key="k"), "unmask.submit:task-3")
    assert door.take(body(idempotency_key="k"), "unmask.submit:task-4").id == keyed.id
    with pytest.raises(IdempotencyConflict):
        door.take(body(idempotency_key="k", base64=base64.b64encode(b"another").decode()))


@pytest.mark.parametrize(
    ("raw", "error", "said"),
    [
        (b"\xff\x00 no json", BadRequest, "not JSON"),
        (b"[" * 100_000, BadRequest, "not JSON"),
        (b"[1, 2]", BadRequest, "not a JSON object"),
        (body(token=None), Unauthenticated, "token"),
        (body(token="wrong"), Unauthenticated, "token"),
        (body(token="reader"), Forbidden, "submit"),
        (body(token=7), BadRequest, "token: a text"),
        (body(surprise=1), BadRequest, "unknown field 'surprise'"),
        (body(base64=None), BadRequest, "exactly one of blob, url and base64"),
        (body(blob="acme/x"), BadRequest, "got blob, base64"),
        (body(base64="?" * 8), BadRequest, "base64"),
        (body(base64="A" * (8 * 1024 * 1024 + 4)), BadRequest, "blob store"),
        (body(base64=None, blob="other/uploads/x.png"), BadRequest, "not this tenant's"),
        (body(base64=None, blob="acme/../other/x.png"), BadRequest, "none of them empty, '.' or '..'"),
        (body(base64=None, url="https://example.org/x.png"), BadRequest, "switched off"),
        (body(priority="urgent"), BadRequest, "priority 'urgent'"),
        (body(labels={"a": 1}), BadRequest, "labels"),
        (body(labels=["a"]), BadRequest, "labels"),
        (body(labels={"a": "nul\0"}), BadRequest, "NUL"),
        (body(callback="x" * 3000), BadRequest, "callback.*3000"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_kept(door: Door, raw: bytes, error: type[CallerError], said: str) -> None:
    with pytest.raises(error, match=said):
        door.take(raw)
    assert not door.world.store.claim_due(door.world.clock.now(), 9, door.world.retry.stuck)
    assert list(door.world.blobs.keys("acme/")) == []


def test_a_picture_over_the_limit_is_refused(door: Door) -> None:
    large = Door(door.world, door.dead, authenticate, longest_base64=10**9)
    text = base64.b64encode(bytes(door.world.limits.bytes + 1)).decode()
    with pytest.raises(BadImage, match="at most"):
        large.take(body(base64=text))


def test_a_refused_message_is_kept_for_its_tenant_without_the_token(door: Door) -> None:
    door.bury("unmask.submissions", body(priority="urgent"), BadRequest("priority 'urgent'"))
    door.bury("unmask.submissions", b"\xff no json", BadRequest("not JSON"))
    letters = {letter.tenant: door.dead.show(letter.id) for letter in door.dead.list(None, None, 9, "")}
    assert set(letters) == {"acme", ""}
    assert (letters["acme"].code, letters["acme"].about) == ("bad_field", "unmask.submissions")
    assert json.loads(letters["acme"].body) == {"base64": PICTURE, "priority": "urgent"}
    assert letters[""].body == b"\xff no json"


def test_a_letter_can_be_taken_again_for_its_tenant_only(door: Door) -> None:
    kept = without_token(body())
    case = door.take_again(kept, "acme")
    assert case.tenant == "acme" and door.take_again(kept, "acme").id == case.id
    with pytest.raises(Forbidden, match="no tenant"):
        door.take_again(kept, "")
    assert "token" not in parsed(kept)
