"""The shipped models on pictures that are hard to look for faces in: none, thirty, a tiny one, one cut off, one turned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pictures import png
from unmask import Unmask
from unmask.cli.demo_pictures import photograph
from unmask.core.domain import Label


@pytest.fixture(scope="module")
def unmask(models: Path) -> Iterator[Unmask]:
    with Unmask(models=models) as shipped:
        yield shipped


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """The astronaut's head and shoulders, 200 x 200."""
    return np.ascontiguousarray(photograph()[0:200, 120:320])


def test_no_face(unmask: Unmask) -> None:
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (480, 1, 3))
    verdict = unmask.check(png(np.ascontiguousarray(ramp)))
    assert (verdict.label, verdict.score, verdict.faces) == (Label.NO_FACE, None, ())
    assert "no_face" in [reason.code for reason in verdict.reasons]


def test_thirty_faces_are_all_judged_largest_first(unmask: Unmask, head: np.ndarray) -> None:
    verdict = unmask.check(png(np.ascontiguousarray(np.tile(head, (5, 6, 1)))))
    assert len(verdict.faces) == 30
    sides = [max(f.box[2] - f.box[0], f.box[3] - f.box[1]) for f in verdict.faces]
    assert sides == sorted(sides, reverse=True)
    assert all(face.score is not None for face in verdict.faces)


def test_a_face_of_twelve_pixels_is_unsure_or_not_found_never_real(unmask: Unmask, head: np.ndarray) -> None:
    # The face is about 90 of the 200 pixels.
    tiny = cv2.resize(head, (27, 27), interpolation=cv2.INTER_AREA)
    picture = np.full((240, 320, 3), 90, dtype=np.uint8)
    picture[100:127, 150:177] = tiny
    verdict = unmask.check(png(picture))
    assert verdict.label in {Label.UNSURE, Label.NO_FACE}
    assert all(face.label is Label.UNSURE for face in verdict.faces)


def test_a_face_at_the_border_and_a_turned_one_are_found(unmask: Unmask, head: np.ndarray) -> None:
    (cut,) = unmask.check(png(np.ascontiguousarray(head[30:, 75:]))).faces
    assert cut.box[0] >= 0.0 and cut.box[1] >= 0.0
    (turned,) = unmask.check(png(np.ascontiguousarray(np.rot90(photograph(), 2)))).faces
    right_eye, left_eye, nose = (np.array(point) for point in turned.landmarks[:3])
    assert (right_eye + left_eye)[1] / 2.0 > nose[1], "upside down, the eyes lie below the nose"
