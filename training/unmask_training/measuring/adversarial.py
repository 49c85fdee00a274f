"""`unmask-train attack`: adversarial noise against a detector, and what the blur defence saves of it.

Two attackers, both of whom know the weights: one who knows the plain model alone takes one step along the sign of the
gradient (FGSM; Goodfellow et al., ICLR 2015); one who also knows the defence takes ten, projected onto the same ball, with
the gradient through blur and combination (PGD; Madry et al., ICLR 2018).  Both end in uint8 pixels, as a file holds them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from unmask.core.cards import Card
from unmask.core.images import cut
from unmask_training.data.chips import Chips, Row
from unmask_training.detector.blur import blurred
from unmask_training.detector.evaluate import detection_rows, main_sources, point_of, scored
from unmask_training.detector.export import load_network
from unmask_training.measuring.evaluating import read_card
from unmask_training.measuring.measures import REAL, SYNTHETIC, Point, Scored, balanced_at, figures, percent, share_called
from unmask_training.tower.attacked import AttackedTower, is_tower

_EPSILONS: Final = (0.01, 0.02, 0.03, 0.05)
_PGD_EPSILON: Final = 0.03
_PGD_STEPS: Final = 10
_BATCH: Final = 16
_SEED: Final = 0
_COMBINED: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "mean": lambda pair: pair.mean(dim=0),
    "max": lambda pair: pair.amax(dim=0),
    "min": lambda pair: pair.amin(dim=0),
}
Logits = Callable[[Tensor], Tensor]


class Attacked(Protocol):
    """What is attacked through `plain` or `combined`, and read in all its ways: logits (N,) of (N, 3, S, S) pixels 0..255."""

    @property
    def sigma(self) -> float | None:
        """Of the blur defence in view pixels; None where there is none."""

    @property
    def combine(self) -> str:
        """How the defence combines both logits."""

    def plain(self, pixels: Tensor) -> Tensor:
        """The model alone, with a gradient."""

    def combined(self, pixels: Tensor) -> Tensor:
        """With its defence, with a gradient."""

    def ways(self) -> dict[str, Logits]:
        """All ways of reading it."""


@dataclass(frozen=True, slots=True)
class Defended:
    """A network and its blur defence; `sigma` in view pixels, None where there is none.

    Each way of reading takes (N, 3, S, S) float pixels 0..255 and gives logits (N,).
    """

    network: nn.Module
    sigma: float | None
    combine: str

    def ways(self) -> dict[str, Logits]:
        """Plain only, blurred only and both combined; without a defence only plain."""
        if self.sigma is None:
            return {"plain": self.plain}
        return {"plain": self.plain, "blurred": self.blurred, "combined": self.combined}

    def plain(self, pixels: Tensor) -> Tensor:
        """Logits of the view as it is."""
        logit: Tensor = self.network(pixels)[0]
        return logit

    def blurred(self, pixels: Tensor) -> Tensor:
        """Logits of its blurred copy."""
        return self.plain(blurred(pixels, self.sigma or 0.0))

    def combined(self, pixels: Tensor) -> Tensor:
        """What is served."""
        if self.sigma is None:
            return self.plain(pixels)
        return _COMBINED[self.combine](torch.stack([self.plain(pixels), self.blurred(pixels)]))


def attacked(folder: Path, card: Card, sigma: float | None = None, tower: Path | None = None) -> Attacked:
    """The version as an attacker has it; `tower` is the tower's file, for a detector that stands on one."""
    if card.task != "synthetic" or card.view is None:
        raise ValueError(f"{folder}: a model with the task {card.task!r}; only detectors can be attacked")
    if not is_tower(folder):
        return defended(folder, card, sigma)
    if tower is None or sigma is not None:
        raise ValueError(
            f"{folder}: needs --weights FILE, the tower's (`unmask models fetch clip_vit_b16 --out FILE`), and takes no --sigma"
        )
    return AttackedTower(folder, card, tower.read_bytes())


