"""A desk over a real store in memory, and what the tests of review ask of it."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.contract.samples import a_case, a_picture, decided
from tests.unit.core.worlds import StillClock
from unmask.adapters.store_access import SqlAccess
from unmask.adapters.store_review import SqlReview
from unmask.adapters.store_sql import SqlStore
from unmask.core.access import AuditEntry, Caller, Scope
from unmask.core.domain import Action, Case, Label
from unmask.core.review import Ruling, Truth
from unmask.review.handler import Desk

ZOE, MAX = (Caller("default", frozenset({Scope.REVIEW}), name) for name in ("token:zoë", "token:max"))
STRANGER = Caller("other", frozenset({Scope.REVIEW}), "token:zoë")
FAKE = Ruling(Action.BLOCK, "confirmed", Truth.SYNTHETIC, "stylegan2", "hair runs into the ear")
REAL = Ruling(Action.ALLOW, "false_positive", Truth.REAL)
UNSURE = Ruling(Action.REVIEW, "second_opinion", Truth.UNKNOWN)


class Office:
    """A desk over a real store, and what a test asks of it."""

    def __init__(self, store: SqlStore) -> None:
        self.store, self.clock, self.access = store, StillClock(), SqlAccess(store.database)
        self.desk = Desk(store, SqlReview(store.database), self.clock, self.access.audit)

    def case(self, tenant: str = "default", phash: str = "") -> Case:
        """A case that waits for a reviewer."""
        case = self.store.accept(a_case(tenant))
        update = decided(case)
        row = replace(update.case, label=Label.MANIPULATED, action=Action.REVIEW)
        picture = a_picture(tenant, phash=phash)
        assert self.store.commit(case, replace(update, case=row, picture=picture))
        return row

    def said(self, case: Case) -> list[tuple[str, str]]:
        """Actor and reason of each decision."""
        return [(decision.actor, decision.reason) for decision in self.store.decisions(case.tenant, case.id)]

    def told(self, case: Case) -> list[dict[str, object]]:
        """Bodies of the `decision.made` events."""
        mine = (event for event in self.store.outbox(1000) if event.case_id == case.id)
        return [json.loads(event.body) for event in mine if event.kind == "decision.made"]

    def log(self) -> list[AuditEntry]:
        """The audit log, oldest first."""
        return list(self.access.audited(None, 1000))[::-1]
