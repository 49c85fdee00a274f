"""Linear heads over the frozen trunk's features, and the readout that they make with prototypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

from unmask_training.adaptation.memory import FIT, Memory
from unmask_training.adaptation.prototypes import Prototypes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Maps features (..., C) to logits (...).
Scorer = Callable[[NDArray[np.floating]], Floats]

# Chosen by `adapt-bench`: the new generator's weight within the synthetic half, and the weakest pull to the present head.
NEW_SHARE: Final = 0.3
STRENGTH: Final = 0.03
# What stands in for the directions of features in which known pictures hardly differ, as a share of the mean variance.
_SHRINKAGE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Head:
    """A linear head: logit = features @ weight + bias, weight (C,)."""

    weight: Floats
    bias: float

    def __call__(self, features: NDArray[np.floating]) -> Floats:
        """Logits (...) of features (..., C)."""
        return np.asarray(features @ self.weight + self.bias, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Readout:
    """All that reads features: the linear head and the prototypes."""

    head: Head
    prototypes: Prototypes

    def __call__(self, features: NDArray[np.floating]) -> Floats:
        """Logits (...) of features (..., C)."""
        return self.prototypes.logits(self.head(features), features)

    def distance(self, features: NDArray[np.floating]) -> Floats:
        """How strange the plain views of features (N, 2, C) are, (N,)."""
        return self.prototypes.distance(features[:, 0])


@dataclass(frozen=True, slots=True)
class Space:
    """Features relative to what is known: centred and whitened by the replay's covariance.

    A step of length 1 in this space moves the logits of known pictures by 1 (root mean square), so that plain L2 there is
    L2 between the old and the new logits of the replay, and directions in which known pictures do not vary are free but
    for the shrinkage.  Source of the idea: knowledge distillation against forgetting (Li and Hoiem, ECCV 2016).
    """

    mean: NDArray[np.float32]
    root: NDArray[np.float32]

    @staticmethod
    def of(features: NDArray[np.float32], weight: Floats) -> Space:
        """From replay features (N, C) and their weights (N,), which sum to 1."""
        share = weight.astype(np.float32)[:, None]
        mean = (features * share).sum(axis=0)
        centred = (features - mean) * np.sqrt(share)
        covariance = (centred.T @ centred).astype(np.float64)
        covariance += np.eye(len(covariance)) * (_SHRINKAGE * np.trace(covariance) / len(covariance) + 1e-9)
        return Space(mean, np.linalg.cholesky(covariance).astype(np.float32))

    def into(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C) features in the space."""
        return np.ascontiguousarray(solve_triangular(self.root, (features - self.mean).T, lower=True).T, dtype=np.float32)

    def out(self, step: Floats, shift: float) -> tuple[Floats, float]:
        """Weight and bias over plain features that `step` (C,) and `shift` in the space are."""
        weight = solve_triangular(self.root.astype(np.float64), step, lower=True, trans="T")
        return weight, shift - float(weight @ self.mean)


@dataclass(frozen=True, slots=True)
class Replay:
    """What is known, prepared once for many fits: every view of the memory's fit part, in the space that it spans.

    `features`, `inside` (R, C) plain and whitened; `fake` (R,); `weight` (R,), alike for every kind, half of it on reals;
    `kind` (R,) names.
    """

    features: NDArray[np.float32]
    inside: NDArray[np.float32]
    fake: Bools
    weight: Floats
    kind: NDArray[np.str_]
    space: Space

    @staticmethod
    def of(memory: Memory) -> Replay:
        """From the memory's rows to fit on; raises `ValueError` unless both classes are there."""
        rows = memory.where(memory.part == FIT)
        if rows.fake.all() or not rows.fake.any():
            raise ValueError("memory: needs both real and synthetic rows to fit on")
        features = np.concatenate([rows.features[:, 0], rows.features[:, 1]]).astype(np.float32)
        fake, kind = np.tile(rows.fake, 2), np.tile(rows.names, 2)
        weight = kind_weights(fake, kind)
        space = Space.of(features, weight)
        return Replay(features, space.into(features), fake, weight, kind, space)


