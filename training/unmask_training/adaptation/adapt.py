"""A new generator from a handful of pictures: read, checked, learned and judged; nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unmask.core.faces import Infer
from unmask_training.adaptation import checks, gather
from unmask_training.adaptation.heads import Head, Replay, fit_family
from unmask_training.adaptation.learn import Learned, New, Task, learn
from unmask_training.adaptation.parent import Parent, classes_with, new_weights
from unmask_training.adaptation.samples import FEWEST, Intake, at_least, read_samples
from unmask_training.adaptation.version import Change


@dataclass(frozen=True, slots=True)
class Order:
    """What the operator asked for."""

    generator: str
    samples: Path
    reals: Path | None = None
    data: Path | None = None
    seed: int = 1
    force: bool = False


@dataclass(frozen=True, slots=True)
class Adapted:
    """What was said on the way, and what was learned and how it is written (None where nothing had to be)."""

    intake: Intake
    said: tuple[str, ...]
    learned: Learned | None = None
    change: Change | None = None


def adapt(parent: Parent, order: Order, infer: Infer) -> Adapted:
    """Learns by the order, and says by which gate it may be used.

    Raises `ValueError` for a name that is none, and for samples that are too few, known reals, or of several generators
    (unless forced).
    """
    checks.check_name(order.generator, parent.memory)
    like, memory, readout = checks.Likeness.of(parent.memory), parent.memory, parent.readout
    intake, plain = _samples(parent, order, infer, like)
    names = [sample.path for sample in intake.samples]
    if order.reals is not None:
        reals = read_samples(order.reals, infer, "reals")
        at_least(reals, 1, order.reals)
        own = gather.own_reals(parent, reals.samples)
        memory, readout = memory.joined(own), gather.trusting(readout, own)
    found = checks.examine(plain, names, readout, parent.point, memory, like)
    said = (*(["known already: this refreshes it"] if order.generator in parent.card.classes else []), *found.notes)
    if found.doubts and not order.force:
        raise ValueError(f"{'; '.join(found.doubts)}; leave out what does not belong, or go on with --force-samples")
    if not found.is_needed and not order.force:
        return Adapted(intake, said)
    new = New(order.generator, plain, gather.view_features(parent, intake.samples, order.seed))
    whole = memory if order.data is None else memory.joined(gather.prepared(parent, order.data))
    task = Task.of(whole, readout, parent.point, new, order.seed)
    learned = learn(task)
    weights = new_weights(parent, order.generator, learned.readout, _family(parent, Replay.of(whole), new))
    remembered = memory.joined(gather.remembered(intake.samples, order.generator, plain, new.views)).thinned(order.seed)
    change = Change(weights, classes_with(parent, order.generator), remembered, {})
    return Adapted(intake, (*said, *found.doubts), learned, change)


def _samples(parent: Parent, order: Order, infer: Infer, like: checks.Likeness) -> tuple[Intake, NDArray[np.float32]]:
    """The usable samples and their features (N, 2, C), copies dropped by their bytes, their looks and their features.

    Forced, those that only features call copies stay: a generator may have but one face.
    """
    fewest = 1 if order.force else FEWEST
    intake = read_samples(order.samples, infer)
    at_least(intake, fewest, order.samples)
    plain = gather.plain_features(parent, intake.samples, "features of samples")
    names = [sample.path for sample in intake.samples]
    gone = {} if order.force else checks.twins(like.unit(plain[:, 0]), names, like.copy)
    kept = [i for i in range(len(names)) if i not in gone]
    copies = (*intake.copies, *gone.values())
    intake = replace(intake, samples=tuple(intake.samples[i] for i in kept), copies=copies)
    at_least(intake, fewest, order.samples)
    return intake, plain[kept]


def _family(parent: Parent, replay: Replay, new: New) -> Head:
    """The new generator's row of the family head."""
    weight, bias = parent.family
    others = [i for i, name in enumerate(parent.card.classes) if name != new.name]
    return fit_family(replay, new.rows(np.arange(len(new))), (weight[others], bias[others]), new.name)


def listed(lines: Sequence[str], most: int = 20) -> list[str]:
    """The first lines, and how many more there are."""
    return [*lines[:most], *([f"… and {len(lines) - most} more"] if len(lines) > most else [])]
