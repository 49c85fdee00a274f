"""Finds what a new prototype may add without breaking the gate: cross-fitted on the samples, held lower where it must."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask_training.adaptation.gate import Gate, Regression, judge
from unmask_training.adaptation.heads import Floats, Readout
from unmask_training.adaptation.memory import Memory
from unmask_training.adaptation.operating import Operating
from unmask_training.measuring.measures import REAL, SYNTHETIC

# Biases of what the new prototype adds to the logit, the highest first.
PATH: Final = tuple(10.0 - 0.5 * i for i in range(69))
_FOLDS: Final = 5


@dataclass(frozen=True, slots=True)
class New:
    """Samples of a new generator: `plain` (N, 2, C) of the view that serving cuts, `views` (N, K, 2, C) of augmented ones."""

    name: str
    plain: NDArray[np.float32]
    views: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.plain)

    def rows(self, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
        """Single views (M, C) of the chosen samples to fit on, plain and augmented, blurred and not."""
        parts = np.concatenate([self.plain[chosen, None], self.views[chosen]], axis=1)
        return parts.reshape(-1, self.plain.shape[-1])


@dataclass(frozen=True, slots=True)
class Task:
    """All that a fit and its gate need."""

    regression: Regression
    readout: Readout
    point: Operating
    new: New
    seed: int

    @staticmethod
    def of(memory: Memory, readout: Readout, point: Operating, new: New, seed: int) -> Task:
        """From what is remembered and what is new; raises `ValueError` where the memory lacks a class."""
        return Task(Regression.of(memory, readout, point), readout, point, new, seed)

    def fit(self, chosen: NDArray[np.intp], bias: float) -> Readout:
        """The prototype that some of the samples give."""
        return replace(self.readout, prototypes=self.readout.prototypes.learning(self.new.plain[chosen, 0], bias))


@dataclass(frozen=True, slots=True)
class Learned:
    """What was taken (the first bias, where none passes), its gate, and all that were tried."""

    readout: Readout
    gate: Gate
    bias: float
    path: tuple[tuple[float, Gate], ...]
    is_held_out: bool


def folds(count: int, seed: int) -> list[NDArray[np.intp]]:
    """At most five parts of the samples' indices, by seed; a single sample is a part of its own."""
    order = np.random.default_rng([seed, count]).permutation(count)
    return [np.sort(part) for part in np.array_split(order, min(_FOLDS, count))]


@dataclass(frozen=True, slots=True)
class Gain:
    """What a new prototype does to pictures: their logits without it, its rise at bias 0, how strange they are with it."""

    before: Floats
    rise: Floats
    distance: Floats

    @staticmethod
    def of(task: Task, chosen: NDArray[np.intp], features: NDArray[np.float32]) -> Gain:
        """Of the prototype that some samples give, on features (N, 2, C)."""
        found = task.fit(chosen, 0.0)
        return Gain(task.readout(features), found.prototypes.rise(features), found.distance(features))

    def logits(self, bias: float) -> Floats:
        """Logits (N, 2) with the prototype."""
        return np.asarray(np.logaddexp(self.before, self.rise + bias), dtype=np.float64)

    def calls(self, point: Operating, bias: float) -> NDArray[np.int8]:
        """What the pictures are called with it, (N,)."""
        return point.verdicts(self.logits(bias), self.distance)


def crossfits(task: Task) -> list[tuple[NDArray[np.intp], Gain]]:
    """Parts of the samples, and what a prototype does to them that did not see them; a single sample's own."""
    parts, every = folds(len(task.new), task.seed), np.arange(len(task.new))
    unseen = [(part, np.setdiff1d(every, part) if len(parts) > 1 else part) for part in parts]
    return [(part, Gain.of(task, seen, task.new.plain[part])) for part, seen in unseen]


def new_line(name: str) -> str:
    """What the gate's table calls the samples."""
    return f"new {name}"


def learn(task: Task) -> Learned:
    """Tries the biases and takes the best that passes the gate.

    Best is the most samples called fake when held out, then the highest bias: ten samples are called fake long before most of
    what they stand for is, and what known pictures may lose meanwhile is the gate's to say.
    """
    every, known, point = np.arange(len(task.new)), task.regression, task.point
    line = new_line(task.new.name)
    was = point.right(task.readout, task.new.plain, np.ones(len(task.new), dtype=np.bool_))
    gain, held = Gain.of(task, every, known.features), crossfits(task)

    def gate(bias: float) -> Gate:
        after = gain.calls(point, bias) == np.where(known.fake, SYNTHETIC, REAL)
        now = np.zeros(len(task.new), dtype=np.bool_)
        for part, its in held:
            now[part] = its.calls(point, bias) == SYNTHETIC
        return judge(known, after, point.scores(gain.logits(bias)), (line, was, now))

    tried = tuple((bias, gate(bias)) for bias in PATH)
    passed = [entry for entry in tried if not entry[1].broken]
    bias, taken = max(passed, key=lambda entry: entry[1].line(line).after, default=tried[0])
    return Learned(task.fit(every, bias), taken, bias, tried, len(task.new) > 1)
