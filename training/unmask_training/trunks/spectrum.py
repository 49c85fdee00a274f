"""Radial power spectrum (Durall et al., 2020): up-sampling leaves its mark in the high frequencies."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask_training.trunks.base import IMAGENET_MEAN, IMAGENET_STD, Trunk

_Floats = NDArray[np.float32]
_BINS: Final = 88
# ITU-R BT.601, as grey pictures are commonly made.
_LUMA: Final = (0.299, 0.587, 0.114)
# Of grey levels of 0..1: far below one step of 1/255.
_FLOOR: Final = 1e-8


class Spectrum(Trunk):
    """Log power of each ring of the grey picture's spectrum, standardised: features (N, 88, 1, 1).

    No weight of its own, so the linear head on it is the paper's logistic regression.  The transform is a product with the
    matrices of cosines and sines, which every ONNX runtime has; rings are one frequency wide up to the highest of an axis,
    their means brought to 88 by linear interpolation, as the paper does for pictures of other sizes.
    """

    channels = _BINS

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(_BINS, affine=False)
        weights = torch.tensor(_LUMA) * torch.tensor(IMAGENET_STD)
        self.register_buffer("luma", weights.view(1, 3, 1, 1), persistent=False)
        self.level = float(np.dot(_LUMA, IMAGENET_MEAN))

    def forward(self, pixels: Tensor) -> Tensor:
        """See `Trunk`."""
        # In bfloat16 the sums of the transform would be worth nothing.
        with torch.autocast(pixels.device.type, enabled=False):
            grey = (pixels.float() * self.luma).sum(1) + self.level
            profile = radial_log_power(grey)
            found: Tensor = self.norm(profile[:, :, None, None])
        return found


def radial_log_power(grey: Tensor) -> Tensor:
    """Natural logarithm of the mean power of each of 88 rings (N, 88) of square grey pictures (N, S, S)."""
    size = int(grey.shape[2])
    cosine, sine, members, weights, mix = (torch.from_numpy(part).to(grey.device) for part in _tables(size))
    real = cosine @ grey @ cosine - sine @ grey @ sine
    imaginary = cosine @ grey @ sine + sine @ grey @ cosine
    power = (real * real + imaginary * imaginary).flatten(1) / size**2
    rings = (power[:, members] * weights).unflatten(1, (size // 2, -1)).sum(2)
    return torch.log(rings + _FLOOR) @ mix


@lru_cache(maxsize=4)
def _tables(size: int) -> tuple[_Floats, _Floats, NDArray[np.int64], _Floats, _Floats]:
    """Cosines and sines (S, S); positions and weights (R * K) of each ring's members; interpolation (R, 88)."""
    steps = np.arange(size)
    angles = 2.0 * np.pi * (np.outer(steps, steps) % size) / size
    wave = np.minimum(steps, size - steps)
    radius = np.rint(np.hypot(wave[:, None], wave[None, :])).astype(np.int64).ravel()
    rings = [np.flatnonzero(radius == r) for r in range(size // 2)]
    longest = max(len(ring) for ring in rings)
    members = np.concatenate([np.pad(ring, (0, longest - len(ring))) for ring in rings])
    weights = np.concatenate([np.pad(np.full(len(ring), 1.0 / len(ring)), (0, longest - len(ring))) for ring in rings])
    at = np.linspace(0.0, len(rings) - 1.0, _BINS)
    mix = np.stack([np.interp(at, np.arange(len(rings)), row) for row in np.eye(len(rings))])
    one, two, three, four = (np.asarray(part, np.float32) for part in (np.cos(angles), np.sin(angles), weights, mix))
    return one, two, members, three, four


def spectrum() -> Spectrum:
    """Nothing to draw."""
    return Spectrum()
