"""Why a verdict is what it is, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from unmask.core.cards import Thresholds
from unmask.core.domain import Action, Claim, Decision, FaceVerdict, Label, Reason, Region
from unmask.core.readouts import UNKNOWN

_MOST_REGIONS: Final = 3
_FAMILY_SHARE: Final = 0.5
# From here on a score says that a fake is likelier than not, at even odds beforehand.
_EVEN: Final = 0.5
_NO_FAMILY: Final = frozenset({"other", "real"})
_CLAIMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "generator": "the file says it was made by a generator",
        "digital_source_type": "the file states its digital source type",
        "editor": "the file says it was last saved by an editor",
        "capture": "the file says it was taken with a camera",
        "c2pa_present": "the file carries Content Credentials (C2PA)",
        "c2pa_verified": "its Content Credentials (C2PA) are unchanged, and their signer is trusted",
        "c2pa_untrusted": "its Content Credentials (C2PA) are unchanged, but nobody vouches for their signer",
        "c2pa_invalid": "its Content Credentials (C2PA) do not hold",
    }
)
# Of these it is known how far they can be believed, and their texts say so.
_CHECKED: Final = frozenset({"c2pa_verified", "c2pa_untrusted", "c2pa_invalid"})
# How the field of a claim begins that a trusted signer signed.
VERIFIED_FIELD: Final = "verified C2PA"


def face_reason(face: FaceVerdict, index: int, limits: Thresholds, *, side: float | None, counts: bool) -> Reason:
    """Why face `index` has its label; `side` is given (in pixels) when the face is below the size limit."""
    if side is not None:
        text = f"this face is {side:.0f} pixels long, under the {limits.min_face:.0f} needed to judge it"
        return Reason("face_too_small", text if counts else f"{text}; it does not count", index)
    if face.label is Label.MANIPULATED:
        return Reason("face_manipulated", _changed(face), index)
    if face.label is Label.SYNTHETIC:
        return Reason("face_synthetic", f"this face looks wholly generated ({percent(face.synthetic)}){_family(face)}", index)
    if face.label is Label.REAL:
        return Reason("face_real", _untouched(face, limits), index)
    if (distrusted := _distrusted(face, index, limits)) is not None:
        return distrusted
    if face.synthetic is None or face.manipulated is None:
        return Reason("face_not_judged", f"{_missing(face)}, so this face cannot pass as real", index)
    return Reason("face_unsure_between", _between(face, limits), index)


def no_face_reason() -> Reason:
    """For a picture without faces."""
    return Reason("no_face", "no face was found in this picture, so there was nothing to judge")


def claim_reason(claim: Claim) -> Reason:
    """A claim of the file's own metadata; anybody can write most of those, so it is said and never scored down."""
    said = _CLAIMS.get(claim.kind, "the file makes a claim about its origin")
    told = f"{said}: {claim.value} ({claim.field})" if claim.value else f"{said} ({claim.field})"
    if claim.kind not in _CHECKED:
        told += "; signed by a trusted signer" if claim.field.startswith(VERIFIED_FIELD) else "; not verified"
    return Reason(f"provenance_{claim.kind}", told)


def rule_reason(policy: str, rule: int | None, action: Action) -> Reason:
    """Which rule (from 1) of the policy gave the action; None when none matched."""
    if rule is None:
        return Reason("policy_otherwise", f"no rule of policy '{policy}' matches, and otherwise it says {action}")
    return Reason("policy_rule", f"rule {rule} of policy '{policy}' says {action}")


def decision_reason(decision: Decision) -> Reason:
    """Why somebody else than the policy decided: a near-duplicate of a known fake, a reviewer, an appeal."""
    if decision.actor == "near_duplicate":
        return Reason("near_duplicate", f"raised to {decision.action}: {decision.note}")
    who = decision.actor.partition(":")[0]
    return Reason(f"decided_by_{who}", f"{who} decided {decision.action} ({decision.reason})")


def likeliest(face: FaceVerdict) -> str | None:
    """The most likely generator family, or None when none was named."""
    shares = face.generator or {}
    return max(shares, key=lambda name: shares[name], default=None)


def percent(share: float | None) -> str:
    """A share in whole percent that never claims certainty."""
    if share is None:
        return "unknown"
    if share < 0.01:
        return "under 1 %"
    return "over 99 %" if share > 0.99 else f"{share * 100:.0f} %"


def _family(face: FaceVerdict) -> str:
    name = likeliest(face)
    if name is None or name in _NO_FAMILY or face.generator is None or face.generator[name] < _FAMILY_SHARE:
        return ""
    share = percent(face.generator[name])
    if name == UNKNOWN:
        return f", most likely by a generator that this detector does not know ({share})"
    return f", most likely by {name} ({share})"


def _distrusted(face: FaceVerdict, index: int, limits: Thresholds) -> Reason | None:
    """Why what the detector says of a face is not relied on, where it is not."""
    defence = face.defence
    if defence is not None and limits.falls_apart(defence.plain, defence.blurred):
        text = (
            f"the score falls apart when this face is slightly blurred (generated {percent(defence.plain)} as it is, "
            f"{percent(defence.blurred)} blurred): possibly adversarial noise"
        )
        return Reason("face_falls_apart", text, index)
    if limits.is_strange(face.doubt, face.synthetic):
        text = f"unlike anything this detector was shown: doubt {percent(face.doubt)}, so its score is not relied on"
        return Reason("face_unlike_known", text, index)
    return None


def _untouched(face: FaceVerdict, limits: Thresholds) -> str:
    """What speaks for a real face; a score that is high, and yet one that many photographs reach, is not called no sign."""
    told = f"generated ({percent(face.synthetic)}) or changed ({percent(face.manipulated)})"
    if max(face.synthetic or 0.0, face.manipulated or 0.0) < _EVEN:
        return f"no sign that this face was {told}"
    least = f"{percent(limits.synthetic_real)} and {percent(limits.manipulated_real)}"
    return f"too few signs that this face was {told}: below {least}, which few photographs reach"


def _largest(face: FaceVerdict) -> list[Region]:
    return sorted(face.regions, key=lambda region: -region.area)[:_MOST_REGIONS]


def _changed(face: FaceVerdict) -> str:
    largest = _largest(face)
    if not largest:
        return f"this face looks partly changed ({percent(face.manipulated)}), though no single part stands out"
    parts = "; ".join(f"{region.name} changed, {percent(region.area)} of the face" for region in largest)
    return f"{parts} ({percent(face.manipulated)} sure)"


def _missing(face: FaceVerdict) -> str:
    if face.synthetic is None and face.manipulated is None:
        return "no model has judged this face"
    return "whether this face was " + ("generated" if face.synthetic is None else "changed") + " was not judged"


def _between(face: FaceVerdict, limits: Thresholds) -> str:
    bounds = {
        "generated": (face.synthetic, limits.synthetic_real, limits.synthetic),
        "changed": (face.manipulated, limits.manipulated_real, limits.manipulated),
    }
    doubts = [
        f"{what} {percent(value)} (real below {percent(low)}, {what} from {percent(high)})"
        for what, (value, low, high) in bounds.items()
        if value is not None and value >= low
    ]
    where = ", ".join(f"{region.name} ({percent(region.area)} of the face)" for region in _largest(face))
    return "neither plainly real nor plainly not: " + "; ".join([*doubts, *([f"look at: {where}"] if where else [])])
