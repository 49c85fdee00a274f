"""The statements of the case store, built once: SQLAlchemy takes longer to build one than SQLite to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import ColumnElement, bindparam
from sqlalchemy.dialects import postgresql, sqlite

from unmask.adapters.store_tables import cases, decisions, findings, outbox, pictures, verdicts
from unmask.core.domain import State

# The two spell `ON CONFLICT` alike, but SQLAlchemy keeps it with the dialect.
INSERT: Final[Mapping[str, Callable[[sa.Table], Any]]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def _same(table: sa.Table, **columns: str) -> ColumnElement[bool]:
    """Whether each column has the value of the named parameter."""
    return sa.and_(*(table.c[column] == bindparam(parameter) for column, parameter in columns.items()))


CASE: Final = sa.select(cases).where(_same(cases, tenant="tenant", id="id"))
# A case without a key is found by its id alone: null is equal to nothing.
ACCEPTED: Final = sa.select(cases).where(
    _same(cases, tenant="tenant"), _same(cases, id="id") | _same(cases, idempotency_key="idempotency_key")
)
# The row's own columns are set from the parameters of their names.
MOVE: Final = sa.update(cases).where(_same(cases, tenant="old_tenant", id="old_id", stage="old_stage", revision="old_revision"))
DUE: Final = (
    sa.select(cases)
    .where(cases.c.state == State.OPEN.value, cases.c.due_at <= bindparam("now"))
    .order_by(cases.c.due_at, cases.c.id)
    .limit(bindparam("most", type_=sa.Integer))
)
PICTURE: Final = sa.select(pictures).where(_same(pictures, tenant="tenant", sha256="sha256"))
FINDINGS: Final = sa.select(findings.c.part, findings.c.body).where(_same(findings, tenant="tenant", case_id="case_id"))
VERDICT: Final = sa.select(verdicts.c.body).where(
    _same(verdicts, tenant="tenant", sha256="sha256", release="release", policy="policy")
)
VERDICTS: Final = (
    sa.select(verdicts.c.number, verdicts.c.body)
    .where(_same(verdicts, tenant="tenant"), verdicts.c.number > bindparam("after"))
    .order_by(verdicts.c.number)
    .limit(bindparam("most", type_=sa.Integer))
)
DECISIONS: Final = sa.select(decisions).where(_same(decisions, tenant="tenant", case_id="case_id")).order_by(decisions.c.number)
DECIDE: Final = sa.insert(decisions)
TELL: Final = sa.insert(outbox)
UNSENT: Final = sa.select(outbox).where(outbox.c.sent == 0).order_by(outbox.c.number).limit(bindparam("most", type_=sa.Integer))
SENT: Final = sa.update(outbox).where(outbox.c.id.in_(bindparam("ids", expanding=True))).values(sent=1)


class Upserts:
    """The inserts that a row already there decides, in the words of one database."""

    def __init__(self, dialect: str) -> None:
        insert = INSERT[dialect]
        self.accept = insert(cases).on_conflict_do_nothing()
        self.picture = insert(pictures).on_conflict_do_nothing()
        self.verdict = insert(verdicts).on_conflict_do_nothing()
        newer = insert(findings)
        self.findings = newer.on_conflict_do_update(
            index_elements=["tenant", "case_id", "part"], set_={"body": newer.excluded.body}
        )
