"""What verified Content Credentials (C2PA) say: the library's report becomes claims, and none of them lowers a score."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from unmask.core.domain import Claim
from unmask.core.reasons import VERIFIED_FIELD
from unmask.ingestion.provenance import said, source_type, tool

# A file and its format; the outcome of reading it, and a report (JSON) or a refusal.
Read = Callable[[bytes, str], tuple[str, str]]
_MOST_ACTIONS: Final = 32
_MOST_CODES: Final = 3
_UNTRUSTED: Final = "signingCredential.untrusted"
_MANIFEST: Final = "C2PA manifest"
# IPTC digital source types of what a program made, wholly or in part.
_MADE_TYPES: Final = frozenset(
    {"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic", "algorithmicMedia"}
)


def verifier(read: Read) -> Callable[[bytes, str], tuple[Claim, ...]]:
    """Reads a file's Content Credentials through `read`, as claims; `read` answers as adapters.c2pa_reader does.

    Kinds: `c2pa_verified` (unchanged, and the signer chains to a trust anchor), `c2pa_untrusted` (unchanged, signed by
    anybody), `c2pa_invalid` (with what does not hold), `c2pa_present` (there, but its reader was stopped); and of unchanged
    ones what the active manifest says of the making: `generator`, `digital_source_type`, `editor`, `capture`.
    """

    def verify(data: bytes, image_format: str) -> tuple[Claim, ...]:
        outcome, text = read(data, image_format)
        if outcome == "stopped":
            return (said("c2pa_present", _MANIFEST, "not read to its end, for it takes too much time or memory"),)
        if outcome == "broken":
            return (said("c2pa_invalid", _MANIFEST, f"cannot be read: {text}"),)
        return _claims(text) if outcome == "report" else ()

    return verify


def _claims(text: str) -> tuple[Claim, ...]:
    try:
        report = _mapping(json.loads(text))
    except (ValueError, RecursionError):
        return (said("c2pa_invalid", _MANIFEST, "cannot be read: its report is no JSON"),)
    active = _mapping(_mapping(report.get("manifests")).get(str(report.get("active_manifest"))))
    state = report.get("validation_state")
    if state not in {"Valid", "Trusted"} or not active:
        return (said("c2pa_invalid", _MANIFEST, ", ".join(islice(_failures(report), _MOST_CODES)) or "not valid"),)
    is_trusted = state == "Trusted"
    by = f"signed by {_signer(active)}, made with {_claim_generator(active) or 'an unnamed program'}"
    kind = "c2pa_verified" if is_trusted else "c2pa_untrusted"
    made = _made(active, VERIFIED_FIELD if is_trusted else "C2PA")
    return (said(kind, "C2PA signature", by), *dict.fromkeys(made))


def _failures(report: Mapping[str, Any]) -> Iterator[str]:
    """Codes of C2PA 2.1, 15.2: what does not hold in the active manifest, then in what it was made from; each once."""
    results = _mapping(report.get("validation_results"))
    ingredients = (_mapping(_mapping(delta).get("validationDeltas")) for delta in _list(results.get("ingredientDeltas")))
    everywhere = (_mapping(results.get("activeManifest")), *islice(ingredients, _MOST_ACTIONS))
    codes = (str(_mapping(failure).get("code")) for part in everywhere for failure in _list(part.get("failure")))
    yield from dict.fromkeys(code for code in codes if code != _UNTRUSTED)


def _signer(manifest: Mapping[str, Any]) -> str:
    told = _mapping(manifest.get("signature_info"))
    names = dict.fromkeys(_word(told.get(key)) for key in ("common_name", "issuer"))
    return " of ".join(filter(None, names)) or "an unnamed signer"


def _claim_generator(manifest: Mapping[str, Any]) -> str:
    informed = (_program(entry) for entry in _list(manifest.get("claim_generator_info")))
    return next(filter(None, informed), "") or _word(manifest.get("claim_generator"))


def _made(manifest: Mapping[str, Any], where: str) -> Iterator[Claim]:
    program = _claim_generator(manifest)
    for action in islice(_actions(manifest), _MOST_ACTIONS):
        agent = _program(action.get("softwareAgent"))
        source = _word(action.get("digitalSourceType"))
        if source:
            claim = source_type(f"{where} actions", source)
            yield claim
            if claim.value in _MADE_TYPES and (agent or program):
                yield said("generator", f"{where} actions", agent or program)
                continue
        if (claim_of_tool := tool(f"{where} actions", agent)) is not None:
            yield claim_of_tool
    if (claim_of_tool := tool(f"{where} claim generator", program)) is not None:
        yield claim_of_tool


def _actions(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for assertion in map(_mapping, _list(manifest.get("assertions"))):
        if str(assertion.get("label")).startswith("c2pa.actions"):
            yield from map(_mapping, _list(_mapping(assertion.get("data")).get("actions")))


def _program(value: object) -> str:
    """A program's name and version, stated as a text or as a mapping."""
    if isinstance(value, Mapping):
        return " ".join(filter(None, (_word(value.get("name")), _word(value.get("version")))))
    return _word(value)


def _word(value: object) -> str:
    return value[:500].strip() if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
