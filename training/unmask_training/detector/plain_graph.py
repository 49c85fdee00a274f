"""The bare logit of a network as an ONNX graph: how large it is, how long a face takes, what it says of prepared faces."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.core.images import ViewContract, cut
from unmask_training.data.chips import Chips, Row

PARITY: Final = 1e-3
_OPSET: Final = 17
_BATCH: Final = 32
_WARM, _ROUNDS = 3, 25


class _Logit(nn.Module):
    """uint8 (N, S, S, 3) RGB in, logit (N,) out: no blur, no distance, so that graphs differ in their trunk alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.network(image.permute(0, 3, 1, 2).float())[0]
        return logit


def write_plain(network: nn.Module, size: int, path: Path) -> float:
    """Writes the graph (`image` to `synthetic`, float32 weights); returns the largest difference to torch.

    Raises `ValueError` when that is more than 1e-3.
    """
    plain = _Logit(network).eval()
    sample = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        # Sides of pictures become constants of the graph, as they should: one graph is for one size.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        names = {"input_names": ["image"], "output_names": ["synthetic"]}
        axes = {"image": {0: "batch"}, "synthetic": {0: "batch"}}
        torch.onnx.export(plain, (sample,), str(path), **names, dynamic_axes=axes, opset_version=_OPSET, dynamo=False)
    graph = session(path)
    with torch.no_grad():
        # One picture too: what tracing made a constant of the batch would show.
        gaps = [np.abs(ask(graph, part.numpy()) - plain(part).numpy()).max() for part in (sample, sample[:1])]
    gap = float(max(gaps))
    if not gap <= PARITY:
        raise ValueError(f"{path}: the ONNX graph differs from torch by {gap:.2g}, more than {PARITY}")
    return gap


def session(path: Path) -> Any:
    """The graph on one thread of the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ask(graph: Any, views: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Logits (N,) of views (N, S, S, 3)."""
    (found,) = graph.run(["synthetic"], {"image": views})
    return np.asarray(found, dtype=np.float64)


def logits(graph: Any, contract: ViewContract, chips: Chips, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Logits (N,) of the rows' faces, cut as serving cuts them."""
    found = []
    for start in range(0, len(rows), _BATCH):
        found.append(ask(graph, np.stack([cut(chips.chip(row), contract) for row in rows[start : start + _BATCH]])))
    return np.concatenate(found)


def milliseconds(graphs: Sequence[Any], size: int) -> list[float]:
    """Median milliseconds of processor time that each graph takes for one face; they take turns.

    A session of one thread works in the thread that asks, so its own clock counts the work and nothing that other processes do.
    """
    view = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    taken: list[list[float]] = [[] for _ in graphs]
    for _ in range(_WARM + _ROUNDS):
        for times, graph in zip(taken, graphs, strict=True):
            begun = time.thread_time()
            ask(graph, view)
            times.append(1000.0 * (time.thread_time() - begun))
    return [statistics.median(times[_WARM:]) for times in taken]
