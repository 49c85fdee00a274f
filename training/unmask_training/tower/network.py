"""A detector's own graph around the frozen tower: projection, heads, a small network beside it, blur defence, distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from unmask.core.vit_trunk import LEVELS, PATCH, WIDTH
from unmask_training.detector.blur import convolved, gaussian
from unmask_training.detector.network import Detector
from unmask_training.tower.parts import MEAN, STD
from unmask_training.tower.prototypes import ROWS, PrototypeHead

CHANNELS: Final = 1024
# Of these, the whitened components of the tower's features; the last channel is a probe's logit.
COMPONENTS: Final = CHANNELS - 1
TOWER: Final = WIDTH * len(LEVELS)
# Room for families to come: a generator that is learned changes no shape, so that all versions share one Triton configuration.
SLOTS: Final = 32
PARTS: Final = ("positions", "norms", "smoothing", "ranges")
# What brings the small network's logit to the size of a projected channel.
BESIDE_SCALE: Final = 0.25


class Answers(NamedTuple):
    """What the graph gives for N faces; shapes as the card's outputs state them."""

    synthetic: Tensor
    plain: Tensor
    blurred: Tensor
    family: Tensor
    embedding: Tensor
    cam: Tensor
    distance: Tensor
    features: Tensor


class TowerDetector(nn.Module):
    """Heads over [tower features projected to 1024 channels, the logit of a small network beside the tower].

    All channels but the last are whitened: within a kind (a generator or a real source) they vary alike in all directions,
    so that the nearest prototype is what linear discriminant analysis decides by, and half the difference of two squared
    distances is the log-odds of two kinds.  The last channel is a logistic regression.

    The tower sees the view, the small network the view and its blurred copy, so that the defence costs no second pass through
    the tower.  Everything that few-shot adaptation changes is in `prototypes` and `family`.
    """

    def __init__(self, families: Sequence[str], beside: Detector, size: int = 192, sigma: float = 1.0) -> None:
        super().__init__()
        self.families = tuple(families)
        self.beside = beside
        self.project = nn.Linear(TOWER, CHANNELS)
        self.synthetic = nn.Linear(CHANNELS + 1, 1)
        self.family = nn.Linear(CHANNELS + 1, max(SLOTS, len(families)))
        self.prototypes = PrototypeHead(COMPONENTS)
        self.size, self.sigma = size, sigma
        self.hold(torch.zeros(1 + (size // PATCH) ** 2, WIDTH), torch.zeros(0), torch.ones(0), torch.zeros(0, 2))
        self.register_buffer("mean", torch.from_numpy(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.from_numpy(STD).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("kernel", gaussian(sigma), persistent=False)

    def hold(self, *parts: Tensor) -> None:
        """Keeps what the tower needs beside its weights (`unmask.core.vit_trunk.tower`), to be saved with the rest."""
        for name, value in zip(PARTS, parts, strict=True):
            self.register_buffer(name, value.float().clone())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes all weights, the tower's parts among them, and is ready to answer."""
        self.hold(*(state[name] for name in PARTS))
        self.prototypes.make_room({name: state[f"prototypes.{name}"].shape for name in ROWS})
        self.load_state_dict(state)
        self.eval()

    def halve(self) -> None:
        """Rounds what is large to half precision, in which it is stored; the heads stay as they are."""
        with torch.no_grad():
            for values in (*self.beside.parameters(), *self.project.parameters()):
                values.copy_(values.half().float())

    def tower_pixels(self, pixels: Tensor) -> Tensor:
        """What the tower takes of (N, 3, S, S) RGB 0..255."""
        return (pixels - self.mean) / self.std

    def blur(self, pixels: Tensor) -> Tensor:
        """Gaussian blur of (N, 3, S, S), reflected at the border."""
        return convolved(pixels, self.kernel)

    def forward(self, pixels: Tensor, tower: Tensor) -> Answers:
        """Answers for (N, 3, S, S) RGB 0..255 and what the tower made of them (N, 5376)."""
        shown = self.project(tower)
        logits, maps = self._beside(pixels)
        softened, _ = self._beside(self.blur(pixels))
        features = torch.stack([self._features(shown, logits), self._features(shown, softened)], dim=1)
        evidence = self.prototypes.evidence(features[..., :COMPONENTS])
        both = self.prototypes.raised(self.synthetic(features)[..., 0], evidence)
        return Answers(
            synthetic=both.mean(1),
            plain=both[:, 0],
            blurred=both[:, 1],
            family=self.family(features[:, 0]),
            embedding=nn.functional.normalize(shown, dim=1),
            cam=self._map(both[:, 0], logits, maps),
            distance=self.prototypes.distance(evidence)[:, 0],
            features=features,
        )

    def _beside(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The small network's logit (N,) and its map (N, h, w), whose mean is the logit."""
        maps = self.beside.maps(pixels)
        weight = self.beside.synthetic.weight
        local = (maps * weight.view(1, -1, 1, 1)).sum(1) + self.beside.synthetic.bias
        return local.mean((1, 2)), local

    @staticmethod
    def _features(shown: Tensor, logits: Tensor) -> Tensor:
        return torch.cat([shown, logits[:, None] * BESIDE_SCALE], dim=1)

    def _map(self, plain: Tensor, logits: Tensor, maps: Tensor) -> Tensor:
        """The plain logit by position: the small network's map by its weight, the tower's share spread evenly."""
        share = self.synthetic.weight[0, -1] * BESIDE_SCALE
        return plain[:, None, None] + share * (maps - logits[:, None, None])
