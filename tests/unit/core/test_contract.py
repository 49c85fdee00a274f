"""The contract unmask.verdict/1 as JSON: the exact shape, round trips, what is refused."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.samples import FINDINGS, NOW, a_case, a_verdict
from unmask.core.contract import error_json, findings_from_json, findings_to_json, from_json, to_json
from unmask.core.domain import (
    Action,
    Claim,
    Classified,
    Defence,
    FaceRow,
    FaceVerdict,
    Findings,
    Label,
    Localized,
    ModelVersion,
    Named,
    Reason,
    Region,
    Verdict,
)
from unmask.core.errors import StoreCorrupt

FIELDS = [
    *["schema", "path", "id", "sha256", "width", "height", "label", "score", "doubt", "action", "faces", "provenance"],
    *["release", "models", "policy", "reasons", "runtime", "timings_ms"],
]
FACE_FIELDS = [
    *["box", "landmarks", "label", "score", "doubt", "synthetic", "manipulated", "generator", "defence", "regions"],
]
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCORE = st.integers(0, 10_000).map(lambda n: round(n / 10_000, 4))
PIXEL = st.integers(-100_000, 2_000_000).map(lambda n: round(n / 100, 2))
SHARES = st.dictionaries(TEXT, SCORE, max_size=3)
SOME_SCORE, SOME_SHARES = st.none() | SCORE, st.none() | SHARES
DEFENCES = st.none() | st.builds(Defence, SCORE, SCORE)
NAMED = st.builds(Named, TEXT, TEXT)


def points(least: int, most: int, number: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    """Tuples of so many points."""
    return st.lists(st.tuples(number, number), min_size=least, max_size=most).map(tuple)


REGIONS = st.lists(st.builds(Region, points(3, 6, PIXEL), SCORE, TEXT, SCORE), max_size=2).map(tuple)
FACES = st.builds(
    FaceVerdict,
    st.tuples(PIXEL, PIXEL, PIXEL, PIXEL),
    points(5, 5, PIXEL),
    st.sampled_from(Label),
    *[SOME_SCORE] * 4,
    SOME_SHARES,
    DEFENCES,
    REGIONS,
)
VERDICTS = st.builds(
    Verdict,
    id=TEXT,
    sha256=TEXT,
    width=st.integers(1, 50_000),
    height=st.integers(1, 50_000),
    label=st.sampled_from(Label),
    score=SOME_SCORE,
    doubt=SOME_SCORE,
    action=st.sampled_from(Action),
    faces=st.lists(FACES, max_size=2).map(tuple),
    claims=st.lists(st.builds(Claim, TEXT, TEXT, TEXT), max_size=2).map(tuple),
    release=NAMED,
    models=st.lists(st.builds(ModelVersion, TEXT, st.integers(1, 99), TEXT), max_size=2).map(tuple),
    policy=NAMED,
    reasons=st.lists(st.builds(Reason, TEXT, TEXT, st.none() | st.integers(0, 9)), max_size=2).map(tuple),
    runtime=st.dictionaries(TEXT, TEXT, max_size=2),
    timings_ms=st.dictionaries(TEXT, st.floats(0, 1e6), max_size=2),
    path=st.none() | TEXT,
)
EXACT = st.floats(allow_nan=False, allow_infinity=False)
SOME_EXACT = st.none() | EXACT
FOUND = st.builds(
    Findings,
    st.none() | st.lists(st.builds(FaceRow, st.tuples(*[EXACT] * 4), points(5, 5, EXACT), EXACT), max_size=2).map(tuple),
    st.none()
    | st.lists(
        st.builds(
            Classified,
            SOME_EXACT,
            st.none() | st.dictionaries(TEXT, EXACT, max_size=2),
            st.none() | st.builds(Defence, EXACT, EXACT),
            SOME_EXACT,
        ),
        max_size=2,
    ).map(tuple),
    st.none()
    | st.lists(
        st.builds(
            Localized,
            SOME_EXACT,
            st.lists(st.builds(Region, points(3, 4, EXACT), EXACT, TEXT, EXACT), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
)


@given(VERDICTS)
def test_a_verdict_survives_json(verdict: Verdict) -> None:
    assert from_json(json.loads(json.dumps(to_json(verdict), allow_nan=False))) == verdict


@given(FOUND)
def test_findings_survive_json_to_the_last_bit(found: Findings) -> None:
    assert findings_from_json(json.loads(json.dumps(findings_to_json(found), allow_nan=False))) == found


def test_the_exact_shape() -> None:
    case = a_case(id="1")
    whole = a_verdict(case, path="a.jpg", faces=a_verdict(case).faces[1:], score=0.123456, doubt=0.00004)
    face = replace(whole.faces[0], box=(1.005, 2.0, 3.14159, 4.0), generator={"stylegan2": 0.66666})
    body = to_json(replace(whole, faces=(face,)))
    assert list(body) == FIELDS
    assert (body["schema"], body["score"], body["doubt"]) == ("unmask.verdict/1", 0.1235, 0.0)
    assert body["provenance"] == {"claims": [{"kind": "exif", "field": "Software", "value": "naïve editor 2"}]}
    assert body["release"] == {"name": "first", "sha256": "b" * 64}
    assert body["models"] == [{"name": "detector", "version": 1, "sha256": "e" * 64}]
    assert body["reasons"][0] == {"code": "manipulated", "text": "a region was changed", "face": 0}
    found = body["faces"][0]
    assert list(found) == FACE_FIELDS
    assert found["box"] == [1.0, 2.0, 3.14, 4.0] and found["generator"] == {"stylegan2": 0.6667}
    assert found["defence"] == {"plain": 0.1, "blurred": 0.2} and found["regions"] == []


def test_a_region_and_what_is_unset() -> None:
    found = to_json(a_verdict(a_case()))["faces"][0]
    assert found["regions"][0] == {
        "polygon": [[1.5, 2.25], [30.0, 2.0], [30.0, 40.0]],
        "score": 0.9,
        "name": "mouth",
        "area": 0.04,
    }
    nothing = replace(a_verdict(a_case()).faces[0], score=None, synthetic=None, manipulated=None, generator=None)
    body = to_json(a_verdict(a_case(), faces=(nothing,), score=None))
    unset = {name for name, value in body["faces"][0].items() if value is None}
    assert unset == {"score", "synthetic", "manipulated", "generator", "defence"}
    assert body["score"] is None and "path" not in body


def test_numbers_of_numpy_become_plain_ones() -> None:
    case = a_case()
    body = to_json(a_verdict(case, score=np.float32(0.5)))
    found = findings_to_json(Findings(classified=(Classified(np.float32(0.25)),)))  # type: ignore[arg-type]
    assert json.dumps([body["score"], found["classified"][0]["synthetic"]]) == "[0.5, 0.25]"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_never_written(value: float) -> None:
    with pytest.raises(ValueError, match="no number"):
        to_json(a_verdict(a_case(), score=value))
    with pytest.raises(ValueError, match="no number"):
        findings_to_json(Findings(localized=(Localized(value),)))


def test_an_error_line() -> None:
    assert error_json("b.txt", "bad_image", "no picture") == {"path": "b.txt", "error": "bad_image", "detail": "no picture"}


BROKEN: list[tuple[list[Any], object, str]] = [
    (["schema"], "unmask.verdict/2", "'unmask.verdict/2'"),
    (["label"], "fake", "fake"),
    (["score"], "0.9", "'0.9' is no number"),
    (["score"], True, "True is no number"),
    (["width"], 1.5, "whole number"),
    (["faces", 0, "box"], [1, 2, 3], "unpack"),
    (["faces", 0, "landmarks"], [[1, "x"]], "'x' is no number"),
    (["faces", 0, "regions"], None, "NoneType"),
    (["models", 0, "version"], None, "whole number"),
    (["release"], "first", "str"),
    (["runtime"], [], "list"),
    (["reasons", 0, "face"], "0", "whole number"),
    (["path"], 7, "no text"),
]


@pytest.mark.parametrize(("place", "value", "why"), BROKEN)
def test_what_is_broken_is_named(place: list[Any], value: object, why: str) -> None:
    body = copy.deepcopy(to_json(a_verdict(a_case(created_at=NOW))))
    inner: Any = body
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(StoreCorrupt, match=why):
        from_json(body)


@pytest.mark.parametrize("field", sorted(to_json(a_verdict(a_case()))))
def test_a_missing_field_is_named(field: str) -> None:
    body = to_json(a_verdict(a_case()))
    del body[field]
    with pytest.raises(StoreCorrupt, match=field):
        from_json(body)


@pytest.mark.parametrize("body", [[], "text", None])
def test_what_is_no_object_is_refused(body: Any) -> None:
    for read in (from_json, findings_from_json):
        with pytest.raises(StoreCorrupt):
            read(body)


def test_broken_findings_are_named() -> None:
    body = findings_to_json(FINDINGS)
    body["faces"][0]["landmarks"].pop()
    with pytest.raises(StoreCorrupt, match="findings"):
        findings_from_json(body)
