"""Linear heads over frozen features: L2-regularised logistic regression, its strength chosen by group cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from unmask_training.data.augment import Ranges, draw_face
from unmask_training.experiments.features import Features
from unmask_training.measuring.measures import Bools, Floats
from unmask_training.tower.invariance import Shrinking
from unmask_training.tower.probe import Probe

# Inverse strengths, on standardised features and weights of mean 1.
STRENGTHS: Final = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)
# What a head pays beside its mean loss for telling real sources apart: so much of the mean of (w d_s)^2 over sources.
INVARIANCE: Final = 1.0
# Stopped early, which is a little better for kinds that were left out.
STEPS: Final = 20
_FOLDS: Final = 3
_BINS: Final = 5
# A size of face that fewer views than this of a class show is left out, lest a handful stand for all of it.
_FEWEST: Final = 8


@dataclass(frozen=True, slots=True)
class Head:
    """Logit = features @ weight + bias."""

    weight: Floats
    bias: float

    def __call__(self, features: Features) -> Floats:
        """Logits (N,) of features (N, C)."""
        return features.astype(np.float64) @ self.weight + self.bias


@dataclass(frozen=True, slots=True)
class Examples:
    """Views to learn from: features (M, C), truth, kind and group (M,), weight (M,) of mean 1."""

    features: Features
    fake: Bools
    kind: NDArray[np.str_]
    group: NDArray[np.str_]
    weight: Floats

    def where(self, chosen: Bools) -> Examples:
        """The chosen rows."""
        return Examples(self.features[chosen], self.fake[chosen], self.kind[chosen], self.group[chosen], self.weight[chosen])


def fit_head(examples: Examples, strength: float) -> Head:
    """Logistic regression on features standardised by their weighted mean and spread; folded back into plain features.

    Stopped early, and drawn to answer all real sources alike, as the shipped detector's probe is.
    """
    weight = examples.weight / examples.weight.mean()
    share = (weight / weight.sum())[:, None]
    mean = (examples.features * share).sum(0)
    spread = np.sqrt(((examples.features - mean) ** 2 * share).sum(0))
    # A feature that hardly moves must not be blown up; small against the others, whatever their unit.
    spread += 1e-2 * spread.mean() + 1e-12
    scaled = ((examples.features - mean) / spread).astype(np.float32)
    l2, sources = 1.0 / (2.0 * strength * len(scaled)), max(1, len(np.unique(examples.kind[~examples.fake])))
    shrinking = Shrinking.of(scaled, examples.fake, examples.kind, INVARIANCE / (sources * l2))
    probe = Probe(scaled.shape[1], 0)
    probe.descend(shrinking(scaled), examples.fake, None, share[:, 0], l2, STEPS)
    line = probe.head.weight.detach().numpy()
    flat = shrinking(line)[0].astype(np.float64) / spread
    return Head(flat, float(probe.head.bias.detach()[0] - flat @ mean))


def choose(examples: Examples, clean: Examples, seed: int) -> tuple[float, Floats | None, dict[str, float]]:
    """Strength of least out-of-fold log-loss; the out-of-fold logits (N,) of `clean` at it; the loss by strength.

    Heads learn from `examples`' augmented views and are judged on the plain views in `clean` of groups they did not see.
    With fewer than two groups of a class nothing can be held out: the middle strength, no logits.
    """
    few = min(len(np.unique(clean.group[clean.fake == fake])) for fake in (False, True))
    if few < 2:
        return STRENGTHS[len(STRENGTHS) // 2], None, {}
    folds = StratifiedGroupKFold(min(_FOLDS, few), shuffle=True, random_state=seed)
    logits = np.zeros((len(STRENGTHS), len(clean.fake)))
    for _, held in folds.split(clean.features, clean.fake, clean.group):
        kept = examples.where(~np.isin(examples.group, clean.group[held]))
        for i, strength in enumerate(STRENGTHS):
            logits[i, held] = fit_head(kept, strength)(clean.features[held])
    losses = [float(np.average(np.logaddexp(0.0, np.where(clean.fake, -row, row)), weights=clean.weight)) for row in logits]
    best = int(np.argmin(losses))
    return STRENGTHS[best], logits[best], {f"{s:g}": round(loss, 4) for s, loss in zip(STRENGTHS, losses, strict=True)}


def weights(
    fake: Bools, kind: NDArray[np.str_], shares: Mapping[str, float], faces: Floats | None = None, ranges: Ranges | None = None
) -> Floats:
    """Weights of mean 1: both classes alike, kinds within a class by their shares.

    With `faces` (drawn sides, pixels) each size has the weight that `ranges` gives it, in both classes: a picture cannot be
    drawn larger than it is, so that sizes alone would tell the classes apart.
    """
    names, member, counts = np.unique(kind, return_inverse=True, return_counts=True)
    result = np.array([shares.get(str(name), 1.0) for name in names])[member] / counts[member]
    cells = np.zeros(len(fake), dtype=np.int64) if faces is None or ranges is None else _sizes(faces, ranges)
    common = [b for b in range(_BINS) if min((fake & (cells == b)).sum(), (~fake & (cells == b)).sum()) >= _FEWEST]
    if not common:  # small data: sizes as they come
        cells, common = np.zeros_like(cells), [0]
    scaled = np.zeros_like(result)
    for b in common:
        for truth in (False, True):
            cell = (cells == b) & (fake == truth)
            scaled[cell] = result[cell] / result[cell].sum()
    return np.asarray(scaled / scaled.mean(), dtype=np.float64)


def _sizes(faces: Floats, ranges: Ranges) -> NDArray[np.int64]:
    """Which fifth of the sizes that `ranges` draws each face is in."""
    rng = np.random.default_rng(0)
    edges = np.quantile([draw_face(ranges, rng) for _ in range(4000)], np.arange(1, _BINS) / _BINS)
    return np.digitize(faces, edges)


def joined(parts: Sequence[Examples]) -> Examples:
    """The rows of all."""
    return Examples(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.fake for part in parts]),
        np.concatenate([part.kind for part in parts]),
        np.concatenate([part.group for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )
