"""A folder of pictures as samples to learn from: decoded, face found, chip cut as serving does; copies told and dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unmask.core.errors import BadImage
from unmask.core.faces import Infer
from unmask.core.images import Chip, Pixels, make_chip
from unmask.core.near import MATCH
from unmask.core.pictures import ImageLimits, decode
from unmask_training.data.chips import largest_face
from unmask_training.release import MIN_FACE

MOST: Final = 1000
FEWEST: Final = 5
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")
_HASHED: Final = 64
_BITS_A_SIDE: Final = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """One usable picture: its path within the folder, the sha256 of its bytes, its 256-bit perceptual hash, its chip."""

    path: str
    sha256: str
    phash: NDArray[np.bool_]
    chip: Chip


@dataclass(frozen=True, slots=True)
class Intake:
    """What a folder held: usable samples, and of every other picture why it was left out."""

    samples: tuple[Sample, ...]
    unreadable: tuple[str, ...] = ()
    faceless: tuple[str, ...] = ()
    small: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """All pictures of the folder."""
        return len(self.samples) + sum(len(part) for part in (self.unreadable, self.faceless, self.small, self.copies))

    def left_out(self) -> list[str]:
        """What was left out, a line each."""
        return [*self.unreadable, *self.faceless, *self.small, *self.copies]

    def summary(self) -> str:
        """Counts in one line."""
        said = (
            (len(self.samples), "usable"),
            (len(self.copies), "copies of others"),
            (len(self.faceless), "without a face"),
            (len(self.small), "with too small a face"),
            (len(self.unreadable), "unreadable"),
        )
        return f"{self.count} pictures: " + ", ".join(f"{n} {what}" for n, what in said if n or what == "usable")


def pictures_in(folder: Path) -> list[Path]:
    """Every picture file under the folder, by name; raises `ValueError` for none, or more than can be taken."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no folder of pictures there")
    hidden = (path for path in folder.rglob("*") if any(part.startswith(".") for part in path.relative_to(folder).parts))
    left_out = set(hidden)
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES and p not in left_out)
    if not found:
        raise ValueError(f"{folder}: no pictures in it ({', '.join(SUFFIXES)})")
    if len(found) > MOST:
        raise ValueError(f"{folder}: {len(found)} pictures, at most {MOST} are taken; leave out some")
    return found


def read_samples(folder: Path, infer: Infer, what: str = "samples") -> Intake:
    """Reads a folder; pictures that cannot be used and copies of earlier ones are told, not raised."""
    kept: list[Sample] = []
    left: dict[str, list[str]] = {name: [] for name in ("unreadable", "faceless", "small", "copies")}
    seen: dict[str, str] = {}
    for path in tqdm(pictures_in(folder), desc=what, unit="picture", mininterval=1.0):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in seen:
            left["copies"].append(f"{name}: the same bytes as {seen[sha256]}")
            continue
        seen[sha256] = name
        found = _read(name, sha256, data, kept, infer)
        if isinstance(found, Sample):
            kept.append(found)
        else:
            left[found[0]].append(f"{name}: {found[1]}")
    return Intake(tuple(kept), **{name: tuple(lines) for name, lines in left.items()})


def _read(name: str, sha256: str, data: bytes, kept: Sequence[Sample], infer: Infer) -> Sample | tuple[str, str]:
    """The sample, or why it cannot be used: the field of `Intake` that it belongs to, and words."""
    try:
        picture = decode(data, ImageLimits())
    except BadImage as error:
        return "unreadable", f"unreadable: {error.detail}"
    phash = perceptual_hash(picture)
    for other in kept:
        if (differ := int((phash != other.phash).sum())) <= MATCH:
            return "copies", f"nearly {other.path} ({differ} of {len(phash)} bits of the perceptual hash differ)"
    face = largest_face(picture, infer)
    if face is None:
        return "faceless", "no face found"
    if face.side < MIN_FACE:
        return "small", f"its face is {face.side:.0f} pixels, below {MIN_FACE:.0f} none is judged"
    return Sample(name, sha256, phash, make_chip(picture, face.box, face.landmarks))


def perceptual_hash(picture: Pixels) -> NDArray[np.bool_]:
    """256 bits: the lowest 16 x 16 frequencies of 64 x 64 grey pixels, above their median or not (pHash, Zauner 2010).

    The same measure as ingestion's hash, so that the same number of bits may differ between near-duplicates.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASHED, _HASHED), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small.astype(np.float32))[:_BITS_A_SIDE, :_BITS_A_SIDE]
    bits: NDArray[np.bool_] = (low > np.median(low)).ravel()
    return bits


def at_least(intake: Intake, fewest: int, folder: Path) -> None:
    """Raises `ValueError` with all counts where fewer are usable."""
    if len(intake.samples) < fewest:
        raise ValueError(f"{folder}: at least {fewest} usable pictures are needed; {intake.summary()}")
