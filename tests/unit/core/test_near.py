"""Distances and bands of perceptual hashes: what is a near-duplicate is always found by an index over the bands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unmask.core.near import MATCH, bands, distance

BITS = st.integers(0, 2**256 - 1)


def text(bits: int) -> str:
    """A hash as it is stored."""
    return f"{bits:064x}"


@given(BITS, BITS, BITS)
def test_a_distance_is_a_distance(a: int, b: int, c: int) -> None:
    one, other, third = map(text, (a, b, c))
    assert distance(one, one) == 0
    assert distance(one, other) == distance(other, one) == f"{a ^ b:b}".count("1")
    assert distance(one, third) <= distance(one, other) + distance(other, third)


@given(BITS, st.sets(st.integers(0, 255), max_size=15))
def test_hashes_at_most_15_bits_apart_share_a_band(bits: int, turned: set[int]) -> None:
    other = text(bits ^ sum(1 << place for place in turned))
    assert distance(text(bits), other) == len(turned)
    assert set(bands(text(bits))) & set(bands(other))


@given(BITS)
def test_sixteen_bits_can_miss_every_band(bits: int) -> None:
    """So that a larger MATCH would be found in part only."""
    other = text(bits ^ sum(1 << 16 * band for band in range(16)))
    assert distance(text(bits), other) == 16
    assert not set(bands(text(bits))) & set(bands(other))


def test_what_matches_is_always_found() -> None:
    assert MATCH <= 15


@given(BITS)
def test_bands_are_sixteen_parts_and_know_their_places(bits: int) -> None:
    assert "".join(band.partition(":")[2] for band in bands(text(bits))) == text(bits)
    assert len(set(bands("ab" * 32))) == 16, "the same 16 bits in another place are no match"
