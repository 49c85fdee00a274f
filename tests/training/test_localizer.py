"""The localizer: masks survive the way to targets and back, a short training runs, exports and agrees with its graph."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from unmask.core import geometry
from unmask.core.cards import Card
from unmask.core.images import Chip, cut
from unmask.core.masks import polygons_of
from unmask_training.data.manipulate_engines import Mask
from unmask_training.data.manipulate_shapes import outlines, part_outlines, rasterise
from unmask_training.localizer import fit as localizer
from unmask_training.localizer.calibrating import Scores, best_level, calibration_cases, scores_of, thresholds
from unmask_training.localizer.evaluate import Case, drawn, heads_of
from unmask_training.localizer.export import base_card, load_network, write_graph
from unmask_training.localizer.figures import (
    Outcome,
    alarms,
    average_precision,
    box_average_precision,
    figure,
    pixel_f1,
    pixel_iou,
    pixel_recall,
)
from unmask_training.localizer.networks import NETWORKS
from unmask_training.localizer.rows import parts_of
from unmask_training.localizer.samples import PHOTOSHOP, Delivery, Sample, Sampler, contract_of, deliver, pieces, plain

SIDE = 200
TO_UNIT = geometry.scaling(1 / 120.0, (-1 / 3, -1 / 3))
CONTRACT = contract_of(128, 1.25)
FILES = {"model.onnx": {"sha256": "0" * 64, "bytes": 1}}


def picture(seed: int) -> np.ndarray:
    """A textured square in place of a face."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(40, 215, (6, 6, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 5, smooth.shape), 0, 255).astype(np.uint8)


def prepared(folder: Path) -> Path:
    """Prepared data in miniature: real and generated chips, doctored ones with their masks, in both training parts."""
    mask = rasterise(outlines("mouth", np.random.default_rng(0)), TO_UNIT, (SIDE, SIDE))
    chips, regions, pixels, planes = [], [], b"", b""
    shape = [SIDE, SIDE, 3]
    for number in range(12):
        part, place = ("fit", "calibrate")[number % 3 == 2], {"shape": shape, "to_unit": TO_UNIT.tolist()}
        common = {"path": f"{number}.jpg", "group": f"g{number}", "part": part, "licence": "CC0"}
        label = "real" if number % 2 else "synthetic"
        kind = "photos" if number % 2 else "generator"
        entry = common | place | {"label": label, "kind": kind, "face": 120, "to_chip": np.eye(2, 3).tolist()}
        chips.append(entry | {"offset": len(pixels)})
        pixels += picture(number).tobytes()
        told = {"engine": "paint", "region": "mouth", "quartile": "", "source": "photos", "donor_group": ""}
        regions.append(common | place | told | {"label": "manipulated", "offset": len(planes)})
        painted = np.where(mask[..., None], picture(number + 50), picture(number))
        planes += painted.tobytes() + (mask.astype(np.uint8) * 255).tobytes()
    for name, rows in (("index.jsonl", chips), ("regions.jsonl", regions)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "chips.bin").write_bytes(pixels)
    (folder / "regions.bin").write_bytes(planes)
    return folder


def told(**changes: object) -> dict[str, object]:
    """A recipe of two steps."""
    shares = {"prepared": 1.0, "made": 1.0, "real": 1.0}
    return {"size": 128, "early_size": 64, "early_share": 0.5, "batch": 4, "steps": 2, "warmup": 1, "shares": shares} | changes


