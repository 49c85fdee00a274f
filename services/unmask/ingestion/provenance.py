"""What a picture file says of its own origin.  Anybody can write it: it is shown as a reason and never lowers a score."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from unmask.core.domain import Claim
from unmask.ingestion.metadata import Field, fields, file_format

_LONGEST_VALUE: Final = 200
_MOST_CLAIMS: Final = 20
_PRESENT: Final = Claim("c2pa_present", "C2PA manifest", "")

# Text keys that only generators write.
_PNG_KEYS: Final = {
    "parameters": "Stable Diffusion web UI",
    "prompt": "ComfyUI",
    "workflow": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "Dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
    "generation_data": "a diffusion service",
}
# Fields that name a program; in these a product's bare name is enough.
_TOOL_FIELDS: Final = frozenset(
    {"Software", "CreatorTool", "OriginatingProgram", "Credit", "softwareAgent", "AISystemUsed", "Source"}
)
_GENERATORS: Final = re.compile(
    r"stable[ -]?diffusion|automatic1111|comfyui|invoke ?ai|fooocus|sd\.next|novelai|mid ?journey|dall[-·. ]?e\b|openai|chatgpt"
    r"|gpt-4o|\bimagen\b|google ai|gemini|firefly|image creator|leonardo\.ai|ideogram|\bflux\b|black forest labs|\bgrok\b"
    r"|imagined with ai|stylegan|thispersondoesnotexist|playground ai|nightcafe|dreamstudio|draw things|craiyon|recraft"
    r"|meta ai|\bkrea\b|seedream|qwen-image|easy diffusion|bing image|ai[ -]generated"
    r"|(?:made|generated|created) (?:with|by|using) (?:an? )?(?:\w{1,30} )?ai\b",
    re.IGNORECASE,
)
_EDITORS: Final = re.compile(
    r"photoshop|lightroom|\bgimp\b|affinity|pixelmator|snapseed|facetune|faceapp|reface|meitu|beautyplus|picsart|canva|paint\.net"
    r"|luminar|capture one|facefusion|faceswap|deepfacelab|\broop\b|remini|photoroom|polarr|vsco",
    re.IGNORECASE,
)
# The line that the web UI and its descendants put into PNG text, EXIF UserComment or a JPEG comment.
_DIFFUSION_STEPS: Final = re.compile(r"\bSteps: \d+,")
_MIDJOURNEY_JOB: Final = re.compile(r"\bJob ID: [0-9a-f]{8}-[0-9a-f]{4}-", re.IGNORECASE)
_COMFY_JSON: Final = re.compile(r"\s*(?:workflow|prompt)\s*:\s*\{", re.IGNORECASE)

# IPTC NewsCodes "digitalsourcetype": what is a photograph or a scan of one, and what was only edited by hand.
_CAPTURES: Final = frozenset(
    {"digitalCapture", "computationalCapture", "negativeFilm", "positiveFilm", "print", "digitalPhoto"}
)
_HUMAN_EDITS: Final = frozenset({"minorHumanEdits", "humanEdits", "compositeCapture", "composite", "screenCapture"})


Verify = Callable[[bytes, str], tuple[Claim, ...]]


def claims(data: bytes, verify: Verify | None = None) -> tuple[Claim, ...]:
    """The claims in a file's metadata, at most 20, each once; values are cut to 200 characters and printable.

    Kinds: `generator` (a program that makes pictures), `digital_source_type` (the IPTC term of a made picture), `editor`,
    `capture` (a camera), `c2pa_present` (Content Credentials, not verified); with `verify`, which is given file and format
    where there are some, those of ingestion.credentials.  Never raises, whatever the bytes are.
    """
    found = fields(data)
    plain = _plain(found)
    if verify is None or _PRESENT not in plain:
        return plain[:_MOST_CLAIMS]
    checked = verify(data, file_format(data))
    if not checked:
        return plain[:_MOST_CLAIMS]
    told = {(claim.kind, claim.value) for claim in checked}
    rest = (claim for claim in plain if claim != _PRESENT and (claim.kind, claim.value) not in told)
    return (*checked, *rest)[:_MOST_CLAIMS]


def _plain(found: list[Field]) -> tuple[Claim, ...]:
    """What the fields say, each claim once."""
    made = [claim for field in found if (claim := _claim(field)) is not None]
    camera = " ".join(field.text for field in found if field.source == "EXIF" and field.name in {"Make", "Model"})
    if camera and not any(_COMFY_JSON.match(field.text) for field in found if field.source == "EXIF"):
        made.append(said("capture", "EXIF Make and Model", camera))
    return tuple(dict.fromkeys(made))


def _claim(field: Field) -> Claim | None:
    where = f"{field.source} {field.name}"
    if field.source == "C2PA" and field.name == "manifest":
        return _PRESENT
    if field.source == "XMP" and field.name == "provenance":
        return said("c2pa_present", where, f"elsewhere, not fetched: {field.text}")
    if field.name == "DigitalSourceType":
        return source_type(where, field.text)
    if field.source == "PNG" and field.name in _PNG_KEYS:
        return said("generator", where, f"{_PNG_KEYS[field.name]}: {field.text}")
    if _is_settings(field.text):
        return said("generator", where, field.text)
    if field.name in _TOOL_FIELDS:
        return tool(where, field.text[:1000])
    return None


def _is_settings(text: str) -> bool:
    """Whether the text is the settings of a generator, whatever field it stands in."""
    is_diffusion = _DIFFUSION_STEPS.search(text) is not None and ("Sampler" in text or "CFG scale" in text)
    return is_diffusion or _COMFY_JSON.match(text) is not None or _MIDJOURNEY_JOB.search(text) is not None


def tool(where: str, text: str) -> Claim | None:
    """What a program's name says, where it is known."""
    if _GENERATORS.search(text):
        return said("generator", where, text)
    return said("editor", where, text) if _EDITORS.search(text) else None


def source_type(where: str, text: str) -> Claim:
    """What an IPTC digital source type (its term, or the address that ends in it) says."""
    term = text.rstrip("/").rsplit("/", 1)[-1]
    if term in _CAPTURES:
        return said("capture", where, term)
    return said("editor" if term in _HUMAN_EDITS else "digital_source_type", where, term)


def said(kind: str, where: str, value: str) -> Claim:
    """A claim that is safe to show."""
    return Claim(kind, printable(where)[:100], printable(value))


def printable(text: str) -> str:
    """At most 200 characters, those that do not print (control, direction, private) written as escapes."""
    escaped = (sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text[:_LONGEST_VALUE])
    whole = "".join(escaped)
    return whole[: _LONGEST_VALUE - 1] + "…" if len(whole) > _LONGEST_VALUE or len(text) > _LONGEST_VALUE else whole
