"""ReviewStore over SQLAlchemy Core: lists of cases by keyset, and the pictures that people have confirmed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import ColumnElement, RowMapping, bindparam

from unmask.adapters import store_rows as rows
from unmask.adapters.database import Database
from unmask.adapters.store_tables import cases, decisions, pictures
from unmask.core.domain import Action, Case, State
from unmask.core.ids import first_case_id
from unmask.core.review import APPEAL_ACTOR, CaseFilter, Order, Sample, SampleFilter, Standing, Truth

_PAGE: Final = 200


def _said_since(case: sa.Table, decision: sa.Table) -> ColumnElement[bool]:
    """Whether a person said something of the same picture after this decision."""
    other, later = cases.alias("other"), decisions.alias("later")
    # One within the other: in a join SQLite would begin with all later decisions, of whatever case.
    said = sa.exists(later.c.number).where(
        later.c.tenant == other.c.tenant,
        later.c.case_id == other.c.id,
        later.c.number > decision.c.number,
        # Reviewers always say what the picture is; policies and near-duplicates never do.
        (later.c.truth != "") | (later.c.actor == APPEAL_ACTOR),
    )
    said = said.correlate(other, decision)
    return sa.exists(other.c.id).where(other.c.tenant == case.c.tenant, other.c.sha256 == case.c.sha256, said)


def _labelled(table: sa.Table) -> list[ColumnElement[Any]]:
    """The table's columns under names of their own: three tables share some."""
    return [column.label(f"{table.name}_{column.name}") for column in table.c]


_SAMPLES: Final = (
    sa.select(*_labelled(cases), *_labelled(pictures), *_labelled(decisions))
    .select_from(decisions)
    .join(cases, (cases.c.tenant == decisions.c.tenant) & (cases.c.id == decisions.c.case_id))
    .join(pictures, (pictures.c.tenant == cases.c.tenant) & (pictures.c.sha256 == cases.c.sha256))
    .where(
        decisions.c.tenant == bindparam("tenant"),
        decisions.c.number > bindparam("after"),
        decisions.c.truth.in_(bindparam("truths", expanding=True)),
        decisions.c.at >= bindparam("since", type_=sa.BigInteger),
        (bindparam("generator", type_=sa.String) == "") | (decisions.c.generator == bindparam("generator")),
        cases.c.state == State.DECIDED.value,
        cases.c.reviewed == sa.true(),
        ~_said_since(cases, decisions),
    )
    .order_by(decisions.c.number)
    .limit(_PAGE)
)


@cache
def _listing(asked: frozenset[str], newest: bool) -> sa.Select[Any]:
    """Decided cases by the columns that are asked for; built once for each shape."""
    statement = sa.select(cases).where(cases.c.tenant == bindparam("tenant"), cases.c.state == State.DECIDED.value)
    for name in sorted(asked - {"after", "first"}):
        statement = statement.where(cases.c[name] == bindparam(name))
    if "after" in asked:
        last = bindparam("after", type_=sa.String)
        statement = statement.where(cases.c.id < last if newest else cases.c.id > last)
    if "first" in asked:
        # By the id, which sorts by time: the primary key finds it.
        statement = statement.where(cases.c.id >= bindparam("first", type_=sa.String))
    order = cases.c.id.desc() if newest else cases.c.id
    return statement.order_by(order).limit(bindparam("most", type_=sa.Integer))


class SqlReview:
    """The port `ReviewStore`; single reads, thread-safe."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def cases(self, tenant: str, wanted: CaseFilter, after: str, limit: int) -> Sequence[Case]:
        """See `ReviewStore.cases`."""
        action = wanted.action
        if wanted.standing is Standing.WAITING:
            if action not in {None, Action.REVIEW}:
                return ()  # what waits is in review
            action = Action.REVIEW
        first = "" if wanted.since is None else first_case_id(wanted.since)
        values: dict[str, Any] = {
            "label": wanted.label,
            "action": action,
            "batch": wanted.batch,
            "after": after,
            "first": first,
        }
        asked: dict[str, Any] = {name: str(value) for name, value in values.items() if value}
        if wanted.standing is not Standing.ALL:
            asked["reviewed"] = wanted.standing is Standing.DECIDED
        statement = _listing(frozenset(asked), wanted.order is Order.NEWEST)
        with self.database.reading() as connection:
            found = connection.execute(statement, {**asked, "tenant": tenant, "most": limit})
            return [rows.case_of(row) for row in found.mappings()]

    def samples(self, tenant: str, wanted: SampleFilter) -> Iterator[Sample]:
        """See `ReviewStore.samples`; reads by pages, so that nothing stays open while the caller works."""
        asked: dict[str, Any] = {
            "tenant": tenant,
            "truths": [truth.value for truth in Truth if truth is not Truth.UNKNOWN and wanted.truth in {None, truth}],
            "since": 0 if wanted.since is None else rows.to_microseconds(wanted.since),
            "generator": wanted.generator,
            "after": 0,
        }
        while True:
            with self.database.reading() as connection:
                page: list[RowMapping] = list(connection.execute(_SAMPLES, asked).mappings())
            yield from map(_sample_of, page)
            if len(page) < _PAGE:
                return
            asked["after"] = page[-1]["decisions_number"]


def _sample_of(row: RowMapping) -> Sample:
    return Sample(
        rows.case_of(_columns(row, "cases_")),
        rows.picture_of(_columns(row, "pictures_")),
        rows.decision_of(_columns(row, "decisions_")),
    )


def _columns(row: RowMapping, prefix: str) -> Any:
    """One table's columns of a joined row, by their own names."""
    found: Mapping[str, Any] = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
    return found