def overlap(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("region", ["nose", "mouth", "half_left", "whole"])
def test_mask_to_view_to_polygon_to_mask(region: str) -> None:
    mask = rasterise(outlines(region, np.random.default_rng(3)), TO_UNIT, (SIDE, SIDE))
    contract = contract_of(256, 1.25)
    view, placed = plain(picture(1), TO_UNIT, mask, contract)
    np.testing.assert_array_equal(view, cut(Chip(picture(1), np.eye(2, 3), TO_UNIT), contract))
    polygons = [polygon for polygon, _ in polygons_of(placed.astype(np.uint8) * 255)]
    canvas = np.zeros_like(placed, dtype=np.uint8)
    cv2.fillPoly(canvas, [np.round(polygon * 16).astype(np.int32) for polygon in polygons], 1, shift=4)
    assert overlap(canvas > 0, placed) >= 0.97


def test_delivery_keeps_the_mask_on_its_pixels() -> None:
    # A white patch on black is its own mask, so after every delivery the bright pixels must be the masked ones.
    mask = rasterise(outlines("nose", np.random.default_rng(1)), TO_UNIT, (SIDE, SIDE))
    patch = np.where(mask[..., None], 255, 0).repeat(3, axis=-1).astype(np.uint8)
    for seed in range(12):
        view, placed = deliver(patch, TO_UNIT, mask, CONTRACT, Delivery(), np.random.default_rng(seed))
        assert overlap(view.mean(axis=-1) > 127, placed) >= 0.9


def test_targets_hold_every_piece_once() -> None:
    mask = np.zeros((128, 128), np.bool_)
    mask[16:48, 16:80] = True
    mask[80:112, 32:64] = True
    mask[120, 120] = True
    empty = np.zeros((128, 128, 3), np.uint8)
    samples = [Sample(empty, np.zeros_like(mask), "real"), Sample(empty, mask, "made")]
    batch = localizer.targets(samples, 4)
    assert len(pieces(mask)) == 2 and batch["batch_idx"].tolist() == [1.0, 1.0]
    torch.testing.assert_close(batch["bboxes"][0] * 128, torch.tensor([48.0, 32.0, 64.0, 32.0]))
    assert (batch["masks"][0] == 0).all()
    assert [(batch["masks"][1] == number).sum().item() * 16 for number in (1, 2)] == [32 * 64, 32 * 32]


def test_samples_repeat_with_their_seed(tmp_path: Path) -> None:
    sampler = Sampler(prepared(tmp_path), {"prepared": 1.0, "made": 1.0, "synthetic": 1.0}, "fit", Delivery())
    runs = [[s for seed in range(6) for s in sampler.draw(CONTRACT, np.random.default_rng(seed))] for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.view, other.view)
        assert one.kind != "synthetic" or not one.mask.any()
    assert {sample.kind for sample in runs[0]} >= {"prepared", "made"}


def named_splice(data: Path, parts: str) -> None:
    """Calls the first fitted chip an expert splice of these parts."""
    rows = [json.loads(line) for line in (data / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0] |= {"label": "manipulated", "kind": PHOTOSHOP, "extra": {"regions": parts}}
    (data / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_expert_splices_are_masked_by_the_parts_they_are_named_by(tmp_path: Path) -> None:
    named_splice(prepared(tmp_path), "left_eye|mouth")
    sampler = Sampler(tmp_path, {PHOTOSHOP: 1.0}, "fit", Delivery(turn=0.0, shift=0.0, scale=0.0))
    sides = set()
    for seed in range(8):
        (sample,) = sampler.draw(CONTRACT, np.random.default_rng(seed))
        assert (sample.kind, sample.engine) == (PHOTOSHOP, PHOTOSHOP)
        eye, mouth = sorted(pieces(sample.mask), key=lambda piece: float(np.argwhere(piece)[:, 0].mean()))
        assert abs(np.argwhere(mouth)[:, 1].mean() - 64) < 6
        sides.add(bool(np.argwhere(eye)[:, 1].mean() < 64))
    # `left` is the picture's, and delivery mirrors half of them.
    assert sides == {True, False}
    ((x, y),) = [outline.mean(axis=0) for outline in part_outlines(["left_eye"], np.random.default_rng(0))]
    assert x < 0.5 and y < 0.6


def test_unknown_parts_of_a_splice_are_refused(tmp_path: Path) -> None:
    named_splice(prepared(tmp_path), "chin")
    with pytest.raises(ValueError, match="no facial part 'chin'; there are left_eye, right_eye, nose, mouth"):
        Sampler(tmp_path, {PHOTOSHOP: 1.0}, "fit", Delivery()).draw(CONTRACT, np.random.default_rng(0))


@pytest.mark.parametrize("recipe", NETWORKS)
def test_a_short_training_resumes_exports_and_agrees(tmp_path: Path, recipe: str) -> None:
    data = prepared(tmp_path)
    localizer.fit(told(recipe=recipe), data, tmp_path / "run", None, False)
    path = localizer.fit(told(recipe=recipe, steps=3), data, tmp_path / "run", None, True)
    assert torch.load(path, weights_only=True)["number"] == 3
    model, view, read = load_network(path)
    assert read["start"] == {} and read["recipe"] == recipe
    assert (view.size, view.margin, read["run"]["steps"]) == (128, 1.25, 3)
    folder = tmp_path / "localizer" / "1"
    folder.mkdir(parents=True)
    assert write_graph(model, view.size, folder / "model.onnx") <= 1e-3
    (folder / "weights.safetensors").write_bytes(b"")
    card = Card.parse(json.dumps(base_card(folder, view, model.outputs(view.size), FILES, {}, "")).encode(), "")
    cases, plainly = calibration_cases(view, data)
    found = list(heads_of(folder, (case.view for case in cases[:20])))
    assert 0 < plainly < len(cases)
    for spec in card.outputs:
        assert found[0][spec.name].shape == tuple(spec.shape[1:])
    scores = scores_of(cases[:20], found, plainly, best_level(cases[:20], found))
    assert ((scores.best >= 0) & (scores.best <= 1)).all() and (scores.strongest <= scores.best + 1e-6).all()


def test_a_fit_that_was_cut_off_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    whole = localizer.fit(told(recipe="unet", steps=4, early_share=0.0), data, tmp_path / "whole", None, False)
    sampler = Sampler(data, {"prepared": 1.0, "made": 1.0, "real": 1.0}, "fit", Delivery())
    recipe = localizer.Recipe.of(told(recipe="unet", steps=4, early_share=0.0))
    first = localizer.Training(recipe, sampler)
    first.step(), first.step()
    first.save(tmp_path / "cut.pt")
    second = localizer.Training(recipe, sampler)
    second.load(tmp_path / "cut.pt")
    second.step(), second.step()
    for name, value in torch.load(whole, weights_only=True)["average"].items():
        torch.testing.assert_close(value, second.average[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recipe", ["unet", "yolov8n-seg"])
def test_the_loss_falls_on_one_batch(tmp_path: Path, recipe: str) -> None:
    settings = localizer.Recipe.of(told(recipe=recipe, steps=100, learning_rate=0.002))
    training = localizer.Training(settings, Sampler(prepared(tmp_path), {"prepared": 1.0}, "fit", Delivery()))
    samples = [training.sampler.draw(CONTRACT, np.random.default_rng(seed))[0] for seed in range(4)]
    batch, losses = localizer.targets(samples, training.model.mask_stride), []
    for _ in range(12):
        loss, _ = training.model.loss(batch, training.aid, 8.0)
        training.optimiser.zero_grad()
        loss.backward()
        training.optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.9 * losses[0], losses


def test_the_residual_stream_sees_no_flat_colour() -> None:
    network = NETWORKS["unet"]()
    filters = network.get_parameter("residual") - network.get_parameter("residual").mean((2, 3), keepdim=True)
    flat = torch.full((1, 3, 16, 16), 0.7)
    assert torch.nn.functional.conv2d(flat, filters).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 130}, "size must be a multiple of 32"),
        ({"marign": 1.2}, "unknown marign"),
        ({"minutes": 0}, "minutes must be a positive number"),
        ({"shares": {}}, "needs `shares:`"),
        ({"shares": {"painted": 1.0}}, "unknown painted"),
        ({"shares": {"faceswap": 1.0}}, "nothing in part 'fit' for faceswap"),
        ({"delivery": {"jpg": [1, 2]}}, "unknown jpg"),
        ({"engines": {"brush": 1.0}}, "engines: unknown brush"),
        ({"engines": {"autoencoder": 1.0}}, "unmask-train autoencoders"),
    ],
)
def test_wrong_configurations_are_refused_by_name(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        localizer.fit(told(**changes), prepared(tmp_path), tmp_path / "run", None, False)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "other.pt")
    for name, message in (("other.pt", "neither this localizer"), ("none.pt", "no weights there")):
        with pytest.raises(ValueError, match=message):
            localizer.fit(told(), prepared(tmp_path), tmp_path / "run", tmp_path / name, False)


def test_the_trunk_starts_from_the_shipped_detector(root: Path) -> None:
    weights = root / "model_repository/detector/1/weights.safetensors"
    if not weights.is_file():
        pytest.skip("no detector is shipped")
    network = NETWORKS["unet"]()
    assert network.start_from(weights)["kind"] == "detector"
    torch.testing.assert_close(network.trunk.state_dict()["0.0.weight"], load_file(weights)["trunk.0.0.weight"])


def test_missing_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="prepare"):
        localizer.fit(told(), tmp_path, tmp_path / "run", None, False)


