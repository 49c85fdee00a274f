"""The outside of picture files: which format, and their parts, walked without decoding anything and in bounded time."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from unmask.core.errors import BadImage

READS: Final = "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF"
# Real files have a few dozen parts (a PNG with 1 KiB IDATs and 20 MiB: 20 000); more is made to waste time.
_MOST_PARTS: Final = 100_000
_BOMB_SCANS: Final = 100
_LARGEST_PROFILE: Final = 4 * 1024 * 1024
_PNG_PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})
_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def sniff(data: bytes) -> str:
    """The format by content, never by name; raises `BadImage` for everything that is not read."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # The first box lists the brands; its length is the file's word, so it is cut.
        box = data[8 : min(max(int.from_bytes(data[:4], "big"), 12), 256)]
        brands = {box[i : i + 4] for i in range(0, len(box) - 3, 4)}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            raise BadImage(f"HEIC is not read; not an image this plugin reads ({READS})")
    raise BadImage(f"not an image this plugin reads ({READS})")


@dataclass(frozen=True, slots=True)
class Part:
    """A JPEG segment (its marker as one byte) or a PNG/RIFF chunk: name, and where whole part and its payload lie."""

    name: bytes
    start: int
    payload: int
    end: int


def _bounded(count: int, what: str) -> None:
    if count > _MOST_PARTS:
        raise BadImage(f"the {what} file has more than {_MOST_PARTS} parts")


def jpeg_segments(data: bytes) -> Iterator[Part]:
    """The segments before the first scan, then its SOS marker; stops early where the file breaks off."""
    at, count = 2, 0
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        # Fill bytes, a stuffed zero, and markers without a length (TEM, RST, SOI).
        if marker in {0xFF, 0x00, 0x01} or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if marker == 0xD9 or length < 2 or end > len(data):
            return
        yield Part(bytes([marker]), at, at + 4, end)
        if marker == 0xDA:
            return
        at, count = end, count + 1
        _bounded(count, "JPEG")


def png_chunks(data: bytes) -> Iterator[Part]:
    """All chunks up to IEND; stops early where the file breaks off."""
    at, count = 8, 0
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            return
        yield Part(name, at, at + 8, end)
        if name == b"IEND":
            return
        at, count = end, count + 1
        _bounded(count, "PNG")


def riff_chunks(data: bytes) -> Iterator[Part]:
    """The chunks of a WebP file."""
    at, count = 12, 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length
        if end > len(data):
            return
        yield Part(data[at : at + 4], at, at + 8, end)
        at, count = end + length % 2, count + 1
        _bounded(count, "WebP")


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height by the header; read here because Pillow allocates the canvas as soon as it opens a WebP."""
    head, kind = data[:30], data[12:16]
    if len(head) < 30:
        return None
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


@dataclass(frozen=True, slots=True)
class Stripped:
    """A file with only what decodes to pixels, and the two pieces of metadata that say how they are displayed."""

    data: bytes
    exif: bytes = b""
    profile: bytes = b""


def strip_jpeg(data: bytes) -> Stripped:
    """Only what libjpeg needs: metadata is parsed by our own bounded readers, not by Pillow (which parses EXIF on opening)."""
    kept, exif, progressive = [b"\xff\xd8"], b"", False
    profiles: list[tuple[int, bytes]] = []
    for part in jpeg_segments(data):
        body = data[part.payload : part.end]
        marker = part.name[0]
        if marker == 0xDA:
            if progressive:
                _check_scans(data, part.end)
            kept.append(data[part.start :])
            return Stripped(b"".join(kept), exif, b"".join(piece for _, piece in sorted(profiles)))
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and not exif:
            exif = body[6:]
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profiles.append((body[12], body[14:]))
        elif marker in {0xE0, 0xEE} or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            # APP0 (JFIF) and APP14 (Adobe) state the colour space; the other APPn and comments are metadata.
            kept.append(data[part.start : part.end])
        progressive = progressive or marker in {0xC2, 0xCA}
    raise BadImage("the JPEG file is cut off before its pixels")


def _check_scans(data: bytes, start: int) -> None:
    """A progressive file may state any number of scans over all blocks in a few bytes each; encoders write about ten."""
    for count, found in enumerate(re.finditer(rb"\xff[\xd9\xda]", memoryview(data)[start:])):
        if found.group() == b"\xff\xd9":  # the picture's end; what follows (a video, another picture) is not decoded
            return
        if count > _BOMB_SCANS:
            raise BadImage(f"the JPEG file has more than {_BOMB_SCANS} scans")


def strip_png(data: bytes) -> Stripped:
    """Pixel chunks only, their checksums verified; raises `BadImage` where one is wrong or the file is cut off."""
    view, kept, exif, profile, name = memoryview(data), [memoryview(data)[:8]], b"", b"", b""
    for part in png_chunks(data):
        name, body = part.name, view[part.payload : part.end - 4]
        if name in _PNG_PIXEL_CHUNKS:
            if zlib.crc32(view[part.start + 4 : part.end - 4]) != int.from_bytes(view[part.end - 4 : part.end], "big"):
                raise BadImage(f"the PNG file is damaged (checksum of its {name.decode()} chunk)")
            if name != b"tRNS" or not _sixteen_bit(data):
                kept.append(view[part.start : part.end])
        elif name == b"eXIf":
            exif = bytes(body)
        elif name == b"iCCP":
            profile = _png_profile(bytes(body))
    if name != b"IEND":
        raise BadImage("the PNG file is cut off before its end")
    return Stripped(b"".join(kept), exif, profile)


def _sixteen_bit(data: bytes) -> bool:
    """Whether samples have 16 bits: Pillow would compare a 16-bit transparent colour with pixels it has cut to 8."""
    return data[24:25] == b"\x10"


def _png_profile(body: bytes) -> bytes:
    """The ICC profile of an iCCP chunk, or nothing when it is damaged or larger than any real one."""
    _, _, packed = body[:81].partition(b"\0")
    if not packed or packed[0] != 0:
        return b""
    return inflate(body[body.index(b"\0") + 2 :], _LARGEST_PROFILE, whole=True)


def inflate(packed: bytes, limit: int, *, whole: bool = False) -> bytes:
    """At most `limit` bytes of a zlib stream, nothing when it is damaged; with `whole` nothing when there is more."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, limit)
    except zlib.error:
        return b""
    return b"" if whole and not unpacker.eof else text
