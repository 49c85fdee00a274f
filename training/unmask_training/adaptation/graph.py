"""A detector's ONNX graph with other numbers in its heads: nothing else of it changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

FAMILY: Final = "family"
FAMILY_BIAS: Final = "family.bias"
Tensors = Mapping[str, NDArray[np.float32]]


def changed(graph: bytes, was: Tensors, now: Tensors, where: str = "graph") -> bytes:
    """The graph with the weights `was` replaced by `now`, by the names that they have in weights.safetensors.

    A weight is found by its name, which may stand behind those of the modules around it, and by its values.  Shapes may
    grow: heads are exported without folded constants, and what depends on a length is computed from it.  Raises
    `ValueError` unless the graph holds each weight just once.
    """
    model = onnx.load_model_from_string(graph)
    for name, value in now.items():
        found = [tensor for tensor in model.graph.initializer if _is(tensor, name, was[name])]
        if len(found) != 1:
            raise ValueError(f"{where}: holds {name} {len(found)} times, expected once: this version's heads cannot be changed")
        found[0].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), found[0].name))
    # Shapes that were noted down for the old lengths.
    del model.graph.value_info[:]
    for output in model.graph.output:
        if output.name == FAMILY and FAMILY_BIAS in now:
            output.type.tensor_type.shape.dim[1].dim_value = len(now[FAMILY_BIAS])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _is(tensor: Any, name: str, value: NDArray[np.float32]) -> bool:
    if tensor.name != name and not tensor.name.endswith(f".{name}"):
        return False
    return np.array_equal(numpy_helper.to_array(tensor), value)
