"""Fits a detector on prepared chips, balanced over generators and real sources."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import cv2
import torch
from tqdm import tqdm

from unmask_training.checkpoints import save
from unmask_training.data.chips import Chips
from unmask_training.detector.batches import Batches
from unmask_training.detector.network import read_state
from unmask_training.detector.recipe import Recipe
from unmask_training.detector.trainer import Trainer

_SAVE_EVERY: Final = 120.0


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
                save(trainer.state(), path)
                saved = clock
    save(trainer.state(), path)
