"""Views drawn once with the tower's tokens of each, kept on disk: heads are fitted on them many times."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from unmask.core.vit_trunk import PIXELS, TOKEN_BLOCKS, TOKENS, WIDTH
from unmask_training.localizer.samples import Sample, Sampler, contract_of
from unmask_training.localizer.tokens.recipe import TokenRecipe
from unmask_training.tower.parts import Floats, Parts, measure, pixels_of

SHARD: Final = 256
# Masks are learned at a quarter of the view's side.
STRIDE: Final = 4
_BATCH: Final = 8
_CHANNELS: Final = WIDTH * len(TOKEN_BLOCKS)
_EPSILON: Final = 1e-5
# Tokens of a view that the reduction is measured on, and views of which they are taken.
_TAKEN: Final = 24
_VIEWS: Final = 512


@dataclass(frozen=True, slots=True)
class Reduction:
    """Principal components of normalised tokens: `mean` (3840,), `matrix` (3840, C), which whitens them."""

    mean: Floats
    matrix: Floats

    @staticmethod
    def of(rows: Floats, width: int) -> Reduction:
        """Of rows (N, 3840); raises `ValueError` for fewer of them than components."""
        if len(rows) <= width:
            raise ValueError(f"{len(rows)} tokens give no {width} components: draw more views, or keep fewer channels")
        mean = rows.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov((rows - mean).T))
        kept = slice(-1, -width - 1, -1)
        matrix = vectors[:, kept] / np.sqrt(np.maximum(values[kept], 1e-12))
        # Half precision holds it exactly from here on: it is stored so.
        return Reduction(mean.astype(np.float32), matrix.astype(np.float16).astype(np.float32))

    def __call__(self, tokens: Floats) -> NDArray[np.float16]:
        """(N, P, 3840) to (N, P, C)."""
        return ((normalised(tokens) - self.mean) @ self.matrix).astype(np.float16)


def normalised(tokens: Floats) -> Floats:
    """Each block's token with mean 0 and variance 1: blocks differ in size by a hundred times."""
    blocks = tokens.reshape(*tokens.shape[:-1], len(TOKEN_BLOCKS), WIDTH)
    centred = blocks - blocks.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
    return np.asarray(scaled.reshape(tokens.shape), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Material:
    """The tower's parts and the reduction, as `folder` keeps them."""

    parts: Parts
    reduction: Reduction
    raw: bytes

    @staticmethod
    def of(recipe: TokenRecipe, sampler: Sampler, raw: bytes, folder: Path) -> Material:
        """As `folder` keeps it, or measured on views drawn for it and kept there; raises `ValueError` for other settings."""
        told = json.dumps(recipe.drawn | {"tower": hashlib.sha256(raw).hexdigest()}, sort_keys=True)
        folder.mkdir(parents=True, exist_ok=True)
        stated = folder / "drawn.json"
        if stated.is_file() and stated.read_text(encoding="utf-8") != told:
            raise ValueError(f"{folder}: keeps views drawn by other settings; give another --out, or delete it")
        stated.write_text(told, encoding="utf-8")
        kept = folder / "parts.npz"
        if not kept.is_file():
            measure(raw, recipe.size, (s.view for s in drawn(recipe, sampler, [0], recipe.measured))).save(kept)
        parts, reduced = Parts.read(kept), folder / "reduction.npz"
        if not reduced.is_file():
            views = drawn(recipe, sampler, [1], min(_VIEWS, recipe.samples))
            found = Reduction.of(_some_tokens(parts.session(raw, seam=TOKENS), views, recipe), recipe.width)
            np.savez(reduced, mean=found.mean, matrix=found.matrix)
        with np.load(reduced) as held:
            return Material(parts, Reduction(held["mean"], held["matrix"]), raw)


def drawn(recipe: TokenRecipe, sampler: Sampler, stream: list[int], count: int) -> list[Sample]:
    """So many samples, a function of the seed and the stream's number."""
    rng, found = np.random.default_rng([recipe.seed, *stream]), list[Sample]()
    contract = contract_of(recipe.size, recipe.margin)
    while len(found) < count:
        found += sampler.draw(contract, rng)
    return found[:count]


def _some_tokens(session: onnxruntime.InferenceSession, views: list[Sample], recipe: TokenRecipe) -> Floats:
    rng, rows = np.random.default_rng(recipe.seed), []
    for start in tqdm(range(0, len(views), _BATCH), desc="reduction", unit="batch", disable=None):
        tokens = tokens_of(session, np.stack([s.view for s in views[start : start + _BATCH]]))
        places = rng.integers(tokens.shape[1], size=_TAKEN)
        rows.append(normalised(tokens[:, places]).reshape(-1, _CHANNELS))
    return np.concatenate(rows)


def tokens_of(session: onnxruntime.InferenceSession, views: NDArray[np.uint8]) -> Floats:
    """Tokens (N, P, 3840) of views (N, S, S, 3)."""
    return np.asarray(session.run([TOKENS], {PIXELS: pixels_of(views)})[0], dtype=np.float32)


def coverage(mask: NDArray[np.bool_], stride: int = STRIDE) -> NDArray[np.uint8]:
    """Share of each cell that a mask (S, S) covers, in 255ths: (S / stride, S / stride)."""
    side = mask.shape[0] // stride
    share = mask.reshape(side, stride, side, stride).mean(axis=(1, 3))
    return np.asarray(np.rint(share * 255.0), dtype=np.uint8)


def make(recipe: TokenRecipe, sampler: Sampler, material: Material, folder: Path) -> None:
    """Draws the shards that `folder` lacks: views, their tokens (SHARD, P, C) in half precision, and what is known of them."""
    session, shards = material.parts.session(material.raw, seam=TOKENS), -(-recipe.samples // SHARD)
    missing = [number for number in range(shards) if not _is_whole(folder, number)]
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(1) as pool, tqdm(total=len(missing) * SHARD, desc="tokens", unit="face", disable=None) as bar:
        for number, samples in zip(missing, _ahead(pool, recipe, sampler, missing), strict=True):
            found = []
            for start in range(0, SHARD, _BATCH):
                views = np.stack([s.view for s in samples[start : start + _BATCH]])
                found.append(material.reduction(tokens_of(session, views)))
                bar.update(len(views))
            _write(folder, number, samples, np.concatenate(found))


def _ahead(pool: ThreadPoolExecutor, recipe: TokenRecipe, sampler: Sampler, numbers: list[int]) -> Iterator[list[Sample]]:
    """The samples of the shards, the next ones drawn while the present ones are in use."""

    def begun(place: int) -> Future[list[Sample]]:
        return pool.submit(drawn, recipe, sampler, [2, numbers[place]], SHARD)

    coming = deque(begun(place) for place in range(len(numbers[:1])))
    for place in range(len(numbers)):
        samples = coming.popleft().result()
        if place + 1 < len(numbers):
            coming.append(begun(place + 1))
        yield samples


def _named(folder: Path, number: int, kind: str) -> Path:
    return folder / f"{number:04d}.{kind}"


def _is_whole(folder: Path, number: int) -> bool:
    """Whether it is there with its views, which were not kept before the localizer looked at them."""
    return all(_named(folder, number, kind).is_file() for kind in ("npz", "views.npy"))


def _write(folder: Path, number: int, samples: list[Sample], tokens: NDArray[np.float16]) -> None:
    """The labels come last: a shard that has them is whole."""
    np.save(_named(folder, number, "npy"), tokens)
    np.save(_named(folder, number, "views.npy"), np.stack([sample.view for sample in samples]))
    aside = _named(folder, number, "writing.npz")
    np.savez_compressed(
        aside,
        cover=np.stack([coverage(sample.mask) for sample in samples]),
        doctored=np.array([bool(sample.mask.any()) for sample in samples]),
        engine=np.array([sample.engine for sample in samples]),
        kind=np.array([sample.kind for sample in samples]),
    )
    aside.replace(_named(folder, number, "npz"))


class Shards:
    """What `make` wrote, up to a number of samples; raises `ValueError` when there is less."""

    def __init__(self, folder: Path, samples: int) -> None:
        count = -(-samples // SHARD)
        missing = [number for number in range(count) if not _is_whole(folder, number)]
        if missing:
            raise ValueError(f"{folder}: {len(missing)} of {count} shards are missing")
        self._tokens, self._views = (
            [np.load(_named(folder, number, kind), mmap_mode="r") for number in range(count)] for kind in ("npy", "views.npy")
        )
        labels: dict[str, list[NDArray[Any]]] = {}
        for number in range(count):
            with np.load(_named(folder, number, "npz")) as held:
                for name in held.files:
                    labels.setdefault(name, []).append(held[name])
        joined = {name: np.concatenate(parts)[:samples] for name, parts in labels.items()}
        self.cover, self.doctored, self.engine, self.kind = (joined[n] for n in ("cover", "doctored", "engine", "kind"))

    def __len__(self) -> int:
        return len(self.doctored)

    def tokens(self, numbers: NDArray[np.int64]) -> Floats:
        """Tokens (N, P, C) of samples by number."""
        return np.stack([self._tokens[n // SHARD][n % SHARD] for n in numbers]).astype(np.float32)

    def views(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Views (N, S, S, 3) of samples by number."""
        return np.stack([self._views[n // SHARD][n % SHARD] for n in numbers])
