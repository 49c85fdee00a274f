"""What every CaseStore promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest

from tests.contract.adapters import LASTING, STORES, Backends
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
from unmask.core.domain import (
    Action,
    Case,
    CaseUpdate,
    EventState,
    Failure,
    Findings,
    Label,
    Near,
    Outgoing,
    Priority,
    Stage,
    State,
)
from unmask.core.errors import IdempotencyConflict, UnknownCase
from unmask.core.ports import CaseStore

KEY = (SHA, RELEASE, POLICY)
QUIET = timedelta(minutes=1)
T = TypeVar("T")


def at_once(count: int, do: Callable[[int], T]) -> list[T]:
    """What `do` gives on as many threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(do, range(count)))


def settle(store: CaseStore, event_id: str, state: EventState) -> None:
    """Writes the state, one attempt, due at once."""
    store.settle_event(event_id, state, attempts=1, due_at=NOW)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, backends: Backends) -> Iterator[CaseStore]:
    """A fresh store of each kind."""
    with STORES[request.param](backends) as made:
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
        assert not store.claim_due(case.due_at - timedelta(microseconds=1), 1, QUIET)
        assert [due.id for due in store.claim_due(case.due_at, 1, QUIET)] == [case.id]

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
        assert list(store.decisions("default", case.id)) == list(update.decisions)
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
        assert store.commit(second, decided(second, width=999))
        assert store.verdict("default", *KEY) == a_verdict(first)
        assert len(list(store.verdicts("default"))) == 1

    @pytest.mark.parametrize("other", [{"score": 0.11}, {"label": Label.REAL}, {"action": Action.ALLOW}])
    def test_one_that_says_otherwise_is_not_written_nor_anything_with_it(self, store: CaseStore, other: dict[str, Any]) -> None:
        first, second = store.accept(a_case()), store.accept(a_case())
        assert store.commit(first, decided(first))
        assert not store.commit(second, decided(second, **other))
        assert store.case("default", second.id) == second and not store.decisions("default", second.id)
        assert len(store.outbox(9)) == 1 and store.findings("default", second.id) == Findings()

    def test_a_reused_verdict_carries_the_cases_own_id_timings_and_action(self, store: CaseStore) -> None:
        first, second = store.accept(a_case()), store.accept(a_case())
        assert store.commit(first, decided(first)) and store.commit(second, decided(second))
        again = moved(decided(second).case, Stage.DECIDED, timings_ms={"total": 7.0})
        appeal = a_decision(second, Action.BLOCK, actor="reviewer", truth="manipulated", note="siehe Anhang")
        assert store.commit(decided(second).case, CaseUpdate(again, decisions=(appeal,)))
        own = store.verdict_of("default", second.id)
        assert own is not None and replace(own, reasons=own.reasons[:-1]) == a_verdict(
            second, action=Action.BLOCK, timings_ms={"total": 7.0}
        )
        assert own.reasons[-1].code == "decided_by_reviewer"
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
        assert list(store.claim_due(now - timedelta(microseconds=1), 1, QUIET)) == [early]
        assert list(store.claim_due(now, 9, QUIET)) == [theirs, late]

    def test_what_was_given_out_is_given_out_again_ever_later_until_it_moves(self, store: CaseStore) -> None:
        case = store.accept(a_case(due_at=NOW))
        at = NOW
        for times in (1, 2, 4, 8, 16, 32, 32):
            assert store.claim_due(at, 9, QUIET) == [case]
            assert not store.claim_due(at + times * QUIET - timedelta(microseconds=1), 9, QUIET)
            at += times * QUIET
        after = moved(case, Stage.INGESTED, due_at=at)
        assert store.commit(case, CaseUpdate(after))
        assert store.claim_due(at, 9, QUIET) == [after]
        assert store.claim_due(at + QUIET, 9, QUIET) == [after]

    def test_two_sweepers_at_once_share_what_is_due(self, store: CaseStore) -> None:
        ids = {store.accept(a_case(due_at=NOW)).id for _ in range(40)}
        taken = [case.id for found in at_once(4, lambda _: store.claim_due(NOW, 10, QUIET)) for case in found]
        taken += [case.id for case in store.claim_due(NOW, 40, QUIET)]
        assert sorted(taken) == sorted(ids)

    def test_what_was_written_before_the_clock_went_back_is_due(self, store: CaseStore) -> None:
        case = store.accept(a_case(due_at=NOW))
        event = an_event(case)
        assert store.commit(case, CaseUpdate(moved(case, Stage.INGESTED), event=event))
        earlier = NOW - timedelta(hours=2)
        assert [found.id for found in store.claim_due(earlier, 9, QUIET)] == [case.id]
        assert [out.event for out in store.claim_events(earlier, 9, QUIET)] == [event]

    def test_events_leave_in_the_order_they_came_until_they_are_sent(self, store: CaseStore) -> None:
        events = []
        case = store.accept(a_case())
        for number in range(5):
            after = moved(case, Stage.ACCEPTED)
            events.append(an_event(case, body=f'{{"n": {number}, "text": "ﬁ"}}'))
            assert store.commit(case, CaseUpdate(after, event=events[-1]))
            case = after
        assert list(store.outbox(9)) == events and list(store.outbox(2)) == events[:2]
        for event in events:
            assert [out.event for out in store.claim_events(NOW, 9, QUIET)] == [event], "one of a case at a time"
            settle(store, event.id, EventState.SENT)
        assert not store.outbox(9) and not store.claim_events(NOW + 9 * QUIET, 9, QUIET)

    def test_a_claimed_event_is_given_out_again_after_its_lease(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        event = replace(an_event(case), target="https://example.com/hook", sequence=1)
        assert store.commit(case, CaseUpdate(moved(case, Stage.INGESTED), event=event))
        (first,) = store.claim_events(NOW, 9, QUIET)
        assert first == Outgoing(event, 0, NOW + QUIET)
        assert not store.claim_events(NOW + QUIET - timedelta(microseconds=1), 9, QUIET)
        assert [out.event for out in store.claim_events(NOW + QUIET, 9, QUIET)] == [event]

    def test_what_came_of_an_attempt_is_kept(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        event = an_event(case)
        assert store.commit(case, CaseUpdate(moved(case, Stage.INGESTED), event=event))
        later, why = NOW + timedelta(minutes=5), Failure("unavailable", "500")
        store.settle_event(event.id, EventState.PENDING, attempts=3, due_at=later, taken_by=["queue"], failure=why)
        assert not store.claim_events(NOW, 9, QUIET)
        (again,) = store.claim_events(later, 9, QUIET)
        assert (again.attempts, again.taken_by, again.failure) == (3, ("queue",), why)
        settle(store, event.id, EventState.DEAD)
        settle(store, event.id, EventState.PENDING)
        settle(store, "unknown", EventState.SENT)
        assert not store.claim_events(later + 99 * QUIET, 9, QUIET) and not store.outbox(9)

    def test_two_relays_at_once_share_what_is_due(self, store: CaseStore) -> None:
        events = set()
        for _ in range(24):
            case = store.accept(a_case())
            events.add((event := an_event(case)).id)
            assert store.commit(case, CaseUpdate(moved(case, Stage.INGESTED), event=event))
        taken = [out.event.id for found in at_once(4, lambda _: store.claim_events(NOW, 6, QUIET)) for out in found]
        taken += [out.event.id for out in store.claim_events(NOW, 99, QUIET)]
        assert sorted(taken) == sorted(events)


class TestLookingUp:
    """Batches, near-duplicates, what is forgotten."""

    def test_a_batch_tells_its_cases_by_state(self, store: CaseStore) -> None:
        for state in (State.OPEN, State.OPEN, State.DECIDED, State.FAILED):
            store.accept(a_case(batch="import", priority=Priority.BATCH, state=state))
        store.accept(a_case(batch="another"))
        store.accept(a_case("other", batch="import"))
        assert dict(store.progress("default", "import")) == {State.OPEN: 2, State.DECIDED: 1, State.FAILED: 1}
        assert not store.progress("default", "none")

    def test_known_fakes_are_found_by_their_hash_and_only_by_their_tenant(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        update = replace(decided(case), picture=a_picture(phash="f" * 64), known_fake=True)
        assert store.commit(case, update)
        close = "e" + "f" * 63
        assert store.near("default", close, 15) == [Near(SHA, 1)] and store.near("default", "f" * 64, 15) == [Near(SHA, 0)]
        assert not store.near("default", close, 0) and not store.near("default", "0" * 64, 15)
        assert not store.near("other", close, 15)
        cleared = moved(update.case, Stage.DECIDED)
        assert store.commit(update.case, CaseUpdate(cleared, known_fake=False))
        assert not store.near("default", close, 15)

    def test_a_picture_without_a_hash_is_nobodys_neighbour(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        assert store.commit(case, replace(decided(case), known_fake=True))
        assert not store.near("default", "0" * 64, 15)

    def test_findings_can_be_forgotten_with_the_last_step(self, store: CaseStore) -> None:
        case, other = store.accept(a_case()), store.accept(a_case())
        for one in (case, other):
            assert store.commit(one, CaseUpdate(moved(one, Stage.LOCALIZED), findings=FINDINGS))
        now = moved(case, Stage.LOCALIZED)
        assert store.commit(now, CaseUpdate(moved(now, Stage.DECIDED), forget_findings=True))
        assert store.findings("default", case.id) == Findings() and store.findings("default", other.id) == FINDINGS

    def test_whoever_decided_after_the_policy_is_a_reason(self, store: CaseStore) -> None:
        case = store.accept(a_case())
        raised = a_decision(case, Action.BLOCK, actor="near_duplicate", reason="near_duplicate", note="differs in 3 bits")
        update = replace(decided(case), decisions=(a_decision(case, Action.ALLOW), raised))
        assert store.commit(case, update)
        verdict = store.verdict_of("default", case.id)
        assert verdict is not None and verdict.action is Action.BLOCK
        assert [reason.code for reason in verdict.reasons][-1] == "near_duplicate"
        stored = store.verdict("default", *KEY)
        assert stored is not None and [reason.code for reason in stored.reasons] == ["manipulated", "claims"]


@pytest.mark.parametrize("adapter", LASTING)
def test_opened_again_everything_is_there(adapter: str, backends: Backends) -> None:
    with STORES[adapter](backends) as store:
        case = store.accept(a_case(idempotency_key="k"))
        update = decided(case)
        assert store.commit(case, update)
    with STORES[adapter](backends) as store:
        assert store.case("default", case.id) == update.case and store.accept(a_case(idempotency_key="k")) == update.case
        assert store.verdict_of("default", case.id) == a_verdict(case, timings_ms={"total": 9.5})
        assert store.findings("default", case.id) == FINDINGS and store.picture("default", SHA) == a_picture()
        assert list(store.outbox(9)) == [update.event] and list(store.decisions("default", case.id)) == list(update.decisions)
