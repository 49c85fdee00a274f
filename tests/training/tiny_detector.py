"""A detector's version folder with every output of the contract, small enough to check by hand: it looks for green."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.training.drawn_faces import GENERATORS
from unmask.core.cards import CARD_SCHEMA

SIZE = 32
_NAMES = ("synthetic", "plain", "blurred", "family", "embedding", "cam", "distance")


class Green(nn.Module):
    """The logit of a position is its greenness; `drawn_faces.pattern` makes fakes green.

    With `edge` it looks at the view's corners alone, as a model does that learnt the framing.
    A `broken` one gives a distance that is no number.
    """

    def __init__(self, families: int, *, edge: bool = False, broken: bool = False) -> None:
        super().__init__()
        weight = torch.zeros(SIZE // 8, SIZE // 8)
        weight[0, 0], weight[0, -1], weight[-1, 0], weight[-1, -1] = 1.0, 1.0, 1.0, 1.0
        self.register_buffer("where", weight / weight.mean() if edge else torch.ones_like(weight))
        self.families, self.broken = families, broken

    def cam(self, pixels: Tensor) -> Tensor:
        """(N, 4, 4) logits a position."""
        cells = nn.functional.avg_pool2d(pixels, 8)
        return (cells[:, 1] - (cells[:, 0] + cells[:, 2]) / 2.0) / 10.0 * self.where

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs in the order of `_NAMES`."""
        pixels = image.permute(0, 3, 1, 2).float()
        soft = nn.functional.avg_pool2d(nn.functional.pad(pixels, (1, 1, 1, 1), mode="reflect"), 3, stride=1)
        cam, soft = self.cam(pixels), self.cam(soft)
        plain, other = cam.mean((1, 2)), soft.mean((1, 2))
        colour = pixels.mean((2, 3))
        family = torch.stack([colour[:, i % 3] / 50.0 for i in range(self.families)], dim=1)
        embedding = nn.functional.normalize(colour, dim=1)
        return (
            (plain + other) / 2.0,
            plain,
            other,
            family,
            embedding,
            cam,
            (torch.log(-plain.abs()) if self.broken else torch.exp(-plain.abs())),
        )


def version2(
    folder: Path, *, edge: bool = False, broken: bool = False, classes: Sequence[str] = GENERATORS, **changes: Any
) -> Path:
    """Writes model.onnx and card.json; `changes` replace sections of the card."""
    folder.mkdir(parents=True)
    axes = {name: {0: "batch"} for name in ("image", *_NAMES)}
    sample = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
    named = {"input_names": ["image"], "output_names": list(_NAMES), "dynamic_axes": axes}
    torch.onnx.export(
        Green(len(classes), edge=edge, broken=broken),
        (sample,),
        str(folder / "model.onnx"),
        **named,
        opset_version=17,
        dynamo=False,
    )
    shapes = {name: [-1] for name in _NAMES} | {"family": [-1, len(classes)], "embedding": [-1, 3], "cam": [-1, 4, 4]}
    view = {"view": "aligned", "size": SIZE, "margin": 1.0, "border": "reflect"}
    data = (folder / "model.onnx").read_bytes()
    card = {
        "schema": CARD_SCHEMA,
        "name": "detector",
        "version": 2,
        "task": "synthetic",
        "files": {"model.onnx": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}},
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour": "RGB", **view},
        "outputs": [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()],
        "max_batch_size": 32,
        "classes": list(classes),
        "calibration": {"temperature": 1.0, "bias": 0.0},
        "thresholds": {"real_below": 0.4, "synthetic_above": 0.6, "doubt": 0.95},
        "defence": {"sigma": 1.0, "combine": "mean"},
        "open_set": {"temperature": 1.0, "unknown": 0.0},
        "doubt": {"distances": [0.0, 0.5, 1.0], "doubts": [0.0, 0.2, 1.0]},
    }
    (folder / "card.json").write_text(json.dumps(card | changes), encoding="utf-8")
    return folder
