"""Fits what stands on the tower's features: whitening, prototypes, probe, family head, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from unmask_training.adaptation.prototypes import FREE
from unmask_training.tower.network import BESIDE_SCALE, CHANNELS, COMPONENTS, TowerDetector
from unmask_training.tower.probe import Probe
from unmask_training.tower.recipe import TowerRecipe

_EDGE: Final = 1e-6
# What brings the probe's logit to the size of the other channels.
_PROBE_SCALE: Final = 4.0
# Of the prototypes' evidence, which is far too sure of itself: whitened features are no independent normal draws.
_TEMPERATURE: Final = 0.3
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Learnt:
    """Features (N, 5376) with the kind of each row, whether it is a generator's, and its weight (they sum to 1)."""

    features: Floats
    kind: NDArray[np.str_]
    fake: NDArray[np.bool_]
    weight: NDArray[np.float64]


def fit_projection(network: TowerDetector, learnt: Learnt, recipe: TowerRecipe) -> None:
    """Projection and prototypes of `network`, in closed form, and the probe that is its last channel.

    The other channels are the leading principal components, whitened by the covariance that views of a kind have about their
    mean (more by what it has too little of, `recipe.shrinkage`), and centred at the mean of all.  The probe is a logistic
    regression on all features, regularised and stopped early: run to its end it knows a little more of held-out pictures of
    known generators (AUC .988 against .986) and a little less of a family that was left out (.72 against .76).
    """
    mean, std = learnt.features.mean(axis=0), learnt.features.std(axis=0) + _EDGE
    scaled, weight = (learnt.features - mean) / std, learnt.weight.astype(np.float32)
    centre = weight @ scaled
    scaled -= centre
    basis = _components(scaled, weight)
    inside = scaled @ basis
    number = np.unique(learnt.kind, return_inverse=True)[1]
    spread = inside - _means(inside, learnt.kind, weight)[number]
    values, vectors = np.linalg.eigh((spread * weight[:, None]).T @ spread)
    whiten = basis @ (vectors / np.sqrt(np.maximum(values, 0.0) + recipe.shrinkage)).astype(np.float32)
    probe, steps = Probe(scaled.shape[1], 0), recipe.probe_steps
    probe.fit(
        learnt.features, learnt.fake, number, learnt.weight, l2=recipe.probe_l2, invariance=recipe.invariance, steps=steps
    )
    with torch.no_grad():
        # Standardisation goes into the projection.
        network.project.weight[:COMPONENTS] = torch.from_numpy((whiten / std[:, None]).T)
        network.project.bias[:COMPONENTS] = torch.from_numpy(-(mean / std + centre) @ whiten)
        network.project.weight[COMPONENTS] = probe.head.weight[0] / probe.std / _PROBE_SCALE
        network.project.bias[COMPONENTS] = (probe.head.bias[0] - probe.head.weight[0] @ (probe.mean / probe.std)) / _PROBE_SCALE
        network.synthetic.weight.zero_()
        network.synthetic.weight[0, COMPONENTS] = _PROBE_SCALE
        network.synthetic.bias.zero_()


def _components(scaled: Floats, weight: NDArray[np.float32]) -> Floats:
    """The leading principal components (C, 1023) of weighted rows (N, C); nothing where so few rows have no more."""
    rows = scaled * np.sqrt(weight)[:, None]
    if len(rows) < rows.shape[1]:
        found = np.linalg.svd(rows, full_matrices=False)[2][:COMPONENTS].T
    else:
        first = rows.shape[1] - COMPONENTS
        found = eigh(rows.T @ rows, subset_by_index=[first, rows.shape[1] - 1], overwrite_a=True)[1][:, ::-1]
    return np.pad(found, ((0, 0), (0, COMPONENTS - found.shape[1]))).astype(np.float32)


def _means(rows: Floats, kind: NDArray[np.str_], weight: NDArray[np.float32]) -> Floats:
    """Weighted mean of each kind's rows, (K, C), in the order of their names."""
    share = [np.where(kind == name, weight, np.float32(0.0)) for name in np.unique(kind)]
    return np.stack([part @ rows / part.sum() for part in share])


