"""Residual networks (He et al., CVPR 2016; ResNeXt: Xie et al., CVPR 2017), whole or cut off early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from torch import Tensor

from unmask_training import torchvision_shim
from unmask_training.trunks.base import Trunk

_STAGES: Final = ("layer1", "layer2", "layer3", "layer4")


class ResNet(Trunk):
    """torchvision's residual network under its own names, without pooling and classifier.

    `depth` stages are kept: 4 give maps (N, C, S/32, S/32), 1 gives (N, C, S/4, S/4).
    """

    options: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **Trunk.options,
        "layer4": ("conv1", "bn1", "layer1", "layer2", "layer3"),
    }

    def __init__(self, model: Any, depth: int = 4) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = model.conv1, model.bn1, model.relu, model.maxpool
        self.stages = _STAGES[:depth]
        for name in self.stages:
            self.add_module(name, getattr(model, name))
        # Each stage has twice the features of the one before.
        self.channels = model.fc.in_features >> (len(_STAGES) - depth)

    def forward(self, pixels: Tensor) -> Tensor:
        """See `Trunk`."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        for name in self.stages:
            maps = self.get_submodule(name)(maps)
        return maps

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's file, without the stages that are cut off."""
        gone = tuple(f"{name}." for name in _STAGES[len(self.stages) :])
        return {name: value for name, value in super().published(state).items() if not name.startswith(gone)}


def _torchvision(name: str) -> Any:
    torchvision_shim.install()
    from torchvision import models

    return getattr(models, name)(weights=None)


def resnet18() -> ResNet:
    """18 layers, 512 features."""
    return ResNet(_torchvision("resnet18"))


def resnet50() -> ResNet:
    """50 layers, 2048 features."""
    return ResNet(_torchvision("resnet50"))


def resnext101() -> ResNet:
    """101 layers, 32 groups of 8 (the large one of torchvision's), 2048 features."""
    return ResNet(_torchvision("resnext101_32x8d"))


def patch_resnet18() -> ResNet:
    """ResNet-18 up to `layer1`: every position judges a patch of 43 pixels alone (Chai et al., ECCV 2020).

    The mean over patches of their logits is the linear head on the mean of their features, so the heads need no change.
    """
    return ResNet(_torchvision("resnet18"), depth=1)
