"""Near-duplicates by perceptual hash: how far two hashes are apart, and bands by which an index finds candidates."""

from __future__ import annotations

from typing import Final

# At most so many of 256 bits differ between near-duplicates.  Measured on 7 568 faces (bench/near_duplicates.py): no two
# pictures of different origin among 28.6 million pairs lie within it, every copy saved or shrunk again does, and 1 % of
# the originals of face swaps, which are real pictures.  31 would find copies cut by 1 % too, and 38 % of those originals.
MATCH: Final = 15


def distance(a: str, b: str) -> int:
    """Bits in which two hashes of 64 hex digits differ (Hamming)."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def bands(phash: str) -> tuple[str, ...]:
    """16 bands of 16 bits, each with its number: hashes at most 15 bits apart share at least one."""
    return tuple(f"{number:x}:{phash[4 * number : 4 * number + 4]}" for number in range(16))
