"""Model cards and releases: the data that says which models run and how their outputs are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from unmask.core.errors import BadModel
from unmask.core.golden import Golden, golden
from unmask.core.images import Border, View, ViewContract
from unmask.core.reading import Reader
from unmask.core.readouts import (
    UNKNOWN,
    BlurDefence,
    DoubtMap,
    OpenSet,
    Reference,
    blur_defence,
    doubt_map,
    open_set,
    reference,
)

CARD_SCHEMA: Final = "unmask.card/1"
RELEASE_SCHEMA: Final = "unmask.release/1"
ROLES: Final = {"face_detector": "faces", "detector": "synthetic", "localizer": "regions"}
_OPTIONAL: Final = ("doubt", "synthetic_despite_doubt", "defence_gap")
# The outputs that each optional section of a card reads.
_SECTIONS: Final = {"defence": ("plain", "blurred"), "open_set": ("family",), "doubt": ("distance",)}
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
    # What a detector says beside its score; None where its graph does not.
    defence: BlurDefence | None = None
    open_set: OpenSet | None = None
    doubt: DoubtMap | None = None
    golden: Golden | None = None
    reference: Reference | None = None

    @property
    def ref(self) -> ModelRef:
        """The exact version this card describes."""
        return ModelRef(self.name, self.version, self.sha256)

    @staticmethod
    def parse(text: bytes, sha256: str, where: str = "card.json") -> Card:
        """Reads a card; raises `BadModel` naming the field."""
        card = Reader.of_text(text, where)
        if card.get("schema", str) != CARD_SCHEMA:
            raise BadModel(f"{where}: schema is not {CARD_SCHEMA}")
        entries = card.get("files", Mapping)
        files = {name: Reader(f"{where}: files", entry).get("sha256", str) for name, entry in entries.items()}
        if "model.onnx" not in files:
            raise BadModel(f"{where}: files names no model.onnx")
        calibration = card.data.get("calibration")
        thresholds = {key: Reader(where, card.data["thresholds"]).number(key) for key in card.data.get("thresholds") or {}}
        outputs, classes = _outputs(card), tuple(str(name) for name in card.data.get("classes") or ())
        _check_sections(card, outputs, classes)
        return Card(
            name=card.get("name", str),
            version=card.get("version", int),
            task=card.get("task", str),
            files=files,
            input=_input(card.sub("input")),
            view=_view(card.sub("input")),
            outputs=outputs,
            max_batch_size=card.positive("max_batch_size"),
            classes=classes,
            calibration=_calibration(Reader(f"{where}: calibration", calibration)) if calibration else Calibration(),
            thresholds=thresholds,
            sha256=sha256,
            raw=card.data,
            defence=blur_defence(card.maybe("defence")),
            open_set=open_set(card.maybe("open_set")),
            doubt=doubt_map(card.maybe("doubt")),
            golden=golden(card.maybe("golden")),
            reference=reference(card.maybe("reference")),
        )


def _calibration(card: Reader) -> Calibration:
    temperature = card.number("temperature")
    if temperature <= 0.0:
        raise BadModel(f"{card.where}: temperature must be positive")
    return Calibration(temperature, card.number("bias"))


def _input(card: Reader) -> TensorSpec:
    """The input contract: only uint8 NHWC RGB is served."""
    stated = tuple(card.get(key, str) for key in ("dtype", "layout", "colour"))
    if stated != ("uint8", "NHWC", "RGB"):
        raise BadModel(f"{card.where}: the input must be uint8 NHWC RGB, the card states {' '.join(stated)}")
    size = -1 if card.get("view", str) == "canvas" else card.positive("size")
    return TensorSpec(card.get("name", str), "uint8", (-1, size, size, 3))


def _view(card: Reader) -> ViewContract | None:
    if card.get("view", str) == "canvas":
        return None
    try:
        view, border = View(card.get("view", str)), Border(card.get("border", str))
    except ValueError as error:
        raise BadModel(f"{card.where}: {error}") from error
    margin = card.number("margin")
    if margin <= 0.0:
        raise BadModel(f"{card.where}: margin must be positive")
    return ViewContract(view, card.positive("size"), margin, border)


def _outputs(card: Reader) -> tuple[TensorSpec, ...]:
    entries: Sequence[object] = card.get("outputs", list)
    readers = [Reader(f"{card.where}: outputs", entry) for entry in entries]
    return tuple(
        TensorSpec(r.get("name", str), r.get("dtype", str), tuple(int(n) for n in r.get("shape", list))) for r in readers
    )


def _check_sections(card: Reader, outputs: Sequence[TensorSpec], classes: Sequence[str]) -> None:
    """A section that says how an output is read needs that output."""
    given = {spec.name for spec in outputs}
    for section, needed in _SECTIONS.items():
        lacking = [name for name in needed if card.maybe(section) is not None and name not in given]
        if lacking:
            raise BadModel(f"{card.where}: field '{section}' needs the output '{lacking[0]}', which the card does not name")
    if card.maybe("open_set") is not None and UNKNOWN in classes:
        raise BadModel(f"{card.where}: field 'classes' names '{UNKNOWN}', which is what 'open_set' adds")


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

    The others are None where the release states none, and then do nothing.  From `doubt` on what the detector says is not
    relied on, unless it gives `synthetic_despite_doubt` or more; nor is it where its scores of the plain and the blurred view
    lie on different sides and at least `defence_gap` apart.
    """

    synthetic_real: float
    synthetic: float
    manipulated_real: float
    manipulated: float
    plainly_synthetic: float
    min_face: float
    doubt: float | None = None
    synthetic_despite_doubt: float | None = None
    defence_gap: float | None = None

    def is_strange(self, doubt: float | None, synthetic: float | None) -> bool:
        """Whether a face is too unlike what the detector knows for its p(synthetic) to be relied on."""
        if self.doubt is None or doubt is None or doubt < self.doubt:
            return False
        spared = self.synthetic_despite_doubt
        return spared is None or synthetic is None or synthetic < spared

    def falls_apart(self, plain: float, blurred: float) -> bool:
        """Whether a slight blur carries p(synthetic) from one side of the operating point to the other, and far."""
        low, high = min(plain, blurred), max(plain, blurred)
        # Rounded, so that .67 and .37 are .3 apart.
        is_far = self.defence_gap is not None and round(high - low, 4) >= self.defence_gap
        return is_far and low < self.synthetic_real and high >= self.synthetic


