"""Replay memory and regression set of a detector version: pooled features with kind, group and part, no pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unmask_training.data.chips import Row

MEMORY: Final = "memory.safetensors"
PARTS: Final = ("fit", "calibrate", "val")
FIT: Final = PARTS.index("fit")
LARGEST: Final = 30_000_000
_ROW_BYTES: Final = 8
_HEADER_BYTES: Final = 65_536
_TYPES: Final = {"fake": np.uint8, "kind": np.int16, "group": np.int32, "part": np.uint8}
# On disk the blurred copy has only the channels in which any row differs from the plain view: a tower sees no blurred one.
_ON_DISK: Final = {"plain": np.float16, "blurred": np.float16, "channels": np.int32, **_TYPES}


@dataclass(frozen=True, slots=True)
class Memory:
    """One row a picture; what a head needs to be fitted again and held against what it knew.

    `features` (N, 2, C) float16: pooled trunk features of the view and of its blurred copy; `fake` (N,) bool; `kind` (N,)
    int16, an index into `kinds` (generators and real sources); `group` (N,) int32, rows that share a photo, prompt, seed or
    person; `part` (N,) uint8, an index into `PARTS`.  The features derive from faces.
    """

    features: NDArray[np.float16]
    fake: NDArray[np.bool_]
    kind: NDArray[np.int16]
    group: NDArray[np.int32]
    part: NDArray[np.uint8]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.fake)

    @property
    def names(self) -> NDArray[np.str_]:
        """The kind of each row by name, (N,)."""
        return np.asarray(np.array(self.kinds, dtype=np.str_)[self.kind])

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """The regression set: rows that neither trunk nor head was fitted on, (N,)."""
        return np.asarray(self.part != FIT)

    def where(self, chosen: NDArray[Any]) -> Memory:
        """The chosen rows (mask or indices)."""
        rows = (self.features[chosen], self.fake[chosen], self.kind[chosen], self.group[chosen], self.part[chosen])
        return Memory(*rows, self.kinds)

    def joined(self, other: Memory) -> Memory:
        """The rows of both: kinds are told by name, and groups of the other are numbered on."""
        if self.features.shape[1:] != other.features.shape[1:]:
            raise ValueError(f"memory: features of shape {other.features.shape[1:]} do not go with {self.features.shape[1:]}")
        kinds = (*self.kinds, *(name for name in other.kinds if name not in self.kinds))
        index = np.array([kinds.index(name) for name in other.kinds], dtype=np.int16)
        first = int(self.group.max(initial=-1)) + 1
        return Memory(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.fake, other.fake]),
            np.concatenate([self.kind, index[other.kind]]),
            np.concatenate([self.group, other.group + np.int32(first)]),
            np.concatenate([self.part, other.part]),
            kinds,
        )

    def thinned(self, seed: int, limit: int = LARGEST) -> Memory:
        """At most `limit` bytes: rows to fit on go at random, from the kind that has most of them, one after the other."""
        each = 2 * (self.features.shape[2] + len(self._differing())) + _ROW_BYTES
        over = len(self) - (limit - _HEADER_BYTES) // each
        if over <= 0:
            return self
        fit = np.flatnonzero(self.part == FIT)
        if over >= len(fit):
            raise ValueError(f"memory: {len(self) - len(fit)} rows of the regression set alone are more than {limit} bytes")
        rng = np.random.default_rng(seed)
        left = {int(k): list(rng.permutation(fit[self.kind[fit] == k])) for k in np.unique(self.kind[fit])}
        gone = [max(left.values(), key=len).pop() for _ in range(over)]
        return self.where(np.setdiff1d(np.arange(len(self)), gone))

    def save(self, path: Path) -> None:
        """Writes safetensors; raises `ValueError` for more than 30 MB."""
        channels = self._differing()
        told = {name: getattr(self, name) for name in _TYPES}
        told |= {"plain": self.features[:, 0], "blurred": self.features[:, 1][:, channels], "channels": channels}
        tensors = {name: np.ascontiguousarray(told[name], dtype=kind) for name, kind in _ON_DISK.items()}
        save_file(tensors, path, metadata={"kinds": json.dumps(list(self.kinds))})
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path}: {path.stat().st_size} bytes, more than {LARGEST}; take fewer rows")

    def _differing(self) -> NDArray[np.int32]:
        """Channels in which some row's plain and blurred features are not the same."""
        return np.flatnonzero((self.features[:, 0] != self.features[:, 1]).any(axis=0)).astype(np.int32)

    @staticmethod
    def of_rows(features: NDArray[Any], rows: Sequence[Row]) -> Memory:
        """Prepared rows with their features (N, 2, C): kinds by name, groups numbered, parts as they were prepared."""
        kinds, groups = sorted({row.kind for row in rows}), sorted({row.group for row in rows})
        number = {name: i for i, name in enumerate(groups)}
        return Memory(
            features=np.asarray(features).astype(np.float16),
            fake=np.array([row.label == "synthetic" for row in rows], dtype=np.bool_),
            kind=np.array([kinds.index(row.kind) for row in rows], dtype=np.int16),
            group=np.array([number[row.group] for row in rows], dtype=np.int32),
            part=np.array([PARTS.index(row.part) for row in rows], dtype=np.uint8),
            kinds=tuple(kinds),
        )

    @staticmethod
    def read(path: Path) -> Memory:
        """Reads a version's memory; raises `ValueError` naming what is missing or does not fit together."""
        if not path.is_file():
            raise ValueError(f"{path}: no memory there; adaptation needs a version that has one, or --data")
        try:
            with safe_open(path, framework="numpy") as file:
                kinds = tuple(json.loads((file.metadata() or {})["kinds"]))
                told = {name: file.get_tensor(name) for name in _ON_DISK}
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path}: not a detector's memory ({error})") from error
        _check(path, told, kinds)
        features = np.stack([told["plain"], told["plain"]], axis=1)
        features[:, 1, told["channels"]] = told["blurred"]
        rest = {name: told[name] for name in _TYPES} | {"fake": told["fake"].astype(np.bool_)}
        return Memory(features, **rest, kinds=kinds)


def _check(path: Path, told: dict[str, NDArray[Any]], kinds: Sequence[str]) -> None:
    """Refuses tensors of another type or length, and indices that point nowhere."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_TYPES, (len(told["fake"]),))
    shapes |= {"plain": (*shapes["fake"], told["plain"].shape[-1]), "channels": (len(told["channels"]),)}
    shapes |= {"blurred": (*shapes["fake"], *shapes["channels"])}
    for name, kind in _ON_DISK.items():
        if told[name].dtype != kind or told[name].shape != shapes[name]:
            raise ValueError(f"{path}: {name}: {told[name].dtype} {told[name].shape} is not what {len(told['fake'])} rows need")
    limits = (("kind", len(kinds)), ("part", len(PARTS)), ("fake", 2), ("channels", shapes["plain"][-1]))
    for name, limit in limits:
        if told[name].size and not 0 <= int(told[name].min()) <= int(told[name].max()) < limit:
            raise ValueError(f"{path}: {name}: a value beyond 0 to {limit - 1}")
    if not all(np.isfinite(told[name]).all() for name in ("plain", "blurred")):
        raise ValueError(f"{path}: features: not all are finite numbers")
