"""The statements of the case store, built once: SQLAlchemy takes longer to build one than SQLite to run it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.dialects import postgresql, sqlite

from unmask.adapters.store_tables import cases, decisions, findings, known_fakes, outbox, pictures, verdicts
from unmask.core.domain import EventState, State

# The two spell `ON CONFLICT` alike, but SQLAlchemy keeps it with the dialect.
INSERT: Final[Mapping[str, Callable[[sa.Table], Any]]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_NAMED: Final[Mapping[str, sa.Dialect]] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": postgresql.dialect(paramstyle="named"),  # type: ignore[no-untyped-call]
}
_CAST: Final = re.compile(r"(?<=\w)::\w+")


def same(table: sa.Table, **columns: str) -> ColumnElement[bool]:
    """Whether each column has the value of the named parameter."""
    return sa.and_(*(table.c[column] == bindparam(parameter) for column, parameter in columns.items()))


CASE: Final = sa.select(cases).where(same(cases, tenant="tenant", id="id"))
# A case without a key is found by its id alone: null is equal to nothing.
ACCEPTED: Final = sa.select(cases).where(
    same(cases, tenant="tenant"), same(cases, id="id") | same(cases, idempotency_key="idempotency_key")
)
# The row's own columns are set from the parameters of their names.
MOVE: Final = sa.update(cases).where(same(cases, tenant="old_tenant", id="old_id", stage="old_stage", revision="old_revision"))
PICTURE: Final = sa.select(pictures).where(same(pictures, tenant="tenant", sha256="sha256"))
FINDINGS: Final = sa.select(findings.c.part, findings.c.body).where(same(findings, tenant="tenant", case_id="case_id"))
VERDICT: Final = sa.select(verdicts.c.body).where(
    same(verdicts, tenant="tenant", sha256="sha256", release="release", policy="policy")
)
VERDICTS: Final = (
    sa.select(verdicts.c.number, verdicts.c.body)
    .where(same(verdicts, tenant="tenant"), verdicts.c.number > bindparam("after"))
    .order_by(verdicts.c.number)
    .limit(bindparam("most", type_=sa.Integer))
)
DECISIONS: Final = sa.select(decisions).where(same(decisions, tenant="tenant", case_id="case_id")).order_by(decisions.c.number)
DECIDE: Final = sa.insert(decisions)
TELL: Final = sa.insert(outbox)
FORGET: Final = sa.delete(findings).where(same(findings, tenant="tenant", case_id="case_id"))
PROGRESS: Final = (
    sa.select(cases.c.state, sa.func.count()).where(same(cases, tenant="tenant", batch="batch")).group_by(cases.c.state)
)
NEAR: Final = (
    sa.select(known_fakes.c.sha256, known_fakes.c.phash)
    .distinct()
    .where(same(known_fakes, tenant="tenant"), known_fakes.c.band.in_(bindparam("bands", expanding=True)))
    .limit(1000)
)
FAKE_NO_MORE: Final = sa.delete(known_fakes).where(same(known_fakes, tenant="tenant", sha256="sha256"))
UNSENT: Final = (
    sa.select(outbox)
    .where(outbox.c.state == EventState.PENDING.value)
    .order_by(outbox.c.number)
    .limit(bindparam("most", type_=sa.Integer))
)
SETTLE: Final = sa.update(outbox).where(same(outbox, id="event_id"), outbox.c.state == EventState.PENDING.value)


def _parameter(name: str) -> sa.BindParameter[int]:
    return bindparam(name, type_=sa.BigInteger)


def _is_due(column: sa.Column[int]) -> ColumnElement[bool]:
    """Due, or due later than anything is ever put off: written before the clock went back."""
    return (column <= _parameter("now")) | (column > _parameter("never"))


# What one sweeper or relay takes another leaves alone (`SKIP LOCKED` where there is such a thing).
_DUE: Final = (
    sa.select(cases.c.tenant, cases.c.id)
    .where(cases.c.state == State.OPEN.value, _is_due(cases.c.hint_at))
    .order_by(cases.c.hint_at, cases.c.id)
    .limit(bindparam("most", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)
# Twice as long after each hint, to 32 times.
_TIMES: Final = sa.case(*((cases.c.hints == number, 1 << number) for number in range(5)), else_=32)
CLAIM_DUE: Final = (
    sa.update(cases)
    .where(sa.tuple_(cases.c.tenant, cases.c.id).in_(_DUE))
    .values(
        hints=cases.c.hints + 1,
        hint_at=bindparam("now", type_=sa.BigInteger) + bindparam("quiet", type_=sa.BigInteger) * _TIMES,
    )
    .returning(cases)
)
_older: Final = outbox.alias("older")
_DUE_EVENTS: Final = (
    sa.select(outbox.c.id)
    .where(
        outbox.c.state == EventState.PENDING.value,
        _is_due(outbox.c.due_at),
        ~sa.exists().where(
            _older.c.tenant == outbox.c.tenant,
            _older.c.case_id == outbox.c.case_id,
            _older.c.number < outbox.c.number,
            _older.c.state == EventState.PENDING.value,
        ),
    )
    .order_by(outbox.c.due_at, outbox.c.number)
    .limit(bindparam("most", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)
CLAIM_EVENTS: Final = sa.update(outbox).where(outbox.c.id.in_(_DUE_EVENTS)).values(due_at=bindparam("lease")).returning(outbox)


class Upserts:
    """The inserts that a row already there decides, in the words of one database."""

    def __init__(self, dialect: str) -> None:
        insert = INSERT[dialect]
        picture = insert(pictures)  # locks the row that is there, so that an erasure meanwhile waits
        newer = insert(findings)
        self.statements: Final[Mapping[str, Any]] = {
            "accept": insert(cases).on_conflict_do_nothing(),
            "picture": picture.on_conflict_do_update(
                index_elements=["tenant", "sha256"], set_={"blob_key": picture.excluded.blob_key}
            ),
            "verdict": insert(verdicts).on_conflict_do_nothing(),
            "fake": insert(known_fakes).on_conflict_do_nothing(),
            "findings": newer.on_conflict_do_update(
                index_elements=["tenant", "case_id", "part"], set_={"body": newer.excluded.body}
            ),
        }
        self.accept, self.picture, self.verdict, self.fake, self.findings = (
            as_text(statement, dialect) for statement in self.statements.values()
        )


def as_text(statement: Any, dialect: str) -> sa.TextClause:
    """The statement as text with the same parameters.

    SQLAlchemy keeps what it has compiled, but not where there is an `ON CONFLICT`: that it compiles at each execution,
    which takes longer than all else.
    """
    if isinstance(statement, sa.Insert):
        columns = [column.name for column in statement.table.columns if column.autoincrement is not True]
        compiled = statement.inline().compile(dialect=_NAMED[dialect], column_keys=columns)
    else:
        compiled = statement.compile(dialect=_NAMED[dialect])
    parameters = (bindparam(name, type_=parameter.type) for name, parameter in compiled.binds.items())
    # Without the casts of parameters (`:body::JSON`), which text does not read and which come back with their types.
    return sa.text(_CAST.sub("", str(compiled))).bindparams(*parameters)
