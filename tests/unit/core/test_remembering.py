"""What a worker need not read back: its own writes, until somebody else was faster."""

from __future__ import annotations

from typing import Any

from tests.contract.samples import FINDINGS, a_case, moved
from unmask.adapters.store_memory import MemoryStore
from unmask.core.domain import CaseUpdate, Findings, Stage
from unmask.core.remembering import Remembering


class Counting(MemoryStore):
    """Counts the readings that reach it."""

    reads = 0

    def case(self, tenant: str, case_id: str) -> Any:
        """Counts."""
        self.reads += 1
        return super().case(tenant, case_id)

    def findings(self, tenant: str, case_id: str) -> Findings:
        """Counts."""
        self.reads += 1
        return super().findings(tenant, case_id)


def test_its_own_writes_are_not_read_back() -> None:
    store = Counting()
    case = store.accept(a_case())
    own = Remembering(store)
    assert own.case("default", case.id) == case and own.findings("default", case.id) == Findings()
    row = moved(case, Stage.ALIGNED)
    assert own.commit(case, CaseUpdate(row, findings=Findings(faces=FINDINGS.faces)))
    after = moved(row, Stage.CLASSIFIED)
    assert own.commit(row, CaseUpdate(after, findings=Findings(classified=FINDINGS.classified)))
    assert own.case("default", case.id) == after and store.reads == 2
    both = Findings(FINDINGS.faces, FINDINGS.classified)
    assert own.findings("default", case.id) == both == store.findings("default", case.id)


def test_findings_that_were_never_read_are_read_from_the_store() -> None:
    store = Counting()
    case = store.accept(a_case())
    first = moved(case, Stage.CLASSIFIED)
    assert store.commit(case, CaseUpdate(first, findings=Findings(FINDINGS.faces, FINDINGS.classified)))
    own, row = Remembering(store), moved(first, Stage.ALIGNED)
    assert own.commit(first, CaseUpdate(row, findings=Findings(faces=())))
    assert own.findings("default", case.id) == Findings((), FINDINGS.classified)


def test_whoever_is_overtaken_reads_what_the_other_wrote() -> None:
    store = Counting()
    case = store.accept(a_case())
    own, row = Remembering(store), moved(case, Stage.INGESTED)
    assert own.commit(case, CaseUpdate(row))
    theirs = moved(row, Stage.ALIGNED)
    assert store.commit(row, CaseUpdate(theirs, findings=Findings(faces=FINDINGS.faces)))
    assert own.case("default", case.id) == row
    assert not own.commit(row, CaseUpdate(moved(row, Stage.ALIGNED), findings=Findings(faces=())))
    assert own.case("default", case.id) == theirs
    assert own.findings("default", case.id) == Findings(faces=FINDINGS.faces)
