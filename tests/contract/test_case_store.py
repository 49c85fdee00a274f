"""What every CaseStore promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import pytest

from tests.contract.adapters import LASTING, STORES
from tests.contract.samples import (
    FINDINGS,
    NOW,
    POLICY,
    RELEASE,
    SHA,
    a_case,
    a_decision,
    a_picture,
    a_verdict,
    an_event,
    decided,
    moved,
)
from unmask.core.domain import Action, Case, CaseUpdate, Failure, Findings, Stage, State
from unmask.core.errors import IdempotencyConflict, UnknownCase
from unmask.core.ports import CaseStore

KEY = (SHA, RELEASE, POLICY)
T = TypeVar("T")


def at_once(count: int, do: Callable[[int], T]) -> list[T]:
    """What `do` gives on as many threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(do, range(count)))


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CaseStore]:
    """A fresh store of each kind."""
    with STORES[request.param](tmp_path) as made:
        yield made


class TestAccept:
    """The door."""

    def test_a_case_comes_back_as_it_was(self, store: CaseStore) -> None:
        case = a_case(failure=Failure("unavailable", "späť"), attempts=2, timings_ms={"ingest": 1.25})
        assert store.accept(case) == case
        found = store.case("default", case.id)
        assert found == case and found.created_at.tzinfo is not None and found.created_at.microsecond == 123457

    def test_times_of_other_zones_are_the_same_moment(self, store: CaseStore) -> None:
        case = a_case(due_at=datetime(2026, 6, 1, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5, minutes=30))))
        store.accept(case)
        assert store.case("default", case.id).due_at == case.due_at
        assert [due.id for due in store.due(case.due_at, 1)] == [case.id]
        assert not store.due(case.due_at - timedelta(microseconds=1), 1)

    def test_the_same_key_gives_the_same_case(self, store: CaseStore) -> None:
        first = store.accept(a_case(idempotency_key="k"))
        assert store.accept(a_case(idempotency_key="k")) == first

    def test_the_same_key_with_another_body_is_a_conflict(self, store: CaseStore) -> None:
        first = store.accept(a_case(idempotency_key="k"))
        other = a_case(idempotency_key="k", body_sha256="f" * 64)
        with pytest.raises(IdempotencyConflict, match="'k'"):
            store.accept(other)
        assert store.case("default", first.id) == first
        with pytest.raises(UnknownCase):
            store.case("default", other.id)

    def test_cases_without_a_key_never_meet(self, store: CaseStore) -> None:
        first, second = store.accept(a_case()), store.accept(a_case())
        assert store.case("default", first.id).id != store.case("default", second.id).id

    def test_keys_belong_to_their_tenant(self, store: CaseStore) -> None:
        ours, theirs = a_case(idempotency_key="k"), a_case("other", idempotency_key="k", body_sha256="f" * 64)
        assert (store.accept(ours).id, store.accept(theirs).id) == (ours.id, theirs.id)

    def test_of_many_at_once_one_is_kept(self, store: CaseStore) -> None:
        ids = {case.id for case in at_once(8, lambda _: store.accept(a_case(idempotency_key="k")))}
        assert len(ids) == 1

    def test_the_key_still_counts_after_the_case_moved(self, store: CaseStore) -> None:
        case = store.accept(a_case(idempotency_key="k"))
        row = moved(case, Stage.INGESTED, sha256=SHA)
        assert store.commit(case, CaseUpdate(row))
        assert store.accept(a_case(idempotency_key="k")) == row


