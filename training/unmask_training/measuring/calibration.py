"""Temperature and bias, and the operating point, from pictures that were not trained on."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from unmask.core.cards import Calibration
from unmask.core.metrics import BINS
from unmask_training.measuring.measures import Scored, threshold_at

_POINTS: Final = (0.01, 0.02, 0.05, 0.1)
_COLDEST: Final = 0.01


def fit_calibration(logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> Calibration:
    """Temperature and bias of least negative log-likelihood at prior .5 (both classes weighted alike)."""
    if truth.all() or not truth.any():
        raise ValueError("calibration needs both classes")
    weights = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    sign = np.where(truth, 1.0, -1.0)

    def loss(parameters: NDArray[np.float64]) -> float:
        margin = sign * (logits * np.exp(-parameters[0]) + parameters[1])
        return float((weights * np.logaddexp(0.0, -margin)).sum())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    # Classes that nothing mixes would want a temperature of 0, which no score can be divided by.
    return Calibration(max(round(float(np.exp(best.x[0])), 4), _COLDEST), round(float(best.x[1]), 4))


def operating_point(scored: Scored, band: float = 0.05) -> dict[str, float]:
    """Thresholds: at stated false-positive rates, and the recommended pair.

    The pair lies about the score where real accuracy and fake accuracy are equal, weighted towards the reals (a false
    alarm costs a person an upload): the upper one where reals called fake are at most `band` fewer than fakes missed.
    `unsure` is the narrow band between the pair.
    """
    points = {f"fpr_{rate:g}": round(min(threshold_at(scored, rate), 1.0), 4) for rate in _POINTS}
    grid = np.linspace(0.02, 0.98, 193)
    real = np.array([(scored.score[~scored.fake] < t).mean() for t in grid])
    fake = np.array([(scored.score[scored.fake] >= t).mean() for t in grid])
    upper = float(grid[np.argmax(real >= fake + band)]) if (real >= fake + band).any() else 0.5
    return points | {"real_below": round(max(upper - 0.04, 0.01), 4), "synthetic_above": round(upper, 4)}


def reference_shares(scored: Scored) -> dict[str, list[float]]:
    """The card's section `reference`: how the scores of each class lie over the bins that serving watches for drift."""
    edges = [0.0, *BINS[:-1], np.nextafter(1.0, 2.0)]

    def shares(scores: NDArray[np.float64]) -> list[float]:
        # Prometheus counts a score that equals a bound below it, numpy above.
        counts, _ = np.histogram(np.nextafter(np.clip(scores, 1e-9, 1.0), 0.0), edges)
        return [round(float(count) / max(len(scores), 1), 4) for count in counts]

    real, fake = scored.score[~scored.fake], scored.score[scored.fake]
    return {"bins": list(BINS), "real": shares(real), "synthetic": shares(fake)}


def card_calibration(calibration: Calibration) -> dict[str, Any]:
    """As the card states it."""
    return {"temperature": calibration.temperature, "bias": calibration.bias}
