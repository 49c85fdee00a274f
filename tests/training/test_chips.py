"""Preparing: what is kept is what serving cuts, pixel for pixel; it resumes, and says what it could not use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.drawn_faces import drawn_face, manifest
from unmask.alignment.handler import align
from unmask.core.cards import Card, Fusion, ModelRef, Release, Thresholds
from unmask.core.errors import UnmaskError
from unmask.core.faces import DetectorSettings, Infer
from unmask.core.images import Border, Pixels, View, ViewContract, chips_of, cut
from unmask.core.pictures import ImageLimits, decode
from unmask.core.ports import Tensors
from unmask_training.data.chips import INDEX, PIXELS, Chips, face_detector, largest_face, part_of, prepare


@pytest.fixture(scope="module")
def infer(models: Path) -> Infer:
    """The served face detector."""
    return face_detector(models / "face_detector/1/model.onnx")


def row(path: str, **changes: str) -> dict[str, str]:
    """A line of the manifest."""
    told = {"path": path, "label": "real", "source": "drawn", "group": path, "split": "train", "licence": "CC0"}
    return told | changes


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three faces, one of them at the picture's edge, and a wall without any."""
    pictures = {"train/a.png": drawn_face(320), "val/b.png": drawn_face(500, 1), "train/cut.png": drawn_face(400, 2)[60:, :300]}
    pictures["train/wall.png"] = np.full((200, 300, 3), 90, np.uint8)
    rows = [row("train/a.png"), row("train/wall.png"), row("train/cut.png", group="g", label="synthetic", generator="gan")]
    return manifest(tmp_path, [*rows, row("val/b.png", split="val")], pictures)


class OneModel:
    """The port `ModelServer` over the one session that preparing uses."""

    def __init__(self, infer: Infer, card: Card) -> None:
        self._infer, self._card = infer, card

    def card(self, _ref: ModelRef) -> Card:
        """The face detector's card."""
        return self._card

    def infer(self, _ref: ModelRef, inputs: Tensors) -> Tensors:
        """Its heads by name."""
        return dict(zip(("loc", "conf", "landmarks"), self._infer(inputs["image"]), strict=True))


def served_chip(picture: Pixels, infer: Infer, models: Path) -> Pixels:
    """The views of the first face by the way serving takes: rows of `align`, then chips of rows."""
    card = Card.parse((models / "face_detector/1/card.json").read_bytes(), "")
    refs = {role: ModelRef(role, 1) for role in ("face_detector", "detector", "localizer")}
    release = Release("test", refs, Fusion(), Thresholds(0.4, 0.6, 0.4, 0.6, 0.99, 48), "")
    faces = align(picture, release, OneModel(infer, card), DetectorSettings())
    return chips_of(picture, faces[:1])[0]


def test_prepared_chips_are_what_serving_cuts(corpus: Path, tmp_path: Path, infer: Infer, models: Path) -> None:
    prepare(corpus, tmp_path / "out", infer)
    chips = Chips(tmp_path / "out")
    contract = Card.parse((models / "detector/1/card.json").read_bytes(), "").view
    assert contract is not None and len(chips) == 3
    wide = ViewContract(View.ALIGNED, 224, 1.3, Border.BLACK)
    for line in chips.rows:
        picture = decode((corpus / line.path).read_bytes(), ImageLimits())
        kept, served = chips.chip(line), served_chip(picture, infer, models)
        np.testing.assert_array_equal(kept.pixels, served.pixels)
        np.testing.assert_array_equal(kept.to_unit, served.to_unit)
        np.testing.assert_array_equal(kept.to_chip, served.to_chip)
        for view in (contract, wide):
            np.testing.assert_array_equal(cut(kept, view), cut(served, view))


