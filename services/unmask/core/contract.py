"""The contract unmask.verdict/1 as JSON, and back; findings likewise.  The only conversion in the product."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
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
    """The contract's object; scores with 4 places, coordinates with 2; what is unset is null, never 0.

    Raises `ValueError` for a number that is not finite.
    """
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
        "timings_ms": {name: float(spent) for name, spent in verdict.timings_ms.items()},
    }


def error_json(path: str, code: str, detail: str) -> dict[str, str]:
    """The line that stands in a verdict's place."""
    return {"path": path, "error": code, "detail": detail}


def from_json(body: Mapping[str, Any]) -> Verdict:
    """The inverse of `to_json`; raises `StoreCorrupt` naming what is wrong."""
    schema = _guarded("verdict", lambda: body.get("schema"))
    if schema != SCHEMA:
        raise StoreCorrupt(f"a stored verdict's schema is {schema!r}, not {SCHEMA}")
    return _guarded("verdict", lambda: _verdict(body))


def findings_to_json(findings: Findings) -> dict[str, Any]:
    """The stages that have run, by name; nothing is rounded: the next stage must see what this one found.

    Heat maps are left out: they explain on request.
    """
    plain = None if findings.localized is None else [(one.manipulated, one.regions) for one in findings.localized]
    localized = None if plain is None else [{"manipulated": score, "regions": regions} for score, regions in plain]
    parts = {"faces": findings.faces, "classified": findings.classified, "localized": localized}
    return {name: [_plain(found) for found in part] for name, part in parts.items() if part is not None}


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


def _rounded(value: float, places: int) -> float:
    """Also of a numpy number; JSON has no word for NaN, and a verdict must not hold one."""
    if not math.isfinite(value):
        raise ValueError(f"a verdict holds {value}, which is no number")
    return round(float(value), places)


def _score(value: float | None) -> float | None:
    return None if value is None else _rounded(value, _SCORE_PLACES)


def _points(points: Sequence[Point]) -> list[list[float]]:
    return [[_rounded(x, _PIXEL_PLACES), _rounded(y, _PIXEL_PLACES)] for x, y in points]


def _named(named: Named) -> dict[str, str]:
    return {"name": named.name, "sha256": named.sha256}


def _reason_to_json(reason: Reason) -> dict[str, Any]:
    body: dict[str, Any] = {"code": reason.code, "text": reason.text}
    return body if reason.face is None else body | {"face": reason.face}


def _shares(shares: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if shares is None else {name: _rounded(share, _SCORE_PLACES) for name, share in shares.items()}


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
        "box": [_rounded(value, _PIXEL_PLACES) for value in face.box],
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


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples as what JSON has; numpy's numbers as Python's."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str) else _number(float(value))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _optional(value: object) -> float | None:
    return None if value is None else _number(value)


def _numbers(body: Mapping[str, Any]) -> dict[str, float]:
    return {_text(name): _number(value) for name, value in body.items()}


def _generator(body: Mapping[str, Any] | None) -> dict[str, float] | None:
    return None if body is None else _numbers(body)


def _box(values: Sequence[object]) -> Box:
    x0, y0, x1, y1 = (float(_number(value)) for value in values)
    return x0, y0, x1, y1


def _marks(points: Sequence[Sequence[object]]) -> tuple[Point, ...]:
    return tuple((float(_number(x)), float(_number(y))) for x, y in points)


def _five(points: Sequence[Sequence[object]]) -> tuple[Point, Point, Point, Point, Point]:
    right_eye, left_eye, nose, right_mouth, left_mouth = _marks(points)
    return right_eye, left_eye, nose, right_mouth, left_mouth


def _face_row(body: Mapping[str, Any]) -> FaceRow:
    return FaceRow(_box(body["box"]), _five(body["landmarks"]), _number(body["confidence"]))


def _defence(body: Mapping[str, Any] | None) -> Defence | None:
    return None if body is None else Defence(_number(body["plain"]), _number(body["blurred"]))


def _classified(body: Mapping[str, Any]) -> Classified:
    generator, defence = _generator(body["generator"]), _defence(body["defence"])
    return Classified(_optional(body["synthetic"]), generator, defence, _optional(body["doubt"]))


def _region(body: Mapping[str, Any]) -> Region:
    return Region(_marks(body["polygon"]), _number(body["score"]), _text(body["name"]), _number(body["area"]))


def _localized(body: Mapping[str, Any]) -> Localized:
    return Localized(_optional(body["manipulated"]), tuple(_region(region) for region in body["regions"]))


def _face(body: Mapping[str, Any]) -> FaceVerdict:
    return FaceVerdict(
        box=_box(body["box"]),
        landmarks=_marks(body["landmarks"]),
        label=Label(body["label"]),
        score=_optional(body["score"]),
        doubt=_optional(body["doubt"]),
        synthetic=_optional(body["synthetic"]),
        manipulated=_optional(body["manipulated"]),
        generator=_generator(body["generator"]),
        defence=_defence(body["defence"]),
        regions=tuple(_region(region) for region in body["regions"]),
    )


def _named_of(body: Mapping[str, Any]) -> Named:
    return Named(_text(body["name"]), _text(body["sha256"]))


def _model(body: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(_text(body["name"]), _whole(body["version"]), _text(body["sha256"]))


def _claim(body: Mapping[str, Any]) -> Claim:
    return Claim(_text(body["kind"]), _text(body["field"]), _text(body["value"]))


def _reason(body: Mapping[str, Any]) -> Reason:
    face = body.get("face")
    return Reason(_text(body["code"]), _text(body["text"]), None if face is None else _whole(face))


def _verdict(body: Mapping[str, Any]) -> Verdict:
    path = body.get("path")
    return Verdict(
        id=_text(body["id"]),
        sha256=_text(body["sha256"]),
        width=_whole(body["width"]),
        height=_whole(body["height"]),
        label=Label(body["label"]),
        score=_optional(body["score"]),
        doubt=_optional(body["doubt"]),
        action=Action(body["action"]),
        faces=tuple(_face(face) for face in body["faces"]),
        claims=tuple(_claim(claim) for claim in body["provenance"]["claims"]),
        release=_named_of(body["release"]),
        models=tuple(_model(model) for model in body["models"]),
        policy=_named_of(body["policy"]),
        reasons=tuple(_reason(reason) for reason in body["reasons"]),
        runtime={_text(name): _text(version) for name, version in body["runtime"].items()},
        timings_ms=_numbers(body["timings_ms"]),
        path=None if path is None else _text(path),
    )
