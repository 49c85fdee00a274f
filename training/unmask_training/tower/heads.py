"""Fits what stands on the tower's features: projection and heads, the weight of the network beside it, prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from unmask_training.adaptation.heads import FREE
from unmask_training.tower.network import BESIDE_SCALE, CHANNELS, PROTOTYPES, TowerDetector
from unmask_training.tower.probe import Probe
from unmask_training.tower.recipe import TowerRecipe

_EDGE: Final = 1e-6
# What brings the probe's logit to the size of the other channels.
_PROBE_SCALE: Final = 4.0
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Learnt:
    """Features (N, 5376) with the kind of each row, whether it is a generator's, and its weight (they sum to 1)."""

    features: Floats
    kind: NDArray[np.str_]
    fake: NDArray[np.bool_]
    weight: NDArray[np.float64]


def fit_projection(network: TowerDetector, learnt: Learnt, recipe: TowerRecipe) -> None:
    """Projection and head of `network`: channels by a binary loss and one over all kinds, the last channel by a probe.

    The channels begin at the leading principal components, whitened: what known kinds do not need of them stays nearly as it
    was, for kinds that come later.  The last one is a logistic regression on all features, regularised and stopped early, and
    is what the head reads: run to its end it knows a little more of held-out pictures of known generators (AUC .988 against
    .986) and a little less of a family that was left out (.72 against .76).
    """
    torch.manual_seed(recipe.seed)
    mean, std = learnt.features.mean(axis=0), learnt.features.std(axis=0) + _EDGE
    scaled = (learnt.features - mean) / std
    weight = learnt.weight
    project, kinds = nn.Linear(scaled.shape[1], CHANNELS - 1), sorted(set(learnt.kind.tolist()))
    _begin(project, scaled, weight)
    heads = nn.ModuleList([project, nn.Linear(CHANNELS - 1, 1), nn.Linear(CHANNELS - 1, len(kinds))])
    number = np.array([kinds.index(kind) for kind in learnt.kind])
    targets = torch.from_numpy(learnt.fake.astype(np.float32)), torch.from_numpy(number)
    _descend(heads, torch.from_numpy(scaled), targets, torch.from_numpy(weight), recipe)
    probe, steps = Probe(scaled.shape[1], 0), recipe.probe_steps
    probe.fit(learnt.features, learnt.fake, number, weight, l2=recipe.probe_l2, invariance=recipe.invariance, steps=steps)
    with torch.no_grad():
        # Standardisation goes into the projection.
        network.project.weight[:-1] = project.weight / torch.from_numpy(std)
        network.project.bias[:-1] = project.bias - project.weight @ torch.from_numpy(mean / std)
        network.project.weight[-1] = probe.head.weight[0] / probe.std / _PROBE_SCALE
        network.project.bias[-1] = (probe.head.bias[0] - probe.head.weight[0] @ (probe.mean / probe.std)) / _PROBE_SCALE
        network.synthetic.weight.zero_()
        network.synthetic.weight[0, CHANNELS - 1] = _PROBE_SCALE
        network.synthetic.bias.zero_()


def _begin(project: nn.Linear, scaled: Floats, weight: NDArray[np.float64]) -> None:
    if len(scaled) <= CHANNELS:
        return  # so few rows have no such components: it begins at random
    covariance = (scaled.T * weight.astype(np.float32)) @ scaled
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    count = CHANNELS - 1
    leading = vectors[:, :count] / np.sqrt(values[:count] + values[count])
    with torch.no_grad():
        project.weight.copy_(torch.from_numpy(np.ascontiguousarray(0.5 * leading.T)))
        project.bias.zero_()


def _descend(heads: nn.ModuleList, rows: Tensor, targets: tuple[Tensor, Tensor], weight: Tensor, recipe: TowerRecipe) -> None:
    optimizer = torch.optim.AdamW(heads.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = max(2, len(rows) // recipe.batch * recipe.epochs)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, steps)
    smooth = recipe.label_smoothing
    for _ in tqdm(range(steps), desc="projection", unit="step", disable=None):
        chosen = torch.multinomial(weight, recipe.batch, replacement=True)
        with torch.autocast("cpu", torch.bfloat16):
            shown = heads[0](functional.dropout(rows[chosen], recipe.input_dropout))
        shown = functional.dropout(shown.float(), recipe.dropout)
        truth = targets[0][chosen] * (1.0 - smooth) + smooth / 2.0
        loss = functional.binary_cross_entropy_with_logits(heads[1](shown)[:, 0], truth)
        loss = loss + recipe.kind_weight * functional.cross_entropy(heads[2](shown), targets[1][chosen], label_smoothing=smooth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def fit_beside(network: TowerDetector, tower: Floats, logits: Floats, fake: NDArray[np.bool_]) -> tuple[float, float]:
    """How much the small network's logit counts beside the tower's, on pictures that neither was fitted on.

    Logistic regression at prior .5 over both logits; returns their weights.  Neither may count against itself.
    """
    with torch.no_grad():
        shown = network.project(torch.from_numpy(tower))
        own = (shown @ network.synthetic.weight[0, :CHANNELS] + network.synthetic.bias).numpy()
    pair = np.stack([own, logits], axis=1).astype(np.float64)
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
    return float(found[0]), float(found[1])


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


def fit_prototypes(network: TowerDetector, features: Floats, seed: int) -> None:
    """Centres of what is known (k-means), to which strangers are far."""
    with torch.no_grad():
        shown = network.project(torch.from_numpy(features)).numpy()
    count = min(PROTOTYPES, len(shown))
    centres = KMeans(count, n_init=1, random_state=seed).fit(shown).cluster_centers_
    with torch.no_grad():
        # With fewer pictures than prototypes the last one is repeated.
        network.prototypes.copy_(torch.from_numpy(centres[np.minimum(np.arange(PROTOTYPES), count - 1)]).float())
