"""The tower's products: taken out of the wheel's quantisation by each batch's range, and quantised by stated ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unmask.core.errors import BadModel

if TYPE_CHECKING:
    from onnx import GraphProto

Floats = NDArray[np.float32]


def products_of(float_tower: bytes) -> dict[str, Floats]:
    """What a tower without ranges multiplies, in the order of `ranges`: tensor and largest absolute weight a channel."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(float_tower).graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.name.endswith("/weight")}
    groups: dict[str, Floats] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            size = np.abs(numpy_helper.to_array(weights[node.input[1]])).max(axis=1)
            groups[node.input[0]] = np.maximum(groups.get(node.input[0], np.float32(0.0)), size)
    return groups


def smoothing_of(
    low: Sequence[Floats], high: Sequence[Floats], weights: Sequence[Floats], share: float = 0.75
) -> tuple[Floats, Floats]:
    """`smoothing` and `ranges` from the least and largest value of each channel of each group's input, over many pictures.

    `weights` (C,) are the largest absolute weight of each channel of a group.  `share` is how much of a channel's size moves
    into the weights (alpha of the paper; .75 correlated best of .5, .65, .8 on pictures that were not measured).
    """
    factors, ranges = [], []
    for least, most, weight in zip(low, high, weights, strict=True):
        size = np.maximum(np.maximum(-least, most), 1e-5)
        factor = np.maximum(size**share / np.maximum(weight, 1e-5) ** (1.0 - share), 1e-5).astype(np.float32)
        factors.append(factor)
        # A twentieth more room than was seen.
        ranges.append((1.05 * min(0.0, float((least / factor).min())), 1.05 * max(0.0, float((most / factor).max()))))
    return np.concatenate(factors), np.array(ranges, dtype=np.float32)


def float_products(graph: GraphProto) -> dict[str, list[Any]]:
    """Undoes the wheel's quantisation: each integer product becomes a float one.  Returns them by what they multiply."""
    from onnx import helper, numpy_helper

    weights = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    reads = {name: node for node in graph.node for name in node.input}
    gone: set[str] = set()
    groups: dict[str, list[Any]] = {}
    for node in [node for node in graph.node if node.op_type == "MatMulInteger"]:
        quantised, zero = (numpy_helper.to_array(weights[node.input[i]]).astype(np.float32) for i in (1, 3))
        scale = numpy_helper.to_array(weights[node.input[1].removesuffix("_quantized") + "_scale"]).astype(np.float32)
        source, cast = made[node.input[0]], reads[node.output[0]]
        scaled = reads[cast.output[0]]
        graph.initializer.append(numpy_helper.from_array((quantised - zero) * scale, f"{scaled.output[0]}/weight"))
        product = helper.make_node(
            "MatMul", [source.input[0], f"{scaled.output[0]}/weight"], list(scaled.output), scaled.output[0]
        )
        groups.setdefault(source.input[0], []).append(product)
        gone |= {node.output[0], cast.output[0], scaled.output[0], source.output[0]}
    kept = [node for node in graph.node if node.output[0] not in gone and not node.output[0].endswith("_quant_scales_mul:0")]
    del graph.node[:]
    graph.node.extend([*kept, *(node for nodes in groups.values() for node in nodes)])
    _drop_unused_products(graph, groups)
    return groups


def _drop_unused_products(graph: GraphProto, groups: dict[str, list[Any]]) -> None:
    """The tower's own head is behind the last level: nothing reads it."""
    reads = {name for node in graph.node for name in node.input}
    for source in [source for source, nodes in groups.items() if not any(n.output[0] in reads for n in nodes)]:
        del groups[source]


def requantise(graph: GraphProto, groups: dict[str, list[Any]], smoothing: Floats, ranges: Floats) -> None:
    """Each group's input is smoothed and quantised once by its stated range, each weight by its own largest value a column."""
    from onnx import helper, numpy_helper

    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name.endswith("/weight")}
    sizes = [len(weights[nodes[0].input[1]]) for nodes in groups.values()]
    if smoothing.shape != (sum(sizes),) or ranges.shape != (len(groups), 2):
        raise BadModel(f"CLIP graph: {len(groups)} groups of {sum(sizes)} channels are quantised, ranges are for {len(ranges)}")
    new, replaced, start = [], set(), 0
    for (source, nodes), size, (low, high) in zip(groups.items(), sizes, ranges, strict=True):
        factor, start = smoothing[start : start + size].astype(np.float32), start + size
        scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255.0))
        zero = np.uint8(np.clip(np.rint(-np.float32(low) / scale), 0, 255))
        names = [f"{source}/{what}" for what in ("inverse", "scale", "zero", "smooth", "uint8")]
        values: list[NDArray[Any]] = [np.float32(1.0) / factor, np.array(scale), np.array(zero)]
        for name, value in zip(names, values, strict=False):
            graph.initializer.append(numpy_helper.from_array(value, name))
        new.append(helper.make_node("Mul", [source, names[0]], [names[3]], names[3]))
        new.append(helper.make_node("QuantizeLinear", [names[3], names[1], names[2]], [names[4]], names[4]))
        for node in nodes:
            new.append(_integer_product(graph, node, weights[node.input[1]] * factor[:, None], names))
            replaced.add(node.output[0])
    kept = [node for node in graph.node if node.output[0] not in replaced]
    del graph.node[:]
    graph.node.extend([*kept, *new])


def _integer_product(graph: GraphProto, node: Any, weight: Floats, names: Sequence[str]) -> Any:
    from onnx import helper, numpy_helper

    scale = (np.abs(weight).max(axis=0) / np.float32(127.0)).astype(np.float32)
    parts = {
        "int8": np.clip(np.rint(weight / scale), -127, 127).astype(np.int8),
        "int8_scale": scale,
        "int8_zero": np.zeros(len(scale), dtype=np.int8),
    }
    own = {what: f"{node.input[1]}/{what}" for what in parts}
    graph.initializer.extend(numpy_helper.from_array(value, own[what]) for what, value in parts.items())
    inputs = [names[4], own["int8"], names[1], own["int8_scale"], names[2], own["int8_zero"]]
    return helper.make_node("MatMulIntegerToFloat", inputs, list(node.output), node.output[0], domain="com.microsoft")
