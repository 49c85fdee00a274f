"""Model cards and releases: the data that says which models run and how their outputs are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from unmask.core.errors import BadModel
from unmask.core.images import Border, View, ViewContract

CARD_SCHEMA: Final = "unmask.card/1"
RELEASE_SCHEMA: Final = "unmask.release/1"
ROLES: Final = {"face_detector": "faces", "detector": "synthetic", "localizer": "regions"}
_EDGE: Final = 1e-6


def sigmoid(logit: float) -> float:
    """Logistic function, safe for any float."""
    if logit >= 0.0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))


def logit_of(probability: float) -> float:
    """Inverse of `sigmoid`, with the probability clipped to [1e-6, 1 - 1e-6]."""
    clipped = min(max(probability, _EDGE), 1.0 - _EDGE)
    return math.log(clipped / (1.0 - clipped))


class _Reader:
    """Typed look-ups in parsed JSON whose errors name the document and the field."""

    def __init__(self, where: str, data: object) -> None:
        if not isinstance(data, Mapping):
            raise BadModel(f"{where}: expected a JSON object")
        self.where, self.data = where, data

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """The value of `key`; raises `BadModel` when it is missing or of another kind."""
        value = self.data.get(key)
        # A bool is an int to Python, never to a card.
        if isinstance(value, bool) or not isinstance(value, kind):
            raise BadModel(f"{self.where}: field '{key}' is missing or not of the right kind")
        return value

    def number(self, key: str) -> float:
        """The finite number at `key`."""
        value = float(self.get(key, (int, float)))
        if not math.isfinite(value):
            raise BadModel(f"{self.where}: field '{key}' is not a finite number")
        return value

    def sub(self, key: str) -> _Reader:
        """A reader for the object at `key`."""
        return _Reader(f"{self.where}: {key}", self.get(key, Mapping))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype (numpy name) and shape of a tensor; -1 is any length, the first axis is the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """p = sigmoid(logit / temperature + bias), fitted at prior .5.  Source: Guo et al., ICML 2017; Platt, 1999."""

    temperature: float = 1.0
    bias: float = 0.0

    def probability(self, logit: float) -> float:
        """Calibrated probability of a raw logit."""
        return sigmoid(logit / self.temperature + self.bias)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """An exact model version; `sha256` is that of its card, which names the sha256 of every file."""

    name: str
    version: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """What a model version says of itself (model_repository/<name>/<version>/card.json)."""

    name: str
    version: int
    task: str
    files: Mapping[str, str]
    input: TensorSpec
    view: ViewContract | None
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
    classes: tuple[str, ...]
    calibration: Calibration
    thresholds: Mapping[str, float]
    sha256: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def ref(self) -> ModelRef:
        """The exact version this card describes."""
        return ModelRef(self.name, self.version, self.sha256)

    @staticmethod
    def parse(text: bytes, sha256: str, where: str = "card.json") -> Card:
        """Reads a card; raises `BadModel` naming the field."""
        card = _Reader(where, _json(text, where))
        if card.get("schema", str) != CARD_SCHEMA:
            raise BadModel(f"{where}: schema is not {CARD_SCHEMA}")
        entries = card.get("files", Mapping)
        files = {name: _Reader(f"{where}: files", entry).get("sha256", str) for name, entry in entries.items()}
        if "model.onnx" not in files:
            raise BadModel(f"{where}: files names no model.onnx")
        calibration = card.data.get("calibration")
        thresholds = {key: _Reader(where, card.data["thresholds"]).number(key) for key in card.data.get("thresholds") or {}}
        return Card(
            name=card.get("name", str),
            version=card.get("version", int),
            task=card.get("task", str),
            files=files,
            input=_input(card.sub("input")),
            view=_view(card.sub("input")),
            outputs=_outputs(card),
            max_batch_size=_positive(card, "max_batch_size"),
            classes=tuple(str(name) for name in card.data.get("classes") or ()),
            calibration=_calibration(_Reader(f"{where}: calibration", calibration)) if calibration else Calibration(),
            thresholds=thresholds,
            sha256=sha256,
            raw=card.data,
        )


def _json(text: bytes, where: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadModel(f"{where}: not JSON ({error})") from error


def _positive(card: _Reader, key: str) -> int:
    value = card.get(key, int)
    if value < 1:
        raise BadModel(f"{card.where}: field '{key}' must be at least 1")
    return int(value)


def _calibration(card: _Reader) -> Calibration:
    temperature = card.number("temperature")
    if temperature <= 0.0:
        raise BadModel(f"{card.where}: temperature must be positive")
    return Calibration(temperature, card.number("bias"))


def _input(card: _Reader) -> TensorSpec:
    """The input contract: only uint8 NHWC RGB is served."""
    stated = tuple(card.get(key, str) for key in ("dtype", "layout", "colour"))
    if stated != ("uint8", "NHWC", "RGB"):
        raise BadModel(f"{card.where}: the input must be uint8 NHWC RGB, the card states {' '.join(stated)}")
    size = -1 if card.get("view", str) == "canvas" else _positive(card, "size")
    return TensorSpec(card.get("name", str), "uint8", (-1, size, size, 3))


def _view(card: _Reader) -> ViewContract | None:
    if card.get("view", str) == "canvas":
        return None
    try:
        view, border = View(card.get("view", str)), Border(card.get("border", str))
    except ValueError as error:
        raise BadModel(f"{card.where}: {error}") from error
    margin = card.number("margin")
    if margin <= 0.0:
        raise BadModel(f"{card.where}: margin must be positive")
    return ViewContract(view, _positive(card, "size"), margin, border)


def _outputs(card: _Reader) -> tuple[TensorSpec, ...]:
    entries: Sequence[object] = card.get("outputs", list)
    readers = [_Reader(f"{card.where}: outputs", entry) for entry in entries]
    return tuple(
        TensorSpec(r.get("name", str), r.get("dtype", str), tuple(int(n) for n in r.get("shape", list))) for r in readers
    )


@dataclass(frozen=True, slots=True)
class Fusion:
    """A face's score from its parts: sigmoid(slope * logit(1 - (1 - s) (1 - m)) + bias).

    Either part alone makes a face no plain photograph, so a low one says nothing against a high one (noisy or); slope and
    bias are the release's calibration at prior .5.  A part that no model gave leaves the other one alone.
    """

    slope: float = 1.0
    bias: float = 0.0

    def score(self, synthetic: float | None, manipulated: float | None) -> float | None:
        """Fused probability, or None where both parts are unset."""
        if synthetic is None and manipulated is None:
            return None
        plain = (1.0 - (synthetic or 0.0)) * (1.0 - (manipulated or 0.0))
        return sigmoid(self.slope * logit_of(1.0 - plain) + self.bias)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The release's operating point, in calibrated probabilities.

    At or above `synthetic` / `manipulated` a face is called so; below both `*_real` it is real; between: unsure.  From
    `plainly_synthetic` on the localizer is skipped.  `min_face` is the smallest long side of a box, in picture pixels.
    """

    synthetic_real: float
    synthetic: float
    manipulated_real: float
    manipulated: float
    plainly_synthetic: float
    min_face: float