class TestCommit:
    """One step, all or nothing."""

    def test_writes_everything(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        update = decided(case)
        assert store.commit(case, update)
        assert store.case("default", case.id) == update.case
        assert store.picture("default", SHA) == a_picture()
        assert store.findings("default", case.id) == FINDINGS
        assert store.verdict("default", *KEY) == update.verdict
        assert list(store.decisions("default", case.id)) == [update.decision]
        assert list(store.outbox(9)) == [update.event]

    @pytest.mark.parametrize("stale", [{"revision": 1}, {"stage": Stage.ALIGNED}])
    def test_a_stale_row_changes_nothing(self, store: CaseStore, stale: dict[str, object]) -> None:
        case = store.accept(a_case())
        assert not store.commit(replace(case, **stale), decided(case))  # type: ignore[arg-type]
        assert store.case("default", case.id) == case
        assert (store.picture("default", SHA), store.verdict("default", *KEY)) == (None, None)
        assert store.findings("default", case.id) == Findings()
        assert not store.decisions("default", case.id) and not store.outbox(9)

    def test_an_unknown_case_is_not_made(self, store: CaseStore) -> None:
        case = a_case()
        assert not store.commit(case, decided(case))
        with pytest.raises(UnknownCase, match=case.id):
            store.case("default", case.id)

    def test_of_many_at_once_one_wins(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        for round_ in range(5):
            stage = Stage.ALIGNED if round_ % 2 else Stage.INGESTED
            updates = [CaseUpdate(moved(case, stage, timings_ms={"n": float(n)}), event=an_event(case)) for n in range(8)]
            won = at_once(8, lambda n, now=case, all_=updates: store.commit(now, all_[n]))  # type: ignore[misc]
            assert won.count(True) == 1
            case = updates[won.index(True)].case
            assert store.case("default", case.id) == case
            assert [event.id for event in store.outbox(9)][-1] == updates[won.index(True)].event.id  # type: ignore[union-attr]
        assert len(store.outbox(9)) == 5

    def test_findings_are_merged(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        for stage, part in ((Stage.ALIGNED, "faces"), (Stage.CLASSIFIED, "classified"), (Stage.LOCALIZED, "localized")):
            after = moved(case, stage)
            assert store.commit(case, CaseUpdate(after, findings=Findings(**{part: getattr(FINDINGS, part)})))
            case = after
        assert store.findings("default", case.id) == FINDINGS
        after = moved(case, Stage.LOCALIZED)
        assert store.commit(case, CaseUpdate(after, findings=Findings(localized=())))
        assert store.findings("default", case.id) == replace(FINDINGS, localized=())

    def test_none_and_empty_findings_differ(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        assert store.findings("default", case.id).faces is None
        assert store.commit(case, CaseUpdate(moved(case, Stage.ALIGNED), findings=Findings(faces=())))
        assert store.findings("default", case.id) == Findings(faces=())


class TestVerdicts:
    """Immutable, under their key."""

    def test_the_first_one_stays(self, store: CaseStore) -> None:
        first, second = store.accept(a_case()), store.accept(a_case())
        assert store.commit(first, decided(first))
        assert store.commit(second, decided(second, score=0.11, width=999))
        assert store.verdict("default", *KEY) == a_verdict(first)
        assert len(list(store.verdicts("default"))) == 1

    def test_a_reused_verdict_carries_the_cases_own_id_timings_and_action(self, store: CaseStore) -> None:
        first, second = store.accept(a_case()), store.accept(a_case())
        assert store.commit(first, decided(first)) and store.commit(second, decided(second))
        again = moved(decided(second).case, Stage.DECIDED, timings_ms={"total": 7.0})
        appeal = a_decision(second, Action.BLOCK, actor="reviewer", truth="manipulated", note="siehe Anhang")
        assert store.commit(decided(second).case, CaseUpdate(again, decision=appeal))
        own = store.verdict_of("default", second.id)
        assert own == a_verdict(second, action=Action.BLOCK, timings_ms={"total": 7.0})
        assert store.verdict_of("default", first.id) == a_verdict(first, timings_ms={"total": 9.5})
        assert [d.action for d in store.decisions("default", second.id)] == [Action.REVIEW, Action.BLOCK]
        assert store.decisions("default", second.id)[1] == appeal

    def test_there_is_none_before_the_decision(self, store: CaseStore) -> None:
        first, second = store.accept(a_case()), store.accept(a_case())
        assert store.commit(first, decided(first))
        assert store.commit(second, CaseUpdate(moved(second, Stage.INGESTED, sha256=SHA)))
        assert store.verdict_of("default", second.id) is None

    def test_another_release_or_policy_is_another_verdict(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        assert store.commit(case, decided(case))
        assert store.verdict("default", SHA, POLICY, RELEASE) is None
        assert store.verdict("default", "0" * 64, RELEASE, POLICY) is None

    def test_all_come_oldest_first(self, store: CaseStore) -> None:
        names = [f"{number * 7919 % 601:064d}" for number in range(601)]
        for sha256 in names:
            case = store.accept(a_case())
            assert store.commit(case, CaseUpdate(moved(case, Stage.DECIDED), verdict=a_verdict(case, sha256=sha256)))
        assert [verdict.sha256 for verdict in store.verdicts("default")] == names


class TestTenants:
    """No method sees another's rows."""

    def test_nothing_is_seen_from_outside(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        assert store.commit(case, decided(case))
        for ask in (store.case, store.verdict_of):
            with pytest.raises(UnknownCase):
                ask("other", case.id)
        assert store.findings("other", case.id) == Findings() and not store.decisions("other", case.id)
        assert store.picture("other", SHA) is None and store.verdict("other", *KEY) is None
        assert not list(store.verdicts("other"))

    def test_nothing_is_changed_from_outside(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        theirs = replace(case, tenant="other")
        assert not store.commit(theirs, decided(theirs))
        assert store.case("default", case.id) == case

    def test_the_same_picture_is_two(self, store: CaseStore) -> None:
        for tenant in ("default", "other"):
            case = store.accept(a_case(tenant))
            assert store.commit(case, decided(case))
        assert store.picture("default", SHA) == a_picture() and store.picture("other", SHA) == a_picture("other")


class TestSweeping:
    """What is due, and what goes out."""

    def test_due_are_the_open_ones_oldest_first_over_all_tenants(self, store: CaseStore) -> None:
        def put(minutes: int, tenant: str = "default", state: State = State.OPEN) -> Case:
            return store.accept(a_case(tenant, due_at=NOW + timedelta(minutes=minutes), state=state))

        late, early, theirs = put(3), put(1), put(2, "other")
        put(9), put(0, state=State.DEAD), put(0, state=State.DECIDED)
        now = NOW + timedelta(minutes=3)
        assert list(store.due(now, 9)) == [early, theirs, late]
        assert list(store.due(now, 2)) == [early, theirs]
        assert list(store.due(now - timedelta(microseconds=1), 9)) == [early, theirs]

    def test_events_leave_in_the_order_they_came_until_they_are_sent(self, store: CaseStore) -> None:
        events = []
        case = store.accept(a_case())
        for number in range(5):
            after = moved(case, Stage.ACCEPTED)
            events.append(an_event(case, body=f'{{"n": {number}, "text": "ﬁ"}}'))
            assert store.commit(case, CaseUpdate(after, event=events[-1]))
            case = after
        assert list(store.outbox(9)) == events and list(store.outbox(2)) == events[:2]
        store.sent([events[1].id, events[3].id])
        assert list(store.outbox(9)) == [events[0], events[2], events[4]]
        store.sent([])
        store.sent(["unknown", events[1].id])
        store.sent(event.id for event in events)
        assert not store.outbox(9)


@pytest.mark.parametrize("adapter", LASTING)
def test_opened_again_everything_is_there(adapter: str, tmp_path: Path) -> None:
    with STORES[adapter](tmp_path) as store:
        case = store.accept(a_case(idempotency_key="k"))
        update = decided(case)
        assert store.commit(case, update)
    with STORES[adapter](tmp_path) as store:
        assert store.case("default", case.id) == update.case and store.accept(a_case(idempotency_key="k")) == update.case
        assert store.verdict_of("default", case.id) == a_verdict(case, timings_ms={"total": 9.5})
        assert store.findings("default", case.id) == FINDINGS and store.picture("default", SHA) == a_picture()
        assert list(store.outbox(9)) == [update.event] and list(store.decisions("default", case.id)) == [update.decision]
