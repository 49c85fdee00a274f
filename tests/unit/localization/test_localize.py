"""Regions lie where the localizer saw them, however the picture was turned, mirrored, scaled or cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.system.tiny_models import make_repository
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_local import LocalModels
from unmask.core import geometry
from unmask.core.domain import Box, Localized, Region
from unmask.core.geometry import Floats
from unmask.core.images import TEMPLATE, Pixels, make_chip
from unmask.core.masks import heat_of
from unmask.localization.handler import localize_chips

VIEW = 256
BASE = np.array([180.0, 140.0])  # where the template's square starts in the base picture
SIDE = 200.0
SHAPES: Mapping[str, Floats] = {
    "mouth": np.array([[0.30, 0.74], [0.50, 0.70], [0.70, 0.75], [0.66, 0.90], [0.36, 0.91]]),
    "eye": np.array([[0.22, 0.40], [0.46, 0.38], [0.47, 0.52], [0.24, 0.54]]),
}


def graph() -> bytes:
    """A localizer of one rule: a pixel is as hot as it is red, and a face as its hottest pixel."""
    constants = [numpy_helper.from_array(np.array(value, kind), name) for name, value, kind in (
        ("red", 0, np.int64), ("full", 255.0, np.float32), ("shape", [0, VIEW // 2, VIEW // 2], np.int64))]  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["float", "red"], ["plane"], axis=3),
        helper.make_node("Unsqueeze", ["plane", "one"], ["channel"]),
        helper.make_node("Div", ["channel", "full"], ["share"]),
        helper.make_node("AveragePool", ["share"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["pooled", "shape"], ["heat"]),
        helper.make_node("ReduceMax", ["heat"], ["score"], axes=[1, 2], keepdims=0),
    ]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", VIEW, VIEW, 3])
    outputs = [
        helper.make_tensor_value_info("heat", TensorProto.FLOAT, ["N", VIEW // 2, VIEW // 2]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
    ]
    made = helper.make_graph(nodes, "redness", [image], outputs, constants)
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    root = make_repository(tmp_path_factory.mktemp("models"))
    folder, model = root / "localizer/1", graph()
    (folder / "model.onnx").write_bytes(model)
    card: dict[str, Any] = json.loads((folder / "card.json").read_bytes())
    card["files"]["model.onnx"] = {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}
    card["input"] |= {"size": VIEW, "margin": 1.2}
    shapes = {"heat": [-1, VIEW // 2, VIEW // 2], "score": [-1]}
    card["outputs"] = [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()]
    card["thresholds"] = {"region_score": 0.5, "heat_level": 0.5}
    told = json.dumps(card).encode()
    (folder / "card.json").write_bytes(told)
    release = json.loads((root / "release.json").read_bytes())
    release["models"]["localizer"]["sha256"] = hashlib.sha256(told).hexdigest()
    (root / "release.json").write_text(json.dumps(release))
    return ModelRepository(root)


def placed(matrix: Floats, polygons: list[Floats], shape: tuple[int, int]) -> Pixels:
    """A grey picture whose red regions are the polygons (template square) as `matrix` moves the base picture."""
    picture = np.full((*shape, 3), 0, dtype=np.uint8)
    picture[..., 1:] = 90
    for polygon in polygons:
        points = geometry.apply(matrix, polygon * SIDE + BASE)
        mask = cv2.fillPoly(np.zeros(shape, np.uint8), [np.round(points * 256).astype(np.int32)], 255, cv2.LINE_AA, 8)
        picture[..., 0] = np.maximum(picture[..., 0], mask)
    return picture


def found(repository: ModelRepository, matrix: Floats, polygons: list[Floats], *, mirrored: bool = False) -> Localized:
    """What localization says of the face in the moved picture."""
    marks = geometry.apply(matrix, TEMPLATE * SIDE + BASE)
    marks = marks[[1, 0, 2, 4, 3]] if mirrored else marks
    corners = geometry.apply(matrix, np.array([[0.14, 0.1], [0.86, 0.1], [0.86, 1.06], [0.14, 1.06]]) * SIDE + BASE)
    box: Box = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    picture = placed(matrix, polygons, (700, 800))
    chip = make_chip(picture, np.array(box), marks)
    (result,) = localize_chips([chip], [box], repository.release(), LocalModels(repository))
    return result


def test_a_heat_map_lies_where_its_region_does(repository: ModelRepository) -> None:
    turned = np.array([[0.9, -0.3, 120.0], [0.3, 0.9, 20.0]])
    marks, corners = (geometry.apply(turned, points * SIDE + BASE) for points in (TEMPLATE, np.array([[0.1, 0.1], [0.9, 1.0]])))
    box: Box = (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    picture = placed(turned, [SHAPES["mouth"]], (700, 800))
    chip = make_chip(picture, np.array(box), marks)
    without, with_heat = (
        localize_chips([chip], [box], repository.release(), LocalModels(repository), heat=heat)[0] for heat in (False, True)
    )
    heat = with_heat.heat
    assert without.heat is None and heat is not None and without.regions == with_heat.regions
    cells = np.frombuffer(heat.values, np.uint8).reshape(heat.height, heat.width)
    assert cells.max() == 255 and cells.shape == (VIEW // 2, VIEW // 2)
    rows, columns = np.nonzero(cells > 127)
    spots = np.column_stack([columns, rows]).astype(np.float64)
    centre = geometry.apply(np.array(heat.to_picture).reshape(2, 3), spots).mean(axis=0)
    mask = picture[..., 0] > 127
    truth = np.column_stack(np.nonzero(mask))[:, ::-1].mean(axis=0)
    np.testing.assert_allclose(centre, truth, atol=0.5)


def test_candidates_give_a_heat_map_too() -> None:
    prototypes = np.full((2, 8, 8), -9.0)
    prototypes[0, 2:4, 2:4] = 9.0
    rows = np.array([[16, 16, 9, 9, 0.8, 1.0, 0.0], [16, 16, 9, 9, 0.1, 0.0, 1.0]]).T
    heat = heat_of({"predictions": rows, "prototypes": prototypes})
    np.testing.assert_allclose(heat[2:4, 2:4], 0.8, atol=1e-3)
    assert heat[0, 0] < 1e-3


def apart(region: Region, polygon: Floats) -> float:
    """The largest distance from one outline to the other, pixels (Hausdorff)."""
    one, other = dense(np.array(region.polygon)), dense(polygon)
    distances = np.linalg.norm(one[:, None] - other[None], axis=2)
    return float(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


def dense(polygon: Floats) -> Floats:
    """Points along an outline, half a pixel apart at most."""
    edges = list(zip(polygon, np.roll(polygon, -1, axis=0), strict=True))
    counts = [max(2, int(np.linalg.norm(b - a) * 2)) for a, b in edges]
    return np.concatenate([a + (b - a) * np.linspace(0, 1, n)[:, None] for (a, b), n in zip(edges, counts, strict=True)])


def moved(angle: float, factor: float, shift: tuple[float, float], *, mirrored: bool) -> Floats:
    """A similarity about the face's middle, mirrored first where told."""
    middle = BASE + SIDE / 2
    turn = np.deg2rad(angle)
    linear = factor * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = linear @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    goal = np.array([400.0, 350.0]) + np.array(shift)
    return np.column_stack([linear, goal - linear @ middle])


