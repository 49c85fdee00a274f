"""From findings to an outcome: labels by the operating point, the action by the tenant's ordered rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from unmask.core.cards import Release, Thresholds
from unmask.core.domain import (
    Action,
    Classified,
    Defence,
    FaceRow,
    FaceVerdict,
    Findings,
    Label,
    Localized,
    PictureInfo,
    Reason,
)
from unmask.core.errors import StoreCorrupt
from unmask.core.reasons import claim_reason, face_reason, likeliest, no_face_reason, rule_reason

# From harmless to grave; the gravest label among the counted faces is the picture's.
PRECEDENCE: Final = (Label.NO_FACE, Label.REAL, Label.UNSURE, Label.SYNTHETIC, Label.MANIPULATED)
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Range:
    """A half-open interval: at_least <= value < below; a bound that is None is open.  None is never in a range."""

    at_least: float | None = None
    below: float | None = None

    def holds(self, value: float | None) -> bool:
        """Whether `value` is known and inside."""
        if value is None:
            return False
        return (self.at_least is None or value >= self.at_least) and (self.below is None or value < self.below)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule asks of a picture; a field that is None or empty asks nothing, several must all hold.

    `family` is the most likely generator family of a counted face that is called synthetic (`unknown`: none that the detector
    knows), `region_area` the area of any
    region of a counted face (share of the face box), `provenance` the kind of any claim in the file.
    """

    label: frozenset[Label] = frozenset()
    score: Range | None = None
    doubt: Range | None = None
    family: frozenset[str] = frozenset()
    region_area: Range | None = None
    provenance: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a policy."""

    when: Condition
    then: Action


@dataclass(frozen=True, slots=True)
class Policy:
    """Ordered rules, first match wins; immutable, named by the sha256 of its canonical text."""

    name: str
    sha256: str
    rules: tuple[Rule, ...]
    otherwise: Action
    thresholds: Mapping[str, float] = field(default_factory=dict)
    text: str = field(default="", repr=False)

    def operating_point(self, release: Release) -> Thresholds:
        """The release's thresholds, with those that the policy states in their place."""
        return replace(release.thresholds, **self.thresholds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is decided about a picture (contract unmask.verdict/1)."""

    label: Label
    score: float | None
    doubt: float | None
    action: Action
    faces: tuple[FaceVerdict, ...]
    reasons: tuple[Reason, ...]


def decide(findings: Findings, picture: PictureInfo, release: Release, policy: Policy) -> Outcome:
    """The outcome of a picture's findings: a pure function, so that the same findings are decided the same way again.

    Scores are rounded to 4 places before any threshold.  The picture's score and doubt are the highest among the counted
    faces, its label the gravest.  A face below the size limit is unsure, and counts only where no larger one is.
    A face with a part that no model filled is never real, nor is one of which the detector's doubt or defence says that its
    score is not to be relied on.  Raises `StoreCorrupt` for findings that do not fit together.
    """
    limits = policy.operating_point(release)
    rows = _checked(findings)
    faces = tuple(_judged(row, *_parts(findings, i), release, limits) for i, row in enumerate(rows))
    small = [row.side < limits.min_face for row in rows]
    counted = [face for face, is_small in zip(faces, small, strict=True) if not is_small] or list(faces)
    label = max((face.label for face in counted), key=PRECEDENCE.index, default=Label.NO_FACE)
    subject = _Subject(label, _highest(f.score for f in counted), _highest(f.doubt for f in counted), counted, picture)
    action, rule = _action(policy, subject)
    reasons = [
        face_reason(face, index, limits, side=row.side if is_small else None, counts=all(small))
        for index, (face, row, is_small) in enumerate(zip(faces, rows, small, strict=True))
    ]
    reasons += [no_face_reason()] if not faces else []
    reasons += [claim_reason(claim) for claim in picture.claims]
    reasons.append(rule_reason(policy.name, rule, action))
    return Outcome(label, subject.score, subject.doubt, action, faces, tuple(reasons))


def label_of(
    synthetic: float | None,
    manipulated: float | None,
    limits: Thresholds,
    *,
    doubt: float | None = None,
    defence: Defence | None = None,
) -> Label:
    """A face's label by its calibrated parts.

    A part that is None accuses nobody and clears nobody: real needs both parts below their limits.  (The localizer is
    skipped only on faces that are plainly synthetic, so nothing that could be real lacks a part.)  Doubt and defence are the
    detector's: where they say that its word is not to be relied on it neither accuses nor clears, whatever its score.  What
    the localizer found stands, another model's evidence.
    """
    if manipulated is not None and manipulated >= limits.manipulated:
        return Label.MANIPULATED
    if limits.is_strange(doubt, synthetic) or (defence is not None and limits.falls_apart(defence.plain, defence.blurred)):
        return Label.UNSURE
    if synthetic is not None and synthetic >= limits.synthetic:
        return Label.SYNTHETIC
    if synthetic is None or manipulated is None:
        return Label.UNSURE
    is_real = synthetic < limits.synthetic_real and manipulated < limits.manipulated_real
    return Label.REAL if is_real else Label.UNSURE


@dataclass(frozen=True, slots=True)
class _Subject:
    """What rules look at."""

    label: Label
    score: float | None
    doubt: float | None
    faces: list[FaceVerdict]
    picture: PictureInfo


def _checked(findings: Findings) -> tuple[FaceRow, ...]:
    rows = findings.faces
    if rows is None:
        raise StoreCorrupt("a picture is to be decided whose faces were never looked for")
    for found in (findings.classified, findings.localized):
        if found is not None and len(found) != len(rows):
            raise StoreCorrupt(f"a picture has {len(rows)} faces but findings for {len(found)}")
    return rows


def _parts(findings: Findings, index: int) -> tuple[Classified, Localized]:
    classified = findings.classified[index] if findings.classified else Classified(synthetic=None)
    return classified, findings.localized[index] if findings.localized else Localized(manipulated=None)


def _judged(row: FaceRow, classified: Classified, localized: Localized, release: Release, limits: Thresholds) -> FaceVerdict:
    synthetic, manipulated = rounded(classified.synthetic), rounded(localized.manipulated)
    doubt, defence = rounded(classified.doubt), _rounded_defence(classified.defence)
    label = label_of(synthetic, manipulated, limits, doubt=doubt, defence=defence)
    return FaceVerdict(
        box=row.box,
        landmarks=row.landmarks,
        label=Label.UNSURE if row.side < limits.min_face else label,
        score=rounded(release.fusion.score(synthetic, manipulated)),
        doubt=doubt,
        synthetic=synthetic,
        manipulated=manipulated,
        generator=classified.generator,
        defence=defence,
        regions=localized.regions,
    )


def _rounded_defence(defence: Defence | None) -> Defence | None:
    """As `rounded`; half of it says nothing."""
    if defence is None:
        return None
    plain, blurred = rounded(defence.plain), rounded(defence.blurred)
    return None if plain is None or blurred is None else Defence(plain, blurred)


def rounded(value: float | None) -> float | None:
    """4 places, so that replay on another machine decides alike; what is no finite number is unset, never small."""
    return round(value, _DIGITS) if value is not None and math.isfinite(value) else None


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _action(policy: Policy, subject: _Subject) -> tuple[Action, int | None]:
    """The action, and the number (from 1) of the rule that gave it; None where none matched."""
    for number, rule in enumerate(policy.rules, 1):
        if _matches(rule.when, subject):
            return rule.then, number
    return policy.otherwise, None


def _matches(when: Condition, subject: _Subject) -> bool:
    """Whether all that the condition asks holds; what it does not ask is None or empty."""
    families = {likeliest(face) for face in subject.faces if face.label is Label.SYNTHETIC}
    areas = [region.area for face in subject.faces for region in face.regions]
    kinds = {claim.kind for claim in subject.picture.claims}
    return (
        (not when.label or subject.label in when.label)
        and (when.score is None or when.score.holds(subject.score))
        and (when.doubt is None or when.doubt.holds(subject.doubt))
        and (not when.family or bool(families & when.family))
        and (when.region_area is None or any(when.region_area.holds(area) for area in areas))
        and (not when.provenance or bool(kinds & when.provenance))
    )
