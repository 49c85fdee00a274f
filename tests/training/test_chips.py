"""Prepared chips: what is kept is what serving cuts, pixel for pixel; old data still open; yaw from five landmarks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.drawn_faces import drawn_face, manifest, prepared
from unmask.alignment.handler import align
from unmask.core import geometry
from unmask.core.cards import Card, Fusion, ModelRef, Release, Thresholds
from unmask.core.faces import DetectorSettings, Infer
from unmask.core.images import TEMPLATE, Border, Pixels, View, ViewContract, chips_of, cut
from unmask.core.pictures import ImageLimits, decode
from unmask.core.ports import Tensors
from unmask_training.data.chips import INDEX, PIXELS, Chips, face_detector, faces_of, largest_face, part_of, yaw_of
from unmask_training.data.corpora import read_all
from unmask_training.data.corpora_choice import choose
from unmask_training.data.preparing import Report, prepare


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
    folder = tmp_path / "corpus"
    folder.mkdir()
    return manifest(folder, [*rows, row("val/b.png", split="val")], pictures)


def prepared_in(out: Path, corpus: Path, infer: Infer) -> Report:
    """Prepares a corpus, as the command does."""
    index = [json.loads(line) for line in (out / INDEX).read_text().splitlines()] if (out / INDEX).is_file() else []
    return prepare(choose(read_all([corpus]), 0.1, "", index), out, infer)


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
    prepared_in(tmp_path / "out", corpus, infer)
    chips = Chips(tmp_path / "out")
    contract = Card.parse((models / "detector/1/card.json").read_bytes(), "").view
    assert contract is not None and len(chips) == 3
    wide = ViewContract(View.ALIGNED, 224, 1.3, Border.BLACK)
    for line in chips.rows:
        picture = decode((tmp_path / line.path).read_bytes(), ImageLimits())
        kept, served = chips.chip(line), served_chip(picture, infer, models)
        np.testing.assert_array_equal(kept.pixels, served.pixels)
        np.testing.assert_array_equal(kept.to_unit, served.to_unit)
        np.testing.assert_array_equal(kept.to_chip, served.to_chip)
        for view in (contract, wide):
            np.testing.assert_array_equal(cut(kept, view), cut(served, view))


def test_rows_say_what_the_manifest_says(corpus: Path, tmp_path: Path, infer: Infer) -> None:
    report = prepared_in(tmp_path / "out", corpus, infer)
    chips = Chips(tmp_path / "out")
    assert (report.added, report.before) == (3, 0) and chips.faceless == ["corpus/train/wall.png"]
    assert report.left_out == [("corpus/train/wall.png", "no face found")]
    told = {line.path: (line.label, line.kind, line.group, line.part, line.licence) for line in chips.rows}
    assert told["corpus/train/cut.png"] == ("synthetic", "gan", "g", part_of("train", "g"), "CC0")
    assert told["corpus/val/b.png"][3] == "val" and told["corpus/train/a.png"][1] == "drawn"
    assert all(60 < line.face < 350 for line in chips.rows)


def test_a_second_run_does_nothing_and_a_cut_off_one_goes_on(corpus: Path, tmp_path: Path, infer: Infer) -> None:
    whole, cut_off = tmp_path / "whole", tmp_path / "cut_off"
    first = prepared_in(whole, corpus, infer)
    size = (whole / PIXELS).stat().st_size
    again = prepared_in(whole, corpus, infer)
    assert (again.added, again.before, again.left_out) == (0, 4, first.left_out)
    assert (whole / PIXELS).stat().st_size == size
    # As if the power had gone after the pixels of the third picture were written, before its line was.
    cut_off.mkdir()
    lines = (whole / INDEX).read_text(encoding="utf-8").splitlines(keepends=True)
    (cut_off / INDEX).write_text("".join(lines[:2]), encoding="utf-8")
    (cut_off / PIXELS).write_bytes((whole / PIXELS).read_bytes()[: json.loads(lines[2])["offset"] + 1000])
    assert prepared_in(cut_off, corpus, infer).added == 2
    one, other = Chips(whole), Chips(cut_off)
    assert [line.path for line in one.rows] == [line.path for line in other.rows]
    for a, b in zip(one.rows, other.rows, strict=True):
        np.testing.assert_array_equal(one.chip(a).pixels, other.chip(b).pixels)


def test_data_of_before_open_and_are_not_prepared_again(corpus: Path, tmp_path: Path, infer: Infer) -> None:
    """The form that was written before corpora had names, hashes and further columns."""
    out = tmp_path / "out"
    prepared_in(out, corpus, infer)
    old = []
    for line in (out / INDEX).read_text(encoding="utf-8").splitlines():
        entry = {key: value for key, value in json.loads(line).items() if key not in {"extra", "sha256"}}
        old.append(json.dumps(entry | {"path": entry["path"].removeprefix("corpus/")}) + "\n")
    (out / INDEX).write_text("".join(old), encoding="utf-8")
    again = prepared_in(out, corpus, infer)
    assert (again.added, again.before) == (0, 4) and again.left_out == [("train/wall.png", "no face found")]
    assert all(line.extra == {} for line in Chips(out).rows) and len(Chips(out)) == 3
    assert len(Chips(prepared(tmp_path / "made_up"))) == 48


def test_groups_never_cross_parts() -> None:
    parts = {f"g{i}": part_of("train", f"g{i}") for i in range(3000)}
    share = sum(part == "calibrate" for part in parts.values()) / len(parts)
    assert set(parts.values()) == {"fit", "calibrate"} and 0.06 < share < 0.11
    assert parts == {group: part_of("train", group) for group in parts} and part_of("val", "g0") == "val"


def test_the_largest_face_is_the_first_of_all(infer: Infer) -> None:
    canvas = np.zeros((400, 640, 3), np.uint8)
    canvas[:320, :320], canvas[100:300, 400:600] = drawn_face(320), drawn_face(200, 1)
    faces = faces_of(canvas, infer)
    largest = largest_face(canvas, infer)
    assert len(faces) == 2 and largest is not None and largest.box[0] == faces[0].box[0] < 320
    assert largest_face(np.zeros((64, 64, 3), np.uint8), infer) is None


# Right eye, left eye and nose of MediaPipe's canonical face, in cm: x to the subject's left, y up, z to the viewer.
FACE = np.array([[-3.151, 2.625, 3.466], [3.151, 2.625, 3.466], [0.0, -1.127, 7.476]])


@pytest.mark.parametrize("degrees", [-60.0, -25.0, 0.0, 10.0, 45.0])
@pytest.mark.parametrize("roll", [-30.0, 0.0, 90.0])
def test_yaw_is_that_of_a_turned_face(degrees: float, roll: float) -> None:
    yaw, turn = np.radians([degrees, roll])
    across, depth = FACE[:, 0] * np.cos(yaw) + FACE[:, 2] * np.sin(yaw), -FACE[:, 1]
    points = np.stack([across * np.cos(turn) - depth * np.sin(turn), across * np.sin(turn) + depth * np.cos(turn)], axis=1)
    assert yaw_of(np.vstack([points * 40.0 + 300.0, np.zeros((2, 2))])) == pytest.approx(degrees, abs=0.1)


def test_yaw_of_the_template_is_about_none_and_of_collapsed_eyes_too() -> None:
    assert abs(yaw_of(geometry.apply(geometry.scaling(200.0), TEMPLATE))) < 1.0
    assert yaw_of(np.zeros((5, 2))) == 0.0


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unmask models fetch"):
        face_detector(tmp_path / "none.onnx")
    with pytest.raises(ValueError, match="unmask-train prepare"):
        Chips(tmp_path / "nothing")
    (tmp_path / INDEX).write_text('{"path": "wall.png"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="no face in any of its 1 pictures"):
        Chips(tmp_path)
