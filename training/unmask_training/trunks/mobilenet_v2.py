"""MobileNetV2 (Sandler et al., CVPR 2018): inverted residuals; what Unmask ships."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from unmask_training import torchvision_shim
from unmask_training.trunks.base import Trunk


class MobileNetV2(nn.Sequential, Trunk):
    """torchvision's `mobilenet_v2().features` itself, so that its names are the trunk's ("0.0.weight")."""

    channels = 1280

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """torchvision's file: what lies under `features.`."""
        return {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}


def mobilenet_v2() -> MobileNetV2:
    """At width 1; maps (N, 1280, S/32, S/32)."""
    torchvision_shim.install()
    from torchvision.models import mobilenet_v2 as model

    return MobileNetV2(*model(weights=None).features)
