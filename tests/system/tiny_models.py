"""A model repository of small real ONNX models, made on the spot: the whole pipeline runs, in milliseconds, on made pictures.

A "face" is a green square of about 256 pixels on a dark ground; it is synthetic the redder and manipulated the bluer it is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.pictures import Pixels, png
from unmask.core.metrics import BINS

VIEW = 64
# Landmarks in anchor sides off its centre, where the template has them; the head's variance is 0.1.
_LANDMARKS = (-0.18, -0.14, 0.18, -0.14, 0.0, 0.05, -0.14, 0.24, 0.14, 0.24)
_CELLS = (VIEW // 8) ** 2 + (VIEW // 16) ** 2 + (VIEW // 32) ** 2


def face_picture(red: int = 200, blue: int = 200, seed: int = 0, side: int = 256) -> bytes:
    """A PNG with one "face" in the middle; `seed` makes its bytes its own."""
    pixels = np.full((480, 512, 3), 40, dtype=np.uint8)
    top, left = (480 - side) // 2, (512 - side) // 2
    pixels[top : top + side, left : left + side] = (red, 255, blue)
    pixels[0, :4] = np.frombuffer(seed.to_bytes(12, "big"), dtype=np.uint8).reshape(4, 3)
    return png(pixels, compress_level=1)


def dark_picture(seed: int = 0, pixels: Pixels | None = None) -> bytes:
    """A PNG without a "face"."""
    dark = np.full((48, 64, 3), 30, dtype=np.uint8) if pixels is None else pixels
    dark[0, :4] = np.frombuffer(seed.to_bytes(12, "big"), dtype=np.uint8).reshape(4, 3)
    return png(dark)


class _Graph:
    """Collects the nodes and constants of one model."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def const(self, value: Any, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    def add(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def image(self) -> str:
        """The input as (N, 3, S, S) float."""
        return self.add("Transpose", self.add("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])

    def save(self, size: int | str, outputs: dict[str, list[Any]]) -> bytes:
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, 3])
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "tiny", [image], results, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def _face_detector() -> bytes:
    """RetinaFace's heads: an anchor of 256 pixels scores by how green its middle is, all others score nothing."""
    g = _Graph()
    green = g.add("Gather", g.image(), g.const([1], np.int64), axis=1)
    levels = []
    for stride, kernel, pad in ((8, 8, 0), (16, 16, 0), (32, 224, 96)):
        pooled = g.add(
            "AveragePool", green, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, count_include_pad=1
        )
        nothing = g.add("Mul", pooled, g.const(0.0))
        found = g.add("Sigmoid", g.add("Div", g.add("Sub", pooled, g.const(200.0)), g.const(20.0)))
        both = g.add("Concat", found if stride == 32 else nothing, nothing, axis=1)
        rows = g.add("Transpose", both, perm=[0, 2, 3, 1])
        levels.append(g.add("Reshape", rows, g.const([0, -1, 1], np.int64)))
    score = g.add("Concat", *levels, axis=1)
    g.add("Concat", g.add("Sub", g.const(1.0), score), score, axis=2, out="conf")
    zero = g.add("Mul", score, g.const(0.0))
    g.add("MatMul", zero, g.const(np.zeros((1, 4))), out="loc")
    g.add("MatMul", g.add("Add", zero, g.const(1.0)), g.const(np.array([_LANDMARKS]) * 10), out="landmarks")
    return g.save("S", {"loc": ["N", "P", 4], "conf": ["N", "P", 2], "landmarks": ["N", "P", 10]})


def _channel(g: _Graph, index: int, high: float) -> str:
    """Logit (N,) that is 0 where the mean of a channel is 128, and `high` where it is 255."""
    one = g.add("Gather", g.image(), g.const(index, np.int64), axis=1)
    mean = g.add("ReduceMean", one, axes=[1, 2], keepdims=0)
    return g.add("Mul", g.add("Sub", mean, g.const(128.0)), g.const(high / 127.0))


def _detector(knowing: bool) -> bytes:
    g = _Graph()
    g.add("Identity", _channel(g, 0, 8.0), out="synthetic")
    column = g.add("Unsqueeze", "synthetic", g.const([1], np.int64))
    g.add("MatMul", column, g.const([[1.0, -1.0]]), out="family")
    outputs: dict[str, list[Any]] = {"synthetic": ["N"], "family": ["N", 2]}
    if knowing:
        g.add("Identity", "synthetic", out="plain")
        g.add("Mul", "synthetic", g.const(0.9), out="blurred")
        g.add("Abs", "synthetic", out="distance")
        g.add("ReduceMean", g.image(), out="embedding", axes=[2, 3], keepdims=0)
        outputs |= {name: ["N"] for name in ("plain", "blurred", "distance")} | {"embedding": ["N", 3]}
    return g.save(VIEW, outputs)


