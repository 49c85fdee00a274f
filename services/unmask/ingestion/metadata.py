"""Reads the text that a picture file carries beside its pixels, as rubbish-proof fields in bounded time and memory."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Final

from unmask.core import containers, exif
from unmask.core.errors import BadImage

# Enough to recognize whatever is there; a workflow or a bomb may be megabytes longer.
_LONGEST: Final = 64 * 1024
_XMP_LONGEST: Final = 1024 * 1024
_MOST_FIELDS: Final = 256
_EXIF_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x010E: "ImageDescription",
        0x010F: "Make",
        0x0110: "Model",
        0x0131: "Software",
        0x013B: "Artist",
        0x9286: "UserComment",
        0x9C9C: "XPComment",
    }
)
_IPTC_NAMES: Final[Mapping[int, str]] = MappingProxyType({65: "OriginatingProgram", 110: "Credit", 120: "Caption"})
# Attribute (name="value") and element (<ns:name>value<) form; bounded and without nesting, so linear.  No XML parser is
# used: no entity is ever expanded, and a broken packet still gives what can be read.
_XMP_FIELD: Final = re.compile(
    rb"\b(DigitalSourceType|CreatorTool|Software|Credit|softwareAgent|AISystemUsed|UserComment)"
    rb"(?:\s{1,5}rdf:resource)?(?:\s{0,20}=\s{0,20}[\"']|>\s{0,20})([^\"'<>]{1,500})"
)
_C2PA_SOURCE: Final = re.compile(rb"cv\.iptc\.org/newscodes/digitalsourcetype/([A-Za-z]{3,60})")
# A manifest's address elsewhere (C2PA 2.1, 11.5).
_XMP_REMOTE: Final = re.compile(rb"\bdcterms:(provenance)(?:\s{0,20}=\s{0,20}[\"']|>\s{0,20})(https?://[^\"'<>]{1,500})")
# ISO BMFF user box of C2PA (C2PA 2.1, A.5.4), and how the description box of every manifest store begins (11.1.4.2).
_C2PA_MARKS: Final = (bytes.fromhex("d8fec3d61b0e483c92975828877ec481"), b"jumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71")
_C2PA_GIF: Final = b"!\xff\x0bC2PA_GIF\x01\0\0"


@dataclass(frozen=True, slots=True)
class Field:
    """One piece of text: where it stood (`PNG`, `EXIF`, `XMP`, `IPTC`, `JPEG`, `C2PA`), its name there, and the text."""

    source: str
    name: str
    text: str


def fields(data: bytes) -> list[Field]:
    """The fields that may tell a picture's origin; what cannot be read is left out, and nothing is raised for it."""
    reader = _READERS.get(file_format(data), _fields_of_other)
    found: list[Field] = []
    try:
        found.extend(islice(reader(data), _MOST_FIELDS))
    except Exception:  # metadata is a courtesy: a file that breaks its reader is judged by its pixels all the same
        return found
    return found


def file_format(data: bytes) -> str:
    """The format by content; empty for what is not read."""
    try:
        return containers.sniff(data)
    except BadImage:
        return ""


def _fields_of_png(data: bytes) -> Iterator[Field]:
    for part in containers.png_chunks(data):
        if part.name in {b"tEXt", b"zTXt", b"iTXt"}:
            yield from _png_text(part.name, data[part.payload : min(part.end - 4, part.payload + _XMP_LONGEST)])
        elif part.name == b"eXIf":
            yield from _exif(data[part.payload : part.end - 4])
        elif part.name == b"caBX":
            yield from _c2pa(data[part.payload : part.end - 4])


def _png_text(kind: bytes, body: bytes) -> Iterator[Field]:
    key, _, rest = body[:_XMP_LONGEST].partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # behind language and translated key
    elif packed:
        rest = rest[1:]
    is_xmp = key == b"XML:com.adobe.xmp"
    value = containers.inflate(rest, _XMP_LONGEST if is_xmp else _LONGEST) if packed else rest
    if is_xmp:
        yield from _xmp(value)
    elif key:
        yield Field("PNG", _text(key[:79]), _text(value))


