"""What every ReviewStore promises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.adapters import Backends, postgres, sqlite
from tests.contract.samples import NOW, a_case, a_decision, a_picture, a_verdict, an_event
from unmask.adapters.store_review import SqlReview
from unmask.adapters.store_sql import SqlStore
from unmask.core.domain import Action, Case, CaseUpdate, Decision, Label, Stage, State
from unmask.core.ids import new_case_id
from unmask.core.review import CaseFilter, Order, SampleFilter, Standing, Truth


@dataclass
class Rows:
    """A store and the reviewers' view of it."""

    store: SqlStore
    reviews: SqlReview

    def add(self, tenant: str = "default", at: datetime = NOW, sha256: str = "", **fields: Any) -> Case:
        """A decided case: by the policy, action `review`, label `synthetic` unless told otherwise."""
        case = self.store.accept(a_case(tenant, id=new_case_id(at), created_at=at, batch=fields.pop("batch", "")))
        told = {"label": Label.SYNTHETIC, "action": Action.REVIEW, "state": State.DECIDED, **fields}
        sha256 = sha256 or case.id.replace("-", "").ljust(64, "0")
        row = replace(case, stage=Stage.DECIDED, revision=1, sha256=sha256, **told)
        action: Action = told["action"]
        update = CaseUpdate(
            row,
            picture=a_picture(tenant, sha256=sha256, blob_key=f"{tenant}/pictures/{sha256}"),
            verdict=a_verdict(case, sha256=sha256, action=action),
            decisions=(a_decision(row, action),),
            event=an_event(row),
        )
        assert self.store.commit(case, update)
        return row

    def say(self, case: Case, decision: Decision, **fields: Any) -> Case:
        """One more decision."""
        row = replace(case, revision=case.revision + 1, action=decision.action, truth=decision.truth, **fields)
        assert self.store.commit(case, CaseUpdate(row, decisions=(decision,)))
        return row

    def confirm(self, case: Case, truth: Truth, generator: str = "", at: datetime = NOW) -> Case:
        """A reviewer's word."""
        said = Decision(case.id, case.tenant, "reviewer:zoë", Action.BLOCK, "confirmed", truth.value, "", at, generator)
        return self.say(case, said, reviewed=True)

    def appeal(self, case: Case) -> Case:
        """Somebody asks for another look."""
        said = Decision(case.id, case.tenant, "appeal", Action.REVIEW, "says_real", "", "", NOW)
        return self.say(case, said, reviewed=False)

    def ids(self, wanted: CaseFilter, after: str = "", limit: int = 100, tenant: str = "default") -> list[str]:
        """The page's ids."""
        return [case.id for case in self.reviews.cases(tenant, wanted, after, limit)]

    def samples(self, tenant: str = "default", **wanted: Any) -> list[tuple[str, str, str]]:
        """Case, truth and generator of each sample."""
        found = self.reviews.samples(tenant, SampleFilter(**wanted))
        return [(sample.case.id, sample.decision.truth, sample.decision.generator) for sample in found]


