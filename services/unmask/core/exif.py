"""A bounded reader of EXIF: only the tags asked for, never more data than there is.

Pillow's reader copies the data of every entry, wherever it points; hostile entries that all point at the same megabytes
cost it gigabytes in versions before 13.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from typing import Final

ORIENTATION: Final = 0x0112
_EXIF_IFD: Final = 0x8769
_MOST_ENTRIES: Final = 512
_LONGEST_VALUE: Final = 64 * 1024
# Bytes a value by TIFF type: BYTE ASCII SHORT LONG RATIONAL SBYTE UNDEFINED SSHORT SLONG SRATIONAL.
_SIZES: Final[Mapping[int, int]] = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8}


def tags(tiff: bytes, wanted: Collection[int]) -> dict[int, bytes]:
    """Raw values (in the file's byte order) of `wanted` tags in IFD0 and its Exif IFD; empty when there is nothing to read.

    `tiff` begins with the TIFF header, with or without `Exif\\0\\0` before it.
    """
    tiff = tiff.removeprefix(b"Exif\0\0")
    order = byte_order(tiff)
    if not order or len(tiff) < 8:
        return {}
    found: dict[int, bytes] = {}
    pending = [struct.unpack_from(order + "L", tiff, 4)[0]]
    for _ in range(2):  # IFD0, then the one Exif IFD it names
        for tag, value in _entries(tiff, order, pending.pop()) if pending else ():
            if tag in wanted:
                found.setdefault(tag, value)
            elif tag == _EXIF_IFD and len(value) == 4 and not pending:
                pending.append(struct.unpack(order + "L", value)[0])
    return found


def byte_order(tiff: bytes) -> str:
    """The struct prefix of a TIFF header's byte order, or nothing when it is none."""
    return {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]), "")


def orientation(tiff: bytes) -> int:
    """EXIF orientation 1-8; 1 when there is none or it is not one."""
    value = tags(tiff, {ORIENTATION}).get(ORIENTATION, b"")
    order = byte_order(tiff.removeprefix(b"Exif\0\0"))
    turned = int.from_bytes(value[:2], "little" if order == "<" else "big") if len(value) >= 2 else 1
    return turned if 1 <= turned <= 8 else 1


def _entries(tiff: bytes, order: str, at: int) -> Iterator[tuple[int, bytes]]:
    if at + 2 > len(tiff):
        return
    (count,) = struct.unpack_from(order + "H", tiff, at)
    for index in range(min(count, _MOST_ENTRIES)):
        entry = at + 2 + 12 * index
        if entry + 12 > len(tiff):
            return
        tag, kind, number = struct.unpack_from(order + "HHL", tiff, entry)
        size = _SIZES.get(kind, 0) * number
        if not 0 < size <= _LONGEST_VALUE:
            continue
        start = entry + 8 if size <= 4 else struct.unpack_from(order + "L", tiff, entry + 8)[0]
        if start + size <= len(tiff):
            yield tag, tiff[start : start + size]
