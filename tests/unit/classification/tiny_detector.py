"""A small real detector with every output that one can have, and a repository that serves it.

Its word is about red, which must lie above the middle: uniform red looks synthetic, blurred or not; fine red stripes look so
only until they are blurred.  What is blue is strange to it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from tests.pictures import Pixels, png
from tests.system.tiny_models import VIEW, make_repository

SIGMA: Final = 1.5
RADIUS: Final = 6
OUTPUTS: Final[dict[str, list[int]]] = {
    "synthetic": [-1],
    "plain": [-1],
    "blurred": [-1],
    "family": [-1, 2],
    "embedding": [-1, 3],
    "cam": [-1, 8, 8],
    "distance": [-1],
}
SECTIONS: Final[dict[str, Any]] = {
    "defence": {"sigma": SIGMA, "combine": "mean"},
    "open_set": {"temperature": 2.0, "unknown": 0.5},
    "doubt": {"distances": [0.2, 0.5, 0.8], "doubts": [0.0, 0.5, 1.0]},
}
_GRAPH: Final = f"""
<ir_version: 8, opset_import: ["" : 17]>
tiny (uint8[N, {VIEW}, {VIEW}, 3] image) => (
    float[N] synthetic, float[N] plain, float[N] blurred, float[N, 2] family, float[N, 3] embedding, float[N, 8, 8] cam,
    float[N] distance
) {{
    floats = Cast <to = 1> (image)
    pixels = Transpose <perm = [0, 3, 1, 2]> (floats)
    red, green, blue = Split <axis = 1> (pixels)

    over = Sub (red, middle)
    lit = Relu (over)
    pooled = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (lit)
    places = Sub (pooled, bar)
    map = Div (places, step)
    cam = Squeeze (map, one)
    plain = ReduceMean <axes = [1, 2], keepdims = 0> (cam)

    padded = Pad <mode = "reflect"> (red, pads)
    rows = Conv (padded, across)
    soft = Conv (rows, down)
    soft_over = Sub (soft, middle)
    soft_lit = Relu (soft_over)
    soft_places = Sub (soft_lit, bar)
    soft_map = Div (soft_places, step)
    blurred = ReduceMean <axes = [1, 2, 3], keepdims = 0> (soft_map)

    both = Add (plain, blurred)
    synthetic = Div (both, two)
    column = Unsqueeze (synthetic, one)
    negative = Neg (column)
    family = Concat <axis = 1> (column, negative)

    mean_blue = ReduceMean <axes = [1, 2, 3], keepdims = 0> (blue)
    distance = Div (mean_blue, sixty)
    means = ReduceMean <axes = [2, 3], keepdims = 0> (pixels)
    length = ReduceL2 <axes = [1], keepdims = 1> (means)
    safe = Max (length, least)
    embedding = Div (means, safe)
}}
"""


def kernel() -> NDArray[np.float64]:
    """The Gaussian that blurs, in one direction."""
    steps = np.arange(-RADIUS, RADIUS + 1)
    weights = np.exp(-(steps**2) / (2 * SIGMA**2))
    return np.asarray(weights / weights.sum())


def model(broken: str = "") -> bytes:
    """The model; the output named `broken` is no number."""
    made = parser.parse_model(_GRAPH)
    floats: dict[str, Any] = {"middle": 128, "bar": 32, "step": 8, "two": 2, "sixty": 60, "least": 1e-3}
    tensors = {name: np.array(value, dtype=np.float32) for name, value in floats.items()}
    tensors["across"] = kernel().astype(np.float32).reshape(1, 1, 1, -1)
    tensors["down"] = tensors["across"].reshape(1, 1, -1, 1)
    tensors["one"] = np.array([1], dtype=np.int64)
    tensors["pads"] = np.array([0, 0, RADIUS, RADIUS] * 2, dtype=np.int64)
    if broken:
        _break(made, broken)
        tensors["nothing"] = np.array(np.nan, dtype=np.float32)
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tensors.items())
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString(deterministic=True))


def _break(made: onnx.ModelProto, name: str) -> None:
    """Others that are computed from the output stay as they are."""
    for node in made.graph.node:
        for names in (node.input, node.output):
            for index, one in enumerate(names):
                if one == name:
                    names[index] = f"{name}_right"
    made.graph.node.append(onnx.helper.make_node("Add", [f"{name}_right", "nothing"], [name]))


def card_of(data: bytes, **changes: Any) -> bytes:
    """The card of version 2; `changes` replace fields, None takes one away."""
    card = {
        "schema": "unmask.card/1",
        "name": "detector",
        "version": 2,
        "task": "synthetic",
        "files": {"model.onnx": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}},
        "input": {
            "name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB",
            "view": "aligned", "size": VIEW, "margin": 1.0, "border": "reflect",
        },
        "outputs": [{"name": name, "dtype": "float32", "shape": shape} for name, shape in OUTPUTS.items()],
        "max_batch_size": 8,
        "classes": ["family_a", "family_b"],
        "calibration": {"temperature": 1.25, "bias": 0.1},
        "thresholds": {},
        **SECTIONS,
        **changes,
    }  # fmt: skip
    return json.dumps({key: value for key, value in card.items() if value is not None}).encode()


def knowing_repository(root: Path, data: bytes | None = None, **changes: Any) -> Path:
    """The tiny models with this detector in place of theirs, and a release that heeds what it says."""
    make_repository(root)
    shutil.rmtree(root / "detector")
    folder = root / "detector/2"
    folder.mkdir(parents=True)
    data = model() if data is None else data
    card = card_of(data, **changes)
    (folder / "model.onnx").write_bytes(data)
    (folder / "card.json").write_bytes(card)
    release = json.loads((root / "release.json").read_bytes())
    release["models"]["detector"] = {"version": 2, "sha256": hashlib.sha256(card).hexdigest()}
    release["thresholds"] |= {"doubt": 0.9, "defence_gap": 0.5}
    (root / "release.json").write_text(json.dumps(release))
    return root


def face(red: int = 0, blue: int = 0, *, striped: bool = False) -> bytes:
    """A PNG with one "face" of 256 pixels in the middle; all of it is that red, or has stripes of it eight pixels wide."""
    pixels: Pixels = np.full((480, 512, 3), 40, dtype=np.uint8)
    pixels[112:368, 128:384, 1] = 255
    pixels[..., 0], pixels[..., 2] = red, blue
    if striped:
        pixels[:, np.arange(512) // 8 % 2 == 1, 0] = 0
    return png(pixels, compress_level=1)
