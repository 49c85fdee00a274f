"""Policy texts: what is read, that wrong ones are refused with the line, and that the name follows the content."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.core.domain import Action, Label
from unmask.core.errors import BadPolicy
from unmask.core.policy import Policy, Range
from unmask.core.policy_text import DEFAULT_POLICY, parse_policy

FULL = """\
schema: unmask.policy/1
name: strict
thresholds:
  synthetic: 0.8
  synthetic_real: .3
  min_face: 48
rules:
  - when:
      label: [synthetic, manipulated]
      score: {at_least: 0.99, below: 1}
      doubt: {below: 0.5}
      family: flux
      region_area: {at_least: 1e-2}
      provenance: [generator, digital_source_type]
    then: block
  - when: {label: unsure}
    then: review
otherwise: allow
"""


def refusal(text: str) -> str:
    """The words with which a text is refused."""
    with pytest.raises(BadPolicy) as caught:
        parse_policy(text, "my.yaml")
    return caught.value.detail


def test_the_default_blocks_nothing_and_allows_only_real_and_no_face() -> None:
    policy = parse_policy(DEFAULT_POLICY, "default")
    assert policy.name == "default" and not policy.thresholds
    assert all(rule.then is not Action.BLOCK for rule in policy.rules) and policy.otherwise is Action.REVIEW
    allowed = [rule.when.label for rule in policy.rules if rule.then is Action.ALLOW]
    assert allowed == [{Label.REAL, Label.NO_FACE}]


def test_every_field_is_read() -> None:
    policy = parse_policy(FULL, "my.yaml")
    when = policy.rules[0].when
    assert policy.thresholds == {"synthetic": 0.8, "synthetic_real": 0.3, "min_face": 48.0}
    assert when.label == {Label.SYNTHETIC, Label.MANIPULATED} and when.family == {"flux"}
    assert when.score == Range(0.99, 1.0) and when.doubt == Range(None, 0.5) and when.region_area == Range(0.01, None)
    assert when.provenance == {"generator", "digital_source_type"}
    assert [rule.then for rule in policy.rules] == [Action.BLOCK, Action.REVIEW]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("schema: unmask.policy/1", "schema: unmask.policy/2", 1, "schema must be"),
        ("schema: unmask.policy/1\n", "", 1, "'schema' is missing"),
        ("name: strict", "name: 7", 2, "name must be a word"),
        ("name: strict", "name: ''", 2, "name must be a word"),
        ("name: strict", 'name: "a\\nb"', 2, "printable"),
        ("name: strict", "nmae: strict", 2, "unknown key 'nmae'"),
        ("  synthetic: 0.8", "  synthetic: .nan", 4, "finite"),
        ("  synthetic: 0.8", "  synthetic: .inf", 4, "finite"),
        ("  synthetic: 0.8", "  synthetic: 1e999", 4, "finite"),
        ("  synthetic: 0.8", "  synthetic: '0.8'", 4, "finite"),
        ("  synthetic: 0.8", "  synthetic: true", 4, "finite"),
        ("  synthetic: 0.8", "  synthetic: 1:30", 4, "finite"),
        ("  synthetic: 0.8", "  synthetic: 1.5", 4, "between 0 and 1"),
        ("  synthetic: 0.8", "  synthetic: 0.2", 5, "synthetic_real lies above"),
        ("  synthetic: 0.8", "  plainly_synthetic: 0.8", 4, "unknown key 'plainly_synthetic'"),
        ("  min_face: 48", "  min_face: -1", 6, "not be negative"),
        ("  min_face: 48", "  synthetic: 0.9", 6, "given twice"),
        ("label: [synthetic, manipulated]", "label: [synthetic, fake]", 9, "'fake'; known: real, synthetic"),
        ("label: [synthetic, manipulated]", "label: [synthetic, synthetic]", 9, "listed twice"),
        ("label: [synthetic, manipulated]", "label: []", 9, "empty list"),
        ("label: [synthetic, manipulated]", "label: {a: b}", 9, "must be a word"),
        ("{at_least: 0.99, below: 1}", "{at_least: 0.99, belov: 1}", 10, "unknown key 'belov'"),
        ("{at_least: 0.99, below: 1}", "{}", 10, "at_least, below or both"),
        ("{at_least: 0.99, below: 1}", "{at_least: 1, below: 1}", 10, "nothing could match"),
        ("{at_least: 0.99, below: 1}", "0.99", 10, "must be a mapping"),
        ("family: flux", "family: [1]", 12, "family must be a word"),
        ("[generator, digital_source_type]", "exif", 14, "'exif'; known: generator"),
        ("then: block", "then: delete", 15, "'delete'; known: allow, review, block"),
        ("    then: block\n", "", 8, "'then' is missing"),
        ("{label: unsure}", "{}", 16, "when is empty"),
        ("otherwise: allow", "", 1, "'otherwise' is missing"),
        ("otherwise: allow", "otherwise: allow\nname: again", 19, "name is given twice"),
        ("otherwise: allow", "otherwise: [allow", 19, "not YAML"),
        ("otherwise: allow", "otherwise: &x allow", 18, "anchors and aliases"),
        ("otherwise: allow", "otherwise: *x", 18, "anchors and aliases"),
        ("otherwise: allow", "otherwise: !!python/object/apply:os.system [ls]", 18, "otherwise must be a word"),
        ("otherwise: allow", "otherwise: allow\n---\nschema: x", 19, "not YAML"),
        ("otherwise: allow", "otherwise: \x07allow", 18, "not YAML"),
        ("otherwise: allow", "\totherwise: allow", 18, "not YAML"),
        ("name: strict", "name: strict\n[1]: 2", 3, "unknown key '?'"),
    ],
)
def test_wrong_texts_are_refused_with_their_line(old: str, new: str, line: int, words: str) -> None:
    assert old in FULL
    said = refusal(FULL.replace(old, new, 1))
    assert said.startswith(f"policy my.yaml, line {line}: ") and words in said


@pytest.mark.parametrize("text", ["", "   \n", "# nothing\n", "null", "[]", "word", "1"])
def test_what_is_no_policy_at_all(text: str) -> None:
    assert refusal(text).startswith("policy my.yaml, line 1: ")


def test_bombs_are_refused_quickly() -> None:
    laughs = "a: &a [x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20))
    started = time.process_time()
    assert "aliases" in refusal(laughs)
    assert refusal("[" * 20_000) and refusal("{a: " * 10_000) and refusal("- " * 20_000)
    assert "longer than" in refusal("#" * 70_000)
    rule = "  - {when: {label: real}, then: allow}\n"
    assert "more than 200 rules" in refusal(f"schema: unmask.policy/1\nname: x\nrules:\n{rule * 201}otherwise: allow\n")
    assert time.process_time() - started < 10.0


def test_the_name_follows_the_content_alone() -> None:
    policy = parse_policy(FULL, "a")
    relaid = (
        "# a comment\n"
        + FULL.replace("[synthetic, manipulated]", "[manipulated, synthetic]").replace("name: strict\n", "")
        + "name: strict\n"
    )
    assert parse_policy(relaid, "b") == policy
    assert parse_policy(FULL.replace("0.99", "0.990"), "c").sha256 == policy.sha256
    assert parse_policy(FULL.replace("family: flux", "family: [flux]"), "d").sha256 == policy.sha256
    for change in (
        ("0.99", "0.98"),
        ("strict", "lax"),
        ("otherwise: allow", "otherwise: review"),
        ("min_face: 48", "min_face: 47"),
    ):
        assert parse_policy(FULL.replace(*change), "e").sha256 != policy.sha256


def test_the_order_of_rules_is_content() -> None:
    head, rest = "schema: unmask.policy/1\nname: x\notherwise: allow\nrules:\n", ["  - {when: {label: real}, then: allow}\n"]
    rest.append("  - {when: {label: unsure}, then: review}\n")
    assert parse_policy(head + rest[0] + rest[1]).sha256 != parse_policy(head + rest[1] + rest[0]).sha256


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: text.isprintable() and text.strip() != ""
)
share = st.floats(0.0, 1.0)
labels = st.lists(st.sampled_from(list(Label)), min_size=1, unique=True).map(lambda found: [str(label) for label in found])
bounds = (
    st.tuples(share, share).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: {"at_least": pair[0], "below": pair[1]})
)
conditions = st.fixed_dictionaries(
    {}, optional={"label": labels, "score": bounds, "doubt": bounds, "family": st.lists(words, min_size=1, unique=True)}
).filter(bool)
rules = st.lists(st.fixed_dictionaries({"when": conditions, "then": st.sampled_from(["allow", "review", "block"])}), max_size=5)
contents = st.fixed_dictionaries(
    {
        "schema": st.just("unmask.policy/1"),
        "name": words,
        "rules": rules,
        "otherwise": st.sampled_from(["allow", "review", "block"]),
    },
    optional={"thresholds": st.fixed_dictionaries({}, optional={"min_face": st.floats(0, 1e6), "synthetic": share})},
)


@given(contents)
def test_canonical_texts_are_stable(content: dict[str, object]) -> None:
    import json

    policy = parse_policy(json.dumps(content, ensure_ascii=False))
    again = parse_policy(policy.text)
    assert again == policy and again.text == policy.text and again.sha256 == policy.sha256


@given(st.text(max_size=200))
def test_rubbish_is_refused_and_nothing_else(text: str) -> None:
    try:
        assert isinstance(parse_policy(text), Policy)
    except BadPolicy as error:
        assert "line" in error.detail
