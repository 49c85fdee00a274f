"""CaseStore in plain dictionaries: the embedded check's, which keeps nothing after its answer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from unmask.core.domain import Case, CaseUpdate, Decision, Event, Findings, PictureInfo, State, Verdict
from unmask.core.errors import IdempotencyConflict, StoreCorrupt, UnknownCase


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
        self._outbox: dict[str, Event] = {}

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
            action = self._decisions[tenant, case_id][-1].action
        return replace(verdict, id=case.id, action=action, timings_ms=case.timings_ms)

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
            self._cases[key] = case
            self._keep(key, update)
            return True

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
        if update.decision is not None:
            self._decisions.setdefault(key, []).append(update.decision)
        if update.event is not None:
            self._outbox[update.event.id] = update.event

    def due(self, now: datetime, limit: int) -> Sequence[Case]:
        """See `CaseStore.due`."""
        with self._lock:
            waiting = [c for c in self._cases.values() if c.state is State.OPEN and c.due_at <= now]
        return sorted(waiting, key=lambda c: (c.due_at, c.id))[:limit]

    def verdicts(self, tenant: str) -> Iterator[Verdict]:
        """See `CaseStore.verdicts`."""
        with self._lock:
            return iter([v for (owner, *_), v in self._verdicts.items() if owner == tenant])

    def outbox(self, limit: int) -> Sequence[Event]:
        """See `CaseStore.outbox`."""
        with self._lock:
            return list(self._outbox.values())[:limit]

    def sent(self, event_ids: Iterable[str]) -> None:
        """See `CaseStore.sent`."""
        with self._lock:
            for event_id in event_ids:
                self._outbox.pop(event_id, None)
