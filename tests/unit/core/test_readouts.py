"""Doubt and the open set as numbers: what a card's sections make of a detector's outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.core.errors import BadModel
from unmask.core.reading import Reader
from unmask.core.readouts import DoubtMap, OpenSet, Reference, reference, softmax

finite = st.floats(-1e6, 1e6)
logits = st.lists(st.floats(-500.0, 500.0), min_size=1, max_size=6)


@st.composite
def maps(draw: st.DrawFn) -> DoubtMap:
    count = draw(st.integers(2, 8))
    distances = sorted(draw(st.lists(finite, min_size=count, max_size=count)))
    doubts = sorted(draw(st.lists(st.floats(0.0, 1.0), min_size=count, max_size=count)))
    return DoubtMap(tuple(distances), tuple(doubts))


def test_doubt_by_hand() -> None:
    found = DoubtMap((1.0, 2.0, 4.0), (0.1, 0.5, 0.9))
    assert [found.doubt(distance) for distance in (-5.0, 1.0, 1.5, 2.0, 3.0, 4.0, 99.0)] == pytest.approx(
        [0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9]
    )


def test_of_equal_distances_the_last_counts() -> None:
    assert DoubtMap((1.0, 1.0, 2.0), (0.0, 0.6, 1.0)).doubt(1.0) == 0.6
    assert DoubtMap((1.0, 1.0), (0.2, 0.8)).doubt(1.0) == 0.8


@given(maps(), finite, finite)
def test_doubt_never_falls_and_is_numpy_s_interpolation(found: DoubtMap, one: float, other: float) -> None:
    low, high = found.doubt(min(one, other)), found.doubt(max(one, other))
    assert found.doubts[0] - 1e-9 <= low <= high + 1e-9 <= found.doubts[-1] + 2e-9
    assert low == pytest.approx(np.interp(min(one, other), found.distances, found.doubts), abs=1e-6)


@given(logits)
def test_shares_are_a_softmax(values: list[float]) -> None:
    shares = softmax(values)
    assert math.fsum(shares) == pytest.approx(1.0) and all(0.0 <= share <= 1.0 for share in shares)
    assert shares.index(max(shares)) == values.index(max(values)) or max(values) - sorted(values)[-2] < 1e-6


@given(logits, st.floats(0.1, 10.0), st.floats(-20.0, 20.0))
def test_the_unknown_share_is_that_of_the_free_energy(values: list[float], temperature: float, unknown: float) -> None:
    shares = softmax(OpenSet(temperature, unknown).logits(values))
    energy = float(np.logaddexp.reduce(np.array(values) / temperature))
    assert len(shares) == len(values) + 1
    assert shares[-1] == pytest.approx(1.0 / (1.0 + math.exp(min(energy - unknown, 700.0))), abs=1e-9)


GOOD = {"bins": [0.5, 1.0], "real": [0.9, 0.1], "synthetic": [0.2, 0.8]}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"bins": [0.5, 0.9]}, "bins"),
        ({"bins": [1.0, 1.0]}, "bins"),
        ({"bins": []}, "bins"),
        ({"real": [0.9]}, "real"),
        ({"real": [1.1, -0.1]}, "real"),
        ({"synthetic": [0.2, 0.2]}, "synthetic"),
        ({"synthetic": None}, "synthetic"),
    ],
)
def test_a_reference_that_is_no_histogram_is_refused(changed: dict[str, object], field: str) -> None:
    with pytest.raises(BadModel, match=f"reference: field '{field}'"):
        reference(Reader("card.json: reference", GOOD | changed))


def test_a_reference_is_read_and_may_be_absent() -> None:
    found = reference(Reader("card.json: reference", GOOD))
    assert found == Reference((0.5, 1.0), (0.9, 0.1), (0.2, 0.8)) and reference(None) is None
