"""The detector's network: a trunk, one logit for synthetic, logits over generator families, an embedding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unmask_training import trunks

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)


class Detector(nn.Module):
    """A trunk of the registry with two heads on its pooled features.

    Input (N, 3, S, S) float in 0..255 RGB; outputs (N,) logit of synthetic, (N, F) family logits, (N, C) embedding of length
    1.  Normalisation is inside, so that serving sends plain pixels.  `trunk` is a name of `unmask_training.trunks`.
    """

    def __init__(self, families: Sequence[str], dropout: float = 0.3, trunk: str = "mobilenet_v2") -> None:
        super().__init__()
        self.families = tuple(families)
        self.trunk_name = trunk
        self.trunk = trunks.build(trunk)
        self.dropout = nn.Dropout(dropout)
        self.synthetic = nn.Linear(self.trunk.channels, 1)
        self.family = nn.Linear(self.trunk.channels, len(families))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1) * 255.0)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1) * 255.0)

    def maps(self, pixels: Tensor) -> Tensor:
        """Features by position, (N, C, h, w)."""
        found: Tensor = self.trunk((pixels - self.mean) / self.std)
        return found

    def pooled(self, pixels: Tensor) -> Tensor:
        """Features averaged over positions, (N, C)."""
        return self.maps(pixels).mean((2, 3))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logit, family logits, embedding."""
        features = self.pooled(pixels)
        dropped = self.dropout(features)
        return self.synthetic(dropped)[:, 0], self.family(dropped), nn.functional.normalize(features, dim=1)


class Served(nn.Module):
    """The graph that is exported: uint8 (N, S, S, 3) RGB in, float32 out."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Detector.forward`."""
        synthetic, family, embedding = self.network(image.permute(0, 3, 1, 2).float())
        return synthetic, family, embedding


def read_state(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote of weights or a checkpoint; raises `ValueError` when the file is nothing of the kind.

    A version folder's weights.safetensors reads as the checkpoint that its card describes.
    """
    if path.suffix == ".safetensors":
        return _read_version(path)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except Exception as error:  # whatever the unpickler stumbles over in a file that is none
        raise ValueError(f"{path}: not a file of weights") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a file of weights")
    return state


def _read_version(path: Path) -> dict[str, Any]:
    """Averaged weights of a version folder, with its card's families and size."""
    try:
        card = json.loads((path.parent / "card.json").read_bytes())
        families, size, average = card["classes"], card["input"]["size"], load_file(path)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: not the weights of a version folder ({error})") from error
    return {"average": average, "families": list(families), "size": size}


def start_from(network: Detector, path: Path) -> dict[str, Any]:
    """Starts from published ImageNet weights (the trunk) or a checkpoint of `fit` (the whole network).

    Returns what a card says of the start; raises `ValueError` when the file holds something else.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no weights there; `unmask models fetch mobilenet_v2 --out FILE` brings them")
    state = read_state(path)
    start = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    try:
        if "average" in state:
            if tuple(state["families"]) != network.families:
                raise ValueError(f"{path}: a checkpoint of other families")
            network.load_state_dict(state["average"])
            return {"kind": "checkpoint", **start}
        trunks.load(network.trunk, state, str(path))
    except RuntimeError as error:
        raise ValueError(f"{path}: not weights of {network.trunk_name} ({str(error).splitlines()[0]})") from error
    return {"kind": "imagenet", **start}