def test_rows_say_what_the_manifest_says(corpus: Path, tmp_path: Path, infer: Infer) -> None:
    count, missed = prepare(corpus, tmp_path / "out", infer)
    chips = Chips(tmp_path / "out")
    assert (count, missed, chips.faceless) == (4, ["train/wall.png"], ["train/wall.png"])
    told = {line.path: (line.label, line.kind, line.group, line.part, line.licence) for line in chips.rows}
    assert told["train/cut.png"] == ("synthetic", "gan", "g", part_of("train", "g"), "CC0")
    assert told["val/b.png"][3] == "val" and told["train/a.png"][1] == "drawn"
    assert all(60 < line.face < 350 for line in chips.rows)


def test_a_second_run_does_nothing_and_a_cut_off_one_goes_on(corpus: Path, tmp_path: Path, infer: Infer) -> None:
    whole, cut_off = tmp_path / "whole", tmp_path / "cut_off"
    prepare(corpus, whole, infer)
    size = (whole / PIXELS).stat().st_size
    assert prepare(corpus, whole, infer) == (0, [])
    assert (whole / PIXELS).stat().st_size == size
    # As if the power had gone after the pixels of the third picture were written, before its line was.
    cut_off.mkdir()
    lines = (whole / INDEX).read_text(encoding="utf-8").splitlines(keepends=True)
    (cut_off / INDEX).write_text("".join(lines[:2]), encoding="utf-8")
    (cut_off / PIXELS).write_bytes((whole / PIXELS).read_bytes()[: json.loads(lines[2])["offset"] + 1000])
    assert prepare(corpus, cut_off, infer)[0] == 2
    one, other = Chips(whole), Chips(cut_off)
    assert [line.path for line in one.rows] == [line.path for line in other.rows]
    for a, b in zip(one.rows, other.rows, strict=True):
        np.testing.assert_array_equal(one.chip(a).pixels, other.chip(b).pixels)


def test_a_line_that_was_cut_off_is_done_again(corpus: Path, tmp_path: Path, infer: Infer) -> None:
    prepare(corpus, tmp_path / "out", infer)
    index = tmp_path / "out" / INDEX
    text = index.read_text(encoding="utf-8")
    index.write_text(text[:-40], encoding="utf-8")
    assert prepare(corpus, tmp_path / "out", infer)[0] == 1
    assert {line.path for line in Chips(tmp_path / "out").rows} == {"train/a.png", "train/cut.png", "val/b.png"}


def test_groups_never_cross_parts() -> None:
    parts = {f"g{i}": part_of("train", f"g{i}") for i in range(3000)}
    share = sum(part == "calibrate" for part in parts.values()) / len(parts)
    assert set(parts.values()) == {"fit", "calibrate"} and 0.06 < share < 0.11
    assert parts == {group: part_of("train", group) for group in parts} and part_of("val", "g0") == "val"


def test_a_picture_without_a_face_has_none(infer: Infer) -> None:
    assert largest_face(np.zeros((64, 64, 3), np.uint8), infer) is None


def test_what_is_missing_is_named(corpus: Path, tmp_path: Path, infer: Infer) -> None:
    with pytest.raises(ValueError, match="unmask models fetch"):
        face_detector(tmp_path / "none.onnx")
    with pytest.raises(ValueError, match="unmask-train prepare"):
        Chips(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"manifest\.csv"):
        prepare(tmp_path / "nowhere", tmp_path / "out", infer)
    (corpus / "train/a.png").write_bytes(b"no picture")
    with pytest.raises(UnmaskError):
        prepare(corpus, tmp_path / "out", infer)
    with pytest.raises(ValueError, match="no face in any"):
        prepare_wall(tmp_path / "walls", infer)


def prepare_wall(folder: Path, infer: Infer) -> Chips:
    """A corpus of which nothing can be used."""
    folder.mkdir()
    prepare(manifest(folder, [row("w.png")], {"w.png": np.full((99, 99, 3), 9, np.uint8)}), folder / "out", infer)
    return Chips(folder / "out")
