"""What one worker has written of a case need not be read back while it goes on with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unmask.core.domain import Case, CaseUpdate, Findings
from unmask.core.ports import CaseStore


class Remembering:
    """A `CaseStore` for the run of one case: answers `case` and `findings` from what this run wrote, the rest from the store.

    Nobody else's write can be overlooked: it makes the next commit fail (compare-and-set), and then all is forgotten.
    """

    def __init__(self, store: CaseStore) -> None:
        self._store = store
        self._case: Case | None = None
        self._findings: Findings | None = None

    def case(self, tenant: str, case_id: str) -> Case:
        """See `CaseStore.case`."""
        return self._case if self._case is not None else self._store.case(tenant, case_id)

    def findings(self, tenant: str, case_id: str) -> Findings:
        """See `CaseStore.findings`."""
        if self._findings is None:
            self._findings = self._store.findings(tenant, case_id)
        return self._findings

    def commit(self, expected: Case, update: CaseUpdate) -> bool:
        """See `CaseStore.commit`."""
        known, self._case, self._findings = self._findings, None, None
        if not self._store.commit(expected, update):
            return False
        self._case = update.case
        if known is not None and update.findings is not None:
            new = {name: part for name in Findings.__slots__ if (part := getattr(update.findings, name)) is not None}
            self._findings = replace(known, **new)
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
