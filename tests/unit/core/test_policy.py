"""Labels, scores and actions: nothing slips through as real, and the same findings are decided the same way."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.core.test_cards import RELEASE as RELEASE_JSON
from unmask.core.cards import Release
from unmask.core.domain import Action, Claim, Classified, Defence, FaceRow, Findings, Label, Localized, PictureInfo, Region
from unmask.core.errors import StoreCorrupt
from unmask.core.policy import PRECEDENCE, Outcome, Policy, decide, label_of
from unmask.core.policy_text import DEFAULT_POLICY, parse_policy

# Real below .4 / .5, synthetic from .6, manipulated from .7, faces from 40 pixels.
RELEASE = Release.parse(json.dumps(RELEASE_JSON | {"fusion": {"slope": 1.0, "bias": 0.0}}).encode(), "ef" * 32)
LIMITS = RELEASE.thresholds
POLICY = parse_policy(DEFAULT_POLICY, "default")
PICTURE = PictureInfo("default", "ab" * 32, "default/pictures/ab", 10, "PNG", 500, 400)
POINTS = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (1.0, 1.0))

Part = float | None
probability = st.one_of(st.none(), st.floats(0.0, 1.0), st.sampled_from([0.39995, 0.4, 0.49995, 0.59995, 0.6, 0.69995, 0.7]))
side = st.sampled_from([12.0, 39.9, 40.0, 200.0])
face = st.tuples(probability, probability, side)


def row(length: float = 100.0) -> FaceRow:
    """A face whose box has this long side."""
    return FaceRow((0.0, 0.0, length * 0.8, length), POINTS, 0.9)


def found(*faces: tuple[Part, Part, float], **more: object) -> Findings:
    """Findings of (synthetic, manipulated, side) faces; `more` goes into each classification."""
    return Findings(
        faces=tuple(row(length) for _, _, length in faces),
        classified=tuple(Classified(synthetic, **more) for synthetic, _, _ in faces),  # type: ignore[arg-type]
        localized=tuple(Localized(manipulated) for _, manipulated, _ in faces),
    )


def outcome(*faces: tuple[Part, Part, float], policy: Policy = POLICY, picture: PictureInfo = PICTURE) -> Outcome:
    """What is decided about these faces."""
    return decide(found(*faces), picture, RELEASE, policy)


def codes(decided: Outcome) -> list[str]:
    """The reasons' codes, in order."""
    return [reason.code for reason in decided.reasons]


@pytest.mark.parametrize(
    ("synthetic", "manipulated", "label"),
    [
        (0.1, 0.1, Label.REAL),
        (0.3999, 0.4999, Label.REAL),
        (0.4, 0.1, Label.UNSURE),
        (0.1, 0.5, Label.UNSURE),
        (0.5999, 0.6999, Label.UNSURE),
        (0.6, 0.1, Label.SYNTHETIC),
        (0.995, None, Label.SYNTHETIC),
        (0.1, 0.7, Label.MANIPULATED),
        (0.99, 0.7, Label.MANIPULATED),
        (None, 0.7, Label.MANIPULATED),
        (None, None, Label.UNSURE),
        (0.1, None, Label.UNSURE),
        (None, 0.1, Label.UNSURE),
    ],
)
def test_labels(synthetic: Part, manipulated: Part, label: Label) -> None:
    assert label_of(synthetic, manipulated, LIMITS) is label
    assert outcome((synthetic, manipulated, 100.0)).label is label


def test_parts_are_rounded_before_they_are_compared() -> None:
    assert outcome((0.59996, 0.1, 100.0)).label is Label.SYNTHETIC
    assert outcome((0.59994, 0.1, 100.0)).label is Label.UNSURE
    assert outcome((0.39996, 0.1, 100.0)).label is Label.UNSURE
    decided = outcome((0.123456, 0.234567, 100.0))
    assert decided.faces[0].synthetic == 0.1235 and decided.faces[0].manipulated == 0.2346
    assert decided.score == round(decided.score or 0.0, 4) == RELEASE.fusion.score(0.1235, 0.2346).__round__(4)  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_unset_and_never_real(value: float) -> None:
    decided = outcome((value, 0.01, 100.0))
    assert decided.label is Label.UNSURE and decided.faces[0].synthetic is None
    assert decide(found((0.01, 0.01, 100.0), doubt=value), PICTURE, RELEASE, POLICY).doubt is None


