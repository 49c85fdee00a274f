"""Real, small ONNX models and repositories made of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from unmask.core.cards import ModelRef

SIZE = 4
SUMS: dict[str, Any] = {"name": "sums", "dtype": "float32", "shape": [-1, 3]}
TOTAL: dict[str, Any] = {"name": "total", "dtype": "float32", "shape": [-1]}


def summing_model(
    *, dtype: int = TensorProto.UINT8, size: int | str = SIZE, batch: int | str = "N", output: str = "sums", channels: int = 3
) -> bytes:
    """A model whose outputs tell rows apart: `sums` (N, 3) over each channel and `total` (N,) over everything."""
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "plane"], [output], keepdims=0),
        helper.make_node("ReduceSum", ["floats", "all"], ["total"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "summing",
        [helper.make_tensor_value_info("image", dtype, [batch, size, size, channels])],
        [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, channels]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, [batch]),
        ],
        [
            numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "plane"),
            numpy_helper.from_array(np.array([1, 2, 3], dtype=np.int64), "all"),
        ],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def card_of(model: bytes, name: str = "summing", version: int = 1, **changes: Any) -> dict[str, Any]:
    """The card that describes `summing_model()`; `changes` replace fields."""
    card: dict[str, Any] = {
        "schema": "unmask.card/1",
        "name": name,
        "version": version,
        "task": "sums",
        "files": {"model.onnx": {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model)}},
        "input": {
            "name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB",
            "view": "aligned", "size": SIZE, "margin": 1.0, "border": "reflect",
        },
        "outputs": [SUMS, TOTAL],
        "max_batch_size": 8,
        "classes": [],
        "licence": "none",
    }  # fmt: skip
    return card | changes


CANVAS = {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB", "view": "canvas"}


def add_version(root: Path, card: dict[str, Any], model: bytes | None) -> ModelRef:
    """Writes a version's card and model; returns its reference, by the card's sha256."""
    folder = root / card["name"] / str(card["version"])
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card).encode()
    (folder / "card.json").write_bytes(text)
    if model is not None:
        (folder / "model.onnx").write_bytes(model)
    return ModelRef(card["name"], card["version"], hashlib.sha256(text).hexdigest())
