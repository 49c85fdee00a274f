"""Small autoencoders whose copy of a region is generated content: `unmask-train autoencoders`, and their use as an engine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmask.core.images import Pixels
from unmask_training.data.chips import Chips

WAYS: Final = ("deconv", "nearest", "bilinear", "shuffle")
# How many times a copy is halved on its way: twice keeps pores, three times leaves what a latent space of 8 px leaves.
DEPTHS: Final = (2, 3)
_CROP: Final = 112
_BATCH: Final = 8


class RoundTrip(nn.Module):
    """An autoencoder that halves a picture `depth` times and brings it back by one of `WAYS`.

    Each way up leaves its own trace (checkerboard, repeated pixels, smoothness; Odena et al., Deconvolution and Checkerboard
    Artifacts, Distill 2016); so does every generator that ends in one of them.
    """

    def __init__(self, way: str, depth: int) -> None:
        super().__init__()
        widths = [3, 24, 40, 56][: depth + 1]
        down, up = [], []
        for inner, outer in pairwise(widths):
            down += [nn.Conv2d(inner, outer, 4, stride=2, padding=1), nn.SiLU()]
        for outer, inner in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up += [*_doubled(outer, inner, way), nn.SiLU()]
        self.layers = nn.Sequential(*down, *up[:-1])

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in 0..1 to its copy; H and W multiples of 8."""
        copy: Tensor = self.layers(pixels)
        return copy


def _doubled(inner: int, outer: int, way: str) -> list[nn.Module]:
    if way == "deconv":
        return [nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1)]
    if way == "shuffle":
        return [nn.Conv2d(inner, outer * 4, 3, padding=1), nn.PixelShuffle(2)]
    mode = {"nearest": "nearest", "bilinear": "bilinear"}[way]
    return [nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(inner, outer, 3, padding=1)]


class RoundTrips:
    """The autoencoders of a file, ready to copy pictures."""

    def __init__(self, networks: Sequence[tuple[str, RoundTrip]]) -> None:
        self._networks = [(name, network.eval()) for name, network in networks]

    @staticmethod
    def load(path: Path) -> RoundTrips:
        """Reads what `save` wrote; raises `ValueError` where the file is something else."""
        try:
            state = load_file(path)
            networks = [(name, RoundTrip(*arguments)) for name, arguments in _kinds()]
            for name, network in networks:
                network.load_state_dict({k.split("/", 1)[1]: v for k, v in state.items() if k.startswith(f"{name}/")})
        except (SafetensorError, RuntimeError, FileNotFoundError) as error:
            raise ValueError(f"{path}: not autoencoders; `unmask-train autoencoders --out FILE` makes them") from error
        return RoundTrips(networks)

    def save(self, path: Path) -> None:
        """Writes all weights into one file."""
        state = {f"{name}/{key}": value for name, network in self._networks for key, value in network.state_dict().items()}
        save_file(state, path)

    @torch.no_grad()
    def copy(self, pixels: Pixels, mask: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
        """The picture with the surroundings of the mask replaced by the copy of an autoencoder drawn at random."""
        _, network = self._networks[int(rng.integers(len(self._networks)))]
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        # A margin, so that a soft edge finds copied pixels too; its start is random, so that no grid is learned.
        x0, y0 = (max(0, start - int(rng.integers(8, 24))) for start in (x, y))
        x1, y1 = min(pixels.shape[1], x + width + 16), min(pixels.shape[0], y + height + 16)
        part = pixels[y0:y1, x0:x1]
        padded = np.pad(part, ((0, -part.shape[0] % 8), (0, -part.shape[1] % 8), (0, 0)), mode="edge")
        copied = network(torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255.0)[0].permute(1, 2, 0).numpy()
        result = pixels.copy()
        result[y0:y1, x0:x1] = np.clip(np.round(copied * 255.0), 0.0, 255.0)[: part.shape[0], : part.shape[1]]
        return result


def _kinds() -> Iterator[tuple[str, tuple[str, int]]]:
    for way in WAYS:
        for depth in DEPTHS:
            yield f"{way}{depth}", (way, depth)


def train(data: Path, steps: int, seed: int) -> tuple[RoundTrips, dict[str, float]]:
    """Fits every kind on real faces of part `fit`; returns them and their mean absolute errors in grey levels."""
    chips = Chips(data)
    rows = [row for row in chips if row.part == "fit" and row.label == "real"]
    if not rows:
        raise ValueError(f"{data}: no real faces in part 'fit'")
    networks, errors = [], {}
    for number, (name, kind) in enumerate(_kinds()):
        torch.manual_seed(seed + number)
        rng = np.random.default_rng([seed, number])
        network, mean = RoundTrip(*kind), 0.0
        optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        for _ in range(steps):
            batch = torch.stack([_crop(chips.chip(rows[int(rng.integers(len(rows)))]).pixels, rng) for _ in range(_BATCH)])
            loss = (network(batch) - batch).abs().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            mean = 0.95 * mean + 0.05 * float(loss.detach()) * 255.0
        networks.append((name, network))
        errors[name] = mean
    return RoundTrips(networks), errors


def _crop(pixels: Pixels, rng: np.random.Generator) -> Tensor:
    height, width = pixels.shape[:2]
    y, x = (int(rng.integers(max(1, side - _CROP + 1))) for side in (height, width))
    part = pixels[y : y + _CROP, x : x + _CROP]
    padded = np.pad(part, ((0, _CROP - part.shape[0]), (0, _CROP - part.shape[1]), (0, 0)), mode="symmetric")
    return torch.from_numpy(np.ascontiguousarray(padded)).permute(2, 0, 1).float() / 255.0


def run(args: argparse.Namespace) -> int:
    """Fits and writes them, and says how well they copy."""
    if args.steps < 1:
        raise ValueError(f"--steps must be at least 1, not {args.steps}")
    trips, errors = train(args.data, args.steps, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    trips.save(args.out)
    print(f"{args.out}: " + ", ".join(f"{name} off by {error:.1f}" for name, error in errors.items()) + " grey levels")
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("autoencoders", help="fit the small autoencoders that doctor regions by a round trip")
    command.add_argument("--data", type=Path, required=True, help="prepared data (`prepare`)")
    command.add_argument("--out", type=Path, required=True, help="file to write (.safetensors)")
    command.add_argument("--steps", type=int, default=400, help="steps for each of the eight (default: 400)")
    command.add_argument("--seed", type=int, default=1, help="seed (default: 1)")
    command.set_defaults(run=run)
