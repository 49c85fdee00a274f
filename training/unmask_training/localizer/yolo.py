"""YOLO's segmentation networks (ultralytics) on the detector's trunk; and the dense head that helps training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from unmask_training.localizer.base import Localizer, image_of
from unmask_training.localizer.unet import pixel_losses

# After these blocks MobileNetV2 has halved the view 3, 4 and 5 times; its channels there.
_STAGES: Final = ((0, 7, 32), (7, 14, 96), (14, 18, 320))


@dataclass(frozen=True, slots=True)
class Variant:
    """A network of ultralytics: its file, where its trunk's features lie in its layers, their channels, its neck's first."""

    file: str
    places: tuple[int, int, int]
    channels: tuple[int, int, int]
    neck: int


VARIANTS: Final = {
    "yolov8n-seg": Variant("yolov8n-seg.yaml", (4, 6, 9), (64, 128, 256), 10),
    "yolov8s-seg": Variant("yolov8s-seg.yaml", (4, 6, 9), (128, 256, 512), 10),
    "yolo11n-seg": Variant("yolo11n-seg.yaml", (4, 6, 10), (128, 128, 256), 11),
}


class Yolo(Localizer):
    """Neck and segmentation head of YOLO on MobileNetV2.

    YOLO's own trunk has no weights to start from here, and from random ones half an hour of training finds no forgery at all
    (measured); the detector's trunk knows traces of generators and codecs already.  Served: `predictions` (N, 37, P) and
    `prototypes` (N, 32, S/4, S/4), as `unmask.core.masks.decode_regions` reads them.
    """

    heads = ("predictions", "prototypes")

    def __init__(self, variant: str = "yolov8n-seg") -> None:
        super().__init__()
        os.environ.update(YOLO_AUTOINSTALL="False", YOLO_OFFLINE="True")
        from ultralytics.nn.tasks import SegmentationModel
        from ultralytics.utils import DEFAULT_CFG

        self.variant = VARIANTS[variant]
        stages = zip(_STAGES, self.variant.channels, strict=True)
        self.adapters = nn.ModuleList(_adapter(channels, wanted) for (_, _, channels), wanted in stages)
        self.yolo = SegmentationModel(self.variant.file, nc=1, verbose=False)
        self.yolo.args = DEFAULT_CFG
        for place in range(self.variant.neck):
            self.yolo.model[place] = nn.Identity()

    def forward(self, images: Tensor) -> Any:
        """What ultralytics' segmentation head gives in the present mode."""
        found: dict[int, Any] = {}
        value = self.normalised(images)
        for place, adapter, (first, last, _) in zip(self.variant.places, self.adapters, _STAGES, strict=True):
            value = self.trunk[first:last](value)
            found[place] = adapter(value)
        last = found[self.variant.places[-1]]
        for layer in self.yolo.model[self.variant.neck :]:
            sources = [layer.f] if isinstance(layer.f, int) else layer.f
            inputs = [last if source == -1 else found[source] for source in sources]
            last = found[layer.i] = layer(inputs[0] if isinstance(layer.f, int) else inputs)
        return last

    def aid(self) -> nn.Module:
        """The dense head."""
        return DenseHead()

    def loss(self, batch: dict[str, Tensor], aid: nn.Module, weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Localizer.loss`: ultralytics' own, and the dense head's."""
        images = image_of(batch)
        with torch.autocast("cpu", torch.bfloat16):
            predictions = self(images)
        predictions = _float(predictions)
        total, parts = self.yolo.loss(batch, predictions)
        mask_loss = aid(predictions["proto"], (batch["masks"] > 0).float())
        return total.sum() / images.shape[0] + weight * mask_loss, parts | {"dense_loss": mask_loss.detach()}

    def served(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Localizer.served`."""
        head: Any = self.yolo.model[-1]
        head.export, head.format, head.dynamic = True, "onnx", False
        predictions, prototypes = self(images)
        return predictions, prototypes

    def outputs(self, size: int) -> list[dict[str, Any]]:
        """See `Localizer.outputs`."""
        places, side = sum((size // stride) ** 2 for stride in (8, 16, 32)), size // 4
        shapes = {"predictions": [-1, 37, places], "prototypes": [-1, 32, side, side]}
        return [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()]


def _float(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float()
    if isinstance(value, dict):
        return {key: _float(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_float(item) for item in value)
    return value


def _adapter(channels: int, wanted: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, wanted, 1, bias=False), nn.BatchNorm2d(wanted), nn.SiLU())


class DenseHead(nn.Module):
    """Prototypes to one logit a pixel; used while training, dropped on export."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(32, 1, 1)

    def forward(self, prototypes: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Cross-entropy and Dice of (N, 32, h, w) prototypes against (N, h, w) masks, their mean over the batch."""
        entropy, dice = pixel_losses(self.mix(prototypes)[:, 0], truth)
        return entropy + 0.3 * dice
