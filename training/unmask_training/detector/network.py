"""The detector's network: an ImageNet trunk, one logit for synthetic, logits over generator families, an embedding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from unmask_training import torchvision_shim

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)


class Detector(nn.Module):
    """MobileNetV2 (Sandler et al., CVPR 2018) with two heads on the pooled features.

    Input (N, 3, S, S) float in 0..255 RGB; outputs (N,) logit of synthetic, (N, F) family logits, (N, 1280) embedding of
    length 1.  Normalisation is inside, so that serving sends plain pixels.
    """

    def __init__(self, families: Sequence[str], dropout: float = 0.3) -> None:
        super().__init__()
        self.families = tuple(families)
        self.trunk = _mobilenet_v2().features
        self.dropout = nn.Dropout(dropout)
        self.synthetic = nn.Linear(1280, 1)
        self.family = nn.Linear(1280, len(families))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1) * 255.0)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1) * 255.0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logit, family logits, embedding."""
        features = self.trunk((pixels - self.mean) / self.std).mean((2, 3))
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


def _mobilenet_v2() -> Any:
    torchvision_shim.install()
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(weights=None)


def read_state(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote of weights or a checkpoint; raises `ValueError` when the file is nothing of the kind."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except Exception as error:  # whatever the unpickler stumbles over in a file that is none
        raise ValueError(f"{path}: not a file of weights") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a file of weights")
    return state


def start_from(network: Detector, path: Path) -> dict[str, Any]:
    """Starts from torchvision's ImageNet weights (the trunk) or a checkpoint of `fit` (the whole network).

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
        trunk = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
        network.trunk.load_state_dict(trunk)
    except RuntimeError as error:
        raise ValueError(f"{path}: not MobileNetV2 weights ({str(error).splitlines()[0]})") from error
    return {"kind": "imagenet", **start}
