"""Samples before anything is learned from them: too few, unreadable, faceless, copies, real, mixed, or of no name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.training import adapt_world
from tests.training.drawn_faces import pattern
from unmask.core.errors import UnmaskError
from unmask.core.faces import Infer
from unmask_training.adaptation.adapt import Order, adapt
from unmask_training.adaptation.parent import Parent
from unmask_training.adaptation.samples import MOST, read_samples
from unmask_training.measuring.measures import Point

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def parent(made: Path) -> Parent:
    """The version that is adapted."""
    return Parent.open(made / "models/detector/2")


def refused(parent: Parent, order: Order, infer: Infer, says: str) -> None:
    with pytest.raises((ValueError, UnmaskError), match=says):
        adapt(parent, order, infer)


def test_too_few_samples_are_refused(parent: Parent, tmp_path: Path, infer: Infer) -> None:
    adapt_world.folder_of(tmp_path, range(4), adapt_world.NEW)
    refused(parent, Order("x", tmp_path), infer, "at least 5 usable .* 4 pictures: 4 usable")


def test_an_empty_folder_and_none_are_refused(parent: Parent, tmp_path: Path, infer: Infer) -> None:
    refused(parent, Order("x", tmp_path / "nowhere"), infer, "no folder of pictures")
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    refused(parent, Order("x", tmp_path), infer, "no pictures in it")


def test_more_than_a_thousand_are_refused_before_they_are_read(parent: Parent, tmp_path: Path, infer: Infer) -> None:
    for i in range(MOST + 1):
        (tmp_path / f"{i}.jpg").touch()
    refused(parent, Order("x", tmp_path), infer, "1001 pictures, at most 1000")


def test_a_thousand_pictures_are_read(tmp_path: Path, infer: Infer) -> None:
    """All copies of one: every one is told, and the rest of the way is not walked a thousand times."""
    adapt_world.folder_of(tmp_path, [1], adapt_world.NEW)
    for i in range(MOST - 1):
        shutil.copyfile(tmp_path / "0001.png", tmp_path / f"copy-{i:04d}.png")
    found = read_samples(tmp_path, infer)
    assert (len(found.samples), len(found.copies), found.count) == (1, MOST - 1, MOST)


def test_unreadable_faceless_and_small_pictures_are_told(parent: Parent, tmp_path: Path, infer: Infer) -> None:
    adapt_world.folder_of(tmp_path, range(3), adapt_world.NEW)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    Image.fromarray(pattern(True, 200, 5)).save(tmp_path / "wall.png")
    Image.fromarray(adapt_world.face(9, adapt_world.NEW)).resize((48, 48)).save(tmp_path / "tiny.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    found = read_samples(tmp_path, infer)
    assert len(found.samples) == 3 and found.unreadable[0].startswith("broken.jpg: unreadable")
    assert [line.split(":")[0] for line in found.faceless + found.small] == ["wall.png", "tiny.png"]
    refused(parent, Order("x", tmp_path), infer, "6 pictures: 3 usable, .*without a face.*unreadable")


def test_copies_are_told_by_pair_dropped_and_refused_if_too_few_stay(parent: Parent, tmp_path: Path, infer: Infer) -> None:
    adapt_world.folder_of(tmp_path, range(4), adapt_world.NEW)
    shutil.copyfile(tmp_path / "0000.png", tmp_path / "a copy.png")
    Image.open(tmp_path / "0001.png").save(tmp_path / "saved-again.jpg", quality=80)
    found = read_samples(tmp_path, infer)
    assert "a copy.png: the same bytes as 0000.png" in found.copies
    assert any(line.startswith("saved-again.jpg: nearly 0001.png (") for line in found.copies)
    refused(parent, Order("x", tmp_path), infer, "6 pictures: 4 usable, 2 copies")


def test_known_real_pictures_are_refused_even_when_forced(parent: Parent, made: Path, infer: Infer) -> None:
    order = Order("x", made / "photos", made / "photos", force=True)
    refused(parent, order, infer, "7 samples are nearly pictures known to be real: 0020.png .of own_reals")


def test_samples_that_look_real_are_told(parent: Parent, made: Path, infer: Infer, tmp_path: Path) -> None:
    scores = adapt(parent, Order("x", made / "new", force=True), infer).said
    assert any("samples synthetic" in line for line in scores)
    # A threshold that nothing reaches: the present version takes all samples for real.
    blind = replace(parent, point=replace(parent.point, point=Point(0.9999999, 0.99999999)))
    said = adapt(blind, Order("x", made / "new", force=True), infer).said
    assert any("most samples look real" in line for line in said)


def test_mixed_samples_are_refused_with_their_clusters(parent: Parent, tmp_path: Path, infer: Infer) -> None:
    adapt_world.folder_of(tmp_path, range(8), adapt_world.NEW)
    adapt_world.folder_of(tmp_path, range(60, 68), (35.0, -30.0, -30.0))
    refused(
        parent, Order("x", tmp_path), infer, "2 well separated clusters.*[5-8] like 00[06].*[5-8] like 00[06].*--force-samples"
    )
    found = adapt(parent, Order("x", tmp_path, force=True), infer)
    assert found.learned is not None and any("well separated clusters" in line for line in found.said)


@pytest.mark.parametrize("name", ["", "Has Space", "-x", "a" * 41, "../up", "unknown", "photos"])
def test_names_that_are_none_or_a_real_sources_are_refused(parent: Parent, made: Path, infer: Infer, name: str) -> None:
    refused(parent, Order(name, made / "new"), infer, "--generator")


def test_one_sample_is_learned_when_forced(parent: Parent, tmp_path: Path, infer: Infer) -> None:
    folder = adapt_world.folder_of(tmp_path / "s", [3], adapt_world.NEW)
    refused(parent, Order("x", folder), infer, "at least 5 usable")
    found = adapt(parent, Order("x", folder, force=True), infer)
    assert found.learned is not None and not found.learned.is_held_out
