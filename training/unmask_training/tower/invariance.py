"""Directions along which real sources differ among themselves, made expensive for a linear head.

A head that tells photographs from generated faces may lean on the look of a source (studio, framing, the people in it), which
the next source does not have.  Where w is the head on standardised features and d_s the difference of a source's mean from
that of all sources, the head pays strength * sum_s (w d_s)^2 on top of its L2 penalty |w|^2: its mean answer on each source
is drawn to the mean of all.  The penalty is quadratic, so that a plain fit on features shrunk along those directions pays it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shrinking:
    """`basis` (K, C), orthonormal, and by how much each of its directions is shrunk, `factors` (K,)."""

    basis: Floats
    factors: Floats

    @staticmethod
    def of(features: Floats, fake: NDArray[np.bool_], kind: NDArray[np.str_] | NDArray[np.int64], strength: float) -> Shrinking:
        """From standardised features (N, C); one source differs from nothing."""
        sources = [features[~fake & (kind == name)].mean(axis=0) for name in np.unique(kind[~fake])]
        if len(sources) < 2 or strength <= 0.0:
            return Shrinking(np.zeros((0, features.shape[1]), np.float32), np.zeros(0, np.float32))
        differences = np.stack(sources) - np.mean(sources, axis=0)
        _, sizes, basis = np.linalg.svd(differences, full_matrices=False)
        return Shrinking(basis.astype(np.float32), (1.0 / np.sqrt(1.0 + strength * sizes**2)).astype(np.float32))

    def __call__(self, rows: Floats) -> Floats:
        """Features (N, C) shrunk; a head (1, C) on shrunk features becomes one on those that were given in the same way."""
        return np.asarray(rows + ((rows @ self.basis.T) * (self.factors - 1.0)) @ self.basis, dtype=np.float32)
