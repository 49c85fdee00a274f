"""Features of what adaptation is given: samples and their augmented views, own reals, prepared data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.core.images import cut
from unmask_training.adaptation.checks import nearest
from unmask_training.adaptation.heads import Readout
from unmask_training.adaptation.memory import FIT, PARTS, Memory
from unmask_training.adaptation.parent import Parent
from unmask_training.adaptation.samples import Sample
from unmask_training.data.augment import Ranges, draw, draw_face
from unmask_training.data.chips import Chips
from unmask_training.detector.evaluate import detection_rows

OWN_REALS: Final = "own_reals"
# Augmented views in all, and the fewest and most of one sample.
_VIEWS: Final = (320, 2, 16)
# How many of them the new memory keeps beside the plain one.
_KEPT: Final = 3
# Every so many-th own real stays out of the fit, for the gate; every so many-th sample is for the next adaptation's gate.
_REAL_SHARE, _SAMPLE_SHARE = 3, 4
_FEWEST_REALS: Final = 5
# Prepared pictures with these cosines to the memory's are the memory's.
_IDENTICAL: Final = 0.9999


def plain_features(parent: Parent, samples: Sequence[Sample], what: str) -> NDArray[np.float32]:
    """Features (N, 2, C) of the views that serving cuts."""
    return parent.features((cut(sample.chip, parent.view) for sample in samples), what)


def view_features(parent: Parent, samples: Sequence[Sample], seed: int) -> NDArray[np.float32]:
    """Features (N, K, 2, C) of K augmented views each: framing, resolution and delivery as training draws them.

    The views of a picture depend on the seed and on its bytes, not on what else lies in the folder.
    """
    budget, fewest, most = _VIEWS
    count = min(max(budget // len(samples), fewest), most)
    found = parent.features(_views(parent, samples, seed, count), "features of augmented views")
    return found.reshape(len(samples), count, *found.shape[1:])


def _views(parent: Parent, samples: Sequence[Sample], seed: int, count: int) -> Iterator[NDArray[np.generic]]:
    ranges = Ranges()
    for sample in samples:
        rng = np.random.default_rng([seed, int(sample.sha256[:16], 16)])
        for _ in range(count):
            yield draw(sample.chip, draw_face(ranges, rng), parent.view.size, ranges, rng)[0]


def own_reals(parent: Parent, samples: Sequence[Sample]) -> Memory:
    """Pictures that must stay real: every third, by its hash, is for the gate, the others are replayed."""
    features = plain_features(parent, samples, "features of reals")
    return _memory(features, samples, OWN_REALS, fake=False, part=_parts(samples, _REAL_SHARE))


def trusting(readout: Readout, own: Memory) -> Readout:
    """With a prototype of the own reals that are not for the gate, where there are enough of them for one."""
    fit = own.features[own.part == FIT, 0]
    if len(fit) < _FEWEST_REALS:
        return readout
    return replace(readout, prototypes=readout.prototypes.trusting(fit.astype(np.float32)))


def prepared(parent: Parent, data: Path) -> Memory:
    """Prepared data, by its parts, without the pictures that the memory holds."""
    chips = Chips(data)
    rows = [row for part in PARTS for row in detection_rows(chips, part)]
    if not rows:
        raise ValueError(f"{data}: no real or synthetic pictures")
    features = parent.features((cut(chips.chip(row), parent.view) for row in rows), "features of data")
    found = Memory.of_rows(features, rows)
    units = [part.astype(np.float32) for part in (found.features[:, 0], parent.memory.features[:, 0])]
    lengths = [np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.float32(1e-9)) for unit in units]
    _, cosine = nearest(units[0] / lengths[0], units[1] / lengths[1])
    return found.where(cosine < _IDENTICAL)


def remembered(samples: Sequence[Sample], name: str, plain: NDArray[np.float32], views: NDArray[np.float32]) -> Memory:
    """Rows of new samples for the next version's memory: every fourth, by its hash, for the gate of the next adaptation.

    Those to fit on bring a few augmented views along, in the same group.
    """
    parts = _parts(samples, _SAMPLE_SHARE)
    rows = _memory(plain, samples, name, fake=True, part=parts)
    fit, kept = np.flatnonzero(parts == FIT), min(_KEPT, views.shape[1])
    more = rows.where(np.repeat(fit, kept))
    again = replace(more, features=views[fit, :kept].reshape(-1, *plain.shape[1:]).astype(np.float16))
    return replace(rows.joined(again), group=np.append(rows.group, again.group))


def _parts(samples: Sequence[Sample], share: int) -> NDArray[np.uint8]:
    order = np.argsort([sample.sha256 for sample in samples])
    parts = np.full(len(samples), FIT, dtype=np.uint8)
    parts[order[share - 1 :: share]] = PARTS.index("calibrate")
    return parts


def _memory(
    features: NDArray[np.float32], samples: Sequence[Sample], kind: str, *, fake: bool, part: NDArray[np.uint8]
) -> Memory:
    count = len(samples)
    truth: NDArray[Any] = np.full(count, fake, dtype=np.bool_)
    numbers = np.arange(count, dtype=np.int32)
    return Memory(features.astype(np.float16), truth, np.zeros(count, dtype=np.int16), numbers, part, (kind,))
