"""Nothing lost and nothing twice, over any interleaving of real steps on a real Postgres, cut at every call of a port."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.system.backends import alive, fresh_name
from tests.system.interleaved import Actor, Broker
from tests.unit.core.test_cards import RELEASE
from tests.unit.core.worlds import ChosenHandlers, StillClock
from unmask.adapters.blobs_memory import MemoryBlobs
from unmask.adapters.catalogue_sql import SqlCatalogue
from unmask.adapters.database import Database
from unmask.adapters.migrate import upgrade
from unmask.adapters.releases_sql import SqlReleases
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_erase import SqlEraser
from unmask.adapters.store_review import SqlReview
from unmask.adapters.store_sql import SqlStore
from unmask.adapters.store_tables import cases, decisions, outbox, verdicts
from unmask.core.access import Caller, Scope
from unmask.core.cards import Release
from unmask.core.domain import Action, BytesSource, Classified, FaceRow, Message, State, Step, Submission
from unmask.core.erasing import EraseOffice, ErasureOrder, Selection, erase
from unmask.core.errors import CallerError
from unmask.core.images import Pixels
from unmask.core.pictures import ImageLimits
from unmask.core.pipeline import RetryRule
from unmask.core.policy_text import DEFAULT_POLICY, parse_policy
from unmask.core.promotion import ReleaseDesk
from unmask.core.review import Ruling, Truth
from unmask.core.runner import run
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.delivery.sweeper import sweep
from unmask.review.handler import Desk, decide

if TYPE_CHECKING:
    from unmask_dev.postgres import Postgres

_TEXTS = tuple(json.dumps({**RELEASE, "name": name}).encode() for name in ("one", "two"))
# The two ways in which a picture can be told from another here, so that two cases may be of one picture.
_PICTURES = (b"one picture", b"another picture")
_KEYS = ("", "k1", "k2")
_WORKERS = ((Step.INGEST, Step.ALIGN), (Step.CLASSIFY, Step.LOCALIZE, Step.DECIDE))
_MOST_ACTORS = 4
_MOST_STEPS = 120
_number = count()
_ENDS = {"decided": "verdict.decided", "failed": "case.failed", "dead": "case.dead", "erased": "case.erased"}
_SAID = ("label", "score", "action")


class Wavering(ChosenHandlers):
    """Models that never say the same twice, on either side of the thresholds: what is promised must not rest on their word."""

    said = 0

    def classify(self, picture: Pixels, faces: tuple[FaceRow, ...], release: Release) -> tuple[Classified, ...]:
        """Real, unsure, synthetic, real …"""
        self.said += 1
        return tuple(Classified((0.02, 0.5, 0.97)[self.said % 3]) for _ in faces)


@pytest.fixture(scope="module")
def tables(postgres: Postgres) -> Iterator[Database]:
    """A database for all examples: each has a tenant of its own, and leaves nothing open."""
    name = fresh_name()
    url = alive(postgres).create_database(name)
    with closing(Database(url, check=False)) as empty:
        upgrade(empty)
    with closing(Database(url)) as database:
        yield database
    alive(postgres).drop_database(name)


@pytest.fixture(scope="module", autouse=True)
def ids_in_order() -> Iterator[None]:
    """New ids of one moment sort as they were made: an example that is played again must go the same way."""
    made = count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unmask.core.ids._random", lambda size: next(made).to_bytes(size, "big"))
        yield


@dataclass
class Play:
    """One example: its world, who is in the middle of something, and what has been accepted."""

    tables: Database
    tenant: str = field(default_factory=lambda: f"t{next(_number)}")
    clock: StillClock = field(default_factory=StillClock)
    broker: Broker = field(default_factory=Broker)
    actors: list[Actor] = field(default_factory=list)
    taken: dict[Actor, Message] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    begun: int = 0

    def __post_init__(self) -> None:
        blobs, policy = MemoryBlobs(), parse_policy(DEFAULT_POLICY, "default")
        catalogue = SqlCatalogue(self.tables, lambda: _TEXTS[0], lambda: policy, seconds=0.0)
        store, rule = SqlStore(self.tables), RetryRule(limit=4)
        self.world = World(store, blobs, self.broker, self.clock, Wavering(), catalogue, ImageLimits(), rule)
        self.office = EraseOffice(SqlEraser(self.tables), blobs, SqlAccess(self.tables), self.clock)
        self.desk = ReleaseDesk(SqlReleases(self.tables), lambda release: None, self.clock, "test")
        self.releases = [self.desk.put(text, "here")[0].sha256 for text in _TEXTS]
        catalogue.active_release()

    # What may happen next; each returns the moves that there are now.

    def moves(self) -> list[tuple[str, Callable[[], None]]]:
        """Every next thing, by a name that a shrunken example is read by."""
        found: list[tuple[str, Callable[[], None]]] = []
        for actor in self.actors:
            found.append((f"{actor.name} does {actor.at}", lambda a=actor: self.go(a)))  # type: ignore[misc]
        for actor in self.actors:
            found.append((f"{actor.name} dies at {actor.at}", lambda a=actor: self.kill(a)))  # type: ignore[misc]
        if len(self.actors) < _MOST_ACTORS:
            for index, (message, again) in enumerate(self.broker.waiting[:3]):
                found.append((f"takes {message.step}{' again' if again else ''}", lambda i=index: self.take(i)))  # type: ignore[misc]
            found += [
                (f"submits {data!r} as {key!r}", lambda d=data, k=key: self.submit(d, k))  # type: ignore[misc]
                for data in _PICTURES
                for key in _KEYS
            ]
            found += [("sweeps", self.sweep), ("erases", self.erase), ("reviews", self.review)]
        if self.broker.waiting:
            found.append(("the broker doubles a message", lambda: self.broker.waiting.append(self.broker.waiting[0])))
            found.append(("the broker loses what it has", self.broker.waiting.clear))
        found.append(("promotes", self.promote))
        found.append(("time passes", lambda: self.clock.pass_(90)))
        return found

    def go(self, actor: Actor) -> None:
        """One more call."""
        actor.step()
        if actor.done:
            self._over(actor)

    def kill(self, actor: Actor) -> None:
        """Its message comes again, to somebody else."""
        actor.die()
        message = self.taken.get(actor)
        if message is not None:
            self.broker.hand_back(message)
        self._over(actor)

    def _over(self, actor: Actor) -> None:
        self.actors.remove(actor)
        self.taken.pop(actor, None)
        if actor.error is not None and not isinstance(actor.error, CallerError):
            raise AssertionError(f"{actor.name} broke") from actor.error
        self.check_revisions()

    def _begin(self, name: str, do: Callable[[World], object]) -> Actor:
        self.begun += 1
        actor = Actor(f"{name}-{self.begun}", self.world, do)
        self.actors.append(actor)
        return actor

    def take(self, index: int, *, alone: bool = False) -> None:
        """Somebody takes a message: every second one is a worker of several stages, which goes on with the case."""
        message, again = self.broker.take(index)
        mine = next(steps for steps in _WORKERS if message.step in steps)
        also = mine if self.begun % 2 and not alone else ()
        actor = self._begin(message.step.value, lambda world: run(world, message, redelivered=again, also=also))
        self.taken[actor] = message

    def submit(self, data: bytes, key: str) -> None:
        """Somebody comes to the door."""
        self._begin("submit", lambda world: accept(world, Submission(self.tenant, BytesSource(data), key)))

    def sweep(self) -> None:
        """The sweeper looks round."""
        self._begin("sweep", sweep)

    def erase(self) -> None:
        """A picture is to go, whatever is happening to it."""
        order = ErasureOrder("cli:me", "requested", self.clock.now())
        selection = Selection(sha256=hashlib.sha256(_PICTURES[0]).hexdigest())
        self._begin("erase", lambda world: erase(replace(self.office, blobs=world.blobs), self.tenant, selection, order))

    def review(self) -> None:
        """A reviewer overturns the first case, decided or not."""
        found = self.rows()
        if not found:
            return
        caller, ruling = Caller(self.tenant, frozenset(Scope), "ann"), Ruling(Action.BLOCK, "false_negative", Truth.SYNTHETIC)

        def rule(world: World) -> object:
            desk = Desk(world.store, SqlReview(self.tables), self.clock, SqlAccess(self.tables).audit)
            return decide(desk, caller, found[0]["id"], ruling)

        self._begin("review", rule)

    def promote(self) -> None:
        """The other release becomes the active one."""
        active = self.desk.store.pointers().active
        self.desk.promote(next(sha256 for sha256 in self.releases if sha256 != active))

    # What must hold.

    def rows(self) -> list[Any]:
        """The tenant's cases."""
        return self._of(cases)

    def _of(self, table: sa.Table) -> list[Any]:
        with self.tables.reading() as connection:
            return list(connection.execute(sa.select(table).where(table.c.tenant == self.tenant)).mappings())

    def check_revisions(self) -> None:
        """They only ever rise."""
        now = {row["id"]: row["revision"] for row in self.rows()}
        assert all(now.get(case, -1) >= revision for case, revision in self.revisions.items()), (self.revisions, now)
        self.revisions = now

    def drain(self) -> None:
        """Everybody ends what is in hand; then messages and sweeps until nothing is open."""
        while self.actors:
            self.go(self.actors[0])
        for _ in range(200):
            while self.broker.waiting:
                message, again = self.broker.take(0)
                run(self.world, message, redelivered=again)
            if not any(row["state"] == State.OPEN for row in self.rows()):
                return
            self.clock.pass_(3600)
            sweep(self.world)
        raise AssertionError(f"still open: {[(row['id'], row['stage']) for row in self.rows() if row['state'] == State.OPEN]}")

    def check(self) -> None:
        """One case a key, one verdict a picture, one end and one event a case, and all of them say the same."""
        rows, events, told = self.rows(), self._of(outbox), self._of(decisions)
        keys = Counter(row["idempotency_key"] for row in rows if row["idempotency_key"])
        assert set(keys.values()) <= {1}
        found = {(row["sha256"], row["release"], row["policy"]): row["body"] for row in self._of(verdicts)}
        assert len(found) == len(self._of(verdicts))
        for row in rows:
            own = [event for event in events if event["case_id"] == row["id"]]
            ends = [event for event in own if event["kind"] != "decision.made"]
            policy = [one for one in told if one["case_id"] == row["id"] and one["actor"] == "policy"]
            assert [event["kind"] for event in ends] == [_ENDS[row["state"]]], (dict(row), own)
            assert len({event["sequence"] for event in own}) == len(own)
            assert len(policy) == 1 if row["state"] == State.DECIDED else len(policy) <= 1
            if row["state"] == State.DECIDED:
                verdict, body = found[row["sha256"], row["release"], row["policy"]], json.loads(ends[0]["body"])
                assert body["id"] == row["id"] and row["label"] == verdict["label"]
                assert [body[name] for name in _SAID] == [verdict[name] for name in _SAID]
                assert policy[0]["action"] == verdict["action"]


