"""What every localizer has: a MobileNetV2 trunk that starts from a detector's, and a loss of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unmask_training import torchvision_shim
from unmask_training.detector.network import read_state

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)


class Localizer(nn.Module):
    """MobileNetV2 (Sandler et al., CVPR 2018) under a head that says where; input (N, 3, S, S) float RGB in 0..1, S mod 32 = 0.

    Batch statistics of the trunk stay as they are: they were made on faces.  `heads` name the served outputs.
    """

    heads: tuple[str, ...] = ()
    # How much smaller than the view the masks are that the loss reads.
    mask_stride: int = 4

    def __init__(self) -> None:
        super().__init__()
        torchvision_shim.install()
        from torchvision.models import mobilenet_v2

        self.trunk = mobilenet_v2(weights=None).features[:18]
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> Localizer:
        """Training mode, but for the trunk's batch statistics."""
        super().train(mode)
        self.trunk.eval()
        return self

    def normalised(self, images: Tensor) -> Tensor:
        """Pixels as ImageNet networks want them."""
        value: Tensor = (images - self.mean) / self.std
        return value

    def aid(self) -> nn.Module:
        """Layers that help training and are dropped on export; none unless a localizer says so."""
        return nn.Module()

    def loss(self, batch: dict[str, Tensor], aid: nn.Module, weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward in bfloat16, loss in float32 with its parts for the log; `weight` is the configuration's dense_weight."""
        raise NotImplementedError

    def served(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs named in `heads`, in evaluation mode."""
        raise NotImplementedError

    def outputs(self, size: int) -> list[dict[str, Any]]:
        """What the card says of the outputs for views of `size` pixels."""
        raise NotImplementedError

    def start_from(self, path: Path) -> dict[str, str]:
        """Takes a localizer's checkpoint whole, or the trunk of a detector's weights or of torchvision's MobileNetV2.

        Returns what the card says of the start.
        """
        if not path.is_file():
            raise ValueError(f"{path}: no weights there")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        state = load_file(path) if path.suffix == ".safetensors" else read_state(path)
        state = state.get("average", state)
        if not any(name.startswith(("synthetic.", "features.")) for name in state):
            try:
                self.load_state_dict(state)
            except RuntimeError as error:
                raise ValueError(f"{path}: neither this localizer's weights nor a MobileNetV2's") from error
            return {"kind": "localizer", "sha256": sha256}
        trunk = {name.split(".", 1)[1]: value for name, value in state.items() if name.startswith(("trunk.", "features."))}
        wanted = {name: trunk[name] for name in self.trunk.state_dict() if name in trunk}
        if len(wanted) != len(self.trunk.state_dict()):
            raise ValueError(f"{path}: neither this localizer's weights nor a MobileNetV2's")
        self.trunk.load_state_dict(wanted)
        kind = "detector" if any(name.startswith("trunk.") for name in state) else "imagenet"
        return {"kind": kind, "sha256": sha256}


def image_of(batch: dict[str, Tensor]) -> Tensor:
    """The batch's views in the layout that convolutions are fastest in."""
    return batch["img"].to(memory_format=torch.channels_last)
