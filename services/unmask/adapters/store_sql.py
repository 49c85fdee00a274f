"""CaseStore over SQLAlchemy Core: a SQLite file or memory now, any database it speaks to by its URL."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Table, create_engine, event, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from unmask.adapters import store_rows as rows
from unmask.adapters.store_tables import (
    SCHEMA_VERSION,
    cases,
    decisions,
    findings,
    metadata,
    outbox,
    pictures,
    schema,
    verdicts,
)
from unmask.core.contract import findings_from_json, findings_to_json, from_json, to_json
from unmask.core.domain import Case, CaseUpdate, Decision, Event, Findings, PictureInfo, State, Verdict
from unmask.core.errors import BadConfig, IdempotencyConflict, Unavailable, UnknownCase

_PAGE: Final = 500


class SqlStore:
    """The port `CaseStore`; one transaction a method, thread-safe."""

    def __init__(self, url: str, **engine: Any) -> None:
        self._engine = create_engine(url, **engine)
        self._sqlite = self._engine.dialect.name == "sqlite"
        # SQLite has one writer; waiting here is cheaper and fairer than its busy loop.
        self._turn = threading.RLock() if self._sqlite else None
        if self._sqlite:
            event.listen(self._engine, "connect", _pragmas)
        self._create()

    @classmethod
    def in_memory(cls) -> SqlStore:
        """A store that is gone with the process."""
        return cls("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()

    def _create(self) -> None:
        with self._transaction() as connection:
            if not inspect(connection).has_table(schema.name):
                metadata.create_all(connection)
                connection.execute(insert(schema).values(version=SCHEMA_VERSION))
            version = connection.execute(select(schema.c.version)).scalar()
        if version != SCHEMA_VERSION:
            raise BadConfig(f"the case store has schema version {version}, this program needs {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            if self._turn is None:
                with self._engine.begin() as connection:
                    yield connection
            else:
                with self._turn, self._engine.begin() as connection:
                    yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise Unavailable(f"case store: {getattr(error, 'orig', None) or error}") from error

    def accept(self, case: Case) -> Case:
        """See `CaseStore.accept`."""
        try:
            with self._transaction() as connection:
                connection.execute(insert(cases), rows.case_row(case))
            return case
        except IntegrityError:
            stored = self._by_key(case)
        if stored.body_sha256 != case.body_sha256:
            raise IdempotencyConflict(f"idempotency key {case.idempotency_key!r} was used for another request")
        return stored

    def _by_key(self, case: Case) -> Case:
        found = (cases.c.tenant == case.tenant) & (cases.c.idempotency_key == case.idempotency_key)
        with self._transaction() as connection:
            row = connection.execute(select(cases).where(found)).mappings().first()
        if row is None:
            raise Unavailable(f"case store: case {case.id} could neither be written nor found")
        return rows.case_of(row)

    def case(self, tenant: str, case_id: str) -> Case:
        """See `CaseStore.case`."""
        with self._transaction() as connection:
            return _case(connection, tenant, case_id)

    def picture(self, tenant: str, sha256: str) -> PictureInfo | None:
        """See `CaseStore.picture`."""
        wanted = (pictures.c.tenant == tenant) & (pictures.c.sha256 == sha256)
        with self._transaction() as connection:
            row = connection.execute(select(pictures).where(wanted)).mappings().first()
        return None if row is None else rows.picture_of(row)

    def findings(self, tenant: str, case_id: str) -> Findings:
        """See `CaseStore.findings`."""
        wanted = (findings.c.tenant == tenant) & (findings.c.case_id == case_id)
        with self._transaction() as connection:
            parts = connection.execute(select(findings.c.part, findings.c.body).where(wanted)).all()
        return findings_from_json({part: body for part, body in parts})

    def verdict(self, tenant: str, sha256: str, release: str, policy: str) -> Verdict | None:
        """See `CaseStore.verdict`."""
        with self._transaction() as connection:
            return _verdict(connection, (tenant, sha256, release, policy))

    def verdict_of(self, tenant: str, case_id: str) -> Verdict | None:
        """See `CaseStore.verdict_of`."""
        with self._transaction() as connection:
            case = _case(connection, tenant, case_id)
            verdict = _verdict(connection, (tenant, case.sha256, case.release, case.policy))
            if case.state is not State.DECIDED or verdict is None:
                return None
            last = _decisions(connection, tenant, case_id)[-1]
        return replace(verdict, id=case.id, action=last.action, timings_ms=case.timings_ms)

    def decisions(self, tenant: str, case_id: str) -> Sequence[Decision]:
        """See `CaseStore.decisions`."""
        with self._transaction() as connection:
            return _decisions(connection, tenant, case_id)

    def commit(self, expected: Case, change: CaseUpdate) -> bool:
        """See `CaseStore.commit`."""
        case = change.case
        row = rows.case_row(case)
        same = (cases.c.tenant == case.tenant) & (cases.c.id == case.id)
        unmoved = (cases.c.stage == expected.stage.value) & (cases.c.revision == expected.revision)
        with self._transaction() as connection:
            if connection.execute(update(cases).where(same & unmoved).values(row)).rowcount != 1:
                return False
            _keep(connection, change)
        return True

    def due(self, now: datetime, limit: int) -> Sequence[Case]:
        """See `CaseStore.due`."""
        waiting = (cases.c.state == State.OPEN.value) & (cases.c.due_at <= rows.to_microseconds(now))
        query = select(cases).where(waiting).order_by(cases.c.due_at, cases.c.id).limit(limit)
        with self._transaction() as connection:
            return [rows.case_of(row) for row in connection.execute(query).mappings()]

    def verdicts(self, tenant: str) -> Iterator[Verdict]:
        """See `CaseStore.verdicts`; reads by pages, so that no transaction stays open while the caller works."""
        order = (verdicts.c.created_at, verdicts.c.sha256, verdicts.c.release, verdicts.c.policy)
        query = select(verdicts.c.body).where(verdicts.c.tenant == tenant).order_by(*order)
        page = 0
        while True:
            with self._transaction() as connection:
                bodies = connection.execute(query.limit(_PAGE).offset(page * _PAGE)).scalars().all()
            yield from map(from_json, bodies)
            page += 1
            if len(bodies) < _PAGE:
                return

    def outbox(self, limit: int) -> Sequence[Event]:
        """See `CaseStore.outbox`."""
        query = select(outbox).where(outbox.c.sent == 0).order_by(outbox.c.number).limit(limit)
        with self._transaction() as connection:
            return [rows.event_of(row) for row in connection.execute(query).mappings()]

    def sent(self, event_ids: Iterable[str]) -> None:
        """See `CaseStore.sent`."""
        with self._transaction() as connection:
            connection.execute(update(outbox).where(outbox.c.id.in_(list(event_ids))).values(sent=1))


def _pragmas(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _case(connection: Connection, tenant: str, case_id: str) -> Case:
    wanted = (cases.c.tenant == tenant) & (cases.c.id == case_id)
    row = connection.execute(select(cases).where(wanted)).mappings().first()
    if row is None:
        raise UnknownCase(f"no case {case_id!r}")
    return rows.case_of(row)


def _verdict(connection: Connection, key: tuple[str, str, str, str]) -> Verdict | None:
    columns = (verdicts.c.tenant, verdicts.c.sha256, verdicts.c.release, verdicts.c.policy)
    query = select(verdicts.c.body).where(*(column == value for column, value in zip(columns, key, strict=True)))
    body = connection.execute(query).scalar()
    return None if body is None else from_json(body)


def _decisions(connection: Connection, tenant: str, case_id: str) -> Sequence[Decision]:
    wanted = (decisions.c.tenant == tenant) & (decisions.c.case_id == case_id)
    query = select(decisions).where(wanted).order_by(decisions.c.number)
    return [rows.decision_of(row) for row in connection.execute(query).mappings()]


def _keep(connection: Connection, change: CaseUpdate) -> None:
    """Everything beside the row itself."""
    case, verdict = change.case, change.verdict
    if change.picture is not None:
        _insert_absent(connection, pictures, rows.picture_row(change.picture))
    if change.findings is not None:
        for part, body in findings_to_json(change.findings).items():
            row = {"tenant": case.tenant, "case_id": case.id, "part": part, "body": body}
            _insert_absent(connection, findings, row)
    if verdict is not None:
        key = {"sha256": verdict.sha256, "release": verdict.release.sha256, "policy": verdict.policy.sha256}
        stamp = {"created_at": rows.to_microseconds(case.created_at), "body": to_json(verdict)}
        _insert_absent(connection, verdicts, {"tenant": case.tenant} | key | stamp)
    if change.decision is not None:
        connection.execute(insert(decisions), rows.decision_row(change.decision))
    if change.event is not None:
        connection.execute(insert(outbox), rows.event_row(change.event))


def _insert_absent(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    """Inserts unless the primary key is there: what is stored under it is immutable.

    A savepoint makes it safe against another writer between the two on any database.
    """
    key = [column == row[column.name] for column in table.primary_key.columns]
    if connection.execute(select(*table.primary_key.columns).where(*key)).first() is not None:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(table), row)
    except IntegrityError:
        return


