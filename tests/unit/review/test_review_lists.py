"""Pages by token, and one case whole; nobody reaches another tenant's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.contract.samples import a_case, a_picture
from tests.unit.review.offices import FAKE, MAX, STRANGER, ZOE, Office
from unmask.adapters.store_sql import SqlStore
from unmask.core.domain import CaseUpdate, State
from unmask.core.errors import BadRequest, UnknownCase, UnmaskError
from unmask.core.review import CaseFilter, Order, Standing
from unmask.review.handler import appeal, decide, list_cases, look


@pytest.fixture
def office() -> Iterator[Office]:
    with closing(SqlStore.in_memory()) as store:
        yield Office(store)


class TestListsAndLooks:
    """Pages by token, and one case whole."""

    def test_tokens_lead_through_all_pages(self, office: Office) -> None:
        made = {office.case().id for _ in range(7)}
        seen, token, pages = [], "", 0
        while True:
            page = list_cases(office.desk, ZOE, CaseFilter(), 3, token)
            seen += [case.id for case in page.cases]
            pages, token = pages + 1, page.next_token
            if not token:
                break
        assert seen == sorted(made) and pages == 3
        assert not list_cases(office.desk, ZOE, CaseFilter(), 7).next_token  # nothing after it, so no empty page

    @pytest.mark.parametrize("token", ["!", "AAAA", "YTpi", "\udc80", "é", "x" * 999])
    def test_what_is_no_token(self, office: Office, token: str) -> None:
        with pytest.raises(BadRequest, match="page_token"):
            list_cases(office.desk, ZOE, CaseFilter(), 3, token)

    def test_a_token_of_another_filter(self, office: Office) -> None:
        for _ in range(2):
            office.case()
        token = list_cases(office.desk, ZOE, CaseFilter(), 1).next_token
        for wanted in (CaseFilter(order=Order.NEWEST), CaseFilter(Standing.ALL), CaseFilter(batch="b")):
            with pytest.raises(BadRequest, match="another filter"):
                list_cases(office.desk, ZOE, wanted, 1, token)

    @pytest.mark.parametrize("size", [-1, 501])
    def test_what_is_no_size(self, office: Office, size: int) -> None:
        with pytest.raises(BadRequest, match="page_size"):
            list_cases(office.desk, ZOE, CaseFilter(), size)

    def test_a_look_shows_everything(self, office: Office) -> None:
        case = office.case()
        decide(office.desk, ZOE, case.id, FAKE)
        file = look(office.desk, MAX, case.id)
        assert file.case == office.store.case("default", case.id)
        assert file.verdict == office.store.verdict_of("default", case.id)
        assert [decision.actor for decision in file.decisions] == ["policy", "reviewer:token:zoë"]
        assert file.picture == a_picture() and file.claims == a_picture().claims

    def test_a_look_at_what_has_no_verdict_and_at_what_is_erased(self, office: Office) -> None:
        case = office.store.accept(a_case())
        assert look(office.desk, ZOE, case.id).verdict is None
        other = office.case()
        assert office.store.commit(other, CaseUpdate(replace(other, revision=9, state=State.ERASED)))
        file = look(office.desk, ZOE, other.id)
        assert (file.verdict, file.decisions, file.claims, file.picture) == (None, (), (), None)

    def test_nobody_reaches_anothers(self, office: Office) -> None:
        case = office.case()
        office.case()
        token = list_cases(office.desk, ZOE, CaseFilter(), 1).next_token
        assert token and list_cases(office.desk, STRANGER, CaseFilter(), 1, token).cases == ()
        tries: list[Callable[[], object]] = [
            lambda: look(office.desk, STRANGER, case.id),
            lambda: decide(office.desk, STRANGER, case.id, FAKE),
            lambda: appeal(office.desk, STRANGER, case.id, "says_real"),
            lambda: look(office.desk, ZOE, "no-such"),
            lambda: look(office.desk, ZOE, "nul\0"),
            lambda: decide(office.desk, ZOE, "", FAKE),
        ]
        for reach in tries:
            with pytest.raises(UnmaskError) as caught:
                reach()
            assert type(caught.value) is UnknownCase
        assert office.store.case("default", case.id) == case
