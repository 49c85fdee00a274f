"""The contract unmask.verdict/1 as JSON, and back; findings likewise.  The only conversion in the product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from unmask.core.domain import (
    Action,
    Box,
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
    Point,
    Reason,
    Region,
    Verdict,
)
from unmask.core.errors import StoreCorrupt

SCHEMA: Final = "unmask.verdict/1"
_SCORE_PLACES: Final = 4
_PIXEL_PLACES: Final = 2
T = TypeVar("T")


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The contract's object; scores with 4 places, coordinates with 2; what is unset is null, never 0."""
    body: dict[str, Any] = {"schema": SCHEMA}
    if verdict.path is not None:
        body["path"] = verdict.path
    return body | {
        "id": verdict.id,
        "sha256": verdict.sha256,
        "width": verdict.width,
        "height": verdict.height,
        "label": verdict.label.value,
        "score": _score(verdict.score),
        "doubt": _score(verdict.doubt),
        "action": verdict.action.value,
        "faces": [_face_to_json(face) for face in verdict.faces],
        "provenance": {"claims": [{"kind": c.kind, "field": c.field, "value": c.value} for c in verdict.claims]},
        "release": _named(verdict.release),
        "models": [{"name": m.name, "version": m.version, "sha256": m.sha256} for m in verdict.models],
        "policy": _named(verdict.policy),
        "reasons": [_reason_to_json(reason) for reason in verdict.reasons],
        "runtime": dict(verdict.runtime),
        "timings_ms": dict(verdict.timings_ms),
    }


def error_json(path: str, code: str, detail: str) -> dict[str, str]:
    """The line that stands in a verdict's place."""
    return {"path": path, "error": code, "detail": detail}


def from_json(body: Mapping[str, Any]) -> Verdict:
    """The inverse of `to_json`; raises `StoreCorrupt` naming what is wrong."""
    if body.get("schema") != SCHEMA:
        raise StoreCorrupt(f"a stored verdict's schema is {body.get('schema')!r}, not {SCHEMA}")
    return _guarded("verdict", lambda: _verdict(body))


def findings_to_json(findings: Findings) -> dict[str, Any]:
    """The stages that have run, by name."""
    body: dict[str, Any] = {}
    if findings.faces is not None:
        body["faces"] = [
            {"box": list(f.box), "landmarks": _points(f.landmarks), "confidence": f.confidence} for f in findings.faces
        ]
    if findings.classified is not None:
        body["classified"] = [_classified_to_json(found) for found in findings.classified]
    if findings.localized is not None:
        body["localized"] = [
            {"manipulated": found.manipulated, "regions": [_region_to_json(r) for r in found.regions]}
            for found in findings.localized
        ]
    return body


def findings_from_json(body: Mapping[str, Any]) -> Findings:
    """The inverse of `findings_to_json`; raises `StoreCorrupt`."""
    return _guarded(
        "findings",
        lambda: Findings(
            faces=_each(body.get("faces"), _face_row),
            classified=_each(body.get("classified"), _classified),
            localized=_each(body.get("localized"), _localized),
        ),
    )


def _guarded(what: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreCorrupt(f"a stored {what} cannot be read: {type(error).__name__}: {error}") from error


def _each(items: Sequence[Mapping[str, Any]] | None, read: Callable[[Mapping[str, Any]], T]) -> tuple[T, ...] | None:
    return None if items is None else tuple(read(item) for item in items)


def _score(value: float | None) -> float | None:
    return None if value is None else round(value, _SCORE_PLACES)


def _points(points: Sequence[Point]) -> list[list[float]]:
    return [[round(x, _PIXEL_PLACES), round(y, _PIXEL_PLACES)] for x, y in points]


def _named(named: Named) -> dict[str, str]:
    return {"name": named.name, "sha256": named.sha256}


def _reason_to_json(reason: Reason) -> dict[str, Any]:
    body: dict[str, Any] = {"code": reason.code, "text": reason.text}
    return body if reason.face is None else body | {"face": reason.face}


def _shares(shares: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if shares is None else {name: round(share, _SCORE_PLACES) for name, share in shares.items()}


def _defence_to_json(defence: Defence | None) -> dict[str, float | None] | None:
    return None if defence is None else {"plain": _score(defence.plain), "blurred": _score(defence.blurred)}


def _region_to_json(region: Region) -> dict[str, Any]:
    return {
        "polygon": _points(region.polygon),
        "score": _score(region.score),
        "name": region.name,
        "area": _score(region.area),
    }


def _face_to_json(face: FaceVerdict) -> dict[str, Any]:
    return {
        "box": [round(value, _PIXEL_PLACES) for value in face.box],
        "landmarks": _points(face.landmarks),
        "label": face.label.value,
        "score": _score(face.score),
        "doubt": _score(face.doubt),
        "synthetic": _score(face.synthetic),
        "manipulated": _score(face.manipulated),
        "generator": _shares(face.generator),
        "defence": _defence_to_json(face.defence),
        "regions": [_region_to_json(region) for region in face.regions],
    }


def _classified_to_json(found: Classified) -> dict[str, Any]:
    return {
        "synthetic": found.synthetic,
        "generator": None if found.generator is None else dict(found.generator),
        "defence": None if found.defence is None else {"plain": found.defence.plain, "blurred": found.defence.blurred},
        "doubt": found.doubt,
    }


def _box(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1


def _marks(points: Sequence[Sequence[float]]) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in points)


def _face_row(body: Mapping[str, Any]) -> FaceRow:
    eye_r, eye_l, nose, mouth_r, mouth_l = _marks(body["landmarks"])
    return FaceRow(_box(body["box"]), (eye_r, eye_l, nose, mouth_r, mouth_l), body["confidence"])


def _defence(body: Mapping[str, float] | None) -> Defence | None:
    return None if body is None else Defence(body["plain"], body["blurred"])


def _classified(body: Mapping[str, Any]) -> Classified:
    return Classified(body["synthetic"], body["generator"], _defence(body["defence"]), body["doubt"])


def _region(body: Mapping[str, Any]) -> Region:
    return Region(_marks(body["polygon"]), body["score"], body["name"], body["area"])


def _localized(body: Mapping[str, Any]) -> Localized:
    return Localized(body["manipulated"], tuple(_region(region) for region in body["regions"]))


def _face(body: Mapping[str, Any]) -> FaceVerdict:
    return FaceVerdict(
        box=_box(body["box"]),
        landmarks=_marks(body["landmarks"]),
        label=Label(body["label"]),
        score=body["score"],
        doubt=body["doubt"],
        synthetic=body["synthetic"],
        manipulated=body["manipulated"],
        generator=body["generator"],
        defence=_defence(body["defence"]),
        regions=tuple(_region(region) for region in body["regions"]),
    )


def _verdict(body: Mapping[str, Any]) -> Verdict:
    return Verdict(
        id=body["id"],
        sha256=body["sha256"],
        width=body["width"],
        height=body["height"],
        label=Label(body["label"]),
        score=body["score"],
        doubt=body["doubt"],
        action=Action(body["action"]),
        faces=tuple(_face(face) for face in body["faces"]),
        claims=tuple(Claim(c["kind"], c["field"], c["value"]) for c in body["provenance"]["claims"]),
        release=Named(**body["release"]),
        models=tuple(ModelVersion(**model) for model in body["models"]),
        policy=Named(**body["policy"]),
        reasons=tuple(Reason(r["code"], r["text"], r.get("face")) for r in body["reasons"]),
        runtime=body["runtime"],
        timings_ms=body["timings_ms"],
        path=body.get("path"),
    )
