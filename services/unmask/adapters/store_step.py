"""The commit of a step that moves a case on as one statement of Postgres, which is a transaction by itself.

BEGIN, UPDATE, INSERT and COMMIT are four round trips, and those cost both sides more than what is done in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from unmask.adapters import store_rows as rows
from unmask.adapters.store_statements import Upserts, as_text, same
from unmask.adapters.store_tables import cases, findings, pictures
from unmask.core.domain import Case, CaseUpdate

# What a step changes of a case's row; the rest is as it was accepted.
_CHANGES: Final = (
    *("due_at", "stage", "state", "revision", "attempts", "failure", "sha256", "timings_ms", "hint_at", "hints"),
    *("label", "action"),
)


def is_step(update: CaseUpdate) -> bool:
    """Whether the update is the row and what a stage found, and nothing that ends or judges the case."""
    beside = (update.verdict, update.event, update.known_fake)
    return not update.decisions and not update.forget_findings and all(found is None for found in beside)


class StepCommits:
    """Commits such updates; the statements, one for each set of rows, are built when first needed."""

    def __init__(self, upserts: Upserts) -> None:
        self._upserts = {pictures: upserts.statements["picture"], findings: upserts.statements["findings"]}
        self._known: dict[tuple[bool, int], sa.TextClause] = {}

    def commit(self, connection: Connection, expected: Case, update: CaseUpdate) -> bool:
        """Whether the row was still the expected one; nothing is written where it was not."""
        case = rows.case_row(update.case)
        values = {
            "old_tenant": expected.tenant,
            "old_id": expected.id,
            "old_stage": expected.stage.value,
            "old_revision": expected.revision,
        } | {f"new_{name}": case[name] for name in _CHANGES}
        parts = [] if update.findings is None else rows.findings_rows(update.case, update.findings)
        for number, part in enumerate(parts):
            values |= _named(findings, number, part)
        if update.picture is not None:
            values |= _named(pictures, 0, rows.picture_row(update.picture))
        return connection.execute(self._statement(update.picture is not None, len(parts)), values).scalar() == 1

    def _statement(self, has_picture: bool, parts: int) -> sa.TextClause:
        key = has_picture, parts
        if key not in self._known:
            moved = _move()
            asked = sa.select(sa.func.count()).select_from(moved)
            kept = [self._kept(pictures, 0, moved)] if has_picture else []
            kept += [self._kept(findings, number, moved) for number in range(parts)]
            self._known[key] = as_text(asked.add_cte(*kept) if kept else asked, "postgresql")
        return self._known[key]

    def _kept(self, table: sa.Table, number: int, moved: sa.CTE) -> sa.CTE:
        """A row of the table, written where the case has moved."""
        row = sa.select(*(bindparam(_name(table, number, c.name), type_=c.type) for c in table.c)).where(
            sa.exists(moved.select())
        )
        kept: sa.CTE = self._upserts[table].from_select(list(table.c), row).cte(_name(table, number, "kept"))
        return kept


def _move() -> sa.CTE:
    """The compare-and-set."""
    held = same(cases, tenant="old_tenant", id="old_id", stage="old_stage", revision="old_revision")
    changes = {name: bindparam(f"new_{name}", type_=cases.c[name].type) for name in _CHANGES}
    return sa.update(cases).where(held).values(changes).returning(sa.literal_column("1").label("one")).cte("moved")


def _name(table: sa.Table, number: int, column: str) -> str:
    return f"{table.name}{number}_{column}"


def _named(table: sa.Table, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    return {_name(table, number, name): value for name, value in row.items()}
