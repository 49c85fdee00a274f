"""Policies as text: strict YAML in, canonical text and its sha256 out; every refusal names the line."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from unmask.core.cards import Thresholds
from unmask.core.domain import Action, Label
from unmask.core.errors import BadPolicy
from unmask.core.policy import Condition, Policy, Range, Rule

SCHEMA: Final = "unmask.policy/1"
DEFAULT_POLICY: Final = """\
# What Unmask does unless it is told otherwise: nothing is blocked, and only a plain photograph passes unseen.
schema: unmask.policy/1
name: default
rules:
  - when: {label: [synthetic, manipulated]}
    then: review
  - when: {label: unsure}
    then: review
  - when: {label: [real, no_face]}
    then: allow
otherwise: review
"""
_LONGEST: Final = 64 * 1024
_MOST_RULES: Final = 200
_DEEPEST: Final = 10
# The localizer is skipped by the release's own value, before any policy is read: an override would do nothing.
_THRESHOLDS: Final = tuple(name for name in Thresholds.__slots__ if name != "plainly_synthetic")
_CLAIM_KINDS: Final = (
    *("generator", "digital_source_type", "editor", "capture"),
    *("c2pa_present", "c2pa_verified", "c2pa_untrusted", "c2pa_invalid"),
)
_NUMBER: Final = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_T = TypeVar("_T")


def parse_policy(text: str, where: str = "policy") -> Policy:
    """The policy in a YAML text; raises `BadPolicy` with `where` and the line.

    The canonical text (and so the sha256) depends on the content alone: comments, layout, the order of keys and of listed
    names change nothing, the order of rules does.  The canonical text is a policy text itself.
    """
    return _Reader(where).policy(text)


class _Reader:
    """Walks YAML nodes, which know their lines, instead of the plain objects that YAML makes of them."""

    def __init__(self, where: str) -> None:
        self._where = where

    def policy(self, text: str) -> Policy:
        root = self._root(text)
        top = self._mapping(root, "the policy", {"schema", "name", "thresholds", "rules", "otherwise"})
        if self._text(self._needed(root, top, "schema"), "schema") != SCHEMA:
            self._refuse(top["schema"], f"schema must be {SCHEMA}")
        name = self._text(self._needed(root, top, "name"), "name")
        thresholds = self._thresholds(top["thresholds"]) if "thresholds" in top else {}
        rules = tuple(self._rule(node) for node in self._items(self._needed(root, top, "rules"), "rules"))
        if len(rules) > _MOST_RULES:
            self._refuse(top["rules"], f"more than {_MOST_RULES} rules")
        otherwise = self._word(self._needed(root, top, "otherwise"), "otherwise", Action)
        canonical = _canonical(name, thresholds, rules, otherwise)
        return Policy(name, hashlib.sha256(canonical.encode()).hexdigest(), rules, otherwise, thresholds, canonical)

    def _root(self, text: str) -> Node:
        if len(text) > _LONGEST:
            raise BadPolicy(f"policy {self._where}, line 1: longer than {_LONGEST} characters")
        try:
            self._refuse_bombs(text)
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse_line(mark.line + 1 if mark else 1, f"not YAML ({error.problem or error.context})")
        except yaml.YAMLError as error:
            # Characters that YAML does not allow: this error has a position, no line.
            position = getattr(error, "position", 0)
            self._refuse_line(text.count("\n", 0, position) + 1, "not YAML (a character that text may not hold)")
        if node is None:
            self._refuse_line(1, "the file is empty")
        return node

    def _refuse_bombs(self, text: str) -> None:
        """Aliases make a few lines mean billions of nodes, deep nesting makes the parser slow; no policy needs either."""
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                self._refuse_line(line, "anchors and aliases (& and *) are not allowed")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _DEEPEST:
                self._refuse_line(line, "nested too deeply")

    def _rule(self, node: Node) -> Rule:
        entry = self._mapping(node, "a rule", {"when", "then"})
        when = self._condition(self._needed(node, entry, "when"))
        return Rule(when, self._word(self._needed(node, entry, "then"), "then", Action))

    def _condition(self, node: Node) -> Condition:
        when = self._mapping(node, "when", set(Condition.__slots__))
        if not when:
            self._refuse(node, "when is empty; say 'otherwise' for all that is left")
        fields: dict[str, Any] = {}
        for key, value in when.items():
            if key in {"score", "doubt", "region_area"}:
                fields[key] = self._range(value, key)
            elif key == "label":
                fields[key] = self._set(value, key, lambda item: self._word(item, "label", Label))
            elif key == "provenance":
                fields[key] = self._set(value, key, self._claim_kind)
            else:
                fields[key] = self._set(value, key, lambda item: self._text(item, "family"))
        return Condition(**fields)

    def _range(self, node: Node, what: str) -> Range:
        bounds = self._mapping(node, what, {"at_least", "below"})
        if not bounds:
            self._refuse(node, f"{what} needs at_least, below or both")
        values = {key: self._share(value, key) for key, value in bounds.items()}
        low, high = values.get("at_least"), values.get("below")
        if low is not None and high is not None and low >= high:
            self._refuse(node, f"{what}: at_least {low} is not less than below {high}, so nothing could match")
        return Range(low, high)

    def _thresholds(self, node: Node) -> dict[str, float]:
        entries = self._mapping(node, "thresholds", set(_THRESHOLDS))
        values = {}
        for key, value in entries.items():
            values[key] = self._number(value, key) if key == "min_face" else self._share(value, key)
            if values[key] < 0.0:
                self._refuse(value, f"{key} must not be negative")
        for part in ("synthetic", "manipulated"):
            if values.get(f"{part}_real", 0.0) > values.get(part, 1.0):
                self._refuse(entries[f"{part}_real"], f"{part}_real lies above {part}")
        return values

    def _mapping(self, node: Node, what: str, allowed: set[str]) -> dict[str, Node]:
        if not isinstance(node, MappingNode):
            self._refuse(node, f"{what} must be a mapping (key: value)")
        entries: dict[str, Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else "?"
            if key not in allowed:
                self._refuse(key_node, f"unknown key {_shown(key)} in {what}; known: {', '.join(sorted(allowed))}")
            if key in entries:
                self._refuse(key_node, f"{key} is given twice in {what}")
            entries[key] = value
        return entries

    def _needed(self, parent: Node, entries: Mapping[str, Node], key: str) -> Node:
        if key not in entries:
            self._refuse(parent, f"'{key}' is missing")
        return entries[key]

    def _items(self, node: Node, what: str) -> list[Node]:
        if not isinstance(node, SequenceNode):
            self._refuse(node, f"{what} must be a list")
        items: list[Node] = node.value
        return items

    def _set(self, node: Node, what: str, read: Callable[[Node], _T]) -> frozenset[_T]:
        """One word or a list of different words."""
        nodes = self._items(node, what) if isinstance(node, SequenceNode) else [node]
        if not nodes:
            self._refuse(node, f"{what} is an empty list, so nothing could match")
        found: set[_T] = set()
        for item in nodes:
            value = read(item)
            if value in found:
                self._refuse(item, f"{_shown(str(value))} is listed twice in {what}")
            found.add(value)
        return frozenset(found)

    def _text(self, node: Node, what: str) -> str:
        if not isinstance(node, ScalarNode) or node.tag != "tag:yaml.org,2002:str" or not node.value.strip():
            self._refuse(node, f"{what} must be a word (in quotes where YAML would read it as something else)")
        value: str = node.value
        if len(value) > 100 or not value.isprintable():
            self._refuse(node, f"{what} must be at most 100 printable characters")
        return value

    def _word(self, node: Node, what: str, kind: Callable[[str], _T]) -> _T:
        value = self._text(node, what)
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(getattr(kind, "__members__", {}).values())
            self._refuse(node, f"{what} is {_shown(value)}; known: {known}")

    def _claim_kind(self, node: Node) -> str:
        value = self._text(node, "provenance")
        if value not in _CLAIM_KINDS:
            self._refuse(node, f"provenance is {_shown(value)}; known: {', '.join(_CLAIM_KINDS)}")
        return value

    def _number(self, node: Node, what: str) -> float:
        # Plain decimal only, by our own pattern: YAML 1.1 reads 1e-7 as text, 010 as eight and 1:30 as ninety.
        if isinstance(node, ScalarNode) and node.style is None and _NUMBER.fullmatch(node.value):
            value = float(node.value)
            if math.isfinite(value):
                return value + 0.0  # -0.0 and 0.0 are one policy
        self._refuse(node, f"{what} must be a plain finite number")

    def _share(self, node: Node, what: str) -> float:
        value = self._number(node, what)
        if not 0.0 <= value <= 1.0:
            self._refuse(node, f"{what} must lie between 0 and 1")
        return value

    def _refuse(self, node: Node, why: str) -> NoReturn:
        self._refuse_line(node.start_mark.line + 1, why)

    def _refuse_line(self, line: int, why: str) -> NoReturn:
        raise BadPolicy(f"policy {self._where}, line {line}: {why}")


def _shown(word: str) -> str:
    return repr(word[:60])


def _canonical(name: str, thresholds: Mapping[str, float], rules: tuple[Rule, ...], otherwise: Action) -> str:
    """JSON with sorted keys and lists; it parses to the same policy (escaped surrogate pairs would not: hence no ASCII)."""
    content: dict[str, Any] = {"schema": SCHEMA, "name": name, "otherwise": str(otherwise)}
    content["rules"] = [{"when": _condition_content(rule.when), "then": str(rule.then)} for rule in rules]
    if thresholds:
        content["thresholds"] = dict(thresholds)
    return json.dumps(content, sort_keys=True, separators=(", ", ": "), ensure_ascii=False)


def _condition_content(when: Condition) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key in Condition.__slots__:
        value = getattr(when, key)
        if isinstance(value, Range):
            bounds = {"at_least": value.at_least, "below": value.below}
            content[key] = {name: bound for name, bound in bounds.items() if bound is not None}
        elif value:
            content[key] = sorted(str(item) for item in value)
    return content
