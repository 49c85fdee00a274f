"""The demo's three pictures: a photograph, a face generated on the spot, and the photograph doctored with a part of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.core import geometry
from unmask.core.domain import FaceRow
from unmask.core.errors import BadConfig
from unmask.core.images import Pixels, shrink_area, unit_transform

_TRUNCATION: Final = 0.6
_STYLES: Final = 256
# The doctored part, an ellipse in the unit square of the landmark template: nose and mouth.
_PART: Final = ((0.5, 0.74), (0.27, 0.23))
_EXTRA: Final = "this needs the extra 'demo': `pip install unmask[demo]` (in a checkout: `make demo`)"


def photograph() -> Pixels:
    """scikit-image's astronaut: Eileen Collins, NASA, public domain; (512, 512, 3) uint8 RGB."""
    try:
        from skimage import data
    except ImportError as error:
        raise BadConfig(_EXTRA) from error
    astronaut: Callable[[], Pixels] = data.astronaut
    return np.ascontiguousarray(astronaut())


class Generator:
    """MobileStyleGAN (Belousov, 2021) in OpenVINO: random faces of 1024 px, the same for the same seed."""

    def __init__(self, folder: Path) -> None:
        try:
            from openvino import Core
        except ImportError as error:
            raise BadConfig(_EXTRA) from error
        core = Core()
        self._mapping = _network(core, folder / "MappingNetwork.xml")
        self._synthesis = _network(core, folder / "SynthesisNetwork.xml")

    def face(self, seed: int) -> Pixels:
        """One face, (1024, 1024, 3) uint8 RGB; its style is drawn towards the mean (truncation, Karras et al., 2019)."""
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(_STYLES, 1, 512)).astype(np.float32)
        styles = np.concatenate([self._mapping(row) for row in noise])
        mean = styles.mean(axis=0, keepdims=True)
        image = self._synthesis(mean + _TRUNCATION * (styles[:1] - mean))[0]
        pixels = (image.transpose(1, 2, 0) + 1.0) * 127.5
        return np.ascontiguousarray(np.clip(pixels.round(), 0, 255).astype(np.uint8))


def _network(core: Any, path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    compiled = core.compile_model(core.read_model(path), "CPU")

    def run(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = compiled(tensor)[0].copy()
        return result

    return run


def doctored(base: Pixels, base_face: FaceRow, donor: Pixels, donor_face: FaceRow) -> Pixels:
    """The base with the donor's nose and mouth: fitted by the landmarks, blended in the gradient domain.

    Source of the blending: Perez et al., Poisson image editing, SIGGRAPH 2003 (OpenCV's seamlessClone).
    """
    fit = geometry.similarity(np.array(donor_face.landmarks), np.array(base_face.landmarks))
    height, width = base.shape[:2]
    # warpAffine reads single pixels: what it shrinks has to be averaged first.
    factor = geometry.scale_of(fit)
    if factor < 1.0:
        donor, shrink = shrink_area(donor, factor)
        fit = geometry.compose(fit, geometry.invert(shrink))
    moved = cv2.warpAffine(donor, fit, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    mask = _part_mask(base_face, height, width)
    x, y, w, h = cv2.boundingRect(mask)
    centre = (x + w // 2, y + h // 2)
    return cv2.seamlessClone(moved, base, mask, centre, cv2.NORMAL_CLONE).astype(np.uint8, copy=False)


def _part_mask(face: FaceRow, height: int, width: int) -> NDArray[np.uint8]:
    """The doctored part in the picture, 255 inside."""
    to_picture = geometry.invert(unit_transform(np.array(face.box), np.array(face.landmarks)))
    turns = np.linspace(0.0, 2.0 * np.pi, 64, endpoint=False)
    (x, y), (a, b) = _PART
    outline = geometry.apply(to_picture, np.stack([x + a * np.cos(turns), y + b * np.sin(turns)], axis=1))
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(mask, [outline.round().astype(np.int32)], 255)
    return mask


def save(pixels: Pixels, path: Path) -> Path:
    """Writes a JPEG as a platform would get it."""
    Image.fromarray(pixels).save(path, quality=92, subsampling=2)
    return path