def defended(folder: Path, card: Card, sigma: float | None = None) -> Defended:
    """The version's weights with the defence that its card states, or one of `sigma` pixels where that is told.

    Raises `ValueError` for a way of combining that is not known, and a sigma that is none.
    """
    if card.view is None:
        raise ValueError(f"{folder}: the card states no view")
    stated = card.defence
    told = stated.sigma if sigma is None and stated is not None else sigma
    combine = "mean" if stated is None else stated.combine
    if combine not in _COMBINED:
        raise ValueError(f"{folder}: defence: combine {combine!r} is none of {', '.join(_COMBINED)}")
    if told is not None and not 0.0 < told <= card.view.size / 6.0:
        raise ValueError(f"sigma {told:g}: it must be above 0 and at most a sixth of the view ({card.view.size / 6.0:g})")
    network, _ = load_network(folder / "weights.safetensors")
    for weight in network.parameters():
        weight.requires_grad_(False)
    return Defended(network, told, combine)


def gradient(logits: Logits, pixels: Tensor, fake: Tensor) -> Tensor:
    """Gradient of the cross-entropy by the pixels, (N, 3, S, S)."""
    pixels = pixels.detach().requires_grad_(True)
    loss = nn.functional.binary_cross_entropy_with_logits(logits(pixels), fake, reduction="sum")
    (found,) = torch.autograd.grad(loss, pixels)
    return found


def as_file(pixels: Tensor) -> Tensor:
    """Rounded and clipped to what uint8 pixels can be; a step of .5 grey levels at most beyond the stated ball."""
    return pixels.detach().round().clamp(0.0, 255.0)


def fgsm(logits: Logits, pixels: Tensor, fake: Tensor, epsilons: Sequence[float]) -> list[Tensor]:
    """One signed step of each size (of 1.0 pixel scale) from one gradient."""
    sign = gradient(logits, pixels, fake).sign()
    return [as_file(pixels + epsilon * 255.0 * sign) for epsilon in epsilons]


def pgd(logits: Logits, pixels: Tensor, fake: Tensor, epsilon: float, steps: int, seed: int = _SEED) -> Tensor:
    """Signed steps of 2.5 epsilon / steps from a random start, projected onto the ball of `epsilon` (1.0 pixel scale)."""
    ball, generator = epsilon * 255.0, torch.Generator().manual_seed(seed)
    start = torch.rand(pixels.shape, generator=generator) * 2.0 - 1.0
    current = (pixels + ball * start).clamp(0.0, 255.0)
    for _ in range(steps):
        step = gradient(logits, current, fake).sign() * (2.5 * ball / steps)
        current = (pixels + (current + step - pixels).clamp(-ball, ball)).clamp(0.0, 255.0)
    return as_file(current)


