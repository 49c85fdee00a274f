"""What is printed: rows that fit, lines of JSON, names cut where it hurts least."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.cli.output import Answer, Table, fit, json_line, region_words, top_family, width
from unmask.core.domain import Action, FaceVerdict, Label, Named, Region, Verdict
from unmask.core.errors import BadImage, BadModel

_SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))


def _face(label: Label, synthetic: float, *names: str) -> FaceVerdict:
    regions = tuple(Region(_SQUARE, 0.9, name, 0.1) for name in names)
    shares = {"stable_diffusion_3_medium": 0.975, "other": 0.025}
    return FaceVerdict((0, 0, 9, 9), (), label, synthetic, None, synthetic, 0.1, shares, None, regions)


def _verdict(label: Label, *faces: FaceVerdict, score: float | None = 0.98765) -> Verdict:
    named = Named("r", "0" * 64)
    spent = {"total": 1234.5}
    return Verdict("id", "s", 9, 9, label, score, None, Action.REVIEW, faces, (), named, (), named, (), {}, spent)


def _answer(name: str = "a.png", *faces: FaceVerdict, label: Label = Label.SYNTHETIC) -> Answer:
    return Answer(name, _verdict(label, *faces), None)


@pytest.mark.parametrize("columns", [80, 100, 120, 200])
def test_rows_fit_the_terminal_and_columns_line_up(columns: int) -> None:
    table = Table(columns)
    faces = (_face(Label.SYNTHETIC, 0.9), _face(Label.MANIPULATED, 0.2, "left eye", "mouth", "nose", "right eye", "chin"))
    rows = [table.head(), table.line(_answer("/a/very/long/" * 9 + "name.png", *faces)), table.line(_answer("b.png", *faces))]
    assert max(map(width, rows)) <= columns
    assert len({row.index(word) for row, word in zip(rows, ("label", "synthetic", "synthetic"), strict=True)}) == 1
    assert len({row.index(word) for row, word in zip(rows, ("action", "review", "review"), strict=True)}) == 1
    assert "name.png" in rows[1], "the end of a name tells more than its beginning"
    assert rows[1].startswith("…")


def test_an_error_takes_the_place_of_the_figures_and_is_never_cut() -> None:
    line = Table(80).line(Answer("b\x1b.png", None, BadImage("x" * 200 + "\x1b[31m")))
    assert line.startswith(r"b\x1b.png")
    assert line.endswith("bad_image: " + "x" * 200 + r"\x1b[31m")


def test_json_lines_hold_one_object_whatever_the_name() -> None:
    for answer in (_answer("a\nb\x1b\udcff.png"), Answer("a\nb\x1b\udcff.png", None, BadModel("line\none"))):
        line = json_line(answer)
        assert "\n" not in line
        body = json.loads(line.encode("utf-8"))
        assert body["path"] == r"a\nb\x1b\xff.png"
    assert body == {"path": r"a\nb\x1b\xff.png", "error": "bad_model", "detail": "line one"}
    assert list(json.loads(json_line(_answer())))[:2] == ["schema", "path"]


def test_the_family_is_that_of_the_face_that_looks_most_generated_and_no_real_faces() -> None:
    assert top_family(_verdict(Label.REAL, _face(Label.REAL, 0.3))) == ""
    assert top_family(_verdict(Label.SYNTHETIC, _face(Label.REAL, 0.3), _face(Label.SYNTHETIC, 0.9))).startswith("stable")


def test_regions_are_named_once_and_only_of_faces_that_may_be_manipulated() -> None:
    plain = (_face(Label.REAL, 0.1, "nose"), _face(Label.SYNTHETIC, 0.9, "chin"))
    faces = (*plain, _face(Label.MANIPULATED, 0.1, "mouth", "eyes", "mouth"), _face(Label.UNSURE, 0.1, "left eye"))
    assert region_words(_verdict(Label.MANIPULATED, *faces)) == "mouth, eyes, left eye"


def test_a_missing_score_is_blank_not_nought() -> None:
    row = Table(120).line(Answer("a.png", _verdict(Label.NO_FACE, score=None), None))
    assert row.split() == ["a.png", "no_face", "review", "1234"]


@given(st.text(max_size=30), st.integers(1, 20), st.booleans())
def test_fitted_text_is_exactly_as_wide_as_told(text: str, columns: int, keep_end: bool) -> None:
    assert width(fit(text, columns, keep_end=keep_end)) == columns


def test_wide_letters_count_twice() -> None:
    assert width("日本") == 4
    assert fit("日本語", 4) == "日… "
