"""Eraser over SQLAlchemy Core: tombstones, retention, and what refers to blobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection

from unmask.adapters import store_erase_statements as sql
from unmask.adapters import store_rows as rows
from unmask.adapters.database import Database
from unmask.adapters.store_statements import CASE, TELL
from unmask.adapters.store_tables import decisions, findings, known_fakes, outbox, shadow_scores
from unmask.core.contract import from_json, to_json
from unmask.core.domain import Case, State
from unmask.core.erasing import Erased, ErasureOrder, Selection, Subject, sha256_of
from unmask.core.errors import UnknownCase
from unmask.core.outcomes import event_of, without_landmarks
from unmask.core.submit import picture_key

# Ids in one statement: databases take so many parameters and no more.
_CHUNK: Final = 500
_ENDED: Final = (State.DECIDED.value, State.FAILED.value, State.DEAD.value)


class SqlEraser:
    """The port `Eraser`; one transaction a method, thread-safe."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._labelled = sql.labelled(database.dialect)

    def matching(self, tenant: str, selection: Selection, after: str, limit: int) -> Sequence[Case]:
        """See `Eraser.matching`."""
        if selection.case_id:
            return self._one(tenant, selection.case_id, after)
        asked: dict[str, Any] = {"owner": tenant, "after": after, "most": limit}
        if selection.label is not None:
            asked |= {"name": selection.label[0], "value": selection.label[1]}
        statement = self._labelled if selection.label is not None else sql.OF_PICTURE
        with self.database.reading() as connection:
            found = connection.execute(statement, asked | {"sha256": selection.sha256})
            return [rows.case_of(row) for row in found.mappings()]

    def _one(self, tenant: str, case_id: str, after: str) -> Sequence[Case]:
        with self.database.reading() as connection:
            row = connection.execute(CASE, {"tenant": tenant, "id": case_id}).mappings().first()
        if row is None:
            raise UnknownCase(f"no case {case_id!r}")
        return [] if after or row["state"] == State.ERASED.value else [rows.case_of(row)]

    def holdings(self, subject: Subject) -> Erased:
        """See `Eraser.holdings`."""
        with self.database.transaction() as connection:
            found = _cases(connection, subject)
            sha256 = subject.sha256 or next((sha256_of(case) for case in found), "")
            goes = bool(sha256) and not (subject.case_id and _living(connection, subject, sha256, found))
            pictures = sql.PICTURE_PARTS if goes else {}
            counts: dict[str, Any] = {
                part: _count(connection, sql.counted(table), subject.tenant, sha256) for part, table in pictures.items()
            }
            for part, table in (("decisions", decisions), ("events", outbox)):
                counts[part] = sum(_count(connection, sql.counted_of(table), subject.tenant, ids=ids) for ids in _chunks(found))
        return Erased(cases=len(found), **counts, blobs=_blobs(subject, found, sha256 if goes else ""))

    def erase(self, subject: Subject, order: ErasureOrder) -> Erased:
        """See `Eraser.erase`."""
        with self._alone() as connection:
            found = _cases(connection, subject)
            total = Erased(cases=len(found))
            for ids in _chunks(found):
                total += _emptied(connection, subject.tenant, ids, order)
            if found:
                connection.execute(TELL, [rows.event_row(_told(case, order)) for case in found])
            sha256 = subject.sha256 or next((sha256_of(case) for case in found), "")
            if not sha256:
                return replace(total, blobs=_blobs(subject, found, ""))
            # Whoever is just storing the same picture for another case has to be through before others are looked for.
            connection.execute(sql.LOCK_PICTURE, {"owner": subject.tenant, "sha256": sha256})
            if subject.case_id and _living(connection, subject, sha256, found):
                return replace(total, blobs=_blobs(subject, found, ""), shared=(sha256,))
            total += _without_picture(connection, subject.tenant, sha256)
        return replace(total, blobs=_blobs(subject, found, sha256))

    def referenced(self, tenant: str, keys: Sequence[str]) -> Set[str]:
        """See `Eraser.referenced`."""
        if not keys:
            return frozenset()
        asked = {"owner": tenant, "keys": list(keys), "sha256s": [key.rpartition("/")[2] for key in keys]}
        with self.database.transaction() as connection:
            # Cases first: one that is ingested meanwhile has its picture's row by the time that is looked for.
            found = {key for statement in sql.REFERENCES for key in connection.execute(statement, asked).scalars()}
        return found & set(keys)

    def expired(self, tenant: str, before: datetime, limit: int) -> Sequence[Case]:
        """See `Eraser.expired`; a case ended at most a minute before it would have been due again."""
        found: list[Case] = []
        with self.database.transaction() as connection:
            for state in _ENDED:
                asked = {"owner": tenant, "state": state, "before": rows.to_microseconds(before), "most": limit - len(found)}
                found += [rows.case_of(row) for row in connection.execute(sql.EXPIRED, asked).mappings()]
        return found

    def fade(self, tenant: str, before: datetime, limit: int) -> int:
        """See `Eraser.fade`."""
        asked = {"owner": tenant, "before": rows.to_microseconds(before), "most": limit, "states": list(_ENDED)}
        with self._alone() as connection:
            found = [rows.case_of(row) for row in connection.execute(sql.FADING, asked).mappings()]
            for case in found:
                _fade_verdict(connection, case)
            for ids in _chunks(found):
                connection.execute(sql.removed_of(findings), {"owner": tenant, "ids": ids})
        return len(found)

    def prune_events(self, before: datetime, limit: int) -> int:
        """See `Eraser.prune_events`."""
        with self._alone() as connection:
            result = connection.execute(sql.PRUNE_EVENTS, {"before": rows.to_microseconds(before), "most": limit})
            return result.rowcount

    def prune_usage(self, before: datetime) -> int:
        """See `Eraser.prune_usage`."""
        seconds = int(before.timestamp())
        asked = {"minute": f"minute:{seconds // 60}", "day": f"day:{seconds // 86_400}"}
        with self.database.transaction() as connection:
            return connection.execute(sql.PRUNE_USAGE, asked).rowcount

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A transaction whose reads hold: Postgres locks the rows, SQLite the file."""
        with self.database.transaction() as connection:
            if self.database.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection


def _cases(connection: Connection, subject: Subject) -> list[Case]:
    """The subject's cases that are not erased yet, locked.

    Those not read yet come first: one that is read meanwhile is then among the others.
    """
    asked = {"owner": subject.tenant, "sha256": subject.sha256, "id": subject.case_id}
    asked["key"] = picture_key(subject.tenant, subject.sha256)
    statements = (sql.LOCK_CASE,) if subject.case_id else (sql.LOCK_UNREAD, sql.LOCK_READ)
    return [rows.case_of(row) for statement in statements for row in connection.execute(statement, asked).mappings()]


def _living(connection: Connection, subject: Subject, sha256: str, found: Sequence[Case]) -> bool:
    """Whether cases other than these have the picture."""
    asked = {"owner": subject.tenant, "sha256": sha256, "key": picture_key(subject.tenant, sha256), "id": subject.case_id}
    return any(connection.execute(statement, asked).first() is not None for statement in sql.LIVING)


def _emptied(connection: Connection, tenant: str, ids: list[str], order: ErasureOrder) -> Erased:
    """Tombstones, and everything that hangs on the cases alone."""
    asked = {"owner": tenant, "ids": ids}
    failure = {"code": State.ERASED.value, "detail": f"{order.reason} by {order.actor}"}
    connection.execute(sql.TOMBSTONE, asked | {"why": failure})
    for table in (findings, shadow_scores):
        connection.execute(sql.removed_of(table), asked)
    decisions = connection.execute(sql.MUTE_DECISIONS, asked).rowcount
    return Erased(decisions=decisions, events=connection.execute(sql.removed_of(outbox), asked).rowcount)


def _without_picture(connection: Connection, tenant: str, sha256: str) -> Erased:
    asked = {"owner": tenant, "sha256": sha256}
    connection.execute(sql.removed(known_fakes), asked)
    counts = {part: connection.execute(sql.removed(table), asked).rowcount for part, table in sql.PICTURE_PARTS.items()}
    return Erased(pictures=counts["pictures"], verdicts=counts["verdicts"])


def _told(case: Case, order: ErasureOrder) -> Any:
    """What receivers hear, once, in place of whatever had not gone out."""
    body = {"id": case.id, "reason": order.reason}
    return event_of(replace(case, revision=case.revision + 1), "case.erased", body, order.at)


def _blobs(subject: Subject, found: Sequence[Case], sha256: str) -> tuple[str, ...]:
    """The blobs to delete: of the picture where it goes, and of the uploads that the cases were made of."""
    uploads = f"{subject.tenant}/uploads/"
    own = [case.source_ref for case in found if case.source_kind == "blob" and case.source_ref.startswith(uploads)]
    return tuple(dict.fromkeys([*([picture_key(subject.tenant, sha256)] if sha256 else []), *own]))


def _fade_verdict(connection: Connection, case: Case) -> None:
    key = {"owner": case.tenant, "sha256": case.sha256, "release": case.release, "policy": case.policy}
    row = connection.execute(sql.NUMBERED_VERDICT, key).first()
    if row is None:
        return
    verdict = from_json(row.body)
    if any(face.landmarks for face in verdict.faces):
        connection.execute(sql.REWRITE_VERDICT, {"of": row.number, "text": to_json(without_landmarks(verdict))})


def _count(connection: Connection, statement: Any, tenant: str, sha256: str = "", ids: Sequence[str] = ()) -> int:
    count: int = connection.execute(statement, {"owner": tenant, **({"ids": ids} if ids else {"sha256": sha256})}).scalar_one()
    return count


def _chunks(found: Sequence[Case]) -> Iterator[list[str]]:
    ids = iter([case.id for case in found])
    while chunk := list(islice(ids, _CHUNK)):
        yield chunk
