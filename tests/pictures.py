"""Pictures made on the spot for tests: ordinary ones in every kind of file, and hostile ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def scene(width: int = 64, height: int = 48) -> Pixels:
    """A smooth, asymmetric picture (H, W, 3) that survives JPEG: every corner has its own colour."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = [40 + 180 * x, 30 + 190 * y, 220 - 150 * x * y]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encode(pixels: Pixels | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The file of some pixels."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg(pixels: Pixels | None = None, **options: Any) -> bytes:
    """A JPEG of high quality."""
    return encode(scene() if pixels is None else pixels, "JPEG", **{"quality": 95, "subsampling": 0, **options})


def png(pixels: Pixels | None = None, **options: Any) -> bytes:
    """A PNG."""
    return encode(scene() if pixels is None else pixels, "PNG", **options)


def truncated(data: bytes, share: float = 0.6) -> bytes:
    """The first part of a file."""
    return data[: int(len(data) * share)]


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One PNG chunk with its right checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(
    chunks: Mapping[bytes, bytes] | list[tuple[bytes, bytes]], data: bytes | None = None, *, last: bool = False
) -> bytes:
    """A PNG with more chunks, behind IHDR or (`last`) before IEND."""
    data = png() if data is None else data
    items = list(chunks.items()) if isinstance(chunks, Mapping) else chunks
    at = len(data) - 12 if last else 33
    return data[:at] + b"".join(png_chunk(name, body) for name, body in items) + data[at:]


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has these sides: a decompression bomb."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return PNG_MAGIC + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG whose header says it has these sides."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_header(width: int, height: int) -> bytes:
    """A WebP whose extended header says it has these sides."""
    body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"VP8X" + struct.pack("<I", len(body)) + body + encode(scene(), "WEBP", lossless=True)[12:]
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def bmp_header(width: int, height: int) -> bytes:
    """A BMP whose header says it has these sides."""
    data = bytearray(encode(scene(), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def gif_header(width: int, height: int) -> bytes:
    """A GIF whose header says it has these sides."""
    data = bytearray(encode(scene(), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def tiff_header(width: int, height: int) -> bytes:
    """A TIFF whose first two tags say it has these sides."""
    data = bytearray(encode(scene(), "TIFF"))
    (at,) = struct.unpack_from("<I", data, 4)
    for index, side in enumerate((width, height)):
        struct.pack_into("<HHII", data, at + 2 + 12 * index, 256 + index, 4, 1, side)
    return bytes(data)


def animation(kind: str = "GIF", frames: int = 100) -> bytes:
    """An animation whose first frame is the scene and whose others are plain grey."""
    first = Image.fromarray(scene())
    rest = [Image.new("RGB", first.size, (index * 2 % 256,) * 3) for index in range(1, frames)]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    return encode(first, kind, save_all=True, append_images=rest, duration=40, **options)


def exif_block(orientation: int | None = None, ascii_tags: Mapping[int, str] | None = None) -> bytes:
    """EXIF as bytes (with its `Exif` prefix)."""
    block = Image.Exif()
    if orientation is not None:
        block[0x0112] = orientation
    for tag, value in (ascii_tags or {}).items():
        block[tag] = value
    return block.tobytes()


def stored_for(orientation: int, shown: Pixels) -> Pixels:
    """How pixels lie in a file with that EXIF orientation that is to be displayed as `shown` (by the EXIF 2.32 table)."""
    inverse = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(inverse[orientation](shown))


def oriented(orientation: int, kind: str = "JPEG", shown: Pixels | None = None) -> bytes:
    """A file of that EXIF orientation that is displayed as `shown` (the scene)."""
    pixels = stored_for(orientation, scene() if shown is None else shown)
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": kind == "WEBP"}
    return encode(pixels, kind, exif=exif_block(orientation), **options)


def text_as_jpeg() -> bytes:
    """What a renamed text file holds."""
    return b"This is no picture, whatever its name says.\n" * 20


def ztxt_bomb(megabytes: int = 200) -> bytes:
    """A PNG with a compressed text that unpacks to that many megabytes of spaces."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b" " * 1_000_000) for _ in range(megabytes)) + packer.flush()
    return png_with([(b"zTXt", b"parameters\0\0" + packed)])