def test_the_picture_takes_the_gravest_label_and_the_highest_score() -> None:
    decided = outcome((0.1, 0.1, 100.0), (0.995, None, 90.0), (0.1, 0.75, 80.0))
    assert decided.label is Label.MANIPULATED
    assert [one.label for one in decided.faces] == [Label.REAL, Label.SYNTHETIC, Label.MANIPULATED]
    assert decided.score == max(one.score or 0.0 for one in decided.faces) == 0.995
    assert decided.action is Action.REVIEW


def test_no_face() -> None:
    decided = decide(Findings(faces=()), PICTURE, RELEASE, POLICY)
    assert (decided.label, decided.score, decided.doubt, decided.action) == (Label.NO_FACE, None, None, Action.ALLOW)
    assert codes(decided) == ["no_face", "policy_rule"]


def test_faces_that_were_never_looked_for_are_no_absence() -> None:
    with pytest.raises(StoreCorrupt):
        decide(Findings(), PICTURE, RELEASE, POLICY)
    with pytest.raises(StoreCorrupt, match="2 faces but findings for 1"):
        decide(Findings(faces=(row(), row()), classified=(Classified(0.1),)), PICTURE, RELEASE, POLICY)


def test_a_face_that_no_stage_judged_is_unsure_without_a_score() -> None:
    decided = decide(Findings(faces=(row(),)), PICTURE, RELEASE, POLICY)
    assert (decided.label, decided.score, decided.action) == (Label.UNSURE, None, Action.REVIEW)
    assert "face_not_judged" in codes(decided)


def test_a_tiny_face_counts_only_without_a_larger_one() -> None:
    alone = outcome((0.01, 0.01, 12.0))
    assert (alone.label, alone.action) == (Label.UNSURE, Action.REVIEW) and alone.score is not None
    assert "12 pixels" in alone.reasons[0].text and "not count" not in alone.reasons[0].text
    beside = outcome((0.01, 0.01, 200.0), (0.99, 0.99, 12.0))
    assert beside.label is Label.REAL and beside.score == beside.faces[0].score
    assert beside.faces[1].label is Label.UNSURE and "does not count" in beside.reasons[1].text
    crowd = outcome((0.01, 0.01, 12.0), (0.01, 0.01, 13.0))
    assert crowd.label is Label.UNSURE and crowd.score is not None


def test_doubt_is_the_highest_or_unset() -> None:
    assert outcome((0.1, 0.1, 100.0)).doubt is None
    assert decide(found((0.1, 0.1, 100.0), doubt=0.12345678), PICTURE, RELEASE, POLICY).doubt == 0.1235


# The same with what a release may state of doubt and defence.
WARY = replace(RELEASE, thresholds=replace(LIMITS, doubt=0.9, defence_gap=0.3))
SPARING = replace(WARY, thresholds=replace(WARY.thresholds, synthetic_despite_doubt=0.98))


def judged(release: Release, synthetic: Part, manipulated: Part, side: float = 100.0, **more: object) -> tuple[Label, str]:
    """The label of one face and its reason's code."""
    decided = decide(found((synthetic, manipulated, side), **more), PICTURE, release, POLICY)
    assert decided.label is decided.faces[0].label
    return decided.label, decided.reasons[0].code


@pytest.mark.parametrize(
    ("release", "synthetic", "manipulated", "doubt", "label", "code"),
    [
        (WARY, 0.1, 0.1, 0.8999, Label.REAL, "face_real"),
        (WARY, 0.1, 0.1, 0.9, Label.UNSURE, "face_unlike_known"),
        (WARY, 0.1, 0.1, 0.89996, Label.UNSURE, "face_unlike_known"),
        (WARY, 0.5, 0.1, 0.95, Label.UNSURE, "face_unlike_known"),
        (WARY, 0.9999, None, 1.0, Label.UNSURE, "face_unlike_known"),
        (SPARING, 0.9799, 0.1, 1.0, Label.UNSURE, "face_unlike_known"),
        (SPARING, 0.98, 0.1, 1.0, Label.SYNTHETIC, "face_synthetic"),
        (WARY, 0.1, 0.7, 1.0, Label.MANIPULATED, "face_manipulated"),
        (WARY, 0.1, 0.1, None, Label.REAL, "face_real"),
        (WARY, None, 0.1, None, Label.UNSURE, "face_not_judged"),
        (WARY, 0.1, 0.1, math.nan, Label.REAL, "face_real"),
        (RELEASE, 0.1, 0.1, 1.0, Label.REAL, "face_real"),
        (RELEASE, 0.9, 0.1, 1.0, Label.SYNTHETIC, "face_synthetic"),
    ],
)
def test_a_strange_face_is_unsure_whatever_the_detector_says(
    release: Release, synthetic: Part, manipulated: Part, doubt: Part, label: Label, code: str
) -> None:
    assert judged(release, synthetic, manipulated, doubt=doubt) == (label, code)


