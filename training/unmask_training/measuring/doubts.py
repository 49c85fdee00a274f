"""Does the model know when it is wrong: doubt against errors, and risk against coverage."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask_training.measuring.measures import Point, Scored, auc, figures

Floats = NDArray[np.float64]
_POINTS: Final = 100


def forced_errors(scored: Scored, point: Point) -> NDArray[np.bool_]:
    """Whether each picture would be called wrongly (N,) if none could be called unsure: above the band's middle is fake."""
    wrong: NDArray[np.bool_] = (scored.score >= _middle(point)) != scored.fake
    return wrong


def _middle(point: Point) -> float:
    return (point.real_below + point.fake_from) / 2.0


def risk_coverage(uncertainty: Floats, wrong: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Coverage and risk at every cut: the least uncertain pictures are answered, risk is the share of them that is wrong.

    Pictures of equal uncertainty are answered together.  Source: El-Yaniv and Wiener, JMLR 2010.
    """
    order = np.argsort(uncertainty, kind="stable")
    answered = np.arange(1, len(order) + 1)
    last = np.flatnonzero(np.append(np.diff(uncertainty[order]) != 0.0, True))
    return answered[last] / len(order), np.cumsum(wrong[order])[last] / answered[last]


def area_under(coverage: Floats, risk: Floats) -> float:
    """Mean risk over coverage 0..1 (AURC), of the step function.  Source: Geifman and El-Yaniv, ICLR 2019."""
    return float((np.diff(coverage, prepend=0.0) * risk).sum())


def table(scored: Scored, point: Point) -> dict[str, Any]:
    """Risk-coverage by the score's distance to the band, and where there is a doubt by that; its AUROC against errors.

    Errors are those of a forced call (`forced_errors`), so that `unsure` is what is judged, not part of the judgement.
    """
    wrong = forced_errors(scored, point)
    ways = {"score": -np.abs(scored.score - _middle(point))}
    if scored.doubt is not None:
        ways["doubt"] = scored.doubt
    found: dict[str, Any] = {"forced_error": round(float(wrong.mean()), 4), "auroc_of_errors": {}, "risk_coverage": {}}
    for name, uncertainty in ways.items():
        judged = Scored(uncertainty, wrong, scored.kind, scored.group)
        found["auroc_of_errors"] |= figures(judged, {name: auc})
        coverage, risk = risk_coverage(uncertainty, wrong)
        kept = np.unique(np.linspace(0, len(coverage) - 1, min(_POINTS, len(coverage))).round().astype(int))
        found["risk_coverage"][name] = {
            "aurc": round(area_under(coverage, risk), 4),
            "coverage": coverage[kept].round(4).tolist(),
            "risk": risk[kept].round(4).tolist(),
        }
    return found
