"""The blur of the input defence: what training, the served graph and attacks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def gaussian(sigma: float) -> Tensor:
    """Kernel (2 r + 1,) of a Gaussian that ends at 3 sigma; raises `ValueError` unless sigma is positive."""
    if not sigma > 0.0:
        raise ValueError(f"sigma {sigma}: expected a positive number")
    reach = max(1, round(3.0 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    return kernel / kernel.sum()


def convolved(pixels: Tensor, kernel: Tensor) -> Tensor:
    """Pixels (N, 3, S, S) blurred by a kernel (K,) in both directions, reflected at the border."""
    reach = kernel.shape[0] // 2
    padded = nn.functional.pad(pixels, (reach, reach, reach, reach), mode="reflect")
    across = kernel.view(1, 1, 1, -1).expand(3, 1, 1, -1)
    down = kernel.view(1, 1, -1, 1).expand(3, 1, -1, 1)
    return nn.functional.conv2d(nn.functional.conv2d(padded, across, groups=3), down, groups=3)


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """As `convolved`, by a Gaussian of `sigma` pixels."""
    return convolved(pixels, gaussian(sigma))