@pytest.mark.parametrize(
    ("release", "plain", "blurred", "label"),
    [
        (WARY, 0.1, 0.6, Label.UNSURE),
        (WARY, 0.6, 0.1, Label.UNSURE),
        (WARY, 0.3999, 0.6999, Label.UNSURE),
        (WARY, 0.3999, 0.6998, Label.REAL),
        (WARY, 0.3701, 0.6701, Label.UNSURE),
        (WARY, 0.4, 0.9, Label.REAL),
        (WARY, 0.1, 0.5999, Label.REAL),
        (WARY, 0.6, 0.95, Label.REAL),
        (WARY, math.nan, 0.9, Label.REAL),
        (RELEASE, 0.0, 1.0, Label.REAL),
    ],
)
def test_a_score_that_falls_apart_under_a_blur_is_not_relied_on(
    release: Release, plain: float, blurred: float, label: Label
) -> None:
    code = "face_real" if label is Label.REAL else "face_falls_apart"
    assert judged(release, 0.1, 0.1, defence=Defence(plain, blurred)) == (label, code)


def test_what_the_localizer_found_stands_and_a_tiny_face_stays_too_small() -> None:
    apart = Defence(0.9, 0.1)
    assert judged(WARY, 0.5, 0.7, defence=apart) == (Label.MANIPULATED, "face_manipulated")
    assert judged(WARY, 0.1, 0.1, 12.0, defence=apart, doubt=1.0) == (Label.UNSURE, "face_too_small")
    assert judged(WARY, 0.1, 0.1, defence=apart, doubt=1.0) == (Label.UNSURE, "face_falls_apart")


def test_why_a_score_is_not_relied_on_in_plain_words() -> None:
    strange = decide(found((0.999, None, 100.0), doubt=0.98765), PICTURE, WARY, POLICY)
    assert strange.reasons[0].text == "unlike anything this detector was shown: doubt 99 %, so its score is not relied on"
    assert (strange.doubt, strange.score, strange.action) == (0.9877, 0.999, Action.REVIEW)
    apart = decide(found((0.5, 0.1, 100.0), defence=Defence(0.91234567, 0.004)), PICTURE, WARY, POLICY)
    assert apart.reasons[0].text == (
        "the score falls apart when this face is slightly blurred (generated 91 % as it is, under 1 % blurred): "
        "possibly adversarial noise"
    )
    assert apart.faces[0].defence == Defence(0.9123, 0.004)


@given(face, probability, st.none() | st.builds(Defence, st.floats(0.0, 1.0), st.floats(0.0, 1.0)))
def test_doubt_and_defence_only_ever_make_unsure(one: tuple[Part, Part, float], doubt: Part, defence: Defence | None) -> None:
    findings = found(one, doubt=doubt, defence=defence)
    without, wary = decide(findings, PICTURE, RELEASE, POLICY), decide(findings, PICTURE, WARY, POLICY)
    assert wary.label in {without.label, Label.UNSURE}
    assert wary.label is without.label or without.label is not Label.MANIPULATED
    assert (wary.score, wary.doubt) == (without.score, without.doubt)


def test_an_unknown_family_is_named_so_and_a_policy_can_ask_for_it() -> None:
    shares = {"flux": 0.2, "unknown": 0.8}
    block = ruled("{when: {family: [unknown]}, then: block}")
    decided = decide(found((0.95, 0.1, 100.0), generator=shares), PICTURE, RELEASE, block)
    assert decided.action is Action.BLOCK
    assert decided.reasons[0].text == (
        "this face looks wholly generated (95 %), most likely by a generator that this detector does not know (80 %)"
    )
    known = decide(found((0.95, 0.1, 100.0), generator={"flux": 0.8, "unknown": 0.2}), PICTURE, RELEASE, block)
    assert known.action is Action.ALLOW and "most likely by flux (80 %)" in known.reasons[0].text
    real = decide(found((0.1, 0.1, 100.0), generator=shares), PICTURE, RELEASE, block)
    assert real.action is Action.ALLOW and "generator" not in real.reasons[0].text


