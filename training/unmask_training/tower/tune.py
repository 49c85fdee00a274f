"""Tunes the tower's layer norms: a linear probe on its frozen features first, then both together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from unmask_training.adaptation.heads import kind_weights
from unmask_training.checkpoints import save
from unmask_training.data.chips import Row
from unmask_training.detector.network import read_state
from unmask_training.tower.features import Viewer
from unmask_training.tower.parts import MEAN, STD, Floats
from unmask_training.tower.probe import Probe
from unmask_training.tower.recipe import Tuning
from unmask_training.tower.vision import VisionTower

# Where the views of tuning begin, so that they are none of those whose features are kept.
_FIRST_VIEW: Final = 100
SAVED_EVERY: Final = 25
_PROBE_L2: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Scene:
    """What tuning draws from: rows by number, their kinds, and the cutter of views."""

    viewer: Viewer
    rows: Sequence[tuple[int, Row]]
    tuning: Tuning

    @property
    def kinds(self) -> list[str]:
        """Names of all kinds, sorted."""
        return sorted({row.kind for _, row in self.rows})

    def targets(self) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
        """Truth, kind and weight of every row; the halves weigh alike, and the kinds within each."""
        fake = np.array([row.label == "synthetic" for _, row in self.rows])
        names = np.array([row.kind for _, row in self.rows])
        kinds = self.kinds
        return fake, np.array([kinds.index(name) for name in names]), kind_weights(fake, names)

    def batch(self, step: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Normalised pixels (N, 3, S, S) of step number `step`, the same at every call, and which rows they are."""
        weight = self.targets()[2]
        rng = np.random.default_rng([self.viewer.seed, step])
        chosen = rng.choice(len(self.rows), self.tuning.batch, p=weight / weight.sum())
        views = [self.viewer(self.rows[i][1], self.rows[i][0], _FIRST_VIEW + step) for i in chosen]
        pixels = (np.stack(views).astype(np.float32) - MEAN) / STD
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), chosen


def tuned_norms(tower: VisionTower, scene: Scene, frozen: Floats, kept: Path) -> Floats:
    """Norms (38400,) after tuning, in the order of `unmask.core.vit_trunk.norms_of`.

    `kept` is the checkpoint that it goes on from. `frozen` (V * N, C) are features of V views of the rows by the tower as
    it came, which the probe begins with (linear probing, then fine-tuning: Kumar et al., ICLR 2022).
    """
    tuning, targets = scene.tuning, scene.targets()
    probe = Probe(frozen.shape[1], len(scene.kinds))
    norms = tower.norms()
    groups = [{"params": norms, "lr": tuning.learning_rate}, {"params": probe.head.parameters(), "lr": tuning.head_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, tuning))
    held = {"tower": nn.ParameterList(norms), "probe": probe, "optimizer": optimizer, "schedule": schedule}
    done = _resumed(kept, held)
    if not done:
        views = len(frozen) // len(scene.rows)
        probe.fit(frozen, np.tile(targets[0], views), np.tile(targets[1], views), np.tile(targets[2], views), l2=_PROBE_L2)
    bar = tqdm(range(done, tuning.steps), desc="tune", unit="step", initial=done, total=tuning.steps, disable=None)
    for step in bar:
        loss = _step(tower, probe, scene, targets, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == tuning.steps:
            _save(kept, held, step + 1)
    with torch.no_grad():
        return np.asarray(torch.cat([norm.flatten() for norm in norms]).numpy(), dtype=np.float32)


def _rate(step: int, tuning: Tuning) -> float:
    return min(1.0, (step + 1) / (tuning.warmup + 1), max(0.0, (tuning.steps - step) / max(1, tuning.steps - tuning.warmup)))


def _step(tower: VisionTower, probe: Probe, scene: Scene, targets: tuple[NDArray[Any], ...], step: int) -> Tensor:
    tuning = scene.tuning
    torch.manual_seed(step)
    pixels, chosen = scene.batch(step)
    with torch.autocast("cpu", torch.bfloat16):
        features = tower(pixels)
    logit, kinds = probe(features, tuning.input_dropout)
    smooth = tuning.label_smoothing
    truth = torch.from_numpy(targets[0][chosen].astype(np.float32)) * (1.0 - smooth) + smooth / 2.0
    loss = functional.binary_cross_entropy_with_logits(logit, truth)
    kind = torch.from_numpy(targets[1][chosen])
    return loss + tuning.kind_weight * functional.cross_entropy(kinds, kind, label_smoothing=smooth)


def _save(kept: Path, held: Mapping[str, Any], step: int) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    save({"step": step, **{name: part.state_dict() for name, part in held.items()}}, kept)


def _resumed(kept: Path, held: Mapping[str, Any]) -> int:
    if not kept.is_file():
        return 0
    state = read_state(kept)
    for name, part in held.items():
        part.load_state_dict(state[name])
    return int(state["step"])
