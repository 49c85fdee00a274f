"""The curves of a report as numbers: ROC, histograms of scores, reliability."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from unmask_training.measuring.measures import Scored

_BINS: Final = 20
_POINTS: Final = 200


def roc(scored: Scored) -> dict[str, list[float]]:
    """False- and true-positive rates from (0, 0) to (1, 1), thinned to about 200 points."""
    order = np.argsort(-scored.score, kind="stable")
    fake = scored.fake[order]
    last = np.flatnonzero(np.append(np.diff(scored.score[order]) != 0.0, True))
    fpr = np.append(0.0, np.cumsum(~fake)[last] / max(int((~fake).sum()), 1))
    tpr = np.append(0.0, np.cumsum(fake)[last] / max(int(fake.sum()), 1))
    kept = np.unique(np.linspace(0, len(fpr) - 1, min(_POINTS, len(fpr))).round().astype(int))
    return {"fpr": fpr[kept].round(4).tolist(), "tpr": tpr[kept].round(4).tolist()}


def histogram(scored: Scored) -> dict[str, list[float]]:
    """Share of each class in 20 bins of the score 0..1."""
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    found: dict[str, list[float]] = {"edges": edges.round(4).tolist()}
    for name, chosen in (("real", ~scored.fake), ("fake", scored.fake)):
        counts = np.histogram(scored.score[chosen], edges)[0]
        found[name] = (counts / max(int(counts.sum()), 1)).round(4).tolist()
    return found


def reliability(scored: Scored, bins: int = 10) -> dict[str, list[float]]:
    """Mean score and share of fakes in bins of equal count, both classes weighted alike (prior .5), as ECE takes them."""
    fake = scored.fake
    weights = np.where(fake, 0.5 / max(int(fake.sum()), 1), 0.5 / max(int((~fake).sum()), 1))
    parts = [part for part in np.array_split(np.argsort(scored.score, kind="stable"), bins) if part.size]
    found: dict[str, list[float]] = {"score": [], "fakes": [], "weight": []}
    for part in parts:
        total = float(weights[part].sum())
        found["score"].append(round(float((weights[part] * scored.score[part]).sum()) / total, 4))
        found["fakes"].append(round(float((weights[part] * fake[part]).sum()) / total, 4))
        found["weight"].append(round(total, 4))
    return found


def table(scored: Scored) -> dict[str, Any]:
    """All of them."""
    return {"roc": roc(scored), "histogram": histogram(scored), "reliability": reliability(scored)}