def test_a_policy_may_move_doubt_and_defence() -> None:
    policy = ruled("", more="thresholds: {doubt: 0.5, defence_gap: 0.1, synthetic_despite_doubt: 1}")
    limits = policy.operating_point(RELEASE)
    assert (limits.doubt, limits.defence_gap, limits.synthetic_despite_doubt) == (0.5, 0.1, 1.0)
    assert decide(found((0.1, 0.1, 100.0), doubt=0.6), PICTURE, RELEASE, policy).label is Label.UNSURE


def test_provenance_is_a_reason_and_lowers_nothing() -> None:
    camera = replace(
        PICTURE, claims=(Claim("capture", "EXIF Make and Model", "Canon"), Claim("generator", "PNG prompt", "ComfyUI"))
    )
    plain, claimed = outcome((0.995, None, 100.0)), outcome((0.995, None, 100.0), picture=camera)
    assert (plain.label, plain.score, plain.action) == (claimed.label, claimed.score, claimed.action)
    assert {"provenance_capture", "provenance_generator"} <= set(codes(claimed))
    assert all("not verified" in reason.text for reason in claimed.reasons if reason.code.startswith("provenance"))


def test_an_unsure_face_says_where_to_look() -> None:
    regions = (Region((), 0.9, "mouth", 0.04), Region((), 0.8, "left eye", 0.2))
    findings = Findings((row(),), (Classified(0.01),), (Localized(0.5, regions),))
    (text, _) = (reason.text for reason in decide(findings, PICTURE, RELEASE, POLICY).reasons)
    assert text.startswith("neither plainly real nor plainly not: changed 50 % (real below ")
    assert text.endswith("; look at: left eye (20 % of the face), mouth (4 % of the face)")


def test_reasons_are_in_plain_words() -> None:
    regions = (Region((), 0.9, "mouth", 0.04), Region((), 0.8, "left eye", 0.2))
    findings = Findings(
        faces=(row(), row(), row(), row()),
        classified=(
            Classified(0.95, {"stylegan2": 0.8, "flux": 0.2}),
            Classified(0.01, {"stylegan2": 0.4, "flux": 0.6}),
            Classified(0.5),
            Classified(0.01),
        ),
        localized=(Localized(None), Localized(0.88, regions), Localized(0.1), Localized(0.01)),
    )
    decided = decide(findings, PICTURE, RELEASE, POLICY)
    assert codes(decided) == ["face_synthetic", "face_manipulated", "face_unsure_between", "face_real", "policy_rule"]
    assert [reason.face for reason in decided.reasons] == [0, 1, 2, 3, None]
    texts = [reason.text for reason in decided.reasons]
    assert texts[0] == "this face looks wholly generated (95 %), most likely by stylegan2 (80 %)"
    assert texts[1] == "left eye changed, 20 % of the face; mouth changed, 4 % of the face (88 % sure)"
    assert texts[2] == "neither plainly real nor plainly not: generated 50 % (real below 40 %, generated from 60 %)"
    assert texts[3] == "no sign that this face was generated (1 %) or changed (1 %)"
    assert texts[4] == "rule 1 of policy 'default' says review"


def test_a_high_score_below_a_high_threshold_is_not_called_no_sign() -> None:
    policy = ruled("", more="thresholds: {manipulated_real: 0.9, manipulated: 0.95}")
    decided = decide(found((0.1, 0.85, 100.0)), PICTURE, RELEASE, policy)
    assert decided.label is Label.REAL and decided.reasons[0].code == "face_real"
    assert decided.reasons[0].text == (
        "too few signs that this face was generated (10 %) or changed (85 %): below 40 % and 90 %, which few photographs reach"
    )


@given(st.lists(face, max_size=6))
def test_real_only_when_every_counted_face_is(faces: list[tuple[Part, Part, float]]) -> None:
    decided = outcome(*faces)
    counted = [
        one for one, (_, _, length) in zip(decided.faces, faces, strict=True) if length >= LIMITS.min_face
    ] or decided.faces
    if decided.label is Label.REAL:
        assert counted and all(one.label is Label.REAL for one in counted)
        for one in counted:
            assert one.synthetic is not None and one.synthetic < LIMITS.synthetic_real
            assert one.manipulated is not None and one.manipulated < LIMITS.manipulated_real
    assert (decided.action is Action.ALLOW) == (decided.label in {Label.REAL, Label.NO_FACE})
    assert (decided.label is Label.NO_FACE) == (not faces)


