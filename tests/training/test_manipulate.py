"""Doctored faces: exact outside the mask, the same for the same seed, refused where nothing could be seen."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from unmask.core import geometry
from unmask.core.images import Pixels
from unmask_training.data.chips import face_detector
from unmask_training.data.manipulate import Maker, Plan, manipulate
from unmask_training.data.manipulate_engines import DONATED, ENGINES, Face, Mask, doctor
from unmask_training.data.manipulate_shapes import BOX_AREA, QUARTILES, REGIONS, outlines, rasterise
from unmask_training.localizer.rows import clean

SIDE = 240
# The template square fills the middle of the picture.
TO_UNIT = geometry.scaling(1 / 160.0, (-0.25, -0.25))


def texture(seed: int) -> Face:
    """A stand-in for a face: smooth colours with grain, as photographs have."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(40, 215, (8, 8, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return Face(np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8), TO_UNIT)


class Blurred:
    """In place of autoencoders: copies softly."""

    def copy(self, pixels: Pixels, mask: Mask, rng: np.random.Generator) -> Pixels:
        """See `Copier.copy`."""
        return cv2.GaussianBlur(pixels, (0, 0), 2.0).astype(np.uint8)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("region", ["eyes", "mouth", "half_left", "ellipse"])
def test_outside_the_mask_every_pixel_stays(engine: str, region: str) -> None:
    base, donor = texture(1), texture(2) if engine in DONATED else None
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drawn = rasterise(outlines(region, rng, 2), TO_UNIT, (SIDE, SIDE))
        made = doctor(base, donor, drawn, engine, rng, copier=Blurred())
        if made is not None:
            break
    assert made is not None
    pixels, mask = made
    assert (pixels[~mask] == base.pixels[~mask]).all()
    assert (pixels[mask] != base.pixels[mask]).any(axis=-1).mean() > 0.5
    assert (mask & drawn).sum() >= 0.95 * drawn.sum()


def test_engines_are_deterministic_and_seeds_differ() -> None:
    mask = rasterise(outlines("nose", np.random.default_rng(0)), TO_UNIT, (SIDE, SIDE))
    runs = [doctor(texture(1), texture(2), mask, "splice_feather", np.random.default_rng(seed)) for seed in (5, 5, 6)]
    first, again, other = (run[0] for run in runs if run is not None)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_change_that_cannot_be_seen_is_refused() -> None:
    flat = Face(np.full((SIDE, SIDE, 3), 120, np.uint8), TO_UNIT)
    mask = rasterise(outlines("nose", np.random.default_rng(0)), TO_UNIT, (SIDE, SIDE))
    assert doctor(flat, flat, mask, "splice_poisson", np.random.default_rng(0)) is None
    assert doctor(texture(1), texture(2), np.zeros((SIDE, SIDE), np.bool_), "splice_feather", np.random.default_rng(0)) is None


@pytest.mark.parametrize("quartile", [1, 2, 3, 4])
def test_ellipses_have_the_area_of_their_quartile(quartile: int) -> None:
    low, high = QUARTILES[quartile - 1]
    for seed in range(20):
        (polygon,) = outlines("ellipse", np.random.default_rng(seed), quartile)
        share = cv2.contourArea(polygon.astype(np.float32)) / BOX_AREA
        assert 0.98 * low <= share <= high


def test_halves_and_sides_are_the_persons() -> None:
    left = rasterise(outlines("half_left", np.random.default_rng(0)), TO_UNIT, (SIDE, SIDE))
    upper = rasterise(outlines("half_upper", np.random.default_rng(0)), TO_UNIT, (SIDE, SIDE))
    assert np.nonzero(left)[1].min() >= SIDE / 2 - 2
    assert np.nonzero(upper)[0].max() < 0.65 * SIDE


def test_plans_cover_every_engine_and_region_and_inpaint_only_small_ones() -> None:
    plans = [Plan.draw(np.random.default_rng(seed)) for seed in range(600)]
    assert {plan.engine for plan in plans} == set(ENGINES) and {plan.region for plan in plans} == set(REGIONS)
    assert all((plan.quartile > 0) == (plan.region == "ellipse") for plan in plans)
    assert not any(plan.engine == "opencv_inpaint" and plan.region.startswith(("half", "whole")) for plan in plans)


def test_ragged_masks_lose_crumbs_and_holes() -> None:
    ragged = np.zeros((200, 200), np.bool_)
    ragged[50:150, 50:150] = True
    ragged[90:94, 90:94] = False
    ragged[5:8, 5:8] = True
    smooth = clean(ragged)
    assert smooth[91, 91] and not smooth[:20, :20].any()
    assert smooth.sum() == pytest.approx(10_000, rel=0.02)


def test_the_command_makes_the_same_files_again_and_goes_on(faces: Path, models: Path, tmp_path: Path) -> None:
    infer = face_detector(models / "face_detector/1/model.onnx")
    maker = Maker(faces, infer, 7, "train", ("ffhq", "ciplab"))
    assert manipulate(maker, tmp_path / "a", range(6)) == (6, 0)
    manipulate(maker, tmp_path / "b", range(3))
    assert manipulate(maker, tmp_path / "b", range(6)) == (3, 0)
    contents = [{p.relative_to(d): p.read_bytes() for p in d.rglob("*.*")} for d in (tmp_path / "a", tmp_path / "b")]
    assert contents[0] == contents[1] and len(contents[0]) == 13
    with (tmp_path / "a" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"train"}
    for row in rows:
        mask = cv2.imread(str(tmp_path / "a" / row["mask"]), cv2.IMREAD_GRAYSCALE)
        assert mask is not None and set(np.unique(mask)) <= {0, 255}
        assert (row["label"] == "real") == (not mask.any()) == (row["engine"] == "none")
        assert row["donor_group"] != row["group"]


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,label,source,group,split\na.jpg,real,x,g,train\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no real faces of split 'val'"):
        Maker(tmp_path, lambda canvases: (canvases, canvases, canvases), 1, "val")  # type: ignore[return-value, arg-type]
