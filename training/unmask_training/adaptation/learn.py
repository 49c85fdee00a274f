"""Finds a head that knows the new generator and passes the gate: cross-fitted on the samples, pulled harder where it must."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask_training.adaptation.gate import Gate, Regression, judge
from unmask_training.adaptation.heads import STRENGTH, Bools, Head, Readout, Replay, fit_head
from unmask_training.adaptation.memory import PARTS, Memory
from unmask_training.adaptation.operating import Operating
from unmask_training.detector.evaluate import SOFT_SOURCES

# From the first on a stronger pull is tried only where the gate breaks.
PATH: Final = tuple(STRENGTH * 3.0**i for i in range(7))
_FOLDS: Final = 5
# By how much the bias may be moved, in logits, the least first.
_SHIFTS: Final = tuple(sorted((i / 20.0 for i in range(-30, 31)), key=abs))


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
class Anchor:
    """The calibration part: features (M, 2, C), truth (M,), and how many of each class the present version calls rightly."""

    features: NDArray[np.float32]
    fake: Bools
    kept: tuple[int, int]

    @staticmethod
    def of(memory: Memory, readout: Readout, point: Operating) -> Anchor:
        """From a memory, without its soft sources; raises `ValueError` where a class has no rows."""
        rows = memory.where((memory.part == PARTS.index("calibrate")) & ~np.isin(memory.names, SOFT_SOURCES))
        if not rows.fake.any() or rows.fake.all():
            raise ValueError("memory: needs rows of the calibration part of both classes")
        features = rows.features.astype(np.float32)
        right = point.right(readout, features, rows.fake)
        return Anchor(features, rows.fake, (int(right[~rows.fake].sum()), int(right[rows.fake].sum())))

    def held(self, readout: Readout, point: Operating) -> Readout:
        """With the head's bias moved as little as loses least of either class, in shares of it.

        Calibration and thresholds stay those of the parent, so it is here that the operating point is found again.
        """
        shifted = [replace(readout, head=Head(readout.head.weight, readout.head.bias + shift)) for shift in _SHIFTS]
        return min(shifted, key=lambda one: self._lost(one, point))

    def _lost(self, readout: Readout, point: Operating) -> float:
        right = point.right(readout, self.features, self.fake)
        shares = [
            (kept - int(right[rows].sum())) / int(rows.sum())
            for kept, rows in zip(self.kept, (~self.fake, self.fake), strict=True)
        ]
        return max(0.0, *shares)


@dataclass(frozen=True, slots=True)
class Task:
    """All that a fit and its gate need."""

    replay: Replay
    anchor: Anchor
    regression: Regression
    readout: Readout
    point: Operating
    new: New
    seed: int

    @staticmethod
    def of(memory: Memory, readout: Readout, point: Operating, new: New, seed: int) -> Task:
        """From what is remembered and what is new; raises `ValueError` where the memory lacks a class."""
        regression, anchor = Regression.of(memory, readout, point), Anchor.of(memory, readout, point)
        return Task(Replay.of(memory), anchor, regression, readout, point, new, seed)

    def fit(self, chosen: NDArray[np.intp], strength: float) -> Readout:
        """Head and prototypes that some of the samples give."""
        head = fit_head(self.replay, self.new.rows(chosen), self.readout.head, strength)
        found = replace(self.readout, head=head).knowing(self.new.plain[chosen], self.seed)
        return self.anchor.held(found, self.point)


@dataclass(frozen=True, slots=True)
class Learned:
    """What was taken (the first fit, where none passes), its gate, and the path of pulls that were tried."""

    readout: Readout
    gate: Gate
    strength: float
    path: tuple[tuple[float, Gate], ...]
    is_held_out: bool


def folds(count: int, seed: int) -> list[NDArray[np.intp]]:
    """At most five parts of the samples' indices, by seed; a single sample is a part of its own."""
    order = np.random.default_rng([seed, count]).permutation(count)
    return [np.sort(part) for part in np.array_split(order, min(_FOLDS, count))]


def crossfitted(task: Task, strength: float) -> Bools:
    """Whether each sample (N,) is called fake by a version that did not see it; a single sample by the one that did."""
    parts, every = folds(len(task.new), task.seed), np.arange(len(task.new))
    found = np.zeros(len(task.new), dtype=np.bool_)
    for part in parts:
        seen = np.setdiff1d(every, part) if len(parts) > 1 else part
        found[part] = task.point.right(task.fit(seen, strength), task.new.plain[part], np.ones(len(part), dtype=np.bool_))
    return found


def attempt(task: Task, strength: float) -> tuple[Readout, Gate]:
    """One fit on all samples, and its gate."""
    known, point, new = task.regression, task.point, task.new
    found = task.fit(np.arange(len(new)), strength)
    was = point.right(task.readout, new.plain, np.ones(len(new), dtype=np.bool_))
    after, scores = point.right(found, known.features, known.fake), point.scores(found.head(known.features))
    return found, judge(known, after, scores, (new_line(new.name), was, crossfitted(task, strength)))


def new_line(name: str) -> str:
    """What the gate's table calls the samples."""
    return f"new {name}"


def learn(task: Task) -> Learned:
    """Tries the weakest pull; where it breaks the gate the whole path, and takes the best that passes.

    Best is the most samples called fake when held out, then the fewest known pictures lost.
    """
    tried: list[tuple[float, Readout, Gate]] = []
    for strength in PATH:
        found, gate = attempt(task, strength)
        tried.append((strength, found, gate))
        if not gate.broken and len(tried) == 1:
            break
    passed = [entry for entry in tried if not entry[2].broken]
    strength, found, gate = max(passed, key=lambda entry: _merit(entry[2], task.new.name), default=tried[0])
    path = tuple((pull, judged) for pull, _, judged in tried)
    return Learned(found, gate, strength, path, len(task.new) > 1)


def _merit(gate: Gate, name: str) -> tuple[int, int]:
    return gate.line(new_line(name)).after, sum(line.won - line.lost for line in gate.lines)