@given(st.lists(face, min_size=1, max_size=4), st.data())
def test_raising_a_part_never_moves_towards_real(faces: list[tuple[Part, Part, float]], data: st.DataObject) -> None:
    index, which = data.draw(st.integers(0, len(faces) - 1)), data.draw(st.sampled_from([0, 1]))
    before = faces[index][which]
    assume(before is not None)
    raised = list(faces[index])
    raised[which] = data.draw(st.floats(before or 0.0, 1.0))
    higher = [*faces[:index], tuple(raised), *faces[index + 1 :]]
    low, high = outcome(*faces), outcome(*higher)  # type: ignore[arg-type]
    assert PRECEDENCE.index(high.label) >= PRECEDENCE.index(low.label)
    assert (high.score or 0.0) >= (low.score or 0.0)


@given(st.lists(face, min_size=1, max_size=4))
def test_taking_a_part_away_never_makes_a_face_real(faces: list[tuple[Part, Part, float]]) -> None:
    for which in (0, 1):
        emptied = [tuple(None if at == which else part for at, part in enumerate(one)) for one in faces]
        assert all(one.label is not Label.REAL for one in outcome(*emptied).faces)  # type: ignore[arg-type]


def ruled(rules: str, otherwise: str = "allow", more: str = "") -> Policy:
    """A policy of these rules, one a line."""
    lines = "\n".join(f"  - {rule}" for rule in rules.splitlines())
    return parse_policy(f"schema: unmask.policy/1\nname: test\n{more}\nrules:\n{lines or '  []'}\notherwise: {otherwise}\n")


def test_the_first_rule_that_matches_wins() -> None:
    policy = ruled("{when: {label: synthetic}, then: block}\n{when: {score: {at_least: 0.5}}, then: review}")
    assert outcome((0.995, None, 100.0), policy=policy).action is Action.BLOCK
    unsure = outcome((0.42, 0.05, 100.0), policy=policy)
    assert unsure.score is not None and unsure.score < 0.5 and unsure.action is Action.ALLOW
    assert codes(unsure)[-1] == "policy_otherwise"
    changed = outcome((0.45, 0.95, 100.0), policy=policy)
    assert changed.action is Action.REVIEW and "rule 2 of policy 'test'" in changed.reasons[-1].text


def test_a_range_never_holds_for_what_is_unknown() -> None:
    policy = ruled("{when: {score: {below: 1}}, then: block}\n{when: {doubt: {below: 1}}, then: block}")
    assert decide(Findings(faces=()), PICTURE, RELEASE, policy).action is Action.ALLOW
    assert decide(Findings(faces=(row(),)), PICTURE, RELEASE, policy).action is Action.ALLOW


def test_all_parts_of_a_condition_must_hold() -> None:
    policy = ruled("{when: {label: [synthetic, manipulated], score: {at_least: 0.99}}, then: block}")
    assert outcome((0.995, None, 100.0), policy=policy).action is Action.BLOCK
    assert outcome((0.95, None, 100.0), policy=policy).action is Action.ALLOW


def test_family_region_and_provenance_conditions() -> None:
    claimed = replace(PICTURE, claims=(Claim("digital_source_type", "XMP", "trainedAlgorithmicMedia"),))
    findings = Findings(
        (row(),), (Classified(0.95, {"flux": 0.9, "stylegan2": 0.1}),), (Localized(0.1, (Region((), 1.0, "nose", 0.3),)),)
    )
    for rule, matches in {
        "{when: {family: [flux, sdxl]}, then: block}": True,
        "{when: {family: stylegan2}, then: block}": False,
        "{when: {region_area: {at_least: 0.3}}, then: block}": True,
        "{when: {region_area: {below: 0.3}}, then: block}": False,
        "{when: {provenance: digital_source_type}, then: block}": True,
        "{when: {provenance: [generator, c2pa_present]}, then: block}": False,
    }.items():
        action = decide(findings, claimed, RELEASE, ruled(rule)).action
        assert (action is Action.BLOCK) == matches, rule


def test_a_policy_may_move_the_thresholds() -> None:
    policy = ruled("{when: {label: synthetic}, then: block}", more="thresholds: {synthetic: 0.9, min_face: 10}")
    assert outcome((0.8, 0.1, 100.0), policy=policy).label is Label.UNSURE
    assert outcome((0.1, 0.1, 12.0), policy=policy).label is Label.REAL
    assert policy.operating_point(RELEASE).synthetic_real == LIMITS.synthetic_real
