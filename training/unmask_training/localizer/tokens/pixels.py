"""What the localizer on the tower sees in the view itself: noise and edges at a quarter of its side."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask_training.localizer.unet import block

# Channels at a half, a quarter, an eighth and a sixteenth of the view's side, and residual blocks at the last three.
_CHANNELS: Final = (32, 48, 96, 128)
_BLOCKS: Final = (2, 2, 1)
# A pixel's deviation from its neighbourhood is this many times weaker than colours are.
_FAINT: Final = 4.0
_block = partial(block, activation=nn.ReLU)


class PixelStream(nn.Module):
    """A residual network (He et al., CVPR 2016) on colours and on what a 5 x 5 mean leaves of them.

    (N, 3, S, S) RGB 0..255 to features at a quarter, an eighth and a sixteenth of the side, `channels` of them.
    """

    def __init__(self) -> None:
        super().__init__()
        half, *self.channels = _CHANNELS
        # Two by two pixels side by side as channels: the same reach as a stride, at a quarter of the work.
        self.stem = _block(24, half)
        self.stages = nn.ModuleList(
            nn.Sequential(_block(inner, outer, stride=2), *(_Residual(outer) for _ in range(count)))
            for (inner, outer), count in zip(pairwise(_CHANNELS), _BLOCKS, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features at the three sizes."""
        value = images.contiguous() / 127.5 - 1.0
        around = functional.avg_pool2d(functional.pad(value, (2, 2, 2, 2), mode="reflect"), 5, 1)
        value = self.stem(functional.pixel_unshuffle(torch.cat([value, _FAINT * (value - around)], 1), 2))
        found = []
        for stage in self.stages:
            value = stage(value)
            found.append(value)
        return found


class _Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_block(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = functional.relu(value + self.inner(value))
        return result
