"""Which faces want explaining, which pictures are copies, and groups of embeddings."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.samples import a_case, a_verdict
from unmask.cli.main import parser
from unmask.core.discover import (
    LEAST,
    Originals,
    average_link,
    centre_of_memory,
    find_clusters,
    largest,
    strange_face,
    unit,
)
from unmask.core.domain import FaceVerdict, Label, Verdict
from unmask.core.errors import BadModel
from unmask.core.ids import first_case_id, new_case_id

KNOWN, STRANGE = {"stylegan2": 0.7, "unknown": 0.3}, {"stylegan2": 0.3, "unknown": 0.7}


def a_face(label: Label, generator: dict[str, float] | None, **fields: Any) -> FaceVerdict:
    face = replace(a_verdict(a_case()).faces[0], box=(10.0, 10.0, 110.0, 130.0), score=0.5)
    return replace(face, label=label, generator=generator, **fields)


def of(*faces: FaceVerdict) -> Verdict:
    return a_verdict(a_case(), faces=faces)


@pytest.mark.parametrize(
    ("label", "generator", "wants"),
    [
        (Label.UNSURE, KNOWN, True),
        (Label.UNSURE, None, True),
        (Label.SYNTHETIC, STRANGE, True),
        (Label.MANIPULATED, STRANGE, True),
        (Label.SYNTHETIC, KNOWN, False),
        (Label.SYNTHETIC, None, False),
        (Label.SYNTHETIC, {}, False),
        # Of a photograph no family is likely: that is no news.
        (Label.REAL, STRANGE, False),
    ],
)
def test_which_faces_want_explaining(label: Label, generator: dict[str, float] | None, wants: bool) -> None:
    face = a_face(label, generator)
    assert strange_face(of(face), 40) == (face if wants else None)


def test_of_several_faces_the_one_with_the_highest_score_and_never_a_small_one() -> None:
    low, high, unset = (a_face(Label.UNSURE, None, score=score) for score in (0.2, 0.6, None))
    small = a_face(Label.UNSURE, None, score=0.9, box=(0.0, 0.0, 39.0, 20.0))
    assert strange_face(of(low, unset, small, high), 40) is high
    assert strange_face(of(unset), 40) is unset and strange_face(of(small), 40) is None and strange_face(of(), 40) is None
    assert strange_face(of(small), 39) is small


def phash(bits: int) -> str:
    return f"{bits:064x}"


@given(st.lists(st.integers(0, 2**256 - 1), max_size=40), st.sets(st.integers(0, 255), max_size=20))
def test_a_copy_is_found_among_any_number_of_originals(hashes: list[int], turned: set[int]) -> None:
    kept, flip = Originals(), sum(1 << place for place in turned)
    for number, bits in enumerate(hashes):
        assert kept.add(str(number), phash(bits)) == number
    for number, bits in enumerate(hashes):
        nearest = min((other ^ bits ^ flip).bit_count() for other in hashes)
        found = kept.find("new", phash(bits ^ flip))
        assert (found is not None) is (nearest <= 15)
        if found is not None:
            assert (hashes[found] ^ bits ^ flip).bit_count() == nearest
        assert kept.find(str(number), "") == number
    assert len(kept) == len(hashes)


def test_without_a_hash_only_the_same_bytes_are_a_copy() -> None:
    kept = Originals()
    kept.add("a", "")
    kept.add("b", phash(0))
    assert (kept.find("a", ""), kept.find("c", ""), kept.find("c", phash(1)), kept.find("a", phash(1))) == (0, None, 1, 0)


def naive(distances: Any, cut: float) -> set[frozenset[int]]:
    """Average linkage by its definition: the two nearest groups join, until none are near enough."""
    groups = [frozenset([index]) for index in range(len(distances))]
    while len(groups) > 1:
        apart = {
            (one, other): float(np.mean([distances[i][j] for i in one for j in other]))
            for place, one in enumerate(groups)
            for other in groups[:place]
        }
        one, other = min(apart, key=lambda pair: apart[pair])
        if apart[one, other] > cut:
            break
        groups = [group for group in groups if group not in (one, other)] + [one | other]
    return set(groups)


@given(st.integers(0, 2**32 - 1), st.integers(2, 24), st.floats(0.05, 1.5))
def test_chains_of_neighbours_give_average_linkage(seed: int, count: int, cut: float) -> None:
    rows = unit(np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32))
    distances = (1.0 - rows @ rows.T).clip(0)
    labels = average_link(distances, cut)
    assert {frozenset(np.flatnonzero(labels == label).tolist()) for label in labels} == naive(distances, cut)


def test_equal_rows_and_a_single_one_come_to_an_end() -> None:
    assert len(set(average_link(np.zeros((9, 9), np.float32), 0.1))) == 1
    assert average_link(np.zeros((1, 1), np.float32), 0.1).tolist() == [0]
    assert average_link(np.zeros((0, 0), np.float32), 0.1).tolist() == []


def planted(*sizes: int, noise: int = 0, seed: int = 0) -> tuple[Any, list[set[int]]]:
    """Embeddings around one direction a group on top of what all share, as those of faces are; and the groups."""
    rng = np.random.default_rng(seed)
    directions = np.repeat(np.eye(64)[: len(sizes)], sizes, axis=0)
    rows = np.concatenate([directions + rng.normal(0, 0.05, directions.shape), rng.normal(0, 0.3, (noise, 64))])
    order = rng.permutation(len(rows))
    ends = np.cumsum((0, *sizes))
    groups = [set(np.flatnonzero((order >= begin) & (order < end)).tolist()) for begin, end in pairwise(ends)]
    return unit((3.0 + rows[order]).astype(np.float32)), groups


def test_planted_groups_are_found_largest_first_and_noise_stays_out() -> None:
    rows, (small, large, tiny) = planted(8, 20, 4, noise=30)
    found = find_clusters(rows, centre=unit(np.full(64, 3.0, np.float32)))
    assert [set(group) for group in found] == [large, small]
    assert largest(found) == 20 and largest([]) == 0
    assert [set(group) for group in find_clusters(rows, least=4, centre=unit(np.full(64, 3.0, np.float32)))][-1] == tiny


def test_the_most_typical_comes_first() -> None:
    rows, _ = planted(12)
    centre = unit(np.full(64, 3.0, np.float32))
    (found,) = find_clusters(rows, centre=centre)
    middle = unit(rows - centre).mean(axis=0)
    assert found == sorted(found, key=lambda index: -float(unit(rows - centre)[index] @ middle))


def test_one_group_alone_is_found_only_from_a_centre_that_it_does_not_make() -> None:
    rows, (whole,) = planted(12)
    (found,) = find_clusters(rows, centre=unit(np.full(64, 3.0, np.float32)))
    assert set(found) == whole
    assert find_clusters(rows) == []


def test_too_few_are_no_cluster() -> None:
    rows, _ = planted(4)
    assert find_clusters(rows, least=5) == [] == find_clusters(rows[:0], least=2)


def memory(rows: Any, kinds: Any, **header: Any) -> bytes:
    """A safetensors file by its format."""
    blobs = {"plain": np.asarray(rows, "<f2"), "kind": np.asarray(kinds, "<i2")}
    body, entries = b"", {}
    for name, values in blobs.items():
        dtype = "F16" if name == "plain" else "I16"
        entries[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(body), len(body) + values.nbytes]}
        body += values.tobytes()
    text = json.dumps({"__metadata__": {"kinds": "[]"}, **entries, **header}).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_the_centre_weighs_kinds_alike_whatever_their_numbers() -> None:
    features = np.zeros((4, 4))
    features[:3], features[3] = (2, 0, 0, 7), (0, 0, 4, 7)
    assert centre_of_memory(memory(features, [5, 5, 5, 9]), "m", 3).tolist() == [0.5, 0.0, 0.5]


def test_the_shipped_memory_has_a_centre_among_its_embeddings(root: Path) -> None:
    folder = root / "model_repository/detector/3"
    card = json.loads((folder / "card.json").read_bytes())
    [shape] = [output["shape"] for output in card["outputs"] if output["name"] == "embedding"]
    found = centre_of_memory((folder / "memory.safetensors").read_bytes(), "memory", shape[-1])
    assert found.shape == (shape[-1],) and 0.0 < float(np.linalg.norm(found)) < 1.0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff" * 64,
        memory(np.zeros((4, 3)), [1, 2]),
        memory(np.zeros((4, 2, 3)), [1, 2, 3, 4]),
        memory(np.zeros((4, 2)), [1, 2, 3, 4]),
        memory(np.zeros((0, 3)), []),
        memory(np.zeros((4, 3)), [1, 2, 3, 4])[:-9],
        memory(np.zeros((4, 3)), [1, 2, 3, 4], kind={"dtype": "I64", "shape": [4], "data_offsets": [0, 32]}),
        memory(np.zeros((4, 3)), [1, 2, 3, 4], plain=[]),
    ],
)
def test_what_is_no_memory_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(BadModel, match=r"memory\.safetensors: not a detector's replay memory"):
        centre_of_memory(data, "memory.safetensors", 3)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)))
def test_no_case_from_a_moment_on_sorts_before_its_first_id(time: datetime) -> None:
    moment = time.replace(tzinfo=UTC)
    assert first_case_id(moment) <= new_case_id(moment)
    assert (
        new_case_id(moment - timedelta(milliseconds=2))
        < first_case_id(moment)
        < new_case_id(moment + timedelta(milliseconds=2))
    )


def test_before_all_time_every_case_counts() -> None:
    assert first_case_id(datetime(1, 1, 1, tzinfo=UTC)) <= new_case_id(datetime(1970, 1, 1, tzinfo=UTC))


def test_the_command_goes_by_the_same_numbers_unless_told() -> None:
    told = parser().parse_args(["discover"])
    assert (told.distance, told.min_size) == (None, LEAST)  # the distance is the detector's