def fit_prototypes(network: TowerDetector, learnt: Learnt) -> None:
    """Prototypes of real sources and generators: the means of what the projection makes of their views."""
    with torch.no_grad():
        inside = network.project(torch.from_numpy(learnt.features))[:, :COMPONENTS].numpy()
    names = np.unique(learnt.kind)
    means, fake = _means(inside, learnt.kind, learnt.weight.astype(np.float32)), np.isin(names, learnt.kind[learnt.fake])
    network.prototypes.hold(torch.from_numpy(means[~fake]), torch.from_numpy(means[fake]))


def fit_mixture(
    network: TowerDetector, tower: Floats, logits: Floats, fake: NDArray[np.bool_], evidence: float
) -> tuple[float, float, float]:
    """How much probe, prototypes and the small network's logit count, on pictures that none of them was fitted on.

    Prototypes count `evidence` times as much as the probe, each by its spread over photographs: by known kinds alone they
    would count for nearly all, and what no prototype stands for would be judged by chance.  Against the small network the two
    are weighed by logistic regression at prior .5; neither may count against itself.  Returns the three weights.
    """
    network.prototypes.mixing.copy_(torch.tensor([1.0, _TEMPERATURE]))
    with torch.no_grad():
        shown = network.project(torch.from_numpy(tower))
        probe = (shown @ network.synthetic.weight[0, :CHANNELS] + network.synthetic.bias).numpy()
        told = network.prototypes.told(network.prototypes.evidence(shown[:, :COMPONENTS])).numpy()
    share = evidence * float(probe[~fake].std() / max(told[~fake].std(), _EDGE))
    pair = np.stack([probe + share * told, logits], axis=1).astype(np.float64)
    weight = np.where(fake, 0.5 / fake.sum(), 0.5 / (~fake).sum())
    sign = np.where(fake, 1.0, -1.0)

    def loss(values: NDArray[np.float64]) -> float:
        margin = sign * (pair @ values[:2] + values[2])
        return float((weight * np.logaddexp(0.0, -margin)).sum()) + 1e-3 * float(values[:2] @ values[:2])

    found = minimize(loss, np.array([1.0, 0.1, 0.0]), bounds=[(0.0, None), (0.0, None), (None, None)], method="L-BFGS-B").x
    with torch.no_grad():
        network.synthetic.weight[:, :CHANNELS] *= float(found[0])
        network.synthetic.weight[0, CHANNELS] = float(found[1]) / BESIDE_SCALE
        network.synthetic.bias.mul_(float(found[0])).add_(float(found[2]))
    network.prototypes.mixing[0] = share * float(found[0])
    return float(found[0]), share * float(found[0]), float(found[1])


def fit_family(network: TowerDetector, learnt: Learnt, families: Sequence[str]) -> None:
    """The family head: multinomial logistic regression on the projected features of the generators' pictures.

    Raises `ValueError` for fewer than two families.
    """
    if len(families) < 2:
        raise ValueError("recipe: synthetic: at least two generators are needed to tell families apart")
    rows = learnt.fake
    with torch.no_grad():
        shown = network.project(torch.from_numpy(learnt.features[rows])).numpy()
    model = LogisticRegression(C=0.02, max_iter=300, class_weight="balanced").fit(shown, learnt.kind[rows])
    # Of two classes scikit-learn gives the one row that parts them.
    two = len(model.classes_) == 2
    weight = np.concatenate([-model.coef_ / 2.0, model.coef_ / 2.0]) if two else model.coef_
    bias = np.concatenate([-model.intercept_ / 2.0, model.intercept_ / 2.0]) if two else model.intercept_
    place = [list(model.classes_).index(name) for name in families]
    with torch.no_grad():
        network.family.weight.zero_()
        network.family.weight[: len(place), :CHANNELS] = torch.from_numpy(weight[place]).float()
        network.family.bias.fill_(FREE)
        network.family.bias[: len(place)] = torch.from_numpy(bias[place]).float()
