"""Puts a model's normalisation into its graph, so that it takes uint8 NHWC RGB: the same bytes at every run."""

from __future__ import annotations

from typing import Final

import numpy as np

from unmask.core.errors import BadModel

# Blue, green and red mean of ImageNet, with which RetinaFace was trained (Deng et al., CVPR 2020; preprocess.py of the wheel).
_MEAN_BGR: Final = (104.0, 117.0, 127.0)
_IMAGE: Final = "image"
_OUTPUTS: Final = {"loc": 4, "conf": 2, "landmarks": 10}


def wrap_retinaface(raw: bytes) -> bytes:
    """The RetinaFace graph (input `input`, float NCHW BGR less the mean) behind uint8 NHWC RGB, input `image`.

    Returns a serialised ONNX model with input `image` (N, S, S, 3) and outputs `loc` (N, P, 4), `conf` (N, P, 2),
    `landmarks` (N, P, 10), float32.  Raises `BadModel` when `raw` is no such graph.
    """
    # Only `models fetch` needs onnx; serving never imports it.
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    try:
        model = onnx.load_model_from_string(raw)
    except Exception as error:
        raise BadModel(f"RetinaFace graph: not an ONNX model ({error})") from error
    graph = model.graph
    names = [tensor.name for tensor in graph.input], [tensor.name for tensor in graph.output]
    if names != (["input"], list(_OUTPUTS)):
        raise BadModel(f"RetinaFace graph: expected input -> {', '.join(_OUTPUTS)}, found {names[0]} -> {names[1]}")
    nodes = [
        # Reordered as bytes: a quarter of the memory that floats would move.
        helper.make_node("Transpose", [_IMAGE], ["unmask/nchw"], "unmask/nchw", perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["unmask/nchw", "unmask/bgr_order"], ["unmask/bgr"], "unmask/bgr", axis=1),
        helper.make_node("Cast", ["unmask/bgr"], ["unmask/float"], "unmask/float", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["unmask/float", "unmask/mean"], ["input"], "unmask/less_mean"),
    ]
    mean = np.array(_MEAN_BGR, dtype=np.float32).reshape(1, 3, 1, 1)
    constants = [
        numpy_helper.from_array(np.array([2, 1, 0], dtype=np.int64), "unmask/bgr_order"),
        numpy_helper.from_array(mean, "unmask/mean"),
    ]
    wrapped = helper.make_graph(
        nodes=[*nodes, *graph.node],
        name="retinaface_uint8",
        inputs=[helper.make_tensor_value_info(_IMAGE, TensorProto.UINT8, ["N", "S", "S", 3])],
        outputs=[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", "P", width]) for n, width in _OUTPUTS.items()],
        initializer=[*graph.initializer, *constants],
    )
    # The version of the format stays the source's: what the newest onnx would write must not change the bytes.
    product = helper.make_model(wrapped, ir_version=model.ir_version, opset_imports=list(model.opset_import))
    onnx.checker.check_model(product)
    return bytes(product.SerializeToString(deterministic=True))
