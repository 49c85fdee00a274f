"""An ONNX graph built as CLIP's quantised image tower is: the same names and seams, twelve blocks of one product each."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from unmask.core.vit_trunk import PATCH, WIDTH

SIZE = 64
_EMBEDDINGS = "vision_model.embeddings"


def _int8(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.int8]:
    return rng.integers(-127, 128, (rows, columns)).astype(np.int8)


def _block(number: int, stream: str, rng: np.random.Generator) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """tanh, a dynamically quantised product, its bias, and the residual sum."""
    name = f"/vision_model/encoder/layers.{number}"
    act, weight, product = f"{name}/act", f"onnx::MatMul_{number}", f"{name}/mlp/fc2/MatMul_output_0"
    nodes = [
        helper.make_node("Tanh", [stream], [act]),
        helper.make_node("DynamicQuantizeLinear", [act], [f"{act}_quantized", f"{act}_scale", f"{act}_zero_point"]),
        helper.make_node("Mul", [f"{act}_scale", f"{weight}_scale"], [f"{name}/mlp/fc2/MatMul_quant_scales_mul:0"]),
        helper.make_node(
            "MatMulInteger",
            [f"{act}_quantized", f"{weight}_quantized", f"{act}_zero_point", f"{weight}_zero_point"],
            [f"{product}_output_quantized"],
        ),
        helper.make_node("Cast", [f"{product}_output_quantized"], [f"{product}_cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{product}_cast", f"{name}/mlp/fc2/MatMul_quant_scales_mul:0"], [product]),
        helper.make_node("Add", [f"{name}.bias", product], [f"{name}/mlp/fc2/Add_output_0"]),
        helper.make_node("Add", [stream, f"{name}/mlp/fc2/Add_output_0"], [f"{name}/Add_1_output_0"]),
    ]
    weights = [
        numpy_helper.from_array(_int8(rng, WIDTH, WIDTH), f"{weight}_quantized"),
        numpy_helper.from_array(rng.uniform(2e-4, 6e-4, WIDTH).astype(np.float32), f"{weight}_scale"),
        numpy_helper.from_array(np.zeros(WIDTH, dtype=np.int8), f"{weight}_zero_point"),
        numpy_helper.from_array(rng.normal(0.0, 0.1, WIDTH).astype(np.float32), f"{name}.bias"),
    ]
    return nodes, weights, f"{name}/Add_1_output_0"


def raw_tower(seed: int = 0) -> bytes:
    """The graph: `pixel_values` (N, 3, S, S) to `image_embeds`, with position embeddings for 14 x 14 patches."""
    rng = np.random.default_rng(seed)
    positions, ids = f"{_EMBEDDINGS}.position_embedding.weight", "positions/ids"
    nodes = [
        helper.make_node("Constant", [], [ids], value=numpy_helper.from_array(np.arange(197, dtype=np.int64)[None])),
        helper.make_node("Gather", [positions, ids], ["positions/held"]),
        helper.make_node("Conv", ["pixel_values", f"{_EMBEDDINGS}.patch"], ["patches"], strides=[PATCH, PATCH]),
        helper.make_node("Reshape", ["patches", "flat"], ["patches/flat"]),
        helper.make_node("Transpose", ["patches/flat"], ["patches/rows"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["patches/rows"], ["patches/mean"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["patches/mean", "patches/rows"], ["tokens"], axis=1),
        helper.make_node("Add", ["tokens", "positions/held"], ["stream"]),
    ]
    weights = [
        numpy_helper.from_array(rng.normal(0.0, 0.05, (197, WIDTH)).astype(np.float32), positions),
        numpy_helper.from_array(rng.normal(0.0, 0.02, (WIDTH, 3, PATCH, PATCH)).astype(np.float32), f"{_EMBEDDINGS}.patch"),
        numpy_helper.from_array(np.array([0, WIDTH, -1], dtype=np.int64), "flat"),
    ]
    stream = "stream"
    for number in range(12):
        more, held, stream = _block(number, stream, rng)
        nodes, weights = nodes + more, weights + held
    nodes.append(helper.make_node("ReduceMean", [stream], ["image_embeds"], axes=[1], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["N", 3, "S", "S"])],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["N", WIDTH])],
        weights,
    )
    model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 14)])
    return bytes(model.SerializeToString(deterministic=True))
