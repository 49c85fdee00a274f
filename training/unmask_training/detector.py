"""Recipe `mobilenet_v2`: fits the detector on prepared chips, balanced over generators and real sources."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from unmask_training.augment import Framing, Ranges, draw, draw_face, own_face
from unmask_training.chips import Chips, Row
from unmask_training.network import Detector, read_state, start_from

_NO_FAMILY: Final = -1
_SAVE_EVERY: Final = 120.0
# A kind with fewer pictures of the drawn face size is left out of that draw, lest a handful stand for all of it.
_FEWEST: Final = 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """What detector.yaml says; weights of real sources and generators are shares of the draw, each kind half of it.

    With `minutes` the learning rate follows the clock where that is ahead of the steps, so that a fit ends on time.
    """

    real: Mapping[str, float]
    synthetic: Mapping[str, float]
    size: int = 192
    batch: int = 48
    steps: int = 1700
    minutes: float = 0.0
    warmup: int = 80
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.08
    family_weight: float = 0.3
    dropout: float = 0.3
    ema: float = 0.995
    threads: int = 0
    seed: int = 1
    augment: Ranges = field(default_factory=Ranges)

    @staticmethod
    def of(told: Mapping[str, Any]) -> Recipe:
        """Reads the parsed YAML; raises `ValueError` naming an unknown or missing key."""
        names = {name for name in told if name != "recipe"}
        unknown = sorted(str(name) for name in names - set(Recipe.__slots__))
        if unknown:
            raise ValueError(f"recipe: unknown {', '.join(unknown)}; there are {', '.join(Recipe.__slots__)}")
        missing = sorted({"real", "synthetic"} - names)
        if missing:
            raise ValueError(f"recipe: {', '.join(missing)} missing")
        values = {name: told[name] for name in names}
        recipe = Recipe(**values | {"augment": Ranges.of(told.get("augment") or {})})
        _check(recipe)
        return recipe


def _check(recipe: Recipe) -> None:
    """Refuses what no fit could use, by name."""
    for name in ("real", "synthetic"):
        shares = getattr(recipe, name)
        if (
            not isinstance(shares, Mapping)
            or not shares
            or not all(_is_number(share) and share > 0 for share in shares.values())
        ):
            raise ValueError(f"recipe: {name}: every share must be positive")
    for name in Recipe.__slots__[2:-1]:
        value, whole = getattr(recipe, name), isinstance(getattr(_DEFAULTS, name), int)
        if not _is_number(value) or not 0 <= value < math.inf or (whole and value != int(value)):
            raise ValueError(f"recipe: {name}: {value!r} is not a {'whole ' if whole else ''}number of at least 0")
    if not recipe.size >= 32 or not recipe.batch >= 2 or not recipe.steps >= 1 or not recipe.warmup >= 1:
        raise ValueError("recipe: size must be at least 32, batch 2, steps and warmup 1")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_DEFAULTS: Final = Recipe({}, {})


class Batches:
    """Endless batches: half real, half synthetic, each drawn by the recipe's shares, then augmented.

    The face size is drawn first, for both halves alike, and only pictures that have as many pixels are drawn from: so the
    sizes' distribution is the same for both.
    """

    def __init__(self, chips: Chips, recipe: Recipe) -> None:
        self._chips, self._recipe = chips, recipe
        self.families = tuple(recipe.synthetic)
        rows = _by_kind(chips, recipe)
        self._rows = {kind: sorted(found, key=lambda row: -own_face(row.to_unit)) for kind, found in rows.items()}
        self._faces = {kind: np.array([-own_face(row.to_unit) for row in found]) for kind, found in self._rows.items()}
        self._shares = (_shares(recipe.real), _shares(recipe.synthetic))

    def pick(self, fake: bool, face: float, rng: np.random.Generator) -> Row:
        """A picture of one half whose face is at least `face` pixels, by the shares of the kinds that have enough."""
        enough = {kind: int(np.searchsorted(self._faces[kind], -face, side="right")) for kind in self._shares[fake]}
        weights = np.array([share * (enough[kind] >= _FEWEST) for kind, share in self._shares[fake].items()])
        if not weights.any():  # small data, or a recipe that asks for larger faces than there are: the largest ones
            enough = {kind: min(_FEWEST, len(self._rows[kind])) for kind in enough}
            weights = np.array(list(self._shares[fake].values()))
        kind = list(enough)[rng.choice(len(enough), p=weights / weights.sum())]
        return self._rows[kind][rng.integers(enough[kind])]

    def sample(self, fake: bool, rng: np.random.Generator) -> tuple[Row, NDArray[np.float32], Framing]:
        """One picture, its view and how it was framed."""
        recipe = self._recipe
        face = draw_face(recipe.augment, rng)
        row = self.pick(fake, face, rng)
        view, framing = draw(self._chips.chip(row), face, recipe.size, recipe.augment, rng)
        return row, view, framing

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Batch number `step`: pixels (N, 3, S, S), truth (N,), family (N,) with -1 for reals.  The same at every call."""
        rng = np.random.default_rng([self._recipe.seed, step])
        truth = [bool(i % 2) for i in range(self._recipe.batch)]
        drawn = [self.sample(fake, rng) for fake in truth]
        family = [self.families.index(row.kind) if fake else _NO_FAMILY for fake, (row, _, _) in zip(truth, drawn, strict=True)]
        pixels = torch.from_numpy(np.stack([view for _, view, _ in drawn])).permute(0, 3, 1, 2)
        return pixels, torch.tensor(truth, dtype=torch.float32), torch.tensor(family)


