"""A checkpoint of the localizer on the tower becomes a version folder: own graph, whole graph, weights, card, figures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unmask.core.golden import golden_pictures
from unmask.core.vit_trunk import PATCH, PIXELS, TOKEN_BLOCKS, TOKENS, WIDTH, joined
from unmask_training.detector.export import files_of
from unmask_training.localizer.calibrating import completed
from unmask_training.localizer.export import base_card, data_of
from unmask_training.localizer.samples import contract_of
from unmask_training.localizer.tokens.fit import load
from unmask_training.localizer.tokens.network import TokenLocalizer, planar
from unmask_training.tower.graphs import FETCHED, OWN, reading, write_gap
from unmask_training.tower.network import PARTS

_PARITY: Final = 1e-3
_FILES: Final = ("model.onnx", OWN, "weights.safetensors")
_LICENCE: Final = (
    "research and evaluation only, where the training data are (FFHQ CC-BY-NC-SA-4.0, DFDC terms, and others: see "
    "training.data); tower: CLIP ViT-B/16 (MIT) as fetched by weights.lock"
)


class Own(nn.Module):
    """The graph around the gap that the tower fills."""

    def __init__(self, model: TokenLocalizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """uint8 (N, S, S, 3) and the tower's tokens to what the tower takes, heat and score."""
        pixels = planar(image)
        return (self.model.tower_pixels(pixels), *self.model(tokens, pixels))


def write_graphs(model: TokenLocalizer, raw: bytes, folder: Path) -> float:
    """Writes own.onnx and model.onnx; returns the largest difference to torch on the tower's own tokens."""
    sample = torch.from_numpy(golden_pictures(model.size, 2))
    tokens = torch.zeros(2, (model.size // PATCH) ** 2, WIDTH * len(TOKEN_BLOCKS))
    parts = [getattr(model, part).numpy() for part in PARTS]
    write_gap(Own(model).eval(), {"image": sample, TOKENS: tokens}, [PIXELS, *model.heads], parts, folder / OWN)
    whole = joined(raw, (folder / OWN).read_bytes())
    (folder / "model.onnx").write_bytes(whole)
    return parity(model, whole)


def parity(model: TokenLocalizer, whole: bytes) -> float:
    """Largest difference between the whole graph and torch given the same tokens; raises `ValueError` above 1e-3."""
    views = golden_pictures(model.size)
    *found, tokens = reading(whole, TOKENS).run([*model.heads, TOKENS], {"image": views})
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens), planar(torch.from_numpy(views)))
    gap = max(float(np.abs(one - other.numpy()).max()) for one, other in zip(found, expected, strict=True))
    if gap > _PARITY:
        raise ValueError(f"model.onnx differs from torch by {gap:.2g}, more than {_PARITY}")
    return gap


def export(
    checkpoint: Path, folder: Path, data: Path, recipe_path: str, weights: Path, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Fills a version folder and returns its card, figures on `val` included; `weights` is the tower's file."""
    model, state = load(checkpoint)
    raw, recipe = weights.read_bytes(), state["recipe"]
    if hashlib.sha256(raw).hexdigest() != state["tower"]:
        raise ValueError(f"{weights}: not the tower's file that the checkpoint was fitted with")
    folder.mkdir(parents=True, exist_ok=True)
    gap = write_graphs(model, raw, folder)
    save_file({name: value.contiguous() for name, value in model.head.state_dict().items()}, folder / "weights.safetensors")
    training = {
        "seed": recipe["seed"],
        "recipe": recipe_path,
        "command": f"unmask-train fit --config {recipe_path} --data DATA --out OUT --weights FILE",
        "views": recipe["samples"],
        "tower": state["tower"],
        "data": data_of(data),
    }
    files = files_of(folder, _FILES, fetched=FETCHED)
    card = base_card(folder, contract_of(model.size, recipe["margin"]), model.outputs(model.size), files, training, _LICENCE)
    return completed(folder, card, data, [f"ONNX and torch agree to {gap:.1g} on the same tokens of the tower", *notes])
