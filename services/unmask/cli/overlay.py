"""The picture with what was found drawn in: face boxes, landmarks, manipulated polygons, labels."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unmask.cli.inputs import shown
from unmask.core.domain import FaceVerdict, Heat, Label, Verdict
from unmask.core.errors import BadConfig, BadImage
from unmask.core.geometry import compose, scaling
from unmask.core.pictures import ImageLimits, decode

_LONG_SIDE: Final = 1600
_SHORTEST_SIDE: Final = 480
# A heat map's colours at nothing and at one, and how much of the picture the hottest spot hides.
_WARM: Final = (255.0, 196.0, 0.0)
_HOT: Final = (214.0, 24.0, 31.0)
_DENSEST: Final = 0.65
_COLOURS: Final = {
    Label.REAL: (46, 160, 67),
    Label.SYNTHETIC: (207, 34, 46),
    Label.MANIPULATED: (191, 57, 137),
    Label.UNSURE: (154, 103, 0),
    Label.NO_FACE: (110, 118, 129),
}


def annotated(
    data: bytes, verdict: Verdict, limits: ImageLimits | None = None, heats: Sequence[Heat | None] = ()
) -> Image.Image:
    """The picture as displayed with the verdict drawn in, scaled to a side that can be read (480 to 1600 pixels).

    `heats` are maps of its faces to tint them by.

    Raises `BadImage` when these are not the bytes that were judged, or cannot be decoded.
    """
    if hashlib.sha256(data).hexdigest() != verdict.sha256:
        raise BadImage("the file has changed since it was judged")
    picture = Image.fromarray(np.asarray(decode(data, limits or ImageLimits())))
    long_side = max(picture.size)
    scale = min(1.0, _LONG_SIDE / long_side) if long_side > _SHORTEST_SIDE else _SHORTEST_SIDE / long_side
    if scale != 1.0:
        sides = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(sides, Image.Resampling.LANCZOS)
    for heat in heats:
        picture = picture if heat is None else _with_heat(picture, heat, scale)
    for face in verdict.faces:
        picture = _with_regions(picture, face, scale)
    draw = ImageDraw.Draw(picture)
    for number, face in enumerate(verdict.faces, 1):
        _face(draw, picture, face, scale, f"{number}: " if len(verdict.faces) > 1 else "")
    if not verdict.faces:
        _tag(draw, picture, (0.0, 0.0), "no face", _COLOURS[Label.NO_FACE])
    return picture


def _with_heat(picture: Image.Image, heat: Heat, scale: float) -> Image.Image:
    """From nothing over amber to red, where a face looks manipulated."""
    cells = np.frombuffer(heat.values, dtype=np.uint8).reshape(heat.height, heat.width).astype(np.float32) / 255.0
    # Pixel centres are whole numbers, before and after scaling.
    shift = (scale - 1.0) / 2.0
    matrix = compose(scaling(scale, (shift, shift)), np.array(heat.to_picture).reshape(2, 3))
    share = cv2.warpAffine(cells, matrix, picture.size, flags=cv2.INTER_LINEAR)[..., None]
    tint = (1.0 - share) * np.array(_WARM) + share * np.array(_HOT)
    opaque = _DENSEST * np.minimum(1.0, 2.0 * share)
    mixed = np.asarray(picture, dtype=np.float32) * (1.0 - opaque) + tint * opaque
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _with_regions(picture: Image.Image, face: FaceVerdict, scale: float) -> Image.Image:
    """Regions as a tint that lets the picture through, and an outline."""
    if not face.regions:
        return picture
    sheet = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    draw, colour = ImageDraw.Draw(sheet), _COLOURS[Label.MANIPULATED]
    for region in face.regions:
        points = [(x * scale, y * scale) for x, y in region.polygon]
        draw.polygon(points, fill=(*colour, 70))
        draw.line([*points, points[0]], fill=(*colour, 255), width=_stroke(picture))
    return Image.alpha_composite(picture.convert("RGBA"), sheet).convert("RGB")


def _stroke(picture: Image.Image) -> int:
    return max(2, round(max(picture.size) / 400))


def _face(draw: ImageDraw.ImageDraw, picture: Image.Image, face: FaceVerdict, scale: float, number: str) -> None:
    colour, stroke = _COLOURS[face.label], _stroke(picture)
    x0, y0, x1, y1 = (value * scale for value in face.box)
    draw.rectangle((x0, y0, x1, y1), outline=colour, width=stroke)
    for x, y in face.landmarks:
        radius = stroke * 1.2
        draw.ellipse((x * scale - radius, y * scale - radius, x * scale + radius, y * scale + radius), fill=colour)
    score = "" if face.score is None else f" {face.score:.2f}"
    _tag(draw, picture, (x0, y0), f"{number}{face.label.value}{score}", colour)


def _tag(
    draw: ImageDraw.ImageDraw, picture: Image.Image, corner: tuple[float, float], text: str, colour: tuple[int, int, int]
) -> None:
    """White words on colour above the corner, kept inside the picture."""
    font = ImageFont.load_default(size=max(13, round(max(picture.size) / 42)))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high, pad = right - left, bottom - top, 4
    x = min(max(corner[0], 0), max(picture.width - wide - 2 * pad, 0))
    y = max(corner[1] - high - 2 * pad, 0)
    draw.rectangle((x, y, x + wide + 2 * pad, y + high + 2 * pad), fill=colour)
    draw.text((x + pad - left, y + pad - top), text, font=font, fill=(255, 255, 255))


def file_name(name: str) -> str:
    """A PNG name that any file system takes and that no other input's shares."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(shown(name)).stem)[:80] or "picture"
    return f"{stem}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}.png"


def usable(folder: Path) -> None:
    """Makes the folder; raises `BadConfig` when it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadConfig(f"overlay folder {folder}: cannot be written to")


def save(picture: Image.Image, folder: Path, name: str) -> Path:
    """Writes the PNG into the folder; raises `BadConfig` when that cannot be written to."""
    path = folder / file_name(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG", compress_level=3)
    except OSError as error:
        raise _unusable(folder, error) from error
    return path


def _unusable(folder: Path, error: OSError) -> BadConfig:
    return BadConfig(f"overlay folder {folder}: {error.strerror or error}")