@pytest.fixture(params=["sqlite-file", "postgres"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rows]:
    made = sqlite(tmp_path) if request.param == "sqlite-file" else postgres(Backends(tmp_path, request))
    with closing(made) as store:
        yield Rows(store, SqlReview(store.database))


class TestCases:
    """Lists of cases."""

    def test_what_waits_comes_oldest_first_and_whole(self, rows: Rows) -> None:
        late = rows.add(at=NOW + timedelta(hours=1))
        early = rows.add(at=NOW - timedelta(hours=1))
        assert list(rows.reviews.cases("default", CaseFilter(), "", 10)) == [early, late]
        assert rows.ids(CaseFilter(order=Order.NEWEST)) == [late.id, early.id]

    def test_standing(self, rows: Rows) -> None:
        waits, passed, said, appealed = (rows.add(at=NOW + timedelta(seconds=n)) for n in range(4))
        passed = rows.say(passed, a_decision(passed, Action.ALLOW))
        rows.confirm(said, Truth.SYNTHETIC)
        rows.appeal(rows.confirm(appealed, Truth.REAL))
        rows.store.accept(a_case())  # on its way: nothing to look at yet
        rows.add(state=State.ERASED)
        rows.add(state=State.FAILED, action=Action.REVIEW)
        assert rows.ids(CaseFilter()) == [waits.id, appealed.id]
        assert rows.ids(CaseFilter(Standing.DECIDED)) == [said.id]
        assert rows.ids(CaseFilter(Standing.ALL)) == [waits.id, passed.id, said.id, appealed.id]

    def test_label_action_and_batch(self, rows: Rows) -> None:
        one = rows.add(batch="monday")
        two = rows.add(at=NOW + timedelta(seconds=1), label=Label.REAL, action=Action.ALLOW, batch="monday")
        three = rows.add(at=NOW + timedelta(seconds=2), label=Label.UNSURE)
        every = Standing.ALL
        assert rows.ids(CaseFilter(every, batch="monday")) == [one.id, two.id]
        assert rows.ids(CaseFilter(every, label=Label.UNSURE)) == [three.id]
        assert rows.ids(CaseFilter(every, action=Action.ALLOW)) == [two.id]
        assert rows.ids(CaseFilter(every, Label.REAL, Action.ALLOW, "monday")) == [two.id]
        assert rows.ids(CaseFilter(every, Label.REAL, Action.REVIEW, "monday")) == []
        assert rows.ids(CaseFilter(label=Label.SYNTHETIC)) == [one.id]
        assert rows.ids(CaseFilter(action=Action.BLOCK)) == []  # nothing that is blocked waits

    @pytest.mark.parametrize("order", Order)
    def test_since_is_when_they_were_submitted(self, rows: Rows, order: Order) -> None:
        old, new, newest = (rows.add(at=NOW + timedelta(hours=n)) for n in range(3))
        every = [case.id for case in (old, new, newest)]
        for since, left in ((NOW - timedelta(days=9), every), (new.created_at, every[1:]), (NOW + timedelta(days=9), [])):
            wanted = CaseFilter(order=order, since=since)
            assert rows.ids(wanted) == sorted(left, reverse=order is Order.NEWEST)
        wanted = CaseFilter(order=order, since=new.created_at)
        first = rows.ids(wanted, limit=1)
        assert sorted(first + rows.ids(wanted, first[-1])) == every[1:]

    @pytest.mark.parametrize("order", Order)
    def test_pages_hold_every_case_once(self, rows: Rows, order: Order) -> None:
        made = [rows.add(at=NOW + timedelta(milliseconds=n // 3)).id for n in range(23)]  # some share their millisecond
        seen: list[str] = []
        while page := rows.ids(CaseFilter(order=order), seen[-1] if seen else "", 5):
            seen += page
        assert seen == sorted(made, reverse=order is Order.NEWEST)

    def test_a_case_that_comes_meanwhile_moves_no_other(self, rows: Rows) -> None:
        made = [rows.add(at=NOW + timedelta(seconds=n)).id for n in range(4)]
        first = rows.ids(CaseFilter(), "", 2)
        rows.confirm(rows.store.case("default", made[0]), Truth.REAL)
        rows.add(at=NOW - timedelta(seconds=9))
        assert first + rows.ids(CaseFilter(), first[-1], 9) == made

    def test_nobody_sees_anothers(self, rows: Rows) -> None:
        ours, theirs = rows.add(batch="b"), rows.add("other", batch="b")
        for wanted in (CaseFilter(), CaseFilter(Standing.ALL), CaseFilter(Standing.ALL, batch="b")):
            assert rows.ids(wanted) == [ours.id]
            assert rows.ids(wanted, after=min(ours.id, theirs.id), tenant="third") == []


class TestSamples:
    """The pictures that people have confirmed."""

    def test_what_a_reviewer_says_is_a_sample(self, rows: Rows) -> None:
        case = rows.confirm(rows.add(), Truth.SYNTHETIC, "stylegan2")
        rows.add()
        (sample,) = rows.reviews.samples("default", SampleFilter())
        assert sample.case == case
        assert sample.picture == rows.store.picture("default", case.sha256)
        assert sample.decision == rows.store.decisions("default", case.id)[-1]
        assert (sample.decision.generator, sample.decision.actor) == ("stylegan2", "reviewer:zoë")

    def test_by_truth_generator_and_time(self, rows: Rows) -> None:
        hour = timedelta(hours=1)
        old = rows.confirm(rows.add(), Truth.SYNTHETIC, "stylegan2", NOW)
        new = rows.confirm(rows.add(), Truth.SYNTHETIC, "flux", NOW + hour)
        part = rows.confirm(rows.add(), Truth.MANIPULATED, "", NOW + hour)
        real = rows.confirm(rows.add(), Truth.REAL, "", NOW)
        rows.confirm(rows.add(), Truth.UNKNOWN)
        assert [case for case, _, _ in rows.samples()] == [old.id, new.id, part.id, real.id]
        assert rows.samples(truth=Truth.REAL) == [(real.id, "real", "")]
        assert rows.samples(truth=Truth.UNKNOWN) == []
        assert rows.samples(generator="flux") == [(new.id, "synthetic", "flux")]
        assert [case for case, _, _ in rows.samples(since=NOW + hour)] == [new.id, part.id]
        assert rows.samples(since=NOW + hour, generator="stylegan2") == []

    def test_the_last_word_counts(self, rows: Rows) -> None:
        case = rows.confirm(rows.add(), Truth.SYNTHETIC, "stylegan2")
        rows.confirm(case, Truth.MANIPULATED, "photoshop")
        assert rows.samples() == [(case.id, "manipulated", "photoshop")]
        assert rows.samples(truth=Truth.SYNTHETIC) == []  # not the one before it

    def test_the_last_word_of_a_picture_counts_over_its_cases(self, rows: Rows) -> None:
        first, second = rows.add(sha256="a" * 64), rows.add(sha256="a" * 64)
        first = rows.confirm(first, Truth.SYNTHETIC)
        assert rows.samples() == [(first.id, "synthetic", "")]  # the policy's word about another case is none
        second = rows.confirm(second, Truth.REAL)
        assert rows.samples() == [(second.id, "real", "")]
        third = rows.appeal(rows.add(sha256="a" * 64))
        assert rows.samples() == []  # in doubt
        third = rows.confirm(third, Truth.MANIPULATED)
        assert rows.samples() == [(third.id, "manipulated", "")]
        rows.confirm(first, Truth.UNKNOWN)
        assert rows.samples() == []

    def test_appealed_sent_back_and_erased_are_none(self, rows: Rows) -> None:
        appealed = rows.appeal(rows.confirm(rows.add(), Truth.SYNTHETIC))
        back = rows.confirm(rows.add(), Truth.SYNTHETIC)
        rows.say(back, replace(rows.store.decisions("default", back.id)[-1], action=Action.REVIEW), reviewed=False)
        erased = rows.confirm(rows.add(), Truth.SYNTHETIC)
        assert rows.store.commit(erased, CaseUpdate(replace(erased, revision=9, state=State.ERASED)))
        assert rows.samples() == []
        rows.confirm(appealed, Truth.MANIPULATED)
        assert rows.samples() == [(appealed.id, "manipulated", "")]

    def test_more_than_a_page(self, rows: Rows) -> None:
        made = [rows.confirm(rows.add(), Truth.REAL).id for _ in range(203)]
        assert [case for case, _, _ in rows.samples()] == made

    def test_nobody_sees_anothers(self, rows: Rows) -> None:
        ours = rows.confirm(rows.add(sha256="a" * 64), Truth.SYNTHETIC, "flux")
        rows.appeal(rows.confirm(rows.add("other", sha256="a" * 64), Truth.REAL))  # says nothing about ours
        assert rows.samples() == [(ours.id, "synthetic", "flux")]
        assert rows.samples("third") == []
