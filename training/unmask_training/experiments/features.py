"""Pooled features of a frozen trunk, computed once a view and kept: what heads are fitted on in seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unmask.core.images import Border, View, ViewContract, cut
from unmask_training.data.augment import Ranges, draw, draw_face, own_face
from unmask_training.data.chips import Chips, Row
from unmask_training.detector.network import Detector
from unmask_training.tower.frozen import FrozenTower

Features = NDArray[np.float32]
CLEAN: Final = 0
_SHARD: Final = 128
_BATCH: Final = 16
_TRIES: Final = 50
Item = tuple[str, int]
Trunk = Detector | FrozenTower


class Store:
    """Features (N, C) of rows' views by one trunk; those that `folder` does not hold yet are computed and kept there.

    View 0 is the one that serving cuts; views from 1 on are augmented as training draws them, each a function of the seed,
    the picture and the number alone.
    """

    def __init__(self, folder: Path, network: Trunk, chips: Chips, size: int, ranges: Ranges, seed: int) -> None:
        self._network, self._chips, self._size, self._ranges, self._seed = network.eval(), chips, size, ranges, seed
        told = {"size": size, "ranges": asdict(ranges), "seed": seed, "trunk": _digest(network)}
        self._folder = folder / hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
        self._known: dict[Item, tuple[Features, float]] = {}
        for path in sorted(self._folder.glob("*.npz")):
            self._take(path)

    def get(self, rows: Sequence[Row], view: int = CLEAN) -> Features:
        """Features (N, C) of one view of each row."""
        missing = [row for row in rows if (row.path, view) not in self._known]
        shards = [missing[start : start + _SHARD] for start in range(0, len(missing), _SHARD)]
        with tqdm(total=len(missing), desc=f"features, view {view}", unit="picture", disable=not missing) as bar:
            for shard in shards:
                self._compute(shard, view)
                bar.update(len(shard))
        return np.stack([self._known[row.path, view][0] for row in rows]).astype(np.float32)

    def faces(self, rows: Sequence[Row], view: int) -> NDArray[np.float64]:
        """Side of each face in pixels, (N,), as it was drawn for an augmented view that `get` gave."""
        return np.array([self._known[row.path, view][1] for row in rows])

    def _compute(self, rows: Sequence[Row], view: int) -> None:
        drawn = [self._view(row, view) for row in rows]
        pooled = []
        device = next(self._network.parameters()).device
        with torch.inference_mode():
            for start in range(0, len(drawn), _BATCH):
                pixels = np.stack([picture for picture, _ in drawn[start : start + _BATCH]])
                batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
                pooled.append(self._network.pooled(batch).float().cpu().numpy())
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{view}-{hashlib.sha256(' '.join(row.path for row in rows).encode()).hexdigest()[:16]}.npz"
        aside = path.with_suffix(".writing")
        with aside.open("wb") as file:
            names, sizes = np.array([row.path for row in rows]), np.array([face for _, face in drawn])
            np.savez(file, features=np.concatenate(pooled).astype(np.float16), paths=names, faces=sizes, view=np.array(view))
        aside.replace(path)
        self._take(path)

    def _view(self, row: Row, view: int) -> tuple[NDArray[np.float32], float]:
        chip, own = self._chips.chip(row), own_face(row.to_unit)
        if view == CLEAN:
            contract = ViewContract(View.ALIGNED, self._size, 1.0, Border.REFLECT)
            return cut(chip, contract).astype(np.float32), own
        name = int.from_bytes(hashlib.sha256(row.path.encode()).digest()[:8], "big")
        rng = np.random.default_rng([self._seed, name, view])
        drawn = next((face for face in (draw_face(self._ranges, rng) for _ in range(_TRIES)) if face <= own), own)
        return draw(chip, drawn, self._size, self._ranges, rng)[0], drawn

    def _take(self, path: Path) -> None:
        with np.load(path) as shard:
            view = int(shard["view"])
            for name, row, face in zip(shard["paths"], shard["features"], shard["faces"], strict=True):
                self._known[str(name), view] = (row, float(face))


def _digest(network: Trunk) -> str:
    """sha256 of the trunk's tensors: the same features come from the same trunk, whatever file it was read from."""
    digest = hashlib.sha256()
    for name, value in sorted(_trunk_state(network)):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _trunk_state(network: Trunk) -> Iterable[tuple[str, Any]]:
    return [(name, value) for name, value in network.trunk.state_dict().items()]
