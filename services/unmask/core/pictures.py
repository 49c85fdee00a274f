"""Reads pictures out of hostile bytes: limits before decoding, exact pixels as displayed, plain refusals."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from unmask.core import containers, exif
from unmask.core.colour import to_srgb
from unmask.core.errors import BadImage, UnmaskError
from unmask.core.images import Pixels

_MIB: Final = 1024 * 1024
_BAND: Final = 1_000_000
# What EXIF orientation (EXIF 2.32, 4.6.4) asks of whoever displays the picture.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is refused before decoding: length in bytes, pixels, and the longest and shortest side allowed, in pixels."""

    bytes: int = 20 * _MIB
    pixels: int = 50_000_000
    side: int = 20_000
    min_side: int = 1


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the header says: format by content, sides in pixels as displayed (EXIF orientation applied)."""

    format: str
    width: int
    height: int


def inspect(data: bytes, limits: ImageLimits) -> Inspected:
    """Checks length, format and sides without decoding a pixel; raises `BadImage`."""
    opened = _open(data, limits)
    width, height = opened.image.size
    if opened.orientation >= 5:
        width, height = height, width
    return Inspected(opened.format, width, height)


def decode(data: bytes, limits: ImageLimits) -> Pixels:
    """The picture as displayed, (H, W, 3) uint8 RGB, C-contiguous; raises `BadImage`.

    First frame of animations; EXIF orientation applied; colours converted to sRGB where a profile says they are others;
    16 bits cut to their high byte (exact for widened 8-bit pictures).  Transparency is laid over white, which is what most
    platforms show behind a picture: hidden colours under full transparency must not reach the models.
    """
    opened = _open(data, limits)
    orientation = opened.orientation
    with _Refusing(opened.format):
        _load_first_frame(opened.image)
        # Transforms may have changed the sides (TIFF orientation, APNG): the limits hold for what is really decoded.
        _check_sides(opened.image.size, limits)
        image = _to_rgb(opened.image, opened.profile)
        del opened  # of a large picture each copy takes hundreds of megabytes
        if orientation in _TURNS:  # by Pillow: twice as fast as numpy's strided copy
            image = image.transpose(_TURNS[orientation])
        return _pixels(image)


def _pixels(image: Image.Image) -> Pixels:
    """The array of an RGB image, in bands: Pillow's own conversion makes two more copies of the whole."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(_BAND // width, 1)
    for top in range(0, height, rows):
        pixels[top : top + rows] = np.asarray(image.crop((0, top, width, min(top + rows, height))))
    return pixels


@dataclass(frozen=True, slots=True)
class _Opened:
    format: str
    image: ImageFile.ImageFile
    orientation: int
    profile: bytes


