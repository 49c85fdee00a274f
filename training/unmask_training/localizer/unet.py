"""The localizer `unet`: a probability for every pixel, and one for the face."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask_training.localizer.base import Localizer, image_of

# After these blocks MobileNetV2 has halved the view 1 to 5 times; its channels there.
_STAGES: Final = ((0, 2, 16), (2, 4, 24), (4, 7, 32), (7, 14, 96), (14, 18, 320))
# Channels on the way up, from an eighth of a half ... to a half of the view's side.
_UP: Final = (96, 64, 48, 32)
_RESIDUALS: Final = 12
# The share of pixels whose mean stands for the strongest evidence in a face.
_STRONGEST: Final = 0.01


class UNet(Localizer):
    """U-Net (Ronneberger et al., MICCAI 2015) on MobileNetV2, with a stream of noise residuals beside the colours.

    The residuals are those of high-pass filters that learn but stay high-pass (Bayar and Stamm, IH&MMSec 2016): a forgery
    differs in its noise more than in its looks.  Served: `heat` (N, S/2, S/2) and `score` (N,), probabilities.
    """

    heads = ("heat", "score")
    mask_stride = 2

    def __init__(self) -> None:
        super().__init__()
        self.residual = nn.Parameter(torch.randn(_RESIDUALS, 3, 5, 5) * 0.1)
        self.noise = block(_RESIDUALS, 16, stride=2)
        skips = [channels for _, _, channels in _STAGES]
        self.deep = block(skips[-1], _UP[0], kernel=1)
        self.joins = nn.ModuleList(
            _Join(above, skip, out) for above, skip, out in zip((_UP[0], *_UP), skips[-2::-1], _UP, strict=False)
        )
        self.last = nn.Conv2d(_UP[-1] + 16, 1, 3, padding=1)
        self.face = nn.Sequential(nn.Linear(_UP[0] + 2, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of pixels (N, S/2, S/2) and of faces (N,)."""
        value, found = self.normalised(images), []
        noise = self.noise(functional.conv2d(value, self._high_pass(), padding=2))
        for first, last, _ in _STAGES:
            value = self.trunk[first:last](value)
            found.append(value)
        value = deep = self.deep(found[-1])
        for join, skip in zip(self.joins, found[-2::-1], strict=True):
            value = join(value, skip)
        pixels = self.last(torch.cat([value, noise], 1))[:, 0]
        return pixels, self.face(face_evidence(deep, pixels))[:, 0]

    def _high_pass(self) -> Tensor:
        """The filters, each plane without its mean: a flat area gives nothing."""
        return self.residual - self.residual.mean((2, 3), keepdim=True)

    def loss(self, batch: dict[str, Tensor], aid: nn.Module, weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Localizer.loss`: cross-entropy and Dice of pixels, cross-entropy of the face."""
        with torch.autocast("cpu", torch.bfloat16):
            pixels, face = self(image_of(batch))
        truth = batch["masks"].clamp(max=1.0)
        entropy, dice = pixel_losses(pixels.float(), truth)
        doctored = (truth.flatten(1).amax(1) > 0).float()
        faces = functional.binary_cross_entropy_with_logits(face.float(), doctored)
        parts = {"entropy": entropy.detach(), "dice": dice.detach(), "face": faces.detach()}
        return weight * (entropy + 0.5 * dice) + faces, parts

    def served(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Localizer.served`."""
        pixels, face = self(images)
        return pixels.sigmoid(), face.sigmoid()

    def outputs(self, size: int) -> list[dict[str, Any]]:
        """See `Localizer.outputs`."""
        shapes = {"heat": [-1, size // 2, size // 2], "score": [-1]}
        return [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()]


def pixel_losses(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over all pixels and the mean Dice loss over doctored faces; (N, h, w) logits and masks in 0..1."""
    entropy = functional.binary_cross_entropy_with_logits(logits, truth)
    drawn, doctored = logits.sigmoid(), truth.amax(dim=(1, 2)) > 0
    common, both = (drawn * truth).sum(dim=(1, 2)), (drawn + truth).sum(dim=(1, 2))
    dice = (1.0 - (2.0 * common + 1.0) / (both + 1.0))[doctored]
    return entropy, dice.mean() if doctored.any() else entropy.new_zeros(())


def face_evidence(deep: Tensor, cells: Tensor) -> Tensor:
    """What tells of the whole face, (N, C + 2): the mean of features (N, C, h, w), strongest and mean of logits (N, H, W)."""
    flat = cells.flatten(1)
    strongest = flat.topk(max(1, int(flat.shape[1] * _STRONGEST)), dim=1).values.mean(1, keepdim=True)
    return torch.cat([deep.mean((2, 3)), strongest, flat.mean(1, keepdim=True)], 1)


def block(inner: int, outer: int, *, kernel: int = 3, stride: int = 1, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """A convolution, normalised by batch, and its activation."""
    convolution = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), activation())


class _Join(nn.Module):
    """One step up: twice the side, the trunk's features of that side joined in."""

    def __init__(self, above: int, skip: int, out: int) -> None:
        super().__init__()
        self.first = block(above + skip, out, kernel=1)
        self.second = nn.Sequential(
            nn.Conv2d(out, out, 3, padding=1, groups=out, bias=False), nn.BatchNorm2d(out), block(out, out, kernel=1)
        )

    def forward(self, above: Tensor, skip: Tensor) -> Tensor:
        """Joins (N, A, h, w) and (N, B, 2h, 2w) into (N, C, 2h, 2w)."""
        wide = functional.interpolate(above, scale_factor=2.0, mode="bilinear", align_corners=False)
        joined = self.first(torch.cat([wide, skip], 1))
        result: Tensor = joined + self.second(joined)
        return result
