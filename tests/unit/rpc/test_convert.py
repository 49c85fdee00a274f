"""Conversion to and from the wire: nothing is lost, what is unset stays unset, what is unknown is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.core.domain import (
    Action,
    BlobSource,
    BytesSource,
    Claim,
    Classified,
    Defence,
    FaceVerdict,
    Failure,
    Label,
    Localized,
    Media,
    ModelVersion,
    Named,
    Priority,
    Reason,
    Region,
    Stage,
    State,
    Submission,
    UrlSource,
    Verdict,
)
from unmask.core.errors import BadRequest
from unmask.rpc import convert
from unmask.rpc.convert import CaseStatus, FoundFace
from unmask.v1 import common_pb2 as pb

number = st.floats(allow_nan=False)
share = st.floats(0.0, 1.0)
maybe = st.none() | share
# Protobuf strings are Unicode: no lone surrogates.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
point = st.tuples(number, number)
box = st.tuples(number, number, number, number)
shares = st.none() | st.dictionaries(text, share, max_size=3)
defences = st.none() | st.builds(Defence, share, share)
regions = st.lists(st.builds(Region, st.lists(point, max_size=4).map(tuple), share, text, share), max_size=2).map(tuple)
faces = st.builds(
    FaceVerdict,
    box=box,
    landmarks=st.lists(point, min_size=5, max_size=5).map(tuple),
    label=st.sampled_from(Label),
    score=maybe,
    doubt=maybe,
    synthetic=maybe,
    manipulated=maybe,
    generator=shares,
    defence=defences,
    regions=regions,
)
whole = st.integers(0, 2**31 - 1)
verdicts = st.builds(
    Verdict,
    id=text,
    sha256=text,
    width=whole,
    height=whole,
    label=st.sampled_from(Label),
    score=maybe,
    doubt=maybe,
    action=st.sampled_from(Action),
    faces=st.lists(faces, max_size=3).map(tuple),
    claims=st.lists(st.builds(Claim, text, text, text), max_size=2).map(tuple),
    release=st.builds(Named, text, text),
    models=st.lists(st.builds(ModelVersion, text, whole, text), max_size=3).map(tuple),
    policy=st.builds(Named, text, text),
    reasons=st.lists(st.builds(Reason, text, text, st.none() | st.integers(0, 40)), max_size=3).map(tuple),
    runtime=st.dictionaries(text, text, max_size=3),
    timings_ms=st.dictionaries(text, share, max_size=3),
    path=st.none() | text,
)
sources = st.builds(BytesSource, st.binary(max_size=20)) | st.builds(BlobSource, text) | st.builds(UrlSource, text)


def over_the_wire(message: Any) -> Any:
    """What the other side reads."""
    return type(message).FromString(message.SerializeToString())


@given(verdicts)
def test_verdict_comes_back_as_it_was(verdict: Verdict) -> None:
    assert convert.verdict_from(over_the_wire(convert.verdict_to(verdict))) == verdict


@given(st.builds(Classified, maybe, shares, defences, maybe))
def test_classification_comes_back_as_it_was(found: Classified) -> None:
    assert convert.classified_from(over_the_wire(convert.classified_to(found))) == found


@given(st.builds(Localized, maybe, regions))
def test_localization_comes_back_as_it_was(found: Localized) -> None:
    assert convert.localized_from(over_the_wire(convert.localized_to(found))) == found


@given(st.builds(FoundFace, box, st.lists(point, max_size=5).map(tuple), maybe))
def test_found_face_comes_back_as_it_was(face: FoundFace) -> None:
    assert convert.found_face_from(over_the_wire(convert.found_face_to(face))) == face


@given(
    st.builds(
        CaseStatus,
        id=text,
        stage=st.sampled_from(Stage),
        state=st.sampled_from(State),
        attempts=st.integers(0, 9),
        failure=st.none() | st.builds(Failure, text, text),
        sha256=text,
    )
)
def test_status_comes_back_as_it_was(status: CaseStatus) -> None:
    assert convert.status_from(over_the_wire(convert.status_to(status))) == status


@given(
    st.builds(
        Submission,
        tenant=st.just("mine"),
        source=sources,
        idempotency_key=text,
        media=st.builds(Media, st.just("image"), text),
        labels=st.dictionaries(text, text, max_size=3),
        callback=text,
        priority=st.sampled_from(Priority),
        batch=text,
    )
)
def test_submission_comes_back_as_it_was_but_for_its_tenant(asked: Submission) -> None:
    message = over_the_wire(convert.submission_to(asked))
    assert convert.submission_from(message, "mine") == asked
    assert convert.submission_from(message, "theirs").tenant == "theirs"


def test_unset_is_not_zero() -> None:
    unset = over_the_wire(convert.classified_to(Classified(synthetic=None)))
    zero = over_the_wire(convert.classified_to(Classified(synthetic=0.0, generator={}, doubt=0.0)))
    assert convert.classified_from(unset) == Classified(None, None, None, None)
    assert convert.classified_from(zero) == Classified(0.0, {}, None, 0.0)


@pytest.mark.parametrize("number", [0, 99])
def test_a_label_that_is_unset_or_new_is_refused_never_taken_for_another(number: int) -> None:
    with pytest.raises(BadRequest, match="label: value"):
        convert.verdict_from(pb.Verdict(label=number, action=pb.ACTION_ALLOW))  # type: ignore[arg-type]


def test_what_must_be_set_is_named() -> None:
    with pytest.raises(BadRequest, match=r"Region\.score is not set"):
        convert.localized_from(pb.Localization(regions=[pb.Region(name="mouth", area=0.1)]))
    with pytest.raises(BadRequest, match="source is not set"):
        convert.submission_from(pb.Submission(idempotency_key="k"), "default")


def test_a_submission_of_an_older_client_is_live() -> None:
    older = pb.Submission(source=pb.Source(url="https://a.example/"))
    assert convert.submission_from(older, "mine").priority is Priority.LIVE
    with pytest.raises(BadRequest, match="priority"):
        convert.submission_from(pb.Submission(source=older.source, priority=7), "mine")  # type: ignore[arg-type]


def test_text_that_is_not_unicode_is_escaped() -> None:
    status = CaseStatus("i", Stage.ACCEPTED, State.FAILED, failure=Failure("bad_image", "file \udcff"))
    failure = convert.status_from(over_the_wire(convert.status_to(status))).failure
    assert failure == Failure("bad_image", "file \\udcff")


def test_every_name_has_a_value() -> None:
    for kind, names in ((pb.Label, Label), (pb.Action, Action), (pb.Stage, Stage), (pb.State, State), (pb.Priority, Priority)):
        stems = {f"{names.__name__.upper()}_{name.name}" for name in names}
        assert {name for name in kind.keys() if not name.endswith("_UNSPECIFIED")} == stems  # noqa: SIM118