def kind_weights(fake: Bools, kind: NDArray[np.str_]) -> Floats:
    """Weights (N,) that sum to 1: half on each class, alike for its kinds but for the root of their size."""
    weight = np.zeros(len(fake))
    for label in (False, True):
        names, member, count = np.unique(kind[fake == label], return_inverse=True, return_counts=True)
        share = np.sqrt(count) / np.sqrt(count).sum()
        weight[fake == label] = 0.5 * (share / count)[member] if len(names) else 0.0
    return weight


def fit_head(
    replay: Replay, new: NDArray[np.float32], start: Scorer, strength: float = STRENGTH, share: float = NEW_SHARE
) -> Head:
    """What to add to the logits of `start` so that `new` (M, C) is called fake too.

    Logistic loss on replay and new, L2 to the logits of `start`.  The loss is convex, so that the result is a function of its
    arguments alone.
    """
    inside, fake, weight, first = _together(replay, new, start, share)
    sign = np.where(fake, 1.0, -1.0).astype(np.float32)

    def loss(step: Floats) -> tuple[float, Floats]:
        margin = sign * (first + inside @ step[:-1].astype(np.float32) + np.float32(step[-1]))
        slope = (-weight * sign * expit(-margin)).astype(np.float32)
        value = float(weight @ np.logaddexp(0.0, -margin)) + 0.5 * strength * float(step @ step)
        return value, np.append(slope @ inside, slope.sum()).astype(np.float64) + strength * step

    found = minimize(loss, np.zeros(inside.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return Head(*replay.space.out(found.x[:-1], float(found.x[-1])))


def _together(
    replay: Replay, new: NDArray[np.float32], start: Scorer, share: float
) -> tuple[NDArray[np.float32], Bools, Floats, NDArray[np.float32]]:
    """Whitened features, truth, weights and present logits of replay and new samples."""
    if not len(new):
        return replay.inside, replay.fake, replay.weight, start(replay.features).astype(np.float32)
    weight = np.where(replay.fake, (1.0 - share) * replay.weight, replay.weight)
    return (
        np.concatenate([replay.inside, replay.space.into(new)]),
        np.concatenate([replay.fake, np.ones(len(new), dtype=np.bool_)]),
        np.concatenate([weight, np.full(len(new), 0.5 * share / len(new))]),
        np.concatenate([start(replay.features), start(new)]).astype(np.float32),
    )


def fit_family(
    replay: Replay, new: NDArray[np.float32], family: tuple[Floats, Floats], name: str, strength: float = STRENGTH
) -> Head:
    """The row `name` of the family head, those of others as they are: softmax loss on known fakes and new samples (M, C).

    `family` is the weight (F, C) and bias (F,) of the others.  Known fakes of other kinds pull against the row by what it
    takes from them, known ones of its own (a refresh) stand by the samples.
    """
    known = replay.fake
    inside = np.concatenate([replay.inside[known], replay.space.into(new)])
    features = np.concatenate([replay.features[known], new])
    is_new = np.append(replay.kind[known] == name, np.ones(len(new), dtype=np.bool_))
    # Half the weight on either side: the prior of a family that has just appeared is not known.
    weight = np.append(replay.weight[known], np.full(len(new), 1.0 / len(new)))
    for side in (is_new, ~is_new):
        weight[side] *= 0.5 / max(weight[side].sum(), 1e-12)
    others = np.logaddexp.reduce(features @ family[0].T + family[1], axis=1)

    def loss(step: Floats) -> tuple[float, Floats]:
        margin = inside @ step[:-1].astype(np.float32) + step[-1] - others
        value = float(weight @ np.logaddexp(0.0, np.where(is_new, -margin, margin)))
        slope = weight * (expit(margin) - is_new)
        return value + 0.5 * strength * float(step @ step), np.append(slope @ inside, slope.sum()) + strength * step

    found = minimize(loss, np.zeros(inside.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return Head(*replay.space.out(found.x[:-1], float(found.x[-1])))
