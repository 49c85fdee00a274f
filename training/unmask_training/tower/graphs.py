"""Graphs with the tower's gap in them: written, stored small, read at the gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from unmask.core.vit_trunk import NORMS, OPSET, POSITIONS, RANGES, SMOOTHING

OWN: Final = "own.onnx"
# Too large to be committed: made of the model's own graph and the tower's file.
FETCHED: Final = ("model.onnx",)
_LARGE: Final = 1024


def write_gap(
    module: nn.Module, given: Mapping[str, Tensor], names: Sequence[str], parts: Sequence[NDArray[np.float32]], path: Path
) -> None:
    """Writes a model's own graph, of what is `given` by name; it holds the tower's `parts`, as `Parts.all` orders them."""
    torch.onnx.export(
        module,
        tuple(given.values()),
        str(path),
        input_names=list(given),
        output_names=list(names),
        dynamic_axes={name: {0: "batch"} for name in [*given, *names]},
        opset_version=OPSET,
        do_constant_folding=False,  # the heads keep their names, by which adaptation changes them
        dynamo=False,
    )
    model = onnx.load(str(path))
    del model.graph.value_info[:]
    for name, values in zip((POSITIONS, NORMS, SMOOTHING, RANGES), parts, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    _halve(model.graph)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _halve(graph: Any) -> None:
    """Stores what half precision holds exactly in half the bytes; the runtime widens it once, when it loads the graph."""
    halves = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= _LARGE and np.array_equal(values, values.astype(np.float16)):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/half"))
            halves.append(helper.make_node("Cast", [f"{name}/half"], [name], f"{name}/widen", to=onnx.TensorProto.FLOAT))
    nodes = [*halves, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def reading(whole: bytes, seam: str) -> onnxruntime.InferenceSession:
    """The whole graph, with what the tower gives at the seam as its last output."""
    model = onnx.load_model_from_string(whole)
    model.graph.output.append(helper.make_tensor_value_info(seam, onnx.TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
