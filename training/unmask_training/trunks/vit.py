"""A small Vision Transformer (Dosovitskiy et al., ICLR 2021; the tiny dimensions of Touvron et al., ICML 2021)."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from unmask_training import torchvision_shim
from unmask_training.trunks.base import Trunk

_PATCH, _DEPTH, _HEADS, _WIDTH = 16, 12, 3, 192
# Positions are learnt on the grid of a view of 192 pixels, the project's usual size.
_GRID: Final = 192 // _PATCH


class ViT(Trunk):
    """torchvision's encoder over patches of 16 pixels, without a class token: maps (N, 192, S/16, S/16) are its tokens.

    On another grid than that of a view of 192 pixels the positions are interpolated.
    """

    channels = _WIDTH

    def __init__(self) -> None:
        super().__init__()
        torchvision_shim.install()
        from torchvision.models.vision_transformer import Encoder

        self.patches = nn.Conv2d(3, _WIDTH, _PATCH, _PATCH)
        encoder = Encoder(_GRID * _GRID, _DEPTH, _HEADS, _WIDTH, 4 * _WIDTH, dropout=0.0, attention_dropout=0.0)
        # Its forward takes one grid alone; its parts take any.
        self.positions, self.layers, self.norm = encoder.pos_embedding, encoder.layers, encoder.ln

    def forward(self, pixels: Tensor) -> Tensor:
        """See `Trunk`."""
        maps = self.patches(pixels)
        height, width = int(maps.shape[2]), int(maps.shape[3])
        tokens = maps.flatten(2).transpose(1, 2) + self._positions(height, width)
        found: Tensor = self.norm(self.layers(tokens)).transpose(1, 2)
        return found.unflatten(2, (height, width))

    def _positions(self, height: int, width: int) -> Tensor:
        """One vector a patch (1, height * width, C)."""
        if (height, width) == (_GRID, _GRID):
            return self.positions
        grid = self.positions.transpose(1, 2).unflatten(2, (_GRID, _GRID))
        return functional.interpolate(grid, (height, width), mode="bilinear").flatten(2).transpose(1, 2)


def vit_tiny() -> ViT:
    """12 layers of width 192: 5.5 million parameters."""
    return ViT()