class _Refusing:
    """Turns whatever Pillow raises on hostile bytes into `BadImage`; running out of memory is not the caller's doing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, UnmaskError | MemoryError):
            return
        said = " ".join(str(error).split())[:120]
        if "truncated" in said.lower() or isinstance(error, EOFError):
            raise BadImage(f"the {self._name} file is cut off before its end") from error
        raise BadImage(f"the {self._name} file is damaged ({said or type(error).__name__})") from error


class _Avif(AvifImageFile):
    """AVIF without Pillow's parsing of its EXIF: orientation is the container's own (irot, imir), as the format demands."""

    turned: int = 1

    def _open(self) -> None:
        from PIL import _avif

        if self.fp is None:
            raise OSError("no file")
        self._decoder = _avif.AvifDecoder(self.fp.read(), "auto", 1)
        self._size, self.n_frames, self._mode, profile, _, self.turned, _ = self._decoder.get_info()
        self.is_animated = self.n_frames > 1
        self.info["icc_profile"] = profile
        self.seek(0)


# Classes, not Image.open: that one warns and fails by a global limit of its own, and takes an MPO for another format.
_OPENERS: Final[dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "AVIF": _Avif,
}


def _open(data: bytes, limits: ImageLimits) -> _Opened:
    if not data:
        raise BadImage("the file is empty")
    if len(data) > limits.bytes:
        raise BadImage(f"the file has {len(data)} bytes, more than the {limits.bytes} that are read")
    name = containers.sniff(data)
    if name == "WEBP":
        if len(data) < int.from_bytes(data[4:8], "little") + 8:
            raise BadImage("the WEBP file is cut off before its end")
        if (size := containers.webp_size(data)) is not None:
            _check_sides(size, limits)
    with _Refusing(name):
        stripped = _stripped(name, data)
        image = _OPENERS[name](io.BytesIO(stripped.data))
    _check_sides(image.size, limits)
    if isinstance(image, _Avif):
        orientation = image.turned
    elif name == "TIFF":
        orientation = 1  # Pillow turns a TIFF by itself, and reports the sides as displayed
    else:
        orientation = exif.orientation(stripped.exif or image.info.get("exif") or b"")
    return _Opened(name, image, orientation, stripped.profile or image.info.get("icc_profile") or b"")


def _stripped(name: str, data: bytes) -> containers.Stripped:
    if name == "JPEG":
        return containers.strip_jpeg(data)
    return containers.strip_png(data) if name == "PNG" else containers.Stripped(data)


def _check_sides(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if min(width, height) < max(limits.min_side, 1):
        raise BadImage(f"the picture is {width} x {height} pixels; the shortest side read is {max(limits.min_side, 1)}")
    if max(width, height) > limits.side:
        raise BadImage(f"the picture is {width} x {height} pixels; the longest side read is {limits.side}")
    if width * height > limits.pixels:
        raise BadImage(f"the picture is {width} x {height} pixels; at most {limits.pixels} in all are read")


def _load_first_frame(image: ImageFile.ImageFile) -> None:
    """Decodes; of an APNG the first frame that is shown, not the still picture kept for readers that know no animation."""
    if isinstance(image, PngImageFile) and image.default_image and image.n_frames > 1:
        image.seek(1)
    image.load()


def _to_rgb(image: Image.Image, profile: bytes) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F", "LAB", "HSV"}:
        raise BadImage(f"pixels of kind {image.mode} are not read: save it with 8 or 16 bits a channel, in RGB or grey")
    if image.mode in {"La", "RGBa"}:
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        # Alpha also travels with palettes, and as one transparent colour of grey and RGB pictures.
        image = image.convert("RGBA")
        alpha, image = image.getchannel("A"), to_srgb(image.convert("RGB"), profile)
        if alpha.getextrema() == (255, 255):
            return image
        page = Image.new("RGB", image.size, "white")
        page.paste(image, (0, 0), alpha)
        return page
    return to_srgb(image, profile)


class DecodedCache:
    """The last decoded pictures by key, at most `limit_bytes` of pixels; thread-safe.

    A picture larger than the limit is handed out and not kept.  Arrays are read-only, being shared.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[str, Pixels] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def get(self, key: str, load: Callable[[], Pixels]) -> Pixels:
        """The pixels of `key`; `load` makes them, once for threads that ask at the same time, and its errors are theirs."""
        with self._lock:
            if (found := self._found(key)) is not None:
                return found
            turn = self._loading.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if (found := self._found(key)) is not None:
                    return found
            pixels: Pixels | None = None
            try:
                pixels = load()
                pixels.flags.writeable = False
                return pixels
            finally:
                with self._lock:
                    self._loading.pop(key, None)
                    self._keep(key, pixels)

    def _found(self, key: str) -> Pixels | None:
        pixels = self._kept.get(key)
        if pixels is not None:
            self._kept.move_to_end(key)
        return pixels

    def _keep(self, key: str, pixels: Pixels | None) -> None:
        if pixels is None or pixels.nbytes > self._limit or key in self._kept:
            return
        self._kept[key] = pixels
        self._size += pixels.nbytes
        while self._size > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.nbytes