@pytest.mark.parametrize(("name", "recipe"), [("localizer", "yolov8n-seg"), ("localizer_unet", "unet")])
def test_the_shipped_configurations_are_valid(root: Path, name: str, recipe: str) -> None:
    read = localizer.Recipe.of(yaml.safe_load((root / f"training/configs/{name}.yaml").read_text(encoding="utf-8")))
    assert read.recipe == recipe


def test_a_doctored_face_follows_base_and_donor() -> None:
    assert parts_of({"split": "val", "group": "a", "donor_group": "b"}) == "val"
    groups = {parts_of({"split": "train", "group": f"g{i}", "donor_group": f"h{i}"}) for i in range(300)}
    assert groups >= {"fit", "none"}


def outcome(scores: list[float], overlaps: list[list[float]], pixels: tuple[int, int, int] = (0, 0, 0)) -> Outcome:
    """An outcome of a doctored face of its own group."""
    table = np.array(overlaps, dtype=np.float64) if scores else np.zeros((0, 1))
    return Outcome(0.5, np.array(scores), table, table, pixels, bool(scores), True, "made", str(id(table)))


def test_average_precision_has_the_known_value() -> None:
    perfect = outcome([0.9, 0.8], [[0.9, 0.0], [0.1, 0.6]])
    assert average_precision([perfect]) == pytest.approx(1.0)
    # A second hit on the same piece is a false one; the first hit alone reaches recall .5 at precision 1.
    twice = outcome([0.9, 0.8], [[0.9, 0.0], [0.8, 0.0]])
    assert average_precision([twice]) == pytest.approx(51 / 101)
    # A better-scored miss halves the precision everywhere.
    late = outcome([0.9, 0.8], [[0.2], [0.7]])
    assert average_precision([late]) == pytest.approx(0.5)
    assert average_precision([outcome([], [])]) == 0.0
    assert box_average_precision([perfect]) == average_precision([perfect], boxes=True) == pytest.approx(1.0)
    assert np.isnan(average_precision([outcome([0.9], [[]])]))