@dataclass(frozen=True, slots=True)
class Release:
    """Exact model versions with fusion and operating point; its sha256 is part of every verdict's key."""

    name: str
    models: Mapping[str, ModelRef]
    fusion: Fusion
    thresholds: Thresholds
    sha256: str

    def model(self, role: str) -> ModelRef:
        """The model version that plays `role` (`face_detector`, `detector`, `localizer`)."""
        return self.models[role]

    @staticmethod
    def parse(text: bytes, sha256: str, where: str = "release.json") -> Release:
        """Reads a release; raises `BadModel` naming the field."""
        release = _Reader(where, _json(text, where))
        if release.get("schema", str) != RELEASE_SCHEMA:
            raise BadModel(f"{where}: schema is not {RELEASE_SCHEMA}")
        fusion, limits, models = release.sub("fusion"), release.sub("thresholds"), release.sub("models")
        thresholds = Thresholds(**{key: limits.number(key) for key in Thresholds.__slots__})
        if thresholds.synthetic_real > thresholds.synthetic or thresholds.manipulated_real > thresholds.manipulated:
            raise BadModel(f"{where}: thresholds: a *_real threshold lies above its own upper threshold")
        return Release(
            name=release.get("name", str),
            models={role: _ref(role, models.sub(role)) for role in ROLES},
            fusion=Fusion(**{key: fusion.number(key) for key in Fusion.__slots__}),
            thresholds=thresholds,
            sha256=sha256,
        )


def _ref(role: str, entry: _Reader) -> ModelRef:
    return ModelRef(role, _positive(entry, "version"), entry.get("sha256", str))
