"""`unmask-train prepare` as it is called: every layout to its rows, what is left out, and going on after a kill."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.drawn_faces import drawn_face
from unmask_dev.process import wait_until
from unmask_training.data.chips import INDEX, PIXELS, Chips
from unmask_training.data.preparing import LEFT_OUT, add_parser, run


def called(*words: object) -> int:
    """Runs the command on a command line."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["prepare", *map(str, words)])
    assert args.run is run
    return run(args)


def drawn(root: Path, *paths: str, first: int = 0) -> Path:
    """A folder of faces that the face detector finds."""
    for number, path in enumerate(paths, first):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn_face(230, number)).save(root / path)
    return root


def left_out(out: Path) -> dict[str, str]:
    """What the last run left out."""
    with (out / LEFT_OUT).open(encoding="utf-8", newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


LISTED = "train_release/1/2ac43aa43bf473f9a9c09b4b608619d3/f.png"
TREES = {
    "manifest": ("a.png", "b.png"),
    "folders": ("real/ffhq/a.png", "train/sdxl/b.png"),
    "dffd": ("ffhq/train/a.png", "pggan_v2/validation/b.png"),
    "faceforensics": (
        "original_sequences/youtube/c23/frames/000/1.png",
        "manipulated_sequences/Face2Face/c23/frames/000_003/1.png",
    ),
    "forgerynet": ("Training/image/train_release/18/id/v/f.png", f"Training/image/{LISTED}"),
    "genimage": ("ADM/train/nature/a.png", "ADM/val/ai/b.png"),
}
WANTED = {
    "manifest": {("real", "mine"), ("manipulated", "photoshop")},
    "folders": {("real", "ffhq"), ("synthetic", "sdxl")},
    "dffd": {("real", "ffhq"), ("synthetic", "pggan_v2")},
    "faceforensics": {("real", "ff_youtube"), ("manipulated", "Face2Face")},
    "forgerynet": {("real", "avspeech"), ("manipulated", "FaceShifter")},
    "genimage": {("real", "genimage"), ("synthetic", "ADM")},
}
HEADER = "path,label,generator,source,group,split,licence,age,yaw\n"


@pytest.mark.parametrize("layout", TREES)
def test_every_layout_becomes_rows(layout: str, tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = drawn(tmp_path / layout, *TREES[layout]), tmp_path / "data"
    if layout == "manifest":
        rows = "a.png,real,,mine,g1,val,CC0,31,\nb.png,manipulated,photoshop,mine,g2,train,,,-40\n"
        (root / "manifest.csv").write_text(HEADER + rows, encoding="utf-8")
    if layout == "forgerynet":
        (root / "Training/image_list.txt").write_text(f"train_release/18/id/v/f.png 0 0 18\n{LISTED} 1 1 1\n", encoding="utf-8")
    assert called(root, "--out", out, "--licence", "research only") == 0
    shown = capsys.readouterr()
    assert f"layout {layout}: 1 " in shown.err and "2 pictures prepared" in shown.out and "0 left out" in shown.out
    chips = Chips(out)
    assert {(row.label, row.kind) for row in chips} == WANTED[layout]
    assert {row.path for row in chips} == {f"{layout}/{path}" for path in TREES[layout]}
    for row in chips:
        assert row.extra["faces"] == "1" and chips.chip(row).pixels.shape == row.shape
    if layout == "manifest":
        real, fake = sorted(chips.rows, key=lambda row: row.path)
        assert (real.licence, real.part, real.extra["age"]) == ("CC0", "val", "31") and abs(float(real.extra["yaw"])) < 12.0
        assert (fake.licence, fake.extra["yaw"], fake.extra["source"]) == ("research only", "-40", "mine")


def test_what_cannot_be_used_is_left_out_and_said_and_the_rest_prepared(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = drawn(tmp_path / "mine", "real/a.png", "sdxl/b.png"), tmp_path / "data"
    (root / "sdxl/broken.jpg").write_bytes(b"no picture")
    (root / "sdxl/cut.png").write_bytes((root / "sdxl/b.png").read_bytes()[:3000])
    Image.fromarray(np.full((90, 90, 3), 90, np.uint8)).save(root / "real/wall.png")
    (root / "flux").mkdir()
    (tmp_path / "nothing").mkdir()
    for _ in range(2):  # the second time it says the same
        assert called(root, tmp_path / "nothing", "--out", out) == 0
        reasons = left_out(out)
        assert reasons["mine/real/wall.png"] == "no face found" and reasons["mine/flux/"] == "empty folder"
        assert reasons["mine/sdxl/broken.jpg"].startswith("not read: ") and reasons["mine/sdxl/cut.png"].startswith(
            "not read: "
        )
        assert reasons["nothing/"] == "no pictures in it" and len(reasons) == 5
        shown = capsys.readouterr().out
        assert "5 left out" in shown and all(f"  {path}: {why}" in shown for path, why in reasons.items())
    assert {row.path for row in Chips(out)} == {"mine/real/a.png", "mine/sdxl/b.png"}


def test_many_left_out_are_counted_by_reason(tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn(tmp_path / "mine", "real/a.png")
    for number in range(30):
        (root / f"real/{number}.jpg").write_bytes(b"no picture %d" % number)
    assert called(root, "--out", tmp_path / "data") == 0
    assert "  30 x not read: " in capsys.readouterr().out and len(left_out(tmp_path / "data")) == 30


def test_nothing_prepared_is_refused(tmp_path: Path, models: Path) -> None:
    (tmp_path / "mine/real").mkdir(parents=True)
    with pytest.raises(ValueError, match="nothing prepared: no picture with a face"):
        called(tmp_path / "mine", "--out", tmp_path / "data")
    assert left_out(tmp_path / "data") == {"mine/real/": "empty folder", "mine/": "no pictures in it"}


@pytest.mark.parametrize("split", ["val", "val=1", "val=-0.1", "test=0.1", "val=nan", "val=some"])
def test_a_wrong_split_is_refused(tmp_path: Path, models: Path, split: str) -> None:
    with pytest.raises(ValueError, match=r"--split must be val=SHARE"):
        called(tmp_path, "--out", tmp_path / "data", "--split", split)


def test_other_wrong_words_are_refused(tmp_path: Path, models: Path) -> None:
    with pytest.raises(ValueError, match="--compose must be at least 0"):
        called(tmp_path, "--out", tmp_path / "data", "--compose", -1)
    with pytest.raises(ValueError, match="unmask models fetch"):
        called(tmp_path, "--out", tmp_path / "data", "--face-detector", tmp_path / "none.onnx")
    with pytest.raises(SystemExit):
        called(tmp_path, "--out", tmp_path / "data", "--layout", "pile")
    assert not (tmp_path / "data").exists()


def test_another_corpus_joins_and_composed_pictures_are_made(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = drawn(tmp_path / "one", *(f"val/real/{i}.png" for i in range(4)))
    two, out = drawn(tmp_path / "two", "train/sdxl/9.png", "val/sdxl/8.png", "val/real/7.png", first=4), tmp_path / "data"
    assert called(one, "--out", out) == 0 and called(one, two, "--out", out, "--compose", 2, "--seed", 7) == 0
    assert "3 pictures prepared" in (shown := capsys.readouterr().out) and "4 were there before" in shown
    assert "2 composed pictures" in shown and len(list((out / "composed").glob("*.jpg"))) == 2
    assert len({row.group for row in Chips(out)}) == 7


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same(tmp_path: Path, models: Path, root: Path) -> None:
    corpus = drawn(tmp_path / "mine", *(f"{'real' if i % 2 else 'gan'}/{i:02}.png" for i in range(24)))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = f"import sys; sys.path[:0] = [{str(root / 'services')!r}, {str(root / 'training')!r}]\n"
    program += "from unmask_training.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-W", "ignore", "-c", program, "prepare", str(corpus), "--out", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (killed / INDEX).read_text().count("\n") >= 3, 120, "three pictures prepared")
    finally:
        process.kill()
        process.wait()
    before = (killed / INDEX).read_text().count("\n")
    assert 3 <= before < 24
    assert called(corpus, "--out", killed) == 0 and called(corpus, "--out", whole) == 0
    one, other = Chips(killed), Chips(whole)
    assert [row.path for row in one] == [row.path for row in other] and len(one) == 24
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(one.chip(a).pixels, other.chip(b).pixels)
    assert all(json.loads(line) for line in (killed / INDEX).read_text().splitlines())
    assert (killed / PIXELS).stat().st_size >= (whole / PIXELS).stat().st_size