def _localizer() -> bytes:
    """One candidate in the middle, 32 x 24 pixels; its mask is all of it."""
    g = _Graph()
    best = g.add("Sigmoid", _channel(g, 2, 8.0))
    pattern, score = np.zeros((1, 37, _CELLS)), np.zeros((1, 37, _CELLS))
    pattern[0, :4, 0], pattern[0, 5:, 0], score[0, 4, 0] = (32.0, 32.0, 32.0, 24.0), 1.0, 1.0
    scaled = g.add("Mul", g.add("Reshape", best, g.const([-1, 1, 1], np.int64)), g.const(score))
    g.add("Add", scaled, g.const(pattern), out="predictions")
    ones = g.add("Add", g.add("Mul", g.add("Reshape", best, g.const([-1, 1, 1, 1], np.int64)), g.const(0.0)), g.const(1.0))
    g.add("Mul", ones, g.const(np.ones((1, 32, VIEW // 4, VIEW // 4))), out="prototypes")
    return g.save(VIEW, {"predictions": ["N", 37, _CELLS], "prototypes": ["N", 32, VIEW // 4, VIEW // 4]})


def _card(
    name: str, task: str, model: bytes, view: dict[str, Any], outputs: dict[str, list[int]], more: dict[str, Any]
) -> bytes:
    card = more | {
        "schema": "unmask.card/1",
        "name": name,
        "version": 1,
        "task": task,
        "files": {"model.onnx": {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}},
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB", **view},
        "outputs": [{"name": key, "dtype": "float32", "shape": shape} for key, shape in outputs.items()],
        "max_batch_size": 8,
        "classes": ["family_a", "family_b"] if task == "synthetic" else [],
        "calibration": {"temperature": 1.0, "bias": 0.0},
        "thresholds": {"region_score": 0.5},
    }
    return json.dumps(card).encode()


# What the card of a detector says that knows what it does not know; its scores on photographs lie low.
_KNOWING: dict[str, Any] = {
    "defence": {"sigma": 1.0, "combine": "mean"},
    "open_set": {"temperature": 1.0, "unknown": 0.0},
    "doubt": {"distances": [0.0, 8.0], "doubts": [0.0, 1.0]},
    "reference": {"bins": list(BINS), "real": [0.9, *[0.0] * 8, 0.1], "synthetic": [0.1, *[0.0] * 8, 0.9]},
}


def make_repository(root: Path, *, knowing: bool = False) -> Path:
    """Writes the three models, their cards and a release that names them; `knowing` adds what only newer detectors say."""
    view = {"view": "aligned", "size": VIEW, "margin": 1.0, "border": "reflect"}
    heads = {"loc": [-1, -1, 4], "conf": [-1, -1, 2], "landmarks": [-1, -1, 10]}
    shapes = {"synthetic": [-1], "family": [-1, 2]}
    if knowing:
        shapes |= {"plain": [-1], "blurred": [-1], "distance": [-1], "embedding": [-1, 3]}
    masks = {"predictions": [-1, 37, _CELLS], "prototypes": [-1, 32, VIEW // 4, VIEW // 4]}
    names = {}
    for name, task, model, contract, outputs in (
        ("face_detector", "faces", _face_detector(), {"view": "canvas"}, heads),
        ("detector", "synthetic", _detector(knowing), view, shapes),
        ("localizer", "regions", _localizer(), view, masks),
    ):
        folder = root / name / "1"
        folder.mkdir(parents=True)
        card = _card(name, task, model, contract, outputs, _KNOWING if knowing and name == "detector" else {})
        (folder / "model.onnx").write_bytes(model)
        (folder / "card.json").write_bytes(card)
        names[name] = {"version": 1, "sha256": hashlib.sha256(card).hexdigest()}
    release = {
        "schema": "unmask.release/1",
        "name": "tiny",
        "models": names,
        "fusion": {"slope": 1.0, "bias": 0.0},
        "thresholds": {
            "synthetic_real": 0.4,
            "synthetic": 0.6,
            "manipulated_real": 0.4,
            "manipulated": 0.6,
            "plainly_synthetic": 0.98,
            "min_face": 40,
        },
    }
    (root / "release.json").write_text(json.dumps(release))
    return root
