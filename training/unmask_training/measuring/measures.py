"""Figures of detection: accuracy, AUC, recall at a false-positive rate, calibration error, bootstrap by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_DRAWS: Final = 500


@dataclass(frozen=True, slots=True)
class Scored:
    """Pictures with their calibrated p(synthetic), truth, kind (generator or real source) and group."""

    score: Floats
    fake: Bools
    kind: NDArray[np.str_]
    group: NDArray[np.str_]

    def where(self, chosen: NDArray[Any]) -> Scored:
        """The chosen rows (mask or indices)."""
        return Scored(self.score[chosen], self.fake[chosen], self.kind[chosen], self.group[chosen])


def accuracy(scored: Scored, real_below: float, fake_from: float) -> float:
    """Share called rightly; between the thresholds (unsure) counts as wrong."""
    right = np.where(scored.fake, scored.score >= fake_from, scored.score < real_below)
    return float(right.mean()) if right.size else float("nan")


def auc(scored: Scored) -> float:
    """Area under the ROC curve, ties half (Mann-Whitney)."""
    fake, real = np.sort(scored.score[scored.fake]), np.sort(scored.score[~scored.fake])
    if not fake.size or not real.size:
        return float("nan")
    below = np.searchsorted(real, fake, side="left") + np.searchsorted(real, fake, side="right")
    return float(below.mean() / (2.0 * real.size))


def threshold_at(scored: Scored, false_positive_rate: float) -> float:
    """The smallest score at or above which at most that share of the reals lies."""
    real = np.sort(scored.score[~scored.fake])
    if not real.size:
        raise ValueError("no reals to set a false-positive rate on")
    allowed = int(np.floor(false_positive_rate * real.size))
    return float(np.nextafter(real[real.size - 1 - allowed], np.inf))


def recall_at(scored: Scored, false_positive_rate: float) -> float:
    """Share of fakes at or above `threshold_at`; nan without both classes, as a bootstrap draw may be."""
    fake = scored.score[scored.fake]
    if not fake.size or scored.fake.all():
        return float("nan")
    return float((fake >= threshold_at(scored, false_positive_rate)).mean())


def calibration_error(score: Floats, fake: Bools, bins: int = 10) -> float:
    """Expected calibration error over bins of equal count, both classes weighted alike (prior .5).

    Source: Naeini et al., AAAI 2015.
    """
    weights = np.where(fake, 0.5 / max(int(fake.sum()), 1), 0.5 / max(int((~fake).sum()), 1))
    parts = np.array_split(np.argsort(score, kind="stable"), bins)
    return float(sum(abs((weights[part] * (score[part] - fake[part])).sum()) for part in parts))


def interval(scored: Scored, measure: Callable[[Scored], float], seed: int = 0) -> tuple[float, float]:
    """95 % interval of a measure by bootstrap over groups: pictures of one group stand and fall together."""
    names, member = np.unique(scored.group, return_inverse=True)
    members = [np.flatnonzero(member == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(_DRAWS):
        drawn = rng.integers(len(members), size=len(members))
        values.append(measure(scored.where(np.concatenate([members[i] for i in drawn]))))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def figure(scored: Scored, measure: Callable[[Scored], float]) -> dict[str, Any]:
    """Value, 95 % interval and count, rounded to 4 places."""
    low, high = interval(scored, measure)
    return {"value": round(measure(scored), 4), "low": round(low, 4), "high": round(high, 4), "n": len(scored.score)}


def balanced(scored: Scored, real_below: float, fake_from: float) -> float:
    """Mean of the accuracy on fakes and on reals."""
    parts = (scored.where(scored.fake), scored.where(~scored.fake))
    return float(np.mean([accuracy(part, real_below, fake_from) for part in parts]))


def table(scored: Scored, reals: Sequence[str], real_below: float, fake_from: float) -> dict[str, Any]:
    """Every figure of a detector's card.

    Pooled figures take `reals` as the real class; each generator's AUC is against these, each other source is listed for
    its false alarms only.
    """

    def right(rows: Scored) -> float:
        return accuracy(rows, real_below, fake_from)

    main = scored.where(scored.fake | np.isin(scored.kind, reals))
    against = main.where(~main.fake)
    kinds: dict[str, Any] = {}
    for name in np.unique(scored.kind):
        rows = scored.where(scored.kind == name)
        kinds[str(name)] = {"kind": "generator" if rows.fake.all() else "real", "accuracy": figure(rows, right)}
        if rows.fake.all():
            kinds[str(name)]["auc"] = figure(joined(rows, against), auc)
    pooled = {
        "balanced_accuracy": figure(main, lambda rows: balanced(rows, real_below, fake_from)),
        "accuracy_on_fakes": figure(main.where(main.fake), right),
        "accuracy_on_reals": figure(against, right),
        "auc": figure(main, auc),
        "recall_at_fpr_0.01": figure(main, lambda rows: recall_at(rows, 0.01)),
        "ece": figure(main, lambda rows: calibration_error(rows.score, rows.fake)),
    }
    return {"operating_point": {"real_below": real_below, "synthetic_above": fake_from}, "pooled": pooled, "by_kind": kinds}


def joined(one: Scored, other: Scored) -> Scored:
    """The rows of both."""
    return Scored(
        np.concatenate([one.score, other.score]),
        np.concatenate([one.fake, other.fake]),
        np.concatenate([one.kind, other.kind]),
        np.concatenate([one.group, other.group]),
    )


def markdown(figures: dict[str, Any]) -> str:
    """The table as Markdown: value and 95 % interval in per cent, AUC as a share."""
    lines = ["| | n | accuracy % (95 %) | AUC (95 %) |", "|---|---|---|---|"]
    for name, row in sorted(figures["by_kind"].items(), key=lambda item: (item[1]["kind"], item[0])):
        area = row.get("auc")
        shown = "" if area is None else f"{area['value']:.3f} ({area['low']:.3f}-{area['high']:.3f})"
        lines.append(f"| {row['kind']} `{name}` | {row['accuracy']['n']} | {_percent(row['accuracy'])} | {shown} |")
    for name, row in figures["pooled"].items():
        lines.append(f"| **{name.replace('_', ' ')}** | {row['n']} | {_percent(row)} | |")
    return "\n".join(lines)


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['value']:.1f} ({100 * row['low']:.1f}-{100 * row['high']:.1f})"
