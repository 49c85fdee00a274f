"""What reviewers see and say over the wire: nothing is lost, what is unset stays unset or has its default."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.samples import a_case, a_decision, a_verdict
from unmask.core.batches import BatchProgress
from unmask.core.domain import Action, Claim, Decision, Label, Media, Stage, State
from unmask.core.errors import BadRequest
from unmask.core.review import CaseFile, CaseFilter, Order, Ruling, Standing, Truth
from unmask.rpc import asking
from unmask.rpc import convert_review as convert
from unmask.rpc.convert import CaseStatus
from unmask.rpc.convert_review import ReviewCase
from unmask.v1 import ingestion_pb2
from unmask.v1 import review_pb2 as pb

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Protobuf's own limits, year 1 to 9999.
times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
whole = st.integers(0, 2**31 - 1)
cases = st.builds(
    ReviewCase,
    status=st.builds(CaseStatus, text, st.sampled_from(Stage), st.sampled_from(State)),
    created_at=times,
    label=st.none() | st.sampled_from(Label),
    action=st.none() | st.sampled_from(Action),
    truth=st.none() | st.sampled_from(Truth),
    reviewed=st.booleans(),
    revision=whole,
    batch=text,
    labels=st.dictionaries(text, text, max_size=3),
    media=st.builds(Media, text, text),
)
decisions = st.builds(
    Decision,
    case_id=st.just("c"),
    tenant=st.just(""),
    actor=text,
    action=st.sampled_from(Action),
    reason=text,
    truth=st.sampled_from(["", *(truth.value for truth in Truth)]),
    note=text,
    at=times,
    generator=text,
)
rulings = st.builds(Ruling, st.sampled_from(Action), text, st.sampled_from(Truth), text, text, st.none() | whole)
filters = st.builds(
    CaseFilter,
    st.sampled_from(Standing),
    st.none() | st.sampled_from(Label),
    st.none() | st.sampled_from(Action),
    text,
    st.sampled_from(Order),
)


def over_the_wire(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


@given(cases)
def test_a_case_comes_back_as_it_was(case: ReviewCase) -> None:
    assert convert.case_from(over_the_wire(convert.case_to(case))) == case


@given(decisions)
def test_a_decision_comes_back_as_it_was(decision: Decision) -> None:
    assert convert.decision_from(over_the_wire(convert.decision_to(decision)), "c") == decision


@given(rulings)
def test_a_ruling_comes_back_as_it_was(ruling: Ruling) -> None:
    assert convert.ruling_from(over_the_wire(convert.ruling_to("c", ruling))) == ruling


@given(filters)
def test_a_filter_comes_back_as_it_was(wanted: CaseFilter) -> None:
    assert convert.filter_from(over_the_wire(convert.filter_to(wanted, 3, "t"))) == wanted


def test_a_row_is_told_whole() -> None:
    row = replace(a_case(), label=Label.REAL, action=Action.ALLOW, truth="real", reviewed=True, revision=7, batch="b")
    case = ReviewCase.of(row)
    assert (case.label, case.action, case.truth, case.reviewed, case.revision) == (
        Label.REAL,
        Action.ALLOW,
        Truth.REAL,
        True,
        7,
    )
    assert (case.batch, case.labels, case.media, case.created_at) == ("b", row.labels, row.media, row.created_at)
    assert case.status == CaseStatus.of(row)


def test_a_file_comes_back_as_it_was() -> None:
    row = replace(a_case(), state=State.DECIDED)
    file = CaseFile(row, a_verdict(row), (a_decision(row),), (Claim("xmp", "Tool", "x\udcff"),), None)
    told = convert.file_from(over_the_wire(convert.file_to(file, "https://s3.example/x")))
    assert (told.verdict, told.picture_url) == (file.verdict, "https://s3.example/x")
    assert told.decisions == (replace(file.decisions[0], tenant=""),)
    assert told.claims == (Claim("xmp", "Tool", "x\\udcff"),)
    nothing = convert.file_from(over_the_wire(convert.file_to(CaseFile(a_case(), None, (), (), None), "")))
    assert (nothing.verdict, nothing.decisions, nothing.claims) == (None, (), ())


def test_what_is_unset() -> None:
    assert convert.filter_from(pb.ListCasesRequest()) == CaseFilter(Standing.WAITING, None, None, "", Order.OLDEST)
    for lacking in (pb.DecideRequest(truth=pb.TRUTH_REAL), pb.DecideRequest(action=1)):  # type: ignore[arg-type]
        with pytest.raises(BadRequest, match=r"action|truth"):
            convert.ruling_from(lacking)
    with pytest.raises(BadRequest, match="standing"):
        convert.filter_from(pb.ListCasesRequest(standing=9))  # type: ignore[arg-type]
    zero = pb.DecideRequest(action=1, truth=1, revision=0)  # type: ignore[arg-type]
    assert convert.ruling_from(zero).revision == 0


@pytest.mark.parametrize(("kind", "names"), [(pb.Standing, Standing), (pb.Order, Order), (pb.Truth, Truth)])
def test_every_name_has_a_value(kind: Any, names: Any) -> None:
    stems = {f"{names.__name__.upper()}_{name.name}" for name in names}
    assert {name for name in kind.keys() if not name.endswith("_UNSPECIFIED")} == stems  # noqa: SIM118


def test_progress_of_a_batch() -> None:
    message = ingestion_pb2.GetBatchResponse(name="b", total=5, done=0.6)
    for state, count in ((1, 2), (2, 3)):
        message.states.add(state=state, cases=count)  # type: ignore[arg-type]
    batch = asking.batch_from(over_the_wire(message))
    assert batch == BatchProgress("b", {State.OPEN: 2, State.DECIDED: 3})
    assert (batch.total, batch.ended, batch.done) == (5, 3, 0.6)
    assert BatchProgress("b", {}).done is None
