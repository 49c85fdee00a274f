"""What reviewers may do, and what becomes of it: decisions in order, one event each, the verdict untouched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from tests.contract.samples import POLICY, RELEASE, SHA, a_case
from tests.unit.review.offices import FAKE, MAX, REAL, UNSURE, ZOE, Office
from unmask.adapters.store_sql import SqlStore
from unmask.core.access import AuditEntry, Caller
from unmask.core.domain import Action, Case, CaseUpdate, State
from unmask.core.errors import BadRequest, NotReady, Overtaken, Unavailable
from unmask.core.near import MATCH
from unmask.core.review import CaseFilter, Ruling, Truth
from unmask.review.handler import Desk, appeal, decide, list_cases


@pytest.fixture
def office() -> Iterator[Office]:
    with closing(SqlStore.in_memory()) as store:
        yield Office(store)


class TestDecide:
    """A reviewer's word."""

    def test_it_is_one_more_decision_and_one_event(self, office: Office) -> None:
        case = office.case()
        after = decide(office.desk, ZOE, case.id, FAKE)
        assert after == replace(case, revision=case.revision + 1, action=Action.BLOCK, truth="synthetic", reviewed=True)
        assert after == office.store.case("default", case.id)
        policy, mine = office.store.decisions("default", case.id)
        assert policy.actor == "policy"
        assert (mine.actor, mine.action, mine.reason, mine.truth) == (
            "reviewer:token:zoë",
            Action.BLOCK,
            "confirmed",
            "synthetic",
        )
        assert (mine.generator, mine.note, mine.at) == ("stylegan2", "hair runs into the ear", office.clock.now())
        (body,) = office.told(case)
        assert body == {
            "schema": "unmask.decision/1",
            "id": case.id,
            "sha256": SHA,
            "label": "manipulated",
            "action": "block",
            "before": "review",
            "actor": "reviewer",
            "reason": "confirmed",
            "truth": "synthetic",
            "generator": "stylegan2",
            "at": "2026-01-01T00:00:00.000Z",
        }
        event = office.store.outbox(10)[-1]
        assert (event.target, event.sequence) == (case.callback, after.revision)

    def test_the_verdict_row_stays_and_the_told_verdict_says_who_decided(self, office: Office) -> None:
        case = office.case()
        before = office.store.verdict("default", SHA, RELEASE, POLICY)
        decide(office.desk, ZOE, case.id, FAKE)
        assert office.store.verdict("default", SHA, RELEASE, POLICY) == before
        told = office.store.verdict_of("default", case.id)
        assert told is not None and told.action is Action.BLOCK
        assert (told.reasons[-1].code, told.reasons[-1].text) == ("decided_by_reviewer", "reviewer decided block (confirmed)")

    def test_the_same_again_changes_nothing(self, office: Office) -> None:
        case = office.case()
        first = decide(office.desk, ZOE, case.id, FAKE)
        office.clock.pass_(5)
        assert decide(office.desk, ZOE, case.id, FAKE) == first
        assert decide(office.desk, ZOE, case.id, replace(FAKE, revision=case.revision)) == first  # the answer was lost
        assert len(office.said(case)) == 2 and len(office.told(case)) == 1
        # Said again later, after somebody else, it is news.
        decide(office.desk, MAX, case.id, REAL)
        assert decide(office.desk, ZOE, case.id, FAKE).action is Action.BLOCK
        assert len(office.said(case)) == 4

    def test_another_reviewer_or_another_note_is_another_decision(self, office: Office) -> None:
        case = office.case()
        for who, ruling in ((ZOE, FAKE), (MAX, FAKE), (MAX, replace(FAKE, note=""))):
            decide(office.desk, who, case.id, ruling)
        assert len(office.said(case)) == 4

    def test_review_leaves_it_waiting(self, office: Office) -> None:
        case = office.case()
        after = decide(office.desk, ZOE, case.id, UNSURE)
        assert (after.action, after.reviewed, after.truth) == (Action.REVIEW, False, "unknown")
        assert list_cases(office.desk, MAX, CaseFilter()).cases == (after,)

    def test_the_picture_becomes_one_that_near_duplicates_are_looked_for(self, office: Office) -> None:
        phash = "0123456789abcdef" * 4
        case = office.case(phash=phash)

        def known() -> list[str]:
            return [near.sha256 for near in office.store.near("default", phash, MATCH)]

        assert known() == []
        decide(office.desk, ZOE, case.id, FAKE)
        assert known() == [SHA]
        decide(office.desk, ZOE, case.id, UNSURE)
        appeal(office.desk, ZOE, case.id, "says_real")
        assert known() == [SHA]  # in doubt, what was known stays
        decide(office.desk, MAX, case.id, REAL)
        assert known() == []
        decide(office.desk, MAX, case.id, Ruling(Action.BLOCK, "wrong_kind", Truth.MANIPULATED))
        assert known() == [SHA]

    @pytest.mark.parametrize("state", [State.OPEN, State.FAILED, State.DEAD, State.ERASED])
    def test_only_a_case_with_a_verdict(self, office: Office, state: State) -> None:
        case = office.store.accept(a_case())
        if state is not State.OPEN:
            assert office.store.commit(case, CaseUpdate(replace(case, revision=1, state=state)))
        for act in (lambda: decide(office.desk, ZOE, case.id, FAKE), lambda: appeal(office.desk, ZOE, case.id, "says_real")):
            with pytest.raises(NotReady, match=state):
                act()
        assert office.said(case) == [] and office.log() == []

    @pytest.mark.parametrize(
        ("ruling", "says"),
        [
            (replace(FAKE, reason="because"), "expected one of confirmed"),
            (replace(FAKE, reason="says_real"), "expected one of confirmed"),
            (replace(FAKE, action=Action.REVIEW), "go together"),
            (replace(UNSURE, action=Action.ALLOW), "go together"),
            (replace(FAKE, reason="false_positive"), "the truth is real, not synthetic"),
            (replace(REAL, reason="false_negative"), "manipulated or synthetic"),
            (replace(REAL, generator="flux"), "only a synthetic or manipulated"),
            (replace(FAKE, generator="../flux"), "up to 64"),
            (replace(FAKE, generator="x" * 65), "up to 64"),
            (replace(FAKE, note="x" * 2001), "2001 characters"),
            (replace(FAKE, note="a\0b"), "NUL"),
            (replace(FAKE, note="a\ud800b"), "surrogates"),
        ],
    )
    def test_what_is_refused(self, office: Office, ruling: Ruling, says: str) -> None:
        case = office.case()
        with pytest.raises(BadRequest, match=says):
            decide(office.desk, ZOE, case.id, ruling)
        assert office.store.case("default", case.id) == case

    def test_it_is_in_the_audit_log_also_when_only_the_log_failed(self, office: Office) -> None:
        case = office.case()

        def broken(entry: AuditEntry) -> None:
            raise Unavailable("the log is down")

        with pytest.raises(Unavailable):
            decide(replace(office.desk, audit=broken), ZOE, case.id, FAKE)
        assert office.log() == [] and len(office.said(case)) == 2
        decide(office.desk, ZOE, case.id, FAKE)  # the caller tries again
        (entry,) = office.log()
        assert (entry.tenant, entry.actor, entry.act, entry.subject) == ("default", "token:zoë", "review.decide", case.id)
        assert entry.detail == {"action": "block", "reason": "confirmed", "truth": "synthetic", "generator": "stylegan2"}
        assert len(office.said(case)) == 2