@contextmanager
def playing(tables: Database) -> Iterator[Play]:
    """An example that is played to its end, and holds."""
    play = Play(tables)
    try:
        yield play
        play.drain()
        play.check()
    finally:
        for actor in play.actors:
            actor.die()
        with tables.transaction() as connection:  # what an example that failed leaves open is nothing to the next one
            connection.execute(sa.delete(cases).where(cases.c.tenant == play.tenant))


@settings(max_examples=40, print_blob=True)
@given(data=st.data())
def test_any_interleaving_ends_every_case_once(tables: Database, data: st.DataObject) -> None:
    with playing(tables) as play:
        play.submit(_PICTURES[0], "k1")
        for _ in range(data.draw(st.integers(0, _MOST_STEPS), label="moves")):
            moves = dict(play.moves())
            # Mostly somebody goes on, or takes a message: or no case would come far.
            often = [name for name in moves if " does " in name or name.startswith("takes ")]
            name = data.draw(st.sampled_from([*moves, *often * (60 // max(len(often), 1))]), label="then")
            moves[name]()


def test_a_worker_may_die_at_every_single_call(tables: Database) -> None:
    fatal = 0
    while True:
        with playing(tables) as play:
            play.submit(_PICTURES[0], "k1")
            steps = _played(play, fatal)
        if steps < fatal:
            break
        fatal += 1
    assert fatal > 25, "the whole way has more calls than that"


def _played(play: Play, fatal: int) -> int:
    """Goes on until nothing is left to do, but for the one call that is its worker's last; returns how many there were."""
    steps = 0
    while play.actors or play.broker.waiting:
        if not play.actors:
            play.take(0)
        (play.kill if steps == fatal else play.go)(play.actors[0])
        steps += 1
    return steps


def test_of_two_cases_that_judge_the_same_bytes_otherwise_at_once_the_first_stands(tables: Database) -> None:
    with playing(tables) as play:
        for key in ("k1", "k2"):
            play.submit(_PICTURES[0], key)
        while play.actors or any(message.step is not Step.DECIDE for message, _ in play.broker.waiting):
            if not play.actors:
                play.take(
                    next(i for i, (message, _) in enumerate(play.broker.waiting) if message.step is not Step.DECIDE), alone=True
                )
            play.go(play.actors[0])
        play.take(0, alone=True)
        play.take(0, alone=True)
        for actor in play.actors:
            while actor.at != "store.commit":
                actor.step()
        play.drain()
        assert {row["state"] for row in play.rows()} == {"decided"} and len(play.rows()) == 2


def test_real_threads_over_the_same_few_cases(tables: Database) -> None:
    with playing(tables) as play:
        jobs: list[Callable[[int], object]] = [
            lambda n: accept(play.world, Submission(play.tenant, BytesSource(_PICTURES[n % 2]), f"k{n % 2}")),
            lambda n: _worked_some(play),
            lambda n: _worked_some(play),
            lambda n: sweep(play.world),
            lambda n: accept(play.world, Submission(play.tenant, BytesSource(_PICTURES[n % 2]))),
        ]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: jobs[n % len(jobs)](n), range(200)))
        keyed = [row for row in play.rows() if row["idempotency_key"]]
        assert len(keyed) == 2


def _worked_some(play: Play) -> None:
    """Works what there is, each message twice at once with whoever has it too."""
    for message, _ in play.broker.waiting[:4]:
        run(play.world, message)
    if len(play.broker.waiting) > 20:
        del play.broker.waiting[:4]