@settings(max_examples=60, deadline=None)
@given(
    angle=st.one_of(st.sampled_from([0.0, 90.0, 180.0, 270.0]), st.floats(-180.0, 180.0)),
    factor=st.floats(0.8, 1.6),
    shift=st.tuples(st.floats(-60.0, 60.0), st.floats(-40.0, 40.0)),
    mirrored=st.booleans(),
    name=st.sampled_from(sorted(SHAPES)),
)
def test_polygons_follow_their_picture(
    repository: ModelRepository, angle: float, factor: float, shift: tuple[float, float], mirrored: bool, name: str
) -> None:
    matrix = moved(angle, factor, shift, mirrored=mirrored)
    (region,) = found(repository, matrix, [SHAPES[name]], mirrored=mirrored).regions
    (still,) = found(repository, np.eye(2, 3), [SHAPES[name]]).regions
    truth = geometry.apply(matrix, SHAPES[name] * SIDE + BASE)
    # One pixel of the picture, or of the view where that is coarser; and half of one that simplifying an outline may cost.
    pixel = max(1.0, factor * SIDE / (VIEW / 1.2))
    assert apart(region, geometry.apply(matrix, np.array(still.polygon))) <= pixel + 0.5
    assert apart(region, truth) <= pixel + 0.5


def test_a_face_cut_by_the_picture_s_edge_keeps_its_region_inside(repository: ModelRepository) -> None:
    matrix = moved(0.0, 1.0, (-400.0, 0.0), mirrored=False)  # the right half of the face is all there is
    region = max(found(repository, matrix, [SHAPES["mouth"]]).regions, key=lambda one: one.area)
    inside = np.array(region.polygon)
    assert inside[:, 0].max() > 10 and region.score > 0.5


def test_regions_are_named_in_words_and_measured_against_the_face(repository: ModelRepository) -> None:
    regions = found(repository, moved(0.0, 1.0, (0.0, 0.0), mirrored=False), list(SHAPES.values())).regions
    assert {region.name for region in regions} == {"mouth", "right eye"}
    shares = {region.name: region.area for region in regions}
    # The quadrilateral's own area over the box's, .72 x .96 of the template square.
    assert shares["right eye"] == pytest.approx(cv2.contourArea(SHAPES["eye"].astype(np.float32)) / (0.72 * 0.96), rel=0.08)


def test_sides_are_the_persons_even_in_a_mirrored_picture(repository: ModelRepository) -> None:
    (region,) = found(repository, moved(0.0, 1.0, (0.0, 0.0), mirrored=True), [SHAPES["eye"]], mirrored=True).regions
    # The mirror shows the person's right eye on the other side, where the left eye of a person would be.
    assert region.name == "left eye"


def test_nothing_red_is_no_region_and_a_low_score(repository: ModelRepository) -> None:
    result = found(repository, moved(0.0, 1.0, (0.0, 0.0), mirrored=False), [])
    assert result.regions == () and result.manipulated is not None and result.manipulated < 0.01


def test_of_several_faces_only_the_doctored_one_has_a_region(repository: ModelRepository) -> None:
    picture = np.full((500, 1400, 3), (0, 90, 90), dtype=np.uint8)
    boxes, chips = [], []
    for number in range(3):
        matrix = np.array([[1.0, 0.0, 400.0 * number], [0.0, 1.0, 0.0]])
        if number == 1:
            picture = np.maximum(picture, placed(matrix, [SHAPES["mouth"]], (500, 1400)))
    for number in range(3):
        corner = BASE + np.array([400.0 * number, 0.0])
        marks = TEMPLATE * SIDE + corner
        low, high = corner + np.array([0.14, 0.1]) * SIDE, corner + np.array([0.86, 1.06]) * SIDE
        box: Box = (*low.tolist(), *high.tolist())
        boxes.append(box)
        chips.append(make_chip(picture, np.array(box), marks))
    results = localize_chips(chips, boxes, repository.release(), LocalModels(repository))
    assert [len(result.regions) for result in results] == [0, 1, 0]
    assert (results[1].manipulated or 0.0) > 0.6 > max(results[0].manipulated or 0.0, results[2].manipulated or 0.0)
