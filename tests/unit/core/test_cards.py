"""Cards and releases: what is read, and that what is wrong is named."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.core.cards import Calibration, Card, Fusion, Release, logit_of, sigmoid
from unmask.core.errors import BadModel
from unmask.core.images import Border, View
from unmask.core.readouts import BlurDefence, DoubtMap, OpenSet

CARD: dict[str, Any] = {
    "schema": "unmask.card/1",
    "name": "detector",
    "version": 3,
    "task": "synthetic",
    "files": {"model.onnx": {"sha256": "ab" * 32, "bytes": 10}},
    "input": {
        "name": "image",
        "dtype": "uint8",
        "layout": "NHWC",
        "colour": "RGB",
        "view": "aligned",
        "size": 192,
        "margin": 1.1,
        "border": "reflect",
    },
    "outputs": [{"name": "synthetic", "dtype": "float32", "shape": [-1]}],
    "max_batch_size": 16,
    "classes": ["a", "b"],
    "calibration": {"temperature": 2.0, "bias": 0.5},
    "thresholds": {"fpr_0.01": 0.9},
}
RELEASE: dict[str, Any] = {
    "schema": "unmask.release/1",
    "name": "test",
    "models": {role: {"version": 1, "sha256": "cd" * 32} for role in ("face_detector", "detector", "localizer")},
    "fusion": {"slope": 0.8, "bias": 0.1},
    "thresholds": {
        "synthetic_real": 0.4,
        "synthetic": 0.6,
        "manipulated_real": 0.5,
        "manipulated": 0.7,
        "plainly_synthetic": 0.99,
        "min_face": 40,
    },
}


def card(**changes: Any) -> Card:
    """The sample card with top-level changes; None removes a field."""
    data = {key: value for key, value in {**copy.deepcopy(CARD), **changes}.items() if value is not None}
    return Card.parse(json.dumps(data).encode(), "ef" * 32, "here.json")


def test_card_is_read_whole() -> None:
    read = card()
    assert (read.name, read.version, read.max_batch_size, read.classes) == ("detector", 3, 16, ("a", "b"))
    assert read.input.shape == (-1, 192, 192, 3) and read.outputs[0].shape == (-1,)
    assert read.view is not None and (read.view.view, read.view.margin, read.view.border) == (View.ALIGNED, 1.1, Border.REFLECT)
    assert read.ref.sha256 == "ef" * 32


def test_a_canvas_model_has_no_view_and_any_side() -> None:
    canvas = {key: CARD["input"][key] for key in ("name", "dtype", "layout", "colour")} | {"view": "canvas"}
    read = card(input=canvas)
    assert read.view is None and read.input.shape == (-1, -1, -1, 3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": "unmask.card/9"}, "schema"),
        ({"version": "3"}, "version"),
        ({"version": True}, "version"),
        ({"files": {}}, "model.onnx"),
        ({"input": {**CARD["input"], "dtype": "float32"}}, "uint8"),
        ({"input": {**CARD["input"], "view": "sideways"}}, "sideways"),
        ({"input": {**CARD["input"], "margin": 0}}, "margin"),
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"calibration": {"temperature": 0.0, "bias": 0.0}}, "temperature"),
        ({"calibration": {"temperature": math.nan, "bias": 0.0}}, "temperature"),
        ({"outputs": None}, "outputs"),
    ],
)
def test_a_wrong_card_is_refused_by_file_and_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadModel, match=f"here.json.*{named}"):
        card(**changes)


KNOWING: dict[str, Any] = {
    "outputs": [
        {"name": name, "dtype": "float32", "shape": [-1]} for name in ("synthetic", "plain", "blurred", "family", "distance")
    ],
    "defence": {"sigma": 1.5, "combine": "mean"},
    "open_set": {"temperature": 2, "unknown": -0.5},
    "doubt": {"distances": [1, 2.5, 2.5], "doubts": [0, 0.5, 1]},
}


def test_the_sections_of_a_detector_s_further_outputs() -> None:
    read = card(**KNOWING)
    assert read.defence == BlurDefence(1.5, "mean") and read.open_set == OpenSet(2.0, -0.5)
    assert read.doubt == DoubtMap((1.0, 2.5, 2.5), (0.0, 0.5, 1.0))
    for unset in (card(), card(**KNOWING | dict.fromkeys(("defence", "open_set", "doubt")))):
        assert unset.defence is unset.open_set is unset.doubt is None
    null = json.dumps(CARD | {"doubt": None, "defence": None}).encode()
    assert Card.parse(null, "").doubt is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"defence": {"sigma": 0, "combine": "mean"}}, "defence: field 'sigma' must be positive"),
        ({"defence": {"sigma": 1.5}}, "defence: field 'combine'"),
        ({"defence": {"sigma": True, "combine": "mean"}}, "defence: field 'sigma'"),
        ({"defence": [1.5]}, "field 'defence'"),
        ({"open_set": {"temperature": -1, "unknown": 0}}, "open_set: field 'temperature' must be positive"),
        ({"open_set": {"temperature": 1, "unknown": math.inf}}, "open_set: field 'unknown' is not a finite number"),
        ({"open_set": {}}, "open_set: field 'temperature'"),
        ({"open_set": {"temperature": 1, "unknown": 0}, "classes": ["a", "unknown"]}, "field 'classes' names 'unknown'"),
        ({"doubt": {"distances": [1], "doubts": [1]}}, "doubt: 'distances' and 'doubts' must be as many, at least two"),
        ({"doubt": {"distances": [1, 2, 3], "doubts": [0, 1]}}, "as many"),
        ({"doubt": {"distances": [2, 1], "doubts": [0, 1]}}, "doubt: field 'distances' must not fall"),
        ({"doubt": {"distances": [1, 2], "doubts": [1, 0]}}, "doubt: field 'doubts' must not fall"),
        ({"doubt": {"distances": [1, 2], "doubts": [0, 1.01]}}, "doubt: field 'doubts' must lie between 0 and 1"),
        ({"doubt": {"distances": [1, 2], "doubts": [-0.01, 1]}}, "doubt: field 'doubts' must lie between 0 and 1"),
        ({"doubt": {"distances": [1, math.nan], "doubts": [0, 1]}}, "doubt: field 'distances' is not a finite number"),
        ({"doubt": {"distances": [1, 10**400], "doubts": [0, 1]}}, "doubt: field 'distances' is not a finite number"),
        ({"doubt": {"distances": [1, "2"], "doubts": [0, 1]}}, "doubt: field 'distances' is not a list of numbers"),
        ({"doubt": {"distances": [False, True], "doubts": [0, 1]}}, "doubt: field 'distances' is not a list of numbers"),
        ({"doubt": {"distances": {}, "doubts": [0, 1]}}, "doubt: field 'distances' is missing or not of the right kind"),
        ({"outputs": KNOWING["outputs"][:2]}, "field 'defence' needs the output 'blurred'"),
        ({"outputs": KNOWING["outputs"][:3]}, "field 'open_set' needs the output 'family'"),
        ({"outputs": KNOWING["outputs"][:4]}, "field 'doubt' needs the output 'distance'"),
    ],
)
def test_a_wrong_section_is_refused_by_file_and_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BadModel, match=f"here.json.*{named}"):
        card(**KNOWING | changes)


def test_optional_thresholds_are_unset_or_a_share() -> None:
    assert Release.parse(json.dumps(RELEASE).encode(), "").thresholds.doubt is None
    names = ("doubt", "synthetic_despite_doubt", "defence_gap")
    stated = copy.deepcopy(RELEASE)
    stated["thresholds"] |= {"doubt": 0.99, "synthetic_despite_doubt": None, "defence_gap": 1}
    read = Release.parse(json.dumps(stated).encode(), "").thresholds
    assert (read.doubt, read.synthetic_despite_doubt, read.defence_gap) == (0.99, None, 1.0)
    for name in names:
        for value in (0, 1.01, -1, "0.5", True, math.nan):
            wrong = copy.deepcopy(RELEASE)
            wrong["thresholds"][name] = value
            with pytest.raises(BadModel, match=rf"release\.json: thresholds: field '{name}'"):
                Release.parse(json.dumps(wrong).encode(), "")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff\xfe"])
def test_rubbish_is_refused(text: bytes) -> None:
    with pytest.raises(BadModel, match=r"release.json"):
        Release.parse(text, "")


def test_release_is_read_and_its_thresholds_checked() -> None:
    release = Release.parse(json.dumps(RELEASE).encode(), "11" * 32)
    assert release.model("detector").version == 1 and release.thresholds.min_face == 40.0
    crossed = copy.deepcopy(RELEASE)
    crossed["thresholds"]["synthetic_real"] = 0.7
    with pytest.raises(BadModel, match="above its own"):
        Release.parse(json.dumps(crossed).encode(), "")
    incomplete = {**RELEASE, "models": {"detector": RELEASE["models"]["detector"]}}
    with pytest.raises(BadModel, match="face_detector"):
        Release.parse(json.dumps(incomplete).encode(), "")


@given(st.floats(-700, 700))
def test_sigmoid_is_safe_and_logit_inverts_it(logit: float) -> None:
    probability = sigmoid(logit)
    assert 0.0 <= probability <= 1.0
    if abs(logit) < 13:
        assert logit_of(probability) == pytest.approx(logit, abs=1e-4)


def test_calibration_and_fusion_by_hand() -> None:
    assert Calibration(2.0, 0.5).probability(1.0) == pytest.approx(sigmoid(1.0))
    fusion = Fusion(0.8, 0.1)
    assert fusion.score(0.8, 0.3) == pytest.approx(sigmoid(0.8 * logit_of(0.86) + 0.1))
    assert fusion.score(0.8, None) == pytest.approx(sigmoid(0.8 * logit_of(0.8) + 0.1))
    assert fusion.score(None, 0.3) == fusion.score(0.3, None) and fusion.score(None, None) is None
    assert Fusion().score(0.9, 0.0) == pytest.approx(0.9), "a low part must not pull a high one down"
