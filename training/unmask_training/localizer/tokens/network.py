"""The head on the tower's tokens: a heat map and a score for the face."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.core.vit_trunk import TOKEN_BLOCKS, WIDTH
from unmask_training.localizer.tokens.pixels import PixelStream
from unmask_training.localizer.unet import face_evidence, pixel_losses
from unmask_training.tower.network import PARTS
from unmask_training.tower.parts import MEAN, STD

HELD: Final = (*PARTS, "mean", "matrix")
# Channels at a sixteenth, an eighth and a quarter of the view's side.
_CHANNELS: Final = (96, 64, 32)
# The share of faces that training shows without tokens.
_BLIND: Final = 0.15


class TokenHead(nn.Module):
    """Convolutions over reduced tokens (N, P, C) of S / 16 by S / 16 patches, upsampled twice to a quarter of the side; at
    every size what `PixelStream` sees in the view itself is joined in, which knows rims that a patch is too coarse for.

    The face's score is of the pooled deep features and of the strongest and mean heat.  That tokens of several blocks tell
    forged from genuine where the last block does not: Koutlis and Papadopoulos, ECCV 2024 (there of whole pictures).
    """

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        deep, middle, fine = _CHANNELS
        self.drop = nn.Dropout2d(dropout)
        self.pixels = PixelStream()
        quarter, eighth, sixteenth = self.pixels.channels
        self.first = nn.Sequential(nn.Conv2d(width, deep, 1), nn.BatchNorm2d(deep), nn.GELU())
        self.meet = nn.Sequential(nn.Conv2d(deep + sixteenth, deep, 1), nn.GELU())
        self.around = nn.Sequential(nn.Conv2d(deep, deep, 3, padding=1), nn.GELU())
        self.eighth = nn.Sequential(nn.Conv2d(deep + eighth, middle, 3, padding=1), nn.GELU())
        self.quarter = nn.Sequential(nn.Conv2d(middle + quarter, fine, 3, padding=1), nn.GELU())
        self.last = nn.Conv2d(fine, 1, 3, padding=1)
        self.face = nn.Sequential(nn.Linear(deep + 2, 32), nn.GELU(), nn.Linear(32, 1))

    def forward(self, tokens: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of cells (N, S/4, S/4) and of faces (N,); `images` (N, 3, S, S) RGB 0..255."""
        side = math.isqrt(tokens.shape[1])
        quarter, eighth, sixteenth = self.pixels(images)
        known = self.drop(self._sometimes(tokens).transpose(1, 2).unflatten(2, (side, side)))
        deep = self.meet(torch.cat([self.first(known), sixteenth], 1))
        deep = deep + self.around(deep)
        value = self.eighth(torch.cat([_doubled(deep), eighth], 1))
        value = self.quarter(torch.cat([_doubled(value), quarter], 1))
        cells = self.last(value)[:, 0]
        return cells, self.face(face_evidence(deep, cells))[:, 0]

    def _sometimes(self, tokens: Tensor) -> Tensor:
        """In training some faces go without tokens: they are learned from so much sooner that pixels would be left unread."""
        if not self.training:
            return tokens
        return tokens * (torch.rand(len(tokens), 1, 1) >= _BLIND)

    def loss(self, tokens: Tensor, images: Tensor, cover: Tensor, weight: float) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy and Dice of cells, cross-entropy of the face; `cover` (N, S/4, S/4) in 0..1."""
        with torch.autocast("cpu", torch.bfloat16):
            cells, face = self(tokens, images)
        entropy, dice = pixel_losses(cells.float(), cover)
        doctored = (cover.flatten(1).amax(1) > 0.5).float()
        faces = functional.binary_cross_entropy_with_logits(face.float(), doctored)
        parts = {"entropy": float(entropy.detach()), "dice": float(dice.detach()), "face": float(faces.detach())}
        return weight * (entropy + 0.5 * dice) + faces, parts


def planar(views: Tensor) -> Tensor:
    """Views (N, S, S, 3) as (N, 3, S, S) floats 0..255, in memory as they lie."""
    return views.permute(0, 3, 1, 2).float()


def _doubled(value: Tensor) -> Tensor:
    return functional.interpolate(value, scale_factor=2.0, mode="bilinear", align_corners=False)


class TokenLocalizer(nn.Module):
    """Reduction and head, with what the tower needs: its parts are held as buffers so that one file has it all."""

    heads: tuple[str, ...] = ("heat", "score")

    def __init__(self, width: int, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.size = size
        self.head = TokenHead(width, dropout)
        for name, value in zip(("pixel_mean", "pixel_std"), (MEAN, STD), strict=True):
            self.register_buffer(name, torch.from_numpy(value).view(1, 3, 1, 1), persistent=False)

    def hold(self, *parts: Tensor) -> None:
        """Keeps `HELD`, to be saved with the rest: what the tower needs beside its weights, and the reduction."""
        for name, value in zip(HELD, parts, strict=True):
            self.register_buffer(name, value.float().clone())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes all weights, `HELD` among them, and is ready to answer."""
        self.hold(*(state[name] for name in HELD))
        self.load_state_dict(state)
        self.eval()

    def tower_pixels(self, images: Tensor) -> Tensor:
        """What the tower takes of (N, 3, S, S) RGB 0..255."""
        value: Tensor = (images - self.pixel_mean) / self.pixel_std
        return value

    def reduced(self, tokens: Tensor) -> Tensor:
        """(N, P, 3840) to (N, P, C): see `samples.Reduction`."""
        blocks = functional.layer_norm(tokens.unflatten(2, (len(TOKEN_BLOCKS), WIDTH)), (WIDTH,), eps=1e-5).flatten(2)
        value: Tensor = (blocks - self.mean) @ self.matrix
        return value

    def forward(self, tokens: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """The tower's tokens and the view (N, 3, S, S) 0..255 to `heat` (N, S/4, S/4) and `score` (N,), probabilities."""
        cells, face = self.head(self.reduced(tokens), images)
        return cells.sigmoid(), face.sigmoid()

    def outputs(self, size: int) -> list[dict[str, Any]]:
        """What the card says of the outputs for views of `size` pixels."""
        shapes = {"heat": [-1, size // 4, size // 4], "score": [-1]}
        return [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()]
