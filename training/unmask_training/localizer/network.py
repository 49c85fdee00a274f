"""The localizer's network: YOLOv8n-seg's neck and head on the detector's trunk; and the dense head that helps training."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from unmask_training import torchvision_shim
from unmask_training.detector.network import read_state

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
# After these blocks MobileNetV2 has halved the view 3, 4 and 5 times; its channels there, and those the neck expects.
_STAGES: Final = ((0, 7, 32, 64), (7, 14, 96, 128), (14, 18, 320, 256))
# Places of YOLOv8's backbone features in its own layer list, and of the first layer of its neck.
_PLACES: Final = (4, 6, 9)
_NECK: Final = 10


class Localizer(nn.Module):
    """MobileNetV2 (Sandler et al., CVPR 2018) under the neck and segmentation head of YOLOv8n (ultralytics).

    Input (N, 3, S, S) float RGB in 0..1; S a multiple of 32.  YOLOv8's own trunk has no weights to start from here, and
    from random ones half an hour of training finds no forgery at all (measured); the detector's trunk knows traces of
    generators and codecs already.  Batch statistics of the trunk stay as they are: they were made on faces.
    """

    def __init__(self) -> None:
        super().__init__()
        os.environ.update(YOLO_AUTOINSTALL="False", YOLO_OFFLINE="True")
        torchvision_shim.install()
        from torchvision.models import mobilenet_v2
        from ultralytics.nn.tasks import SegmentationModel
        from ultralytics.utils import DEFAULT_CFG

        self.trunk = mobilenet_v2(weights=None).features[:18]
        self.adapters = nn.ModuleList(_adapter(channels, wanted) for _, _, channels, wanted in _STAGES)
        self.yolo = SegmentationModel("yolov8n-seg.yaml", nc=1, verbose=False)
        self.yolo.args = DEFAULT_CFG
        for place in range(_NECK):
            self.yolo.model[place] = nn.Identity()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> Localizer:
        """Training mode, but for the trunk's batch statistics."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, images: torch.Tensor) -> Any:
        """What ultralytics' segmentation head gives in the present mode."""
        found: dict[int, Any] = {}
        value = (images - self.mean) / self.std
        for place, adapter, (first, last, _, _) in zip(_PLACES, self.adapters, _STAGES, strict=True):
            value = self.trunk[first:last](value)
            found[place] = adapter(value)
        last = found[_PLACES[-1]]
        for layer in self.yolo.model[_NECK:]:
            sources = [layer.f] if isinstance(layer.f, int) else layer.f
            inputs = [last if source == -1 else found[source] for source in sources]
            last = found[layer.i] = layer(inputs[0] if isinstance(layer.f, int) else inputs)
        return last

    @property
    def head(self) -> Any:
        """The segmentation head."""
        return self.yolo.model[-1]

    def start_from(self, path: Path) -> dict[str, str]:
        """Takes a localizer's checkpoint whole, or the trunk of a detector's weights or of torchvision's MobileNetV2.

        Returns what the card says of the start.
        """
        if not path.is_file():
            raise ValueError(f"{path}: no weights there")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        state = load_file(path) if path.suffix == ".safetensors" else read_state(path)
        state = state.get("average", state)
        if any(name.startswith("yolo.") for name in state):
            self.load_state_dict(state)
            return {"kind": "localizer", "sha256": sha256}
        trunk = {name.split(".", 1)[1]: value for name, value in state.items() if name.startswith(("trunk.", "features."))}
        wanted = {name: trunk[name] for name in self.trunk.state_dict() if name in trunk}
        if len(wanted) != len(self.trunk.state_dict()):
            raise ValueError(f"{path}: neither a localizer's weights nor a MobileNetV2's")
        self.trunk.load_state_dict(wanted)
        kind = "detector" if any(name.startswith("trunk.") for name in state) else "imagenet"
        return {"kind": kind, "sha256": sha256}


def _adapter(channels: int, wanted: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, wanted, 1, bias=False), nn.BatchNorm2d(wanted), nn.SiLU())


class DenseHead(nn.Module):
    """Prototypes to one logit a pixel; used while training, dropped on export."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(32, 1, 1)

    def forward(self, prototypes: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Cross-entropy and Dice of (N, 32, h, w) prototypes against (N, h, w) masks, their mean over the batch."""
        logits = self.mix(prototypes)[:, 0]
        entropy = functional.binary_cross_entropy_with_logits(logits, truth)
        drawn, doctored = logits.sigmoid(), truth.amax(dim=(1, 2)) > 0
        common, both = (drawn * truth).sum(dim=(1, 2)), (drawn + truth).sum(dim=(1, 2))
        dice = (1.0 - (2.0 * common + 1.0) / (both + 1.0))[doctored]
        return entropy + (0.3 * dice.mean() if doctored.any() else 0.0)