def chosen(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` pictures, half of them real (of the pooled sources), drawn by a fixed seed."""
    reals = main_sources(rows)
    rng, found = np.random.default_rng(_SEED), list[Row]()
    for label in ("real", "synthetic"):
        there = [row for row in rows if row.label == label and (label == "synthetic" or row.kind in reals)]
        if not there:
            raise ValueError(f"no {label} pictures to attack")
        picked = rng.permutation(len(there))[: max(1, limit // 2)]
        found += [there[i] for i in sorted(picked)]
    return found


def attack(model: Attacked, card: Card, chips: Chips, rows: Sequence[Row]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Logits (N,) of the rows, clean and after each attack, in each way of reading them."""
    if card.view is None:
        raise ValueError(f"model {card.name} {card.version}: the card states no view")
    found: dict[str, dict[str, list[NDArray[np.float32]]]] = {}
    for number in tqdm(range(0, len(rows), _BATCH), desc="attack", unit="batch", disable=None, leave=False):
        some = rows[number : number + _BATCH]
        views = np.stack([cut(chips.chip(row), card.view) for row in some])
        pixels = torch.from_numpy(views).permute(0, 3, 1, 2).float()
        fake = torch.tensor([row.label == "synthetic" for row in some], dtype=torch.float32)
        for name, attacked in _attacks(model, pixels, fake, number).items():
            for way, logits in model.ways().items():
                with torch.no_grad():
                    found.setdefault(name, {}).setdefault(way, []).append(logits(attacked).numpy())
    return {
        name: {way: np.concatenate(parts).astype(np.float64) for way, parts in ways.items()} for name, ways in found.items()
    }


def _attacks(model: Attacked, pixels: Tensor, fake: Tensor, number: int) -> dict[str, Tensor]:
    stepped = fgsm(model.plain, pixels, fake, _EPSILONS)
    named = {f"FGSM {epsilon:g}": attacked for epsilon, attacked in zip(_EPSILONS, stepped, strict=True)}
    through = "the defence" if model.sigma is not None else "the model"
    worst = pgd(model.combined, pixels, fake, _PGD_EPSILON, _PGD_STEPS, _SEED + number)
    return {"none": pixels, **named, f"PGD {_PGD_EPSILON:g} through {through}": worst}


def table(
    card: Card, rows: Sequence[Row], logits: Mapping[str, Mapping[str, NDArray[np.float64]]]
) -> dict[str, dict[str, Any]]:
    """For each attack and way of reading: balanced accuracy and the wrong calls at the card's thresholds.

    Doubt plays no part: it is no function of these logits.
    """
    point = Point(*point_of(card)[:2])

    def wrong(rows: Scored, fake: bool, what: int) -> float:
        return share_called(rows.where(rows.fake == fake), what, point)

    measures: dict[str, Callable[[Scored], float]] = {
        "balanced_accuracy": lambda rows: balanced_at(rows, point),
        "fakes_called_real": lambda rows: wrong(rows, True, REAL),
        "reals_called_fake": lambda rows: wrong(rows, False, SYNTHETIC),
    }
    return {
        name: {way: figures(scored(card, raw, rows), measures) for way, raw in ways.items()} for name, ways in logits.items()
    }


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows attack by way, in per cent."""
    lines = ["| attack | read | accuracy % (95 %) | fakes called real % | reals called fake % |", "|---|---|---|---|---|"]
    for name, ways in found.items():
        for way, row in ways.items():
            lines.append(f"| {name} | {way} | {' | '.join(percent(row[key]) for key in row)} |")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Attacks, prints the table, writes the JSON where asked."""
    if args.limit < 2:
        raise ValueError(f"--limit {args.limit}: at least 2, a real and a generated picture")
    card, chips = read_card(args.model), Chips(args.data)
    model = attacked(args.model, card, args.sigma, args.weights)
    rows = chosen(detection_rows(chips, args.part), args.limit)
    found = table(card, rows, attack(model, card, chips, rows))
    told = {
        "schema": "unmask.attack/1",
        "model": {"name": card.name, "version": card.version, "card_sha256": card.sha256},
        "part": args.part,
        "pictures": len(rows),
        "seed": _SEED,
        "sigma": model.sigma,
        "combine": None if model.sigma is None else model.combine,
        "attacks": found,
    }
    if args.json is not None:
        args.json.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(markdown(found))
    return 0


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser("attack", help="measure a detector under adversarial noise, with and without its defence")
    command.add_argument("model", type=Path, help="version folder with weights.safetensors")
    command.add_argument("data", type=Path, help="prepared data")
    command.add_argument("--part", default="val", choices=("val", "calibrate"), help="which part (default: val)")
    command.add_argument("--limit", type=int, default=200, help="pictures at most, half of them real (default: 200)")
    command.add_argument("--sigma", type=float, help="blur of the defence in view pixels (default: the card's, if it has one)")
    command.add_argument("--weights", type=Path, metavar="FILE", help="the tower's file, for a detector that stands on one")
    command.add_argument("--json", type=Path, help="also write all figures to this file")
    command.set_defaults(run=run)
