"""Composed pictures: as many faces as were pasted, the generated one where the manifest says, the same for the same seed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.drawn_faces import drawn_face, manifest, prepared
from unmask.core.faces import Infer
from unmask.core.pictures import ImageLimits, decode
from unmask_training.data.chips import Chips, face_detector, faces_of
from unmask_training.data.compose import compose
from unmask_training.data.corpora import read_all
from unmask_training.data.corpora_choice import choose
from unmask_training.data.preparing import prepare

KINDS = {"photos": "real", "portraits": "real", "gan": "synthetic", "diffusion": "synthetic"}


@pytest.fixture(scope="module")
def infer(models: Path) -> Infer:
    """The served face detector."""
    return face_detector(models / "face_detector/1/model.onnx")


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory, infer: Infer) -> Chips:
    """Drawn faces of two sources and two generators, three each, all held out but one."""
    folder, rows, pictures = tmp_path_factory.mktemp("drawn"), [], {}
    for number, kind in enumerate(name for name in KINDS for _ in range(3)):
        path, told = f"{kind}/{number}.png", "generator" if KINDS[kind] == "synthetic" else "source"
        rows.append({"path": path, "label": KINDS[kind], told: kind, "group": f"g{number}", "split": "val", "licence": kind})
        pictures[path] = drawn_face(340 + 20 * number, number)
    rows[0]["split"] = "train"
    out = tmp_path_factory.mktemp("data")
    prepare(choose(read_all([manifest(folder, rows, pictures)]), 0.1, "", []), out, infer)
    return Chips(out)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The manifest of the composed pictures."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_face_detector_finds_as_many_faces_as_were_pasted_and_where(chips: Chips, tmp_path: Path, infer: Infer) -> None:
    rows = rows_of(compose(chips, tmp_path / "composed", 12, seed=3))
    assert len(rows) == 12 and {row["faces"] for row in rows} == {"2", "3", "4"}
    for row in rows:
        found = faces_of(decode((tmp_path / "composed" / row["path"]).read_bytes(), ImageLimits()), infer)
        boxes = json.loads(row["boxes"])
        assert len(found) == len(boxes) == int(row["faces"])
        for x0, y0, x1, y1 in boxes:
            centres = [(face.box[:2] + face.box[2:]) / 2.0 for face in found]
            assert sum(x0 < x < x1 and y0 < y < y1 for x, y in centres) == 1


def test_half_hold_exactly_one_generated_face_and_the_manifest_says_which(chips: Chips, tmp_path: Path) -> None:
    rows = rows_of(compose(chips, tmp_path, 20, seed=4))
    by_path = {row.path: row for row in chips.rows}
    assert [row["label"] for row in rows] == ["real", "synthetic"] * 10
    for row in rows:
        members = [by_path[path] for path in json.loads(row["members"])]
        generated = [place for place, member in enumerate(members) if member.label == "synthetic"]
        assert [str(place) for place in generated] == ([row["generated"]] if row["label"] == "synthetic" else [])
        assert row["generator"] == (members[generated[0]].kind if generated else "")
        assert len({member.group for member in members}) == len(members) and {member.part for member in members} == {"val"}
        assert row["licence"] == "; ".join(sorted({member.licence for member in members}))
    assert {row["generator"] for row in rows} == {"", "gan", "diffusion"}
    assert len({row["generated"] for row in rows}) > 2


def test_a_seed_makes_the_same_bytes_and_another_one_others(chips: Chips, tmp_path: Path) -> None:
    one, same, other = (compose(chips, tmp_path / name, 4, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    pictures = [{path.name: path.read_bytes() for path in sorted(folder.iterdir())} for folder in (one, same, other)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 5
    assert all(pictures[0][name] != pictures[2][name] for name in pictures[0])


def test_pixels_are_the_chips_shrunk_once_and_encoded_once(chips: Chips, tmp_path: Path) -> None:
    """The middle of each face is nearly what its chip shows there: no second JPEG, no other resampling."""
    row = rows_of(compose(chips, tmp_path, 1, seed=8))[0]
    picture = decode((tmp_path / row["path"]).read_bytes(), ImageLimits()).astype(float)
    by_path = {line.path: line for line in chips.rows}
    for (x0, y0, x1, y1), path in zip(json.loads(row["boxes"]), json.loads(row["members"]), strict=True):
        chip = chips.chip(by_path[path])
        corners = np.linalg.inv(np.vstack([chip.to_unit, [0, 0, 1]])) @ np.array([[0.3, 0.7], [0.3, 0.8], [1, 1]])
        (a, b), (c, d) = corners[0].astype(int), corners[1].astype(int)
        width, height = x1 - x0, y1 - y0
        middle = picture[int(y0 + 0.22 * height) : int(y0 + 0.72 * height), int(x0 + 0.22 * width) : int(x0 + 0.78 * width)]
        assert np.abs(middle.mean(axis=(0, 1)) - chip.pixels[c:d, a:b].mean(axis=(0, 1))).max() < 8.0


def test_too_few_faces_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--compose needs real faces of at least 4 groups in part val.*there are 0"):
        compose(Chips(prepared(tmp_path / "small")), tmp_path / "composed", 2, seed=1)
    assert not (tmp_path / "composed").exists()
