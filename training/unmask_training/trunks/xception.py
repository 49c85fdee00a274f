"""Xception (Chollet, CVPR 2017): depthwise separable convolutions with shortcuts; whole or cut off early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn

from unmask_training.trunks.base import Rescaled, Trunk

# Features in and out, separable convolutions, stride: figure 5 of the paper; the first block begins without ReLU.
_ENTRY: Final = ((64, 128, 2, 2), (128, 256, 2, 2), (256, 728, 2, 2))
_MIDDLE: Final = ((728, 728, 3, 1),) * 8
_EXIT: Final = ((728, 1024, 2, 2),)


class _Separable(nn.Module):
    """A 3 x 3 filter of each map, then a mixture of the maps."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False)
        self.pointwise = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.pointwise(self.conv1(maps))


class _Block(nn.Module):
    """Separable convolutions, each behind a ReLU, and a shortcut; the exit block widens at its last convolution."""

    def __init__(self, before: int, after: int, count: int, stride: int, number: int) -> None:
        super().__init__()
        late = (before, after, count, stride) in _EXIT
        widths = [before, *[before if late else after] * (count - 1), after]
        layers: list[nn.Module] = []
        for i in range(count):
            # Not in place: the shortcut takes the same input.
            layers += [nn.ReLU(), _Separable(widths[i], widths[i + 1]), nn.BatchNorm2d(widths[i + 1])]
        if number == 1:
            layers = layers[1:]
        self.rep = nn.Sequential(*layers, *([nn.MaxPool2d(3, stride, 1)] if stride > 1 else []))
        self.skip: nn.Module | None = None
        if stride > 1 or before != after:
            self.skip, self.skipbn = nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)

    def forward(self, maps: Tensor) -> Tensor:
        aside = maps if self.skip is None else self.skipbn(self.skip(maps))
        return self.rep(maps) + aside


class Xception(Trunk):
    """Maps (N, 2048, S/32, S/32), or up to a block: 2 give (N, 256, S/8, S/8).

    Names are those of the PyTorch port whose ImageNet file is the usual one (`conv1`, `block1.rep.0.conv1`, ... `bn4`).
    """

    def __init__(self, blocks: int = 12) -> None:
        super().__init__()
        plan = (*_ENTRY, *_MIDDLE, *_EXIT)
        # The published weights were fitted on pixels of -1 to 1.
        self.rescaled, self.relu, self.blocks = Rescaled(0.5, 0.5), nn.ReLU(), blocks
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64)
        for i, block in enumerate(plan[:blocks], start=1):
            self.add_module(f"block{i}", _Block(*block, i))
        self.channels, self.whole = plan[blocks - 1][1], blocks == len(plan)
        if self.whole:
            self.conv3, self.bn3 = _Separable(1024, 1536), nn.BatchNorm2d(1536)
            self.conv4, self.bn4 = _Separable(1536, 2048), nn.BatchNorm2d(2048)
            self.channels = 2048

    def forward(self, pixels: Tensor) -> Tensor:
        """See `Trunk`."""
        maps = self.relu(self.bn1(self.conv1(self.rescaled(pixels))))
        maps = self.relu(self.bn2(self.conv2(maps)))
        for i in range(1, self.blocks + 1):
            maps = self.get_submodule(f"block{i}")(maps)
        if self.whole:
            maps = self.relu(self.bn3(self.conv3(maps)))
            maps = self.relu(self.bn4(self.conv4(maps)))
        return maps

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The file, without the blocks that are cut off; one of its editions holds 1 x 1 filters as matrices."""
        told = {}
        for name, value in super().published(state).items():
            if self.whole or name.partition(".")[0] in dict(self.named_children()):
                told[name] = value[:, :, None, None] if name.endswith("pointwise.weight") and value.ndim == 2 else value
        return told


def xception() -> Xception:
    """All twelve blocks."""
    return Xception()


def patch_xception() -> Xception:
    """Xception up to `block2`: every position judges a small patch alone (Chai et al., ECCV 2020)."""
    return Xception(blocks=2)