class TestTwoAtOnce:
    """Nothing is lost, and whoever asked to be told is told."""

    def overtaken_by(self, office: Office, first: Callable[[], object]) -> Desk:
        """A desk at which somebody else is faster, once, between looking and writing."""

        class Overtaken(SqlStore):
            """Lets the other go first."""

            faster = True

            def commit(self, expected: Case, update: CaseUpdate) -> bool:
                """See `CaseStore.commit`."""
                if self.faster:
                    self.faster = False
                    first()
                return super().commit(expected, update)

        return replace(office.desk, store=Overtaken(office.store.database))

    def test_the_second_comes_after_the_first(self, office: Office) -> None:
        case = office.case()
        desk = self.overtaken_by(office, lambda: decide(office.desk, MAX, case.id, REAL))
        after = decide(desk, ZOE, case.id, FAKE)
        assert after == office.store.case("default", case.id) and after.action is Action.BLOCK
        assert [actor for actor, _ in office.said(case)] == ["policy", "reviewer:token:max", "reviewer:token:zoë"]
        assert [(body["before"], body["action"]) for body in office.told(case)] == [("review", "allow"), ("allow", "block")]

    def test_a_second_one_that_names_what_it_saw_is_told(self, office: Office) -> None:
        case = office.case()
        desk = self.overtaken_by(office, lambda: decide(office.desk, MAX, case.id, REAL))
        with pytest.raises(Overtaken, match="last, reviewer:token:max said allow"):
            decide(desk, ZOE, case.id, replace(FAKE, revision=case.revision))
        assert [actor for actor, _ in office.said(case)] == ["policy", "reviewer:token:max"]
        now = office.store.case("default", case.id)
        assert decide(office.desk, ZOE, case.id, replace(FAKE, revision=now.revision)).action is Action.BLOCK

    def test_many_on_threads(self, office: Office) -> None:
        case, start = office.case(), threading.Barrier(6)
        callers = [replace(ZOE, actor=f"token:{n}") for n in range(6)]

        def say(who: Caller) -> None:
            start.wait()
            decide(office.desk, who, case.id, FAKE if who.actor < "token:3" else REAL)
            appeal(office.desk, who, case.id, "other", who.actor)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(say, callers))
        said = office.store.decisions("default", case.id)
        assert len(said) == 13 and len({(one.actor, one.note) for one in said}) == 13
        row = office.store.case("default", case.id)
        assert (row.revision, row.action) == (case.revision + 12, said[-1].action)
        assert sorted(event.sequence for event in office.store.outbox(99) if event.kind == "decision.made") == list(
            range(case.revision + 1, case.revision + 13)
        )


