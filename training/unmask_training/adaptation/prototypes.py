"""What a version knows of each kind: prototypes in a whitened space, the evidence for them, and what samples add.

Within a kind (a generator or a real source) whitened features vary alike in all directions.  There linear discriminant analysis
(Fisher 1936; with a shared covariance) is the nearest prototype, and a kind that is known by ten samples is as good a prototype
as any (Snell et al., NeurIPS 2017; with the covariance that other kinds have, Goswami et al., FeCAM, NeurIPS 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from unmask_training.adaptation.memory import FIT, Memory

Floats = NDArray[np.float64]
Rows = NDArray[np.float32]
# The logit of what is not known yet: room for one to come.
FREE: Final = -1000.0
# How steeply the logit rises along the line from the mean real source to a learned generator, each standard deviation.
_SLOPE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Means of kinds in the first W features: `real` (S, W), `fake` (G, W), and `learned` (J, W) from samples.

    `rises` (J, 2) are slope and bias of what learned ones add, `mixing` (2,) how much the known ones count and the temperature
    of their evidence.
    """

    real: Rows
    fake: Rows
    learned: Rows
    rises: Rows
    mixing: Rows

    @staticmethod
    def of(memory: Memory, width: int, mixing: Rows) -> Prototypes:
        """Means of the first `width` features of each kind's rows to fit on; nothing is learned yet."""
        rows = memory.where(memory.part == FIT)
        inside, names = rows.features[:, 0, :width].astype(np.float32), rows.names
        real, fake = (
            np.stack([inside[names == name].mean(axis=0) for name in np.unique(names[rows.fake == truth])])
            for truth in (False, True)
        )
        free = np.array([[1.0, FREE]], dtype=np.float32)
        return Prototypes(real, fake, fake[:1], free, mixing)

    def logits(self, base: Floats, features: NDArray[np.floating]) -> Floats:
        """Logits (..., ) of a linear head's logits (...) and the features (..., C), as the graph computes them."""
        real, fake, learned = self._evidence(features)
        share, temperature = map(float, self.mixing)
        told, raised = share * (_any(fake * temperature) - _any(real * temperature)), self._raised(real, learned)
        return np.asarray(logsumexp(np.concatenate([(base + told)[..., None], raised], axis=-1), axis=-1), dtype=np.float64)

    def rise(self, features: NDArray[np.floating]) -> Floats:
        """What the last learned generator's rise is on features (..., C), its bias included, (...)."""
        real, _, learned = self._evidence(features)
        return self._raised(real, learned)[..., -1]

    def _raised(self, real: Floats, learned: Floats) -> Floats:
        return np.asarray(self.rises[:, 0] * (learned - _any(real)[..., None]) + self.rises[:, 1], dtype=np.float64)

    def distance(self, features: NDArray[np.floating]) -> Floats:
        """How strange features (N, C) are: the squared distance to the nearest prototype less that to the mean of all, (N,).

        Relative Mahalanobis distance (Ren et al., arXiv:2106.09022, 2021).
        """
        return np.asarray(-2.0 * np.concatenate(self._evidence(features), axis=-1).max(axis=-1), dtype=np.float64)

    def learning(self, samples: NDArray[np.floating], bias: float) -> Prototypes:
        """With the mean of new samples (N, C) beside the others, and the bias of what it adds to the logit.

        Where nothing was learned yet, it takes the free place.
        """
        mean = np.asarray(samples[:, : self.real.shape[1]], dtype=np.float32).mean(axis=0)
        apart = max(float(np.linalg.norm(mean - self.real.mean(axis=0))), 1e-6)
        rise = np.array([_SLOPE / apart, bias], dtype=np.float32)
        kept = self.rises[:, 1] > FREE
        learned = np.concatenate([self.learned[kept], mean[None]])
        return replace(self, learned=learned, rises=np.concatenate([self.rises[kept], rise[None]]))

    def trusting(self, reals: NDArray[np.floating]) -> Prototypes:
        """With the mean of pictures that are real, (N, C), as one more real source."""
        mean = np.asarray(reals[:, : self.real.shape[1]], dtype=np.float32).mean(axis=0)
        return replace(self, real=np.concatenate([self.real, mean[None]]))

    def _evidence(self, features: NDArray[np.floating]) -> tuple[Floats, Floats, Floats]:
        """Log-odds of each kind (..., K) against the mean of all: of real sources, generators, learned generators."""
        inside = np.asarray(features[..., : self.real.shape[1]], dtype=np.float64)
        real, fake, learned = (
            inside @ rows.T.astype(np.float64) - 0.5 * (rows.astype(np.float64) ** 2).sum(axis=1)
            for rows in (self.real, self.fake, self.learned)
        )
        return real, fake, learned


def _any(evidence: Floats) -> Floats:
    """Log-odds (...) of any of the kinds (..., K) or none of them, whose evidence is 0."""
    return np.asarray(np.logaddexp(0.0, logsumexp(evidence, axis=-1)), dtype=np.float64)
