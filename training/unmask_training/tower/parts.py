"""What the tower needs beside its weights: position embeddings at a size, and the ranges of what it quantises."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from unmask.core.vit_quantise import products_of, smoothing_of
from unmask.core.vit_trunk import FEATURES, PATCH, PIXELS, WIDTH, norms_of, tower

Floats = NDArray[np.float32]
# CLIP's own normalisation (Radford et al., ICML 2021; preprocessing of the released models), for RGB in 0..255.
MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32) * 255.0
STD: Final = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32) * 255.0
_GRID: Final = 14


@dataclass(frozen=True, slots=True)
class Parts:
    """As `unmask.core.vit_trunk.tower` takes them."""

    positions: Floats
    norms: Floats
    smoothing: Floats
    ranges: Floats

    def all(self) -> tuple[Floats, Floats, Floats, Floats]:
        """In the order in which the tower takes them."""
        return self.positions, self.norms, self.smoothing, self.ranges

    def save(self, path: Path) -> None:
        """Keeps them as an .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{part.name: getattr(self, part.name) for part in fields(self)})

    @staticmethod
    def read(path: Path) -> Parts:
        """As they were kept."""
        with np.load(path) as held:
            return Parts(**{part.name: held[part.name] for part in fields(Parts)})

    def session(self, raw: bytes, threads: int = 0, seam: str = FEATURES) -> onnxruntime.InferenceSession:
        """The tower as it is served, up to the seam."""
        return _session(tower(raw, *self.all(), seam=seam), threads)


def tower_bytes(path: Path | None) -> bytes:
    """The tower's file that `--weights` names; raises `ValueError` that says where it comes from."""
    if path is None or not path.is_file():
        raise ValueError(
            "the tower's weights are needed: --weights FILE; `unmask models fetch clip_vit_b16 --out FILE` brings them"
        )
    return path.read_bytes()


def pixels_of(views: NDArray[Any]) -> Floats:
    """What the tower takes of views (N, S, S, 3) RGB 0..255: (N, 3, S, S)."""
    return np.ascontiguousarray(((views.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2))


def positions_at(raw: bytes, size: int) -> Floats:
    """The tower's position embeddings, interpolated (bicubic) from its own 14 x 14 patches to those of `size` pixels."""
    if size % PATCH or size < 4 * PATCH:
        raise ValueError(f"size {size}: the tower takes multiples of {PATCH} pixels, from {4 * PATCH} on")
    name = "vision_model.embeddings.position_embedding.weight"
    tensors = [t for t in onnx.load_model_from_string(raw).graph.initializer if t.name == name]
    if not tensors:
        raise ValueError(
            f"weights of the tower: no {name}; `unmask models fetch clip_vit_b16 --out FILE` brings the right file"
        )
    own = numpy_helper.to_array(tensors[0])
    grid, side = own[1:].reshape(_GRID, _GRID, WIDTH), size // PATCH
    resized = [np.array(Image.fromarray(grid[..., i]).resize((side, side), Image.Resampling.BICUBIC)) for i in range(WIDTH)]
    return np.concatenate([own[:1], np.stack(resized, axis=-1).reshape(-1, WIDTH)]).astype(np.float32)


def measure(raw: bytes, size: int, views: Iterable[NDArray[Any]], norms: Floats | None = None) -> Parts:
    """Runs the float tower over views (S, S, 3) RGB 0..255 and takes the range of every channel that will be quantised.

    `norms` take the place of the tower's own.
    """
    positions, norms = positions_at(raw, size), norms_of(raw) if norms is None else norms
    plain = tower(raw, positions, norms)
    groups = products_of(plain)
    model = onnx.load_model_from_string(plain)
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in groups)
    session = _session(model.SerializeToString(), 0)
    low: dict[str, Floats] = {}
    high: dict[str, Floats] = {}
    for view in views:
        _, *found = session.run([FEATURES, *groups], {PIXELS: pixels_of(view[None])})
        for name, values in zip(groups, found, strict=True):
            rows = np.asarray(values, dtype=np.float32).reshape(-1, np.shape(values)[-1])
            low[name] = np.minimum(low.get(name, np.inf), rows.min(axis=0))
            high[name] = np.maximum(high.get(name, -np.inf), rows.max(axis=0))
    if not low:
        raise ValueError("no views to measure the tower's ranges on")
    smoothing, ranges = smoothing_of([low[n] for n in groups], [high[n] for n in groups], list(groups.values()))
    return Parts(positions, norms, smoothing, ranges)


def _session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
