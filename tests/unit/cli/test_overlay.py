"""Drawing verdicts: any size, any number of faces, only on the bytes that were judged."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.pictures import oriented, png
from unmask.cli.output import Answer
from unmask.cli.overlay import annotated, file_name, save, usable
from unmask.cli.report import Report
from unmask.core.domain import Action, Box, Claim, FaceVerdict, Heat, Label, Named, Reason, Region, Verdict
from unmask.core.errors import BadConfig, BadImage


def _face(box: Box, label: Label = Label.REAL, *regions: Region) -> FaceVerdict:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return FaceVerdict(box, ((x, y),) * 5, label, 0.5, None, 0.5, None, None, None, regions)


def _verdict(data: bytes, *faces: FaceVerdict, reasons: tuple[Reason, ...] = (), claims: tuple[Claim, ...] = ()) -> Verdict:
    sha256, named = hashlib.sha256(data).hexdigest(), Named("r", "0" * 64)
    label = faces[0].label if faces else Label.NO_FACE
    return Verdict("id", sha256, 9, 9, label, None, None, Action.ALLOW, faces, claims, named, (), named, reasons, {})


def _plain(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (90, 90, 90)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((200, 100), (480, 240)),
        ((480, 360), (480, 360)),
        ((1000, 900), (1000, 900)),
        ((4000, 1000), (1600, 400)),
        ((1, 1), (480, 480)),
        ((6000, 1), (1600, 1)),
    ],
)
def test_pictures_are_brought_to_a_size_that_can_be_read(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    data = _plain(*size)
    assert annotated(data, _verdict(data)).size == drawn
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    assert annotated(data, _verdict(data, _face(whole))).size == drawn


def test_a_heat_map_tints_where_it_is_hot_at_every_scale() -> None:
    data = _plain(200, 100)
    # Four by two cells of fifty pixels; the last of the second row is hot.
    heat = Heat(4, 2, bytes([0, 0, 0, 0, 0, 0, 0, 255]), (50.0, 0.0, 24.5, 0.0, 50.0, 24.5))
    plain, tinted = (annotated(data, _verdict(data), None, heats) for heats in ((), (heat, None)))
    assert tinted.getpixel((round(175 * 2.4), round(75 * 2.4))) == pytest.approx((171, 47, 52), abs=1)
    cold = (round(75 * 2.4), round(75 * 2.4))
    assert tinted.getpixel(cold) == plain.getpixel(cold)


def test_boxes_follow_the_scale() -> None:
    data = _plain(200, 100)
    picture = annotated(data, _verdict(data, _face((50, 50, 150, 90), Label.SYNTHETIC)))
    red = [x for x in range(480) if picture.getpixel((x, 170)) == (207, 34, 46)]
    assert min(red) == pytest.approx(50 * 2.4, abs=2)
    assert max(red) == pytest.approx(150 * 2.4, abs=2)


@pytest.mark.parametrize("box", [(-500, -500, 9999, 9999), (9, 9, 9, 9), (-50, -50, -10, -10), (10, 10, 10, 40)])
def test_boxes_that_lie_oddly_are_drawn_or_left_out_but_break_nothing(box: Box) -> None:
    data = _plain(64, 48)
    line = Region(((0.0, 0.0), (10.0, 10.0)), 0.5, "nose", 0.1)
    assert annotated(data, _verdict(data, _face(box, Label.MANIPULATED, line))).size == (480, 360)


def test_thirty_faces_are_numbered_and_drawn() -> None:
    data = _plain(900, 800)
    faces = [_face((30.0 * i, 20.0 * i, 30.0 * i + 25, 20.0 * i + 25)) for i in range(30)]
    assert annotated(data, _verdict(data, *faces)).size == (900, 800)


def test_the_picture_is_drawn_as_it_is_displayed() -> None:
    data = oriented(6)
    picture = annotated(data, _verdict(data))
    assert picture.width > picture.height, "the scene lies on its side in the file, but is 64 x 48 to the eye"


def test_other_bytes_than_those_judged_are_not_drawn_on() -> None:
    with pytest.raises(BadImage, match="changed"):
        annotated(png(), _verdict(b"what was judged"))


def test_file_names_are_plain_and_each_inputs_own() -> None:
    names = ["a/b.png", "c/b.png", "b.png", "\udcff.png", r"\xff.png", "../../etc/passwd", "x" * 300, "-", "", ".", "日本.jpg"]
    found = [file_name(name) for name in names]
    assert len(set(found)) == len(names)
    for name in found:
        assert name.isascii()
        assert os.sep not in name
        assert len(name) < 120


def test_a_folder_that_cannot_be_written_is_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for attempt in (lambda: usable(tmp_path / "file"), lambda: save(Image.new("RGB", (1, 1)), tmp_path / "file", "a")):
        with pytest.raises(BadConfig, match="overlay folder"):
            attempt()


def test_everything_a_picture_brings_along_is_escaped_on_the_page(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&"
    data = png()
    verdict = _verdict(data, _face((1, 1, 9, 9)), reasons=(Reason("r", evil, 0),), claims=(Claim(evil, evil, evil),))
    report = Report(tmp_path / "page.html", title=evil)
    report.add(Answer(f"{evil}\x1b.png", verdict, None), annotated(data, verdict))
    report.add(Answer("b.png", None, BadImage(f"{evil}\x1b")), None, expected=evil)
    report.close()
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<img src=x" not in text
    assert "onerror=alert(1)&gt;" in text
    assert "\x1b" not in text
    assert "default-src 'none'" in text


def test_the_page_of_nothing_and_the_page_that_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("older")
    report = Report(path)
    assert path.read_text() == "older", "an older page stays until the new one is written"
    report.close()
    assert "0 pictures" in path.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
