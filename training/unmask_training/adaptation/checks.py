"""What samples are, before anything is learned from them: copies, real pictures, several generators, or known already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import silhouette_score

from unmask_training.adaptation.heads import Readout
from unmask_training.adaptation.memory import FIT, Memory
from unmask_training.adaptation.operating import Operating
from unmask_training.measuring.measures import REAL, SYNTHETIC

# From this share of samples on the present model needs no adaptation.
DETECTED: Final = 0.95
# Fewer than this share, or three, are strays, no second generator; of fewer samples than ten nothing is said.
_LEAST_SHARE: Final = 0.15
_LEAST: Final = 3
_LEAST_SAMPLES: Final = 10
_MOST_CLUSTERED: Final = 100
# Draws of known generators' pictures, and which of them has to be exceeded.
_DRAWS: Final = 200
_QUANTILE: Final = 0.99
_DIRECTIONS: Final = 32
# So many rows of a kind tell how like each other different pictures can be.
_COMPARED: Final = 200
# So many pictures are named in a refusal.
_NAMED: Final = 10
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_RESERVED: Final = ("unknown", "real", "synthetic", "manipulated", "unsure")


@dataclass(frozen=True, slots=True)
class Findings:
    """What is said (`notes`), what forbids adaptation unless forced (`doubts`), and whether it is needed at all."""

    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    is_needed: bool


@dataclass(frozen=True, slots=True)
class Likeness:
    """How features are compared: standardised by what is known, by cosine.

    `copy` and `real_copy` are the cosines from which two pictures, or a picture and a real one, show the same: half way from
    the most alike of different known pictures to identity.  Clusters are sought along `basis` (C, B), in which known pictures
    vary most: the other directions of a thousand whitened features are noise.  `rows` (M, B) are known generators' pictures
    there, one a group, of `kind` (M,).
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    copy: float
    real_copy: float
    basis: NDArray[np.float32]
    rows: NDArray[np.float32]
    kind: NDArray[np.int16]

    @staticmethod
    def of(memory: Memory) -> Likeness:
        """From the plain views of a memory."""
        fit = memory.features[memory.part == FIT][:, 0].astype(np.float32)
        # The floor keeps features that hardly vary from deciding.
        mean, deviation = fit.mean(axis=0), fit.std(axis=0) + np.float32(1e-3)
        _, first = np.unique(memory.group, return_index=True)
        alone = memory.where(first)
        rows = _unit((alone.features[:, 0].astype(np.float32) - mean) / deviation)
        copies = [0.5 + 0.5 * _most_alike(rows[alone.fake == fake], alone.kind[alone.fake == fake]) for fake in (True, False)]
        basis = np.asarray(np.linalg.svd(fit - mean, full_matrices=False)[2][:_DIRECTIONS].T, dtype=np.float32)
        generated = alone.where(alone.fake)
        inside = _unit(np.asarray((generated.features[:, 0].astype(np.float32) - mean) @ basis, dtype=np.float32))
        return Likeness(mean, deviation, copies[0], copies[1], basis, inside, generated.kind)

    def unit(self, plain: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standardised features (N, C), of length 1."""
        return _unit((np.asarray(plain, dtype=np.float32) - self.mean) / self.deviation)

    def inside(self, plain: NDArray[np.floating]) -> NDArray[np.float32]:
        """Features (N, C) along the basis, of length 1: (N, B)."""
        return _unit(np.asarray((np.asarray(plain, dtype=np.float32) - self.mean) @ self.basis, dtype=np.float32))

    def separation(self, count: int) -> float:
        """The silhouette that a split in two of `count` pictures of one known generator exceeds in a hundredth of draws."""
        rng, kinds = np.random.default_rng(count), np.unique(self.kind)
        found = []
        for number in range(_DRAWS):
            rows = np.flatnonzero(self.kind == kinds[number % len(kinds)])
            found.append(_split(self.rows[rng.permutation(rows)[:count]])[1])
        return float(np.quantile(found, _QUANTILE))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-9)), dtype=np.float32)


def _most_alike(rows: NDArray[np.float32], kind: NDArray[np.int16]) -> float:
    """The highest cosine between two different pictures of one kind, but for a thousandth that may be copies."""
    found = []
    for number in np.unique(kind):
        some = rows[kind == number][:_COMPARED]
        if len(some) > 1:
            cosine = some @ some.T
            np.fill_diagonal(cosine, -1.0)
            found.append(cosine.max(axis=1))
    return float(np.quantile(np.concatenate(found), 0.999)) if found else 0.99


def check_name(name: str, memory: Memory) -> None:
    """Raises `ValueError` for what cannot be a generator's short name, or is that of a real source."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"--generator {name!r}: expected 1 to 40 of a-z, 0-9, _ . - and a letter or digit first")
    if name in _RESERVED:
        raise ValueError(f"--generator {name!r}: that word has a meaning of its own; choose another name")
    if name in set(memory.names[~memory.fake].tolist()):
        raise ValueError(f"--generator {name!r}: that is a source of real pictures in the model's memory; choose another name")


def nearest(rows: NDArray[np.float32], others: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Index of and cosine to the most similar of `others` (M, C) for each of `rows` (N, C), all of length 1."""
    cosine = rows @ others.T
    best = cosine.argmax(axis=1)
    return best, cosine[np.arange(len(best)), best]


def twins(rows: NDArray[np.float32], names: Sequence[str], copy: float) -> dict[int, str]:
    """Samples with the features of an earlier one, by index, and a line that names the pair: mirrored or coloured copies."""
    cosine = np.tril(rows @ rows.T, -1)
    gone: dict[int, str] = {}
    for i in range(len(rows)):
        for j in np.flatnonzero(cosine[i] >= copy).tolist():
            if j not in gone:
                gone[i] = f"{names[i]}: nearly {names[j]} (cosine of their features {cosine[i, j]:.4f})"
                break
    return gone


def check_not_real(
    rows: NDArray[np.float32], names: Sequence[str], reals: NDArray[np.float32], kinds: Sequence[str], copy: float
) -> None:
    """Raises `ValueError` naming samples that are real pictures of the memory or --reals: they cannot be learned as fake."""
    if not len(reals):
        return
    best, cosine = nearest(rows, reals)
    found = [f"{name} (of {kinds[i]})" for name, i, c in zip(names, best, cosine, strict=True) if c >= copy]
    if found:
        named = f"{', '.join(found[:_NAMED])}{f' and {len(found) - _NAMED} more' if len(found) > _NAMED else ''}"
        raise ValueError(f"{len(found)} samples are nearly pictures known to be real: {named}; take them out")


def clusters(rows: NDArray[np.float32], like: Likeness) -> list[NDArray[np.intp]]:
    """Indices of the samples of two well separated clusters; one of all where there is no second.

    Ward's linkage, cut in two, counts where its mean silhouette (Rousseeuw, 1987; cosine) is higher than that of nearly all
    draws of as many pictures of one known generator.
    """
    every = np.arange(len(rows))
    if len(rows) < _LEAST_SAMPLES:
        return [every]
    label, silhouette = _split(rows)
    # Of more pictures the null is narrower still: that of a hundred is the safer one.
    if silhouette <= like.separation(min(len(rows), _MOST_CLUSTERED)):
        return [every]
    return [every[label == number] for number in np.unique(label)]


def _split(rows: NDArray[np.float32]) -> tuple[NDArray[np.int32], float]:
    """Two clusters (N,) and their mean silhouette; 0 where one of them is too small."""
    if len(rows) < 2 * _LEAST:
        return np.ones(len(rows), dtype=np.int32), 0.0
    label = fcluster(linkage(rows, "ward"), 2, "maxclust")
    sizes = np.bincount(label)[1:]
    if len(sizes) < 2 or sizes.min() < max(_LEAST, round(_LEAST_SHARE * len(rows))):
        return label, 0.0
    return label, float(silhouette_score(rows, label, metric="cosine"))


def examine(
    plain: NDArray[np.float32], names: Sequence[str], readout: Readout, point: Operating, memory: Memory, like: Likeness
) -> Findings:
    """Looks at samples (N, 2, C) by the present head and the features alone.

    Raises `ValueError` for samples that are known real pictures.
    """
    rows = like.unit(plain[:, 0])
    real = memory.where(~memory.fake)
    check_not_real(rows, names, like.unit(real.features[:, 0]), real.names.tolist(), like.real_copy)
    calls = point.calls(readout, plain)
    seen, missed = int((calls == SYNTHETIC).sum()), int((calls == REAL).sum())
    unsure = len(calls) - seen - missed
    notes = [f"the present version calls {seen} of {len(calls)} samples synthetic, {unsure} unsure, {missed} real"]
    if missed > len(calls) / 2:
        notes.append(
            "most samples look real to the present version: a generator that it misses does, and so do photographs; make sure "
            "that these are generated"
        )
    parts = clusters(like.inside(plain[:, 0]), like)
    doubts = [] if len(parts) == 1 else [_mixed(parts, names)]
    return Findings(tuple(notes), tuple(doubts), seen < DETECTED * len(calls))


def _mixed(parts: Sequence[NDArray[np.intp]], names: Sequence[str]) -> str:
    listed = [f"{len(part)} like {', '.join(names[i] for i in part[:4])}{', …' if len(part) > 4 else ''}" for part in parts]
    return f"the samples fall into {len(parts)} well separated clusters, as those of several generators do: {'; '.join(listed)}"