class TestAppeal:
    """Another look is asked for."""

    def test_it_waits_again(self, office: Office) -> None:
        case = office.case()
        decide(office.desk, ZOE, case.id, FAKE)
        assert list_cases(office.desk, ZOE, CaseFilter()).cases == ()
        after = appeal(office.desk, MAX, case.id, "says_real", "it is my own face")
        assert (after.action, after.reviewed, after.truth, after.state) == (Action.REVIEW, False, "", State.DECIDED)
        assert list_cases(office.desk, ZOE, CaseFilter()).cases == (after,)
        last = office.store.decisions("default", case.id)[-1]
        assert (last.actor, last.reason, last.truth, last.note) == ("appeal", "says_real", "", "it is my own face")
        assert office.told(case)[-1]["actor"] == "appeal" and "note" not in office.told(case)[-1]
        assert office.log()[-1].act == "review.appeal" and office.log()[-1].actor == "token:max"
        told = office.store.verdict_of("default", case.id)
        assert told is not None and told.reasons[-1].code == "decided_by_appeal"

    def test_the_same_again_changes_nothing(self, office: Office) -> None:
        case = office.case()
        first = appeal(office.desk, ZOE, case.id, "says_real")
        assert appeal(office.desk, MAX, case.id, "says_real") == first
        assert len(office.said(case)) == 2
        decide(office.desk, ZOE, case.id, REAL)
        assert appeal(office.desk, ZOE, case.id, "says_real").revision == first.revision + 2

    @pytest.mark.parametrize(
        ("reason", "note"), [("confirmed", ""), ("", ""), ("other", ""), ("says_real", "x" * 2001), ("says_real", "\0")]
    )
    def test_what_is_refused(self, office: Office, reason: str, note: str) -> None:
        case = office.case()
        with pytest.raises(BadRequest):
            appeal(office.desk, ZOE, case.id, reason, note)
        assert office.store.case("default", case.id) == case
