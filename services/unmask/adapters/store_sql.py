"""CaseStore over SQLAlchemy Core: a SQLite file, memory, or Postgres."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, RowMapping

from unmask.adapters import store_rows as rows
from unmask.adapters import store_statements as sql
from unmask.adapters.database import Database
from unmask.adapters.store_step import StepCommits, is_step
from unmask.core.contract import findings_from_json, from_json
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
from unmask.core.near import bands, distance
from unmask.core.outcomes import same_judgement, with_decisions
from unmask.core.pipeline import CLOCK_WENT_BACK

_PAGE: Final = 500


class SqlStore:
    """The port `CaseStore`; one transaction a method, thread-safe.  Opening raises what `Database` raises."""

    def __init__(self, database: Database | str) -> None:
        self.database = Database(database) if isinstance(database, str) else database
        self._transaction, self._reading = self.database.transaction, self.database.reading
        self._upserts = sql.Upserts(self.database.dialect)
        # SQLite has no statement that writes two tables, and no round trips to save.
        self._steps = StepCommits(self._upserts) if self.database.dialect == "postgresql" else None

    @classmethod
    def in_memory(cls) -> SqlStore:
        """A store that is gone with the process."""
        return cls(Database.in_memory())

    def close(self) -> None:
        """Gives its connections back."""
        self.database.close()

    def accept(self, case: Case) -> Case:
        """See `CaseStore.accept`."""
        row = rows.case_row(case)
        same = {name: row[name] for name in ("tenant", "id", "idempotency_key")}
        with self._transaction() as connection:
            if connection.execute(self._upserts.accept, row).rowcount == 1:
                return case
            stored = rows.case_of(connection.execute(sql.ACCEPTED, same).mappings().one())
        if stored.body_sha256 != case.body_sha256:
            raise IdempotencyConflict(f"idempotency key {case.idempotency_key!r} was used for another request")
        return stored

    def case(self, tenant: str, case_id: str) -> Case:
        """See `CaseStore.case`."""
        with self._reading() as connection:
            return _case(connection, tenant, case_id)

    def picture(self, tenant: str, sha256: str) -> PictureInfo | None:
        """See `CaseStore.picture`."""
        with self._reading() as connection:
            row = connection.execute(sql.PICTURE, {"tenant": tenant, "sha256": sha256}).mappings().first()
        return None if row is None else rows.picture_of(row)

    def findings(self, tenant: str, case_id: str) -> Findings:
        """See `CaseStore.findings`."""
        with self._reading() as connection:
            parts = connection.execute(sql.FINDINGS, {"tenant": tenant, "case_id": case_id}).all()
        return findings_from_json({row.part: row.body for row in parts})

    def verdict(self, tenant: str, sha256: str, release: str, policy: str) -> Verdict | None:
        """See `CaseStore.verdict`."""
        with self._reading() as connection:
            return _verdict(connection, tenant, sha256, release, policy)

    def verdict_of(self, tenant: str, case_id: str) -> Verdict | None:
        """See `CaseStore.verdict_of`; raises `StoreCorrupt` for a decided case without a verdict or decision."""
        with self._transaction() as connection:
            case = _case(connection, tenant, case_id)
            if case.state is not State.DECIDED:
                return None
            verdict = _verdict(connection, tenant, case.sha256, case.release, case.policy)
            decided = _decisions(connection, tenant, case_id)
            if verdict is None and _case(connection, tenant, case_id).state is not State.DECIDED:
                return None  # erased between the two
        if verdict is None or not decided:
            raise StoreCorrupt(f"case {case_id} is decided, but its {'verdict' if verdict is None else 'decision'} is gone")
        return with_decisions(replace(verdict, id=case.id, timings_ms=case.timings_ms), decided)

    def decisions(self, tenant: str, case_id: str) -> Sequence[Decision]:
        """See `CaseStore.decisions`."""
        with self._reading() as connection:
            return _decisions(connection, tenant, case_id)

    def commit(self, expected: Case, update: CaseUpdate) -> bool:
        """See `CaseStore.commit`."""
        if self._steps is not None and is_step(update):
            with self._reading() as connection:
                return self._steps.commit(connection, expected, update)
        old = {
            "old_tenant": expected.tenant,
            "old_id": expected.id,
            "old_stage": expected.stage.value,
            "old_revision": expected.revision,
        }
        try:
            with self._transaction() as connection:
                if connection.execute(sql.MOVE, old | rows.case_row(update.case)).rowcount != 1:
                    return False
                self._keep(connection, update)
        except _OtherVerdict:
            return False
        return True

    def _keep(self, connection: Connection, update: CaseUpdate) -> None:
        """Everything beside the row itself."""
        case = update.case
        if update.picture is not None:
            connection.execute(self._upserts.picture, rows.picture_row(update.picture))
        if update.findings is not None and (parts := rows.findings_rows(case, update.findings)):
            connection.execute(self._upserts.findings, parts)
        if update.verdict is not None:
            self._judge(connection, case, update.verdict)
        if update.decisions:
            connection.execute(sql.DECIDE, [rows.decision_row(decision) for decision in update.decisions])
        if update.event is not None:
            connection.execute(sql.TELL, rows.event_row(update.event))
        if update.forget_findings:
            connection.execute(sql.FORGET, {"tenant": case.tenant, "case_id": case.id})
        if update.known_fake is not None:
            self._mark(connection, case, is_fake=update.known_fake)

    def _judge(self, connection: Connection, case: Case, verdict: Verdict) -> None:
        """Keeps the verdict, or finds the same one there already; raises `_OtherVerdict`."""
        row = rows.verdict_row(case.tenant, verdict)
        if connection.execute(self._upserts.verdict, row).rowcount == 1:
            return
        stored = connection.execute(sql.VERDICT, {name: value for name, value in row.items() if name != "body"}).scalar()
        if stored is None or not same_judgement(from_json(stored), from_json(row["body"])):
            raise _OtherVerdict

    def _mark(self, connection: Connection, case: Case, *, is_fake: bool) -> None:
        """Puts the case's picture among those that near-duplicates are looked for, or takes it out."""
        key = {"tenant": case.tenant, "sha256": case.sha256}
        if not is_fake:
            connection.execute(sql.FAKE_NO_MORE, key)
            return
        row = connection.execute(sql.PICTURE, key).mappings().first()
        if row is not None and row["phash"]:
            parts = [{**key, "band": band, "phash": row["phash"]} for band in bands(row["phash"])]
            connection.execute(self._upserts.fake, parts)

    def claim_due(self, now: datetime, limit: int, quiet: timedelta) -> Sequence[Case]:
        """See `CaseStore.claim_due`."""
        asked = {**_moment(now), "most": limit, "quiet": quiet // timedelta(microseconds=1)}
        with self._transaction() as connection:
            found = [rows.case_of(row) for row in connection.execute(sql.CLAIM_DUE, asked).mappings()]
        return sorted(found, key=lambda case: (case.due_at, case.id))

    def near(self, tenant: str, phash: str, most: int) -> Sequence[Near]:
        """See `CaseStore.near`."""
        with self._reading() as connection:
            found = connection.execute(sql.NEAR, {"tenant": tenant, "bands": list(bands(phash))}).all()
        matches = (Near(row.sha256, distance(phash, row.phash)) for row in found)
        return sorted((match for match in matches if match.distance <= most), key=lambda m: (m.distance, m.sha256))

    def progress(self, tenant: str, batch: str) -> Mapping[State, int]:
        """See `CaseStore.progress`."""
        with self._reading() as connection:
            return {
                State(state): count for state, count in connection.execute(sql.PROGRESS, {"tenant": tenant, "batch": batch})
            }

    def verdicts(self, tenant: str) -> Iterator[Verdict]:
        """See `CaseStore.verdicts`; reads by pages, so that no transaction stays open while the caller works."""
        last = 0
        while True:
            with self._reading() as connection:
                page = connection.execute(sql.VERDICTS, {"tenant": tenant, "after": last, "most": _PAGE}).all()
            yield from (from_json(row.body) for row in page)
            if len(page) < _PAGE:
                return
            last = page[-1].number

    def outbox(self, limit: int) -> Sequence[Event]:
        """See `CaseStore.outbox`."""
        with self._reading() as connection:
            return [rows.event_of(row) for row in connection.execute(sql.UNSENT, {"most": limit}).mappings()]

    def claim_events(self, now: datetime, limit: int, lease: timedelta) -> Sequence[Outgoing]:
        """See `CaseStore.claim_events`."""
        asked = {**_moment(now), "most": limit, "lease": rows.to_microseconds(now + lease)}
        with self._transaction() as connection:
            found: list[RowMapping] = list(connection.execute(sql.CLAIM_EVENTS, asked).mappings())
        return [rows.outgoing_of(row) for row in sorted(found, key=lambda row: row["number"])]

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
        values = {
            "event_id": event_id,
            "state": state.value,
            "attempts": attempts,
            "due_at": rows.to_microseconds(due_at),
            "taken_by": list(taken_by),
            "failure": rows.failure_json(failure),
        }
        with self._transaction() as connection:
            connection.execute(sql.SETTLE, values)


class _OtherVerdict(Exception):
    """These bytes were judged otherwise before; takes the transaction back."""


def _moment(now: datetime) -> dict[str, int]:
    return {"now": rows.to_microseconds(now), "never": rows.to_microseconds(now + CLOCK_WENT_BACK)}


def _case(connection: Connection, tenant: str, case_id: str) -> Case:
    # No id holds a NUL or a lone surrogate, and to ask Postgres for one is an error.
    known = {"tenant": tenant, "id": case_id if case_id.isprintable() else ""}
    row = connection.execute(sql.CASE, known).mappings().first()
    if row is None:
        raise UnknownCase(f"no case {case_id[:80]!r}")
    return rows.case_of(row)


def _verdict(connection: Connection, tenant: str, sha256: str, release: str, policy: str) -> Verdict | None:
    key = {"tenant": tenant, "sha256": sha256, "release": release, "policy": policy}
    body = connection.execute(sql.VERDICT, key).scalar()
    return None if body is None else from_json(body)


def _decisions(connection: Connection, tenant: str, case_id: str) -> Sequence[Decision]:
    found = connection.execute(sql.DECISIONS, {"tenant": tenant, "case_id": case_id})
    return [rows.decision_of(row) for row in found.mappings()]