def _by_kind(chips: Chips, recipe: Recipe) -> dict[str, Sequence[Row]]:
    wanted = {**dict.fromkeys(recipe.real, "real"), **dict.fromkeys(recipe.synthetic, "synthetic")}
    rows: dict[str, list[Row]] = {kind: [] for kind in wanted}
    for row in chips.rows:
        if row.part == "fit" and wanted.get(row.kind) == row.label:
            rows[row.kind].append(row)
    empty = [kind for kind, found in rows.items() if not found]
    if empty:
        raise ValueError(f"no prepared training pictures of {', '.join(empty)}")
    return dict(rows)


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    return {kind: float(weight) for kind, weight in weights.items()}


class Trainer:
    """Network, optimiser and moving average; can be saved after any step and goes on from there."""

    def __init__(self, recipe: Recipe, families: Sequence[str]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.step, self.seconds = recipe, 0, 0.0
        self.start: dict[str, Any] = {"kind": "scratch"}
        self.network = Detector(families, recipe.dropout).to(memory_format=torch.channels_last)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)

    def begin(self, weights: Path) -> None:
        """Starts from ImageNet weights or another fit's checkpoint."""
        self.start = start_from(self.network, weights)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}

    def loss(self, pixels: Tensor, truth: Tensor, family: Tensor) -> Tensor:
        """Binary cross-entropy with smoothed labels, and cross-entropy over families on the synthetic half."""
        with torch.autocast("cpu", torch.bfloat16):
            synthetic, families, _ = self.network(pixels.to(memory_format=torch.channels_last))
        smooth = self.recipe.label_smoothing
        target = truth * (1.0 - smooth) + smooth / 2.0
        total = functional.binary_cross_entropy_with_logits(synthetic.float(), target)
        known = family != _NO_FAMILY
        attribution = functional.cross_entropy(families[known].float(), family[known], label_smoothing=0.05)
        return total + self.recipe.family_weight * attribution

    def fit_step(self, pixels: Tensor, truth: Tensor, family: Tensor) -> float:
        """One optimiser step; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.network.train()
        loss = self.loss(pixels, truth, family)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self._track()
        return float(loss.detach())

    def done(self) -> float:
        """Share of the fit that is behind it, by steps or, where they are told, by minutes."""
        by_clock = self.seconds / (60.0 * self.recipe.minutes) if self.recipe.minutes else 0.0
        return max(self.step / self.recipe.steps, by_clock)

    def _learning_rate(self) -> float:
        done = self.done()
        warm = min(1.0, (self.step + 1) / self.recipe.warmup)
        return self.recipe.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0))) + 1e-6

    def _track(self) -> None:
        decay = min(self.recipe.ema, self.step / (self.step + 20))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[name].lerp_(value, 1.0 - decay)
                else:
                    self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, and what `export` reads: the average, and how it came about."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "start": self.start,
            "recipe": asdict(self.recipe),
            "average": self.average,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "families": list(self.network.families),
            "size": self.recipe.size,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; raises `ValueError` when it is another recipe's."""
        if (tuple(state["families"]), state["size"]) != (self.network.families, self.recipe.size):
            raise ValueError("checkpoint: other families or another size than the recipe's")
        self.step, self.average = state["step"], dict(state["average"])
        self.seconds, self.start = state["seconds"], dict(state["start"])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def fit(told: Mapping[str, Any], data: Path, out: Path, weights: Path | None, resume: bool) -> Path:
    """Fits by the recipe on prepared `data`; writes and returns the checkpoint `out`/detector.pt."""
    recipe = Recipe.of(told)
    cv2.setNumThreads(1)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    batches = Batches(Chips(data), recipe)
    trainer = Trainer(recipe, batches.families)
    path = out / "detector.pt"
    if resume and path.is_file():
        trainer.restore(read_state(path))
    elif weights is not None:
        trainer.begin(weights)
    out.mkdir(parents=True, exist_ok=True)
    _loop(trainer, batches, path)
    return path


def _loop(trainer: Trainer, batches: Batches, path: Path) -> None:
    """Steps to the end; the next batch is drawn while the present one is learnt; saves every two minutes."""
    clock = saved = time.monotonic()
    shown = 0.0
    with ThreadPoolExecutor(1) as pool, tqdm(total=trainer.recipe.steps, initial=trainer.step, unit="step") as bar:
        coming = pool.submit(batches.draw, trainer.step)
        while trainer.done() < 1.0:
            batch = coming.result()
            coming = pool.submit(batches.draw, trainer.step + 1)
            loss = trainer.fit_step(*batch)
            trainer.seconds, clock = trainer.seconds + time.monotonic() - clock, time.monotonic()
            shown = loss if shown == 0.0 else 0.98 * shown + 0.02 * loss
            bar.update()
            bar.set_postfix(loss=f"{shown:.3f}")
            if clock - saved > _SAVE_EVERY:
                _save(trainer, path)
                saved = clock
    _save(trainer, path)


def _save(trainer: Trainer, path: Path) -> None:
    aside = path.with_suffix(".writing")
    torch.save(trainer.state(), aside)
    aside.replace(path)
