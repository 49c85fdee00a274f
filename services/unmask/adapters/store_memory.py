"""CaseStore in plain dictionaries: the embedded check's, which keeps nothing after its answer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from unmask.core.domain import (
    Case,
    CaseUpdate,
    Decision,
    Event,
    EventState,
    Failure,
    Findings,
    Near,
    Outgoing,
    PictureInfo,
    State,
    Verdict,
)
from unmask.core.errors import IdempotencyConflict, StoreCorrupt, UnknownCase
from unmask.core.near import distance
from unmask.core.outcomes import same_judgement, with_decisions
from unmask.core.pipeline import CLOCK_WENT_BACK


class MemoryStore:
    """The port's contract over dictionaries, one lock around each method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cases: dict[tuple[str, str], Case] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._pictures: dict[tuple[str, str], PictureInfo] = {}
        self._findings: dict[tuple[str, str], Findings] = {}
        self._verdicts: dict[tuple[str, str, str, str], Verdict] = {}
        self._decisions: dict[tuple[str, str], list[Decision]] = {}
        self._outbox: dict[str, Outgoing] = {}
        # When the sweeper may take a case again, and how often it has since the case moved.
        self._hints: dict[tuple[str, str], tuple[datetime, int]] = {}
        self._fakes: dict[tuple[str, str], str] = {}

    def accept(self, case: Case) -> Case:
        """See `CaseStore.accept`."""
        with self._lock:
            known = self._keys.get((case.tenant, case.idempotency_key)) if case.idempotency_key else None
            if known is None:
                self._cases[case.tenant, case.id] = case
                if case.idempotency_key:
                    self._keys[case.tenant, case.idempotency_key] = case.id
                return case
            stored = self._cases[case.tenant, known]
        if stored.body_sha256 != case.body_sha256:
            raise IdempotencyConflict(f"idempotency key {case.idempotency_key!r} was used for another request")
        return stored

    def case(self, tenant: str, case_id: str) -> Case:
        """See `CaseStore.case`."""
        with self._lock:
            return self._case(tenant, case_id)

    def _case(self, tenant: str, case_id: str) -> Case:
        try:
            return self._cases[tenant, case_id]
        except KeyError:
            raise UnknownCase(f"no case {case_id!r}") from None

    def picture(self, tenant: str, sha256: str) -> PictureInfo | None:
        """See `CaseStore.picture`."""
        with self._lock:
            return self._pictures.get((tenant, sha256))

    def findings(self, tenant: str, case_id: str) -> Findings:
        """See `CaseStore.findings`."""
        with self._lock:
            return self._findings.get((tenant, case_id), Findings())

    def verdict(self, tenant: str, sha256: str, release: str, policy: str) -> Verdict | None:
        """See `CaseStore.verdict`."""
        with self._lock:
            return self._verdicts.get((tenant, sha256, release, policy))

    def verdict_of(self, tenant: str, case_id: str) -> Verdict | None:
        """See `CaseStore.verdict_of`."""
        with self._lock:
            case = self._case(tenant, case_id)
            verdict = self._verdicts.get((tenant, case.sha256, case.release, case.policy))
            if case.state is not State.DECIDED:
                return None
            if verdict is None:
                raise StoreCorrupt(f"case {case_id!r} is decided, but its verdict is not stored")
            decided = tuple(self._decisions[tenant, case_id])
        return with_decisions(replace(verdict, id=case.id, timings_ms=case.timings_ms), decided)

    def decisions(self, tenant: str, case_id: str) -> Sequence[Decision]:
        """See `CaseStore.decisions`."""
        with self._lock:
            return tuple(self._decisions.get((tenant, case_id), ()))

    def commit(self, expected: Case, update: CaseUpdate) -> bool:
        """See `CaseStore.commit`."""
        case = update.case
        key = (case.tenant, case.id)
        with self._lock:
            stored = self._cases.get(key)
            if stored is None or (stored.stage, stored.revision) != (expected.stage, expected.revision):
                return False
            if update.verdict is not None and not self._may_judge(case, update.verdict):
                return False
            self._cases[key] = case
            self._hints.pop(key, None)
            self._keep(key, update)
            return True

    def _may_judge(self, case: Case, verdict: Verdict) -> bool:
        known = self._verdicts.get((case.tenant, verdict.sha256, verdict.release.sha256, verdict.policy.sha256))
        return known is None or same_judgement(known, verdict)

    def _keep(self, key: tuple[str, str], update: CaseUpdate) -> None:
        case, picture, verdict, found = update.case, update.picture, update.verdict, update.findings
        if picture is not None:
            self._pictures.setdefault((picture.tenant, picture.sha256), picture)
        if found is not None:
            old = self._findings.get(key, Findings())
            self._findings[key] = Findings(
                old.faces if found.faces is None else found.faces,
                old.classified if found.classified is None else found.classified,
                old.localized if found.localized is None else found.localized,
            )
        if verdict is not None:
            self._verdicts.setdefault((case.tenant, verdict.sha256, verdict.release.sha256, verdict.policy.sha256), verdict)
        if update.decisions:
            self._decisions.setdefault(key, []).extend(update.decisions)
        if update.event is not None:
            self._outbox[update.event.id] = Outgoing(update.event, 0, update.event.at)
        if update.forget_findings:
            self._findings.pop(key, None)
        if update.known_fake is not None:
            self._fakes.pop((case.tenant, case.sha256), None)
        stored = self._pictures.get((case.tenant, case.sha256))
        if update.known_fake and stored is not None and stored.phash:
            self._fakes[case.tenant, case.sha256] = stored.phash

    def claim_due(self, now: datetime, limit: int, quiet: timedelta) -> Sequence[Case]:
        """See `CaseStore.claim_due`."""
        with self._lock:
            hints = {
                key: self._hints.get(key, (case.due_at, 0)) for key, case in self._cases.items() if case.state is State.OPEN
            }
            due = [key for key, (at, _) in hints.items() if at <= now or at > now + CLOCK_WENT_BACK]
            taken = sorted(due, key=lambda key: (hints[key][0], key[1]))[:limit]
            for key in taken:
                count = hints[key][1]
                self._hints[key] = (now + quiet * (1 << min(count, 5)), count + 1)
            return sorted((self._cases[key] for key in taken), key=lambda case: (case.due_at, case.id))

    def near(self, tenant: str, phash: str, most: int) -> Sequence[Near]:
        """See `CaseStore.near`."""
        with self._lock:
            found = [Near(sha, distance(phash, other)) for (owner, sha), other in self._fakes.items() if owner == tenant]
        return sorted((match for match in found if match.distance <= most), key=lambda m: (m.distance, m.sha256))

    def progress(self, tenant: str, batch: str) -> Mapping[State, int]:
        """See `CaseStore.progress`."""
        with self._lock:
            return Counter(c.state for c in self._cases.values() if (c.tenant, c.batch) == (tenant, batch))

    def verdicts(self, tenant: str) -> Iterator[Verdict]:
        """See `CaseStore.verdicts`."""
        with self._lock:
            return iter([v for (owner, *_), v in self._verdicts.items() if owner == tenant])

    def outbox(self, limit: int) -> Sequence[Event]:
        """See `CaseStore.outbox`."""
        with self._lock:
            return [out.event for out in self._outbox.values() if out.state is EventState.PENDING][:limit]

    def claim_events(self, now: datetime, limit: int, lease: timedelta) -> Sequence[Outgoing]:
        """See `CaseStore.claim_events`."""
        with self._lock:
            oldest: dict[tuple[str, str], Outgoing] = {}
            for out in self._outbox.values():
                if out.state is EventState.PENDING:
                    oldest.setdefault((out.event.tenant, out.event.case_id), out)
            due = [out for out in oldest.values() if out.due_at <= now or out.due_at > now + CLOCK_WENT_BACK]
            claimed = [replace(out, due_at=now + lease) for out in sorted(due, key=lambda out: out.due_at)[:limit]]
            self._outbox.update({out.event.id: out for out in claimed})
            return claimed

    def settle_event(
        self,
        event_id: str,
        state: EventState,
        *,
        attempts: int,
        due_at: datetime,
        taken_by: Iterable[str] = (),
        failure: Failure | None = None,
    ) -> None:
        """See `CaseStore.settle_event`."""
        with self._lock:
            out = self._outbox.get(event_id)
            if out is not None and out.state is EventState.PENDING:
                self._outbox[event_id] = Outgoing(out.event, attempts, due_at, tuple(taken_by), failure, state)