def test_pixel_figures_have_the_known_values() -> None:
    rows = [outcome([0.9], [[0.9]], (60, 20, 40)), outcome([], [], (0, 0, 100))]
    assert pixel_recall(rows) == pytest.approx(0.3)
    assert pixel_f1(rows) == pytest.approx(120 / (120 + 20 + 140))
    assert pixel_iou(rows) == pytest.approx(60 / (60 + 20 + 140))
    assert alarms(rows) == 0.5
    told_figure = figure(rows, pixel_recall)
    assert told_figure["low"] <= told_figure["value"] <= told_figure["high"] and told_figure["n"] == 2


def test_thresholds_keep_false_alarms_at_their_rate(tmp_path: Path) -> None:
    folder = tmp_path / "localizer" / "1"
    folder.mkdir(parents=True)
    card = Card.parse(json.dumps(base_card(folder, CONTRACT, NETWORKS["unet"]().outputs(128), FILES, {}, "")).encode(), "")
    rng = np.random.default_rng(0)
    best = np.concatenate([rng.uniform(0, 0.6, 1000), rng.uniform(0.4, 1, 500)])
    truth = np.arange(1500) >= 1000
    strongest = best * rng.uniform(0.3, 1.0, 1500)
    points = thresholds(Scores(best, strongest, truth, np.arange(1500) % 2 == 0), card)
    assert (strongest[~truth] >= points["region_score"]).mean() <= 0.01
    # A region on a face that is called real would contradict itself.
    drawn_on = strongest >= points["region_score"]
    assert drawn_on.any() and (best[drawn_on] >= points["real_below"] - 1e-3).all()
    assert points["real_below"] <= points["manipulated_above"] <= points["fpr_0.005"]
    warm = thresholds(Scores(best, strongest, truth, np.arange(1500) % 2 == 0), card, 0.35)
    assert (warm["region_score"], warm["heat_level"]) == (0.35, 0.35) and (best[~truth] >= warm["face_score"]).mean() <= 0.02
    # A heat map's regions are drawn from where a face is unsure: never on one that is called real.
    assert abs(float((best >= warm["face_score"]).mean() - (best >= points["real_below"]).mean())) < 0.01
    assert {name: warm[name] for name in points if name != "region_score"} == {
        name: points[name] for name in points if name != "region_score"
    }


def test_the_level_is_chosen_by_the_masks() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[16:48, 16:48] = True
    heat = np.full((32, 32), 0.45, np.float32)
    heat[8:24, 8:24] = 0.9
    case = Case(np.zeros((64, 64, 3), np.uint8), mask, True, "made", "")
    # Everything is at least .45 warm: only levels above it find the mask.
    assert best_level([case], [{"heat": heat, "score": np.float32(0.9)}]) > 0.45
    # Among levels that find it equally well it is the highest: what lies around stays out.
    sharp = np.where(heat > 0.5, np.float32(1.0), np.float32(0.0))
    assert best_level([case], [{"heat": sharp, "score": np.float32(0.9)}]) == 0.6
    assert best_level([case], [{"predictions": heat}]) == 0.5


def test_drawn_polygons_cover_their_mask() -> None:
    assert not drawn([], 64).any()