@dataclass(frozen=True, slots=True)
class Release:
    """Exact model versions with fusion and operating point; its sha256 is part of every verdict's key.

    `reference`, where it is stated, stands before the detector's own: scores of the calibration part as they were served.
    """

    name: str
    models: Mapping[str, ModelRef]
    fusion: Fusion
    thresholds: Thresholds
    sha256: str
    reference: Reference | None = None

    def model(self, role: str) -> ModelRef:
        """The model version that plays `role` (`face_detector`, `detector`, `localizer`)."""
        return self.models[role]

    @staticmethod
    def parse(text: bytes, sha256: str, where: str = "release.json") -> Release:
        """Reads a release; raises `BadModel` naming the field."""
        release = Reader.of_text(text, where)
        if release.get("schema", str) != RELEASE_SCHEMA:
            raise BadModel(f"{where}: schema is not {RELEASE_SCHEMA}")
        fusion, limits, models = release.sub("fusion"), release.sub("thresholds"), release.sub("models")
        thresholds = Thresholds(
            **{key: limits.number(key) for key in Thresholds.__slots__ if key not in _OPTIONAL},
            **{key: _share(limits, key) for key in _OPTIONAL if limits.data.get(key) is not None},
        )
        if thresholds.synthetic_real > thresholds.synthetic or thresholds.manipulated_real > thresholds.manipulated:
            raise BadModel(f"{where}: thresholds: a *_real threshold lies above its own upper threshold")
        return Release(
            name=release.get("name", str),
            models={role: _ref(role, models.sub(role)) for role in ROLES},
            fusion=Fusion(**{key: fusion.number(key) for key in Fusion.__slots__}),
            thresholds=thresholds,
            sha256=sha256,
            reference=reference(release.maybe("reference")),
        )


def _share(limits: Reader, key: str) -> float:
    value = limits.number(key)
    if not 0.0 < value <= 1.0:
        raise BadModel(f"{limits.where}: field '{key}' must lie above 0 and not above 1")
    return value


def _ref(role: str, entry: Reader) -> ModelRef:
    return ModelRef(role, entry.positive("version"), entry.get("sha256", str))