def _fields_of_jpeg(data: bytes) -> Iterator[Field]:
    for part in containers.jpeg_segments(data):
        marker, body = part.name[0], data[part.payload : part.end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            yield from _exif(body)
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            yield from _xmp(body)
        elif marker == 0xEB and b"jumb" in body[:64]:
            yield from _c2pa(body)
        elif marker == 0xED and body.startswith(b"Photoshop 3.0\0"):
            yield from _iptc(body)
        elif marker == 0xFE:
            yield Field("JPEG", "comment", _text(body))


def _fields_of_webp(data: bytes) -> Iterator[Field]:
    readers: dict[bytes, Callable[[bytes], Iterator[Field]]] = {b"EXIF": _exif, b"XMP ": _xmp, b"C2PA": _c2pa}
    for part in containers.riff_chunks(data):
        if part.name in readers:
            yield from readers[part.name](data[part.payload : part.end])


def _fields_of_tiff(data: bytes) -> Iterator[Field]:
    yield from _exif(data)
    yield from _fields_of_other(data)


def _fields_of_other(data: bytes) -> Iterator[Field]:
    """AVIF, GIF, TIFF: packets are found by their own beginnings, wherever the container put them."""
    start = data.find(b"<x:xmpmeta")
    if start >= 0:
        yield from _xmp(data[start : start + _XMP_LONGEST].partition(b"</x:xmpmeta>")[0])
    for header in (b"Exif\0\0II*\0", b"Exif\0\0MM\0*"):
        start = data.find(header)
        if start >= 0:
            yield from _exif(data[start : start + _XMP_LONGEST])
    marks = (at for mark in _C2PA_MARKS if (at := data.find(mark)) >= 0)
    for start in islice(marks, 1):
        yield from _c2pa(_gif_blocks(data) if data.startswith(b"GIF8") else data[start:])


def _gif_blocks(data: bytes) -> bytes:
    """The C2PA application extension of a GIF, without the lengths between its blocks of 255 bytes."""
    at, parts = data.find(_C2PA_GIF) + len(_C2PA_GIF), []
    while at < len(data) and data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts)


_READERS: Final[Mapping[str, Callable[[bytes], Iterator[Field]]]] = MappingProxyType(
    {"PNG": _fields_of_png, "JPEG": _fields_of_jpeg, "WEBP": _fields_of_webp, "TIFF": _fields_of_tiff}
)


def _exif(block: bytes) -> Iterator[Field]:
    is_little = exif.byte_order(block.removeprefix(b"Exif\0\0")) == "<"
    for tag, value in exif.tags(block, _EXIF_NAMES.keys()).items():
        if tag == 0x9C9C:
            text = value.decode("utf-16-le", "replace")
        elif tag == 0x9286:
            # Eight bytes name the character set; the bytes order of UNICODE is the file's, and often the other one.
            text = _utf16(value[8:], is_little) if value.startswith(b"UNICODE") else _text(value[8:])
        else:
            text = _text(value)
        yield Field("EXIF", _EXIF_NAMES[tag], text.strip("\0 "))


def _utf16(value: bytes, is_little: bool) -> str:
    # Latin text has its zero bytes in the high halves, which tells the order whatever the header says.
    high_first, low_first = value[0:200:2].count(0), value[1:200:2].count(0)
    if high_first != low_first:
        is_little = low_first > high_first
    return value.decode("utf-16-le" if is_little else "utf-16-be", "replace")


def _xmp(packet: bytes) -> Iterator[Field]:
    for found in islice(_XMP_FIELD.finditer(packet[:_XMP_LONGEST]), _MOST_FIELDS):
        yield Field("XMP", found.group(1).decode(), html.unescape(_text(found.group(2))).strip())
    if found_remote := _XMP_REMOTE.search(packet[:_XMP_LONGEST]):
        yield Field("XMP", "provenance", html.unescape(_text(found_remote.group(2))).strip())


def _iptc(body: bytes) -> Iterator[Field]:
    """IIM data sets of record 2 (IPTC-IIM 4.2), found by their tag marker inside the Photoshop block."""
    at = -1
    for _ in range(_MOST_FIELDS):
        at = body.find(b"\x1c\x02", at + 1)
        if at < 0:
            return
        name = _IPTC_NAMES.get(body[at + 2]) if at + 5 <= len(body) else None
        if name:
            length = int.from_bytes(body[at + 3 : at + 5], "big")
            yield Field("IPTC", name, _text(body[at + 5 : at + 5 + length]))


def _c2pa(manifest: bytes) -> Iterator[Field]:
    """That Content Credentials are there, and the source types they name; their signature is not verified."""
    yield Field("C2PA", "manifest", "")
    for found in islice(_C2PA_SOURCE.finditer(manifest), 16):
        yield Field("C2PA", "DigitalSourceType", found.group(1).decode())


def _text(value: bytes) -> str:
    value = value[:_LONGEST]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
