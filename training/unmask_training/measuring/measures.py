"""Figures of detection: accuracy, AUC, recall at a false-positive rate, calibration error, bootstrap by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DRAWS: Final = 500
SEED: Final = 0
REAL, SYNTHETIC, UNSURE = 0, 1, -1


@dataclass(frozen=True, slots=True)
class Scored:
    """Pictures with their calibrated p(synthetic), truth, kind (generator or real source) and group.

    `doubt` is 0..1, or None where the model gives none.
    """

    score: Floats
    fake: Bools
    kind: NDArray[np.str_]
    group: NDArray[np.str_]
    doubt: Floats | None = None

    def where(self, chosen: NDArray[Any]) -> Scored:
        """The chosen rows (mask or indices)."""
        doubt = None if self.doubt is None else self.doubt[chosen]
        return Scored(self.score[chosen], self.fake[chosen], self.kind[chosen], self.group[chosen], doubt)


Measure = Callable[[Scored], float]


class Point(NamedTuple):
    """An operating point: below `real_below` a picture is called real, from `fake_from` on synthetic, between unsure.

    From `doubt_from` on it is unsure whatever its score, unless that is `spared_from` or more; None: never.
    """

    real_below: float
    fake_from: float
    doubt_from: float | None = None
    spared_from: float | None = None


def called(scored: Scored, point: Point) -> NDArray[np.int8]:
    """What each picture is called at an operating point, (N,): 0 real, 1 synthetic, -1 unsure."""
    low, high = scored.score < point.real_below, scored.score >= point.fake_from
    calls = np.where(high, SYNTHETIC, np.where(low, REAL, UNSURE)).astype(np.int8)
    if point.doubt_from is not None:
        if scored.doubt is None:
            raise ValueError("the operating point has a threshold of doubt, but the model gives no doubt; drop that threshold")
        spared = np.inf if point.spared_from is None else point.spared_from
        calls[(scored.doubt >= point.doubt_from) & (scored.score < spared)] = UNSURE
    return calls


def accuracy(scored: Scored, real_below: float, fake_from: float) -> float:
    """Share called rightly; between the thresholds (unsure) counts as wrong."""
    return accuracy_at(scored, Point(real_below, fake_from))


def accuracy_at(scored: Scored, point: Point) -> float:
    """Share called rightly at an operating point; unsure counts as wrong."""
    return _mean(called(scored, point) == scored.fake)


def share_called(scored: Scored, what: int, point: Point) -> float:
    """Share that is called `what`: `REAL`, `SYNTHETIC` or `UNSURE`."""
    return _mean(called(scored, point) == what)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else float("nan")


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


def resamples(group: NDArray[np.str_], seed: int = SEED) -> Iterator[NDArray[np.intp]]:
    """`DRAWS` bootstrap draws of row indices by group: pictures of one group stand and fall together."""
    names, member = np.unique(group, return_inverse=True)
    rng = np.random.default_rng(seed)
    rows = np.arange(len(group))
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        yield np.repeat(rows, times[member])


def interval(scored: Scored, measure: Measure, seed: int = SEED) -> tuple[float, float]:
    """95 % interval of a measure by bootstrap over groups."""
    return percentiles([measure(scored.where(rows)) for rows in resamples(scored.group, seed)])


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of bootstrap values; draws without the measure (nan) do not count."""
    known = np.asarray(values)[~np.isnan(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def stated(value: float, low: float, high: float, n: int) -> dict[str, Any]:
    """A figure as reports hold it: value, 95 % interval and count, rounded to 4 places."""
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4), "n": n}


def figure(scored: Scored, measure: Measure) -> dict[str, Any]:
    """Value, 95 % interval and count, rounded to 4 places."""
    return stated(measure(scored), *interval(scored, measure), len(scored.score))


def figures(scored: Scored, measures: Mapping[str, Measure]) -> dict[str, Any]:
    """`figure` of each measure, all from the same draws; one that these pictures cannot give (nan) is left out."""
    values = {name: measure(scored) for name, measure in measures.items()}
    known = {name: measure for name, measure in measures.items() if not np.isnan(values[name])}
    drawn: dict[str, list[float]] = {name: [] for name in known}
    for rows in resamples(scored.group) if known else ():
        some = scored.where(rows)
        for name, measure in known.items():
            drawn[name].append(measure(some))
    return {name: stated(values[name], *percentiles(drawn[name]), len(scored.score)) for name in known}


def balanced(scored: Scored, real_below: float, fake_from: float) -> float:
    """Mean of the accuracy on fakes and on reals."""
    return balanced_at(scored, Point(real_below, fake_from))


def balanced_at(scored: Scored, point: Point) -> float:
    """Mean of the accuracy on fakes and on reals at an operating point; nan without both."""
    right = called(scored, point) == scored.fake
    return (_mean(right[scored.fake]) + _mean(right[~scored.fake])) / 2.0


def _ece(scored: Scored) -> float:
    both = 0 < int(scored.fake.sum()) < len(scored.fake)
    return calibration_error(scored.score, scored.fake) if both else float("nan")


_OF_BOTH: Final[dict[str, Measure]] = {
    "auc": auc,
    "recall_at_fpr_0.01": partial(recall_at, false_positive_rate=0.01),
    "ece": _ece,
}


def table(scored: Scored, reals: Sequence[str], point: Point) -> dict[str, Any]:
    """Every figure of a detector's card.

    Pooled figures take `reals` as the real class.  What needs both classes (AUC, recall, ECE) is measured for a generator
    against these, and for each of these against all fakes; every other source is listed for its false alarms only.
    """
    main = scored.where(scored.fake | np.isin(scored.kind, reals))
    kinds: dict[str, Any] = {}
    for name in np.unique(scored.kind):
        rows = scored.where(scored.kind == name)
        fake = bool(rows.fake.all())
        kinds[str(name)] = {"kind": "generator" if fake else "real", **figures(rows, _of_one(point))}
        if fake or name in reals:
            kinds[str(name)] |= figures(joined(rows, main.where(main.fake != fake)), _OF_BOTH)
    return {"operating_point": told(point), "pooled": pooled(main, point), "by_kind": kinds}


def told(point: Point) -> dict[str, float]:
    """The operating point by the names that a card's thresholds have."""
    names = ("real_below", "synthetic_above", "doubt", "synthetic_despite_doubt")
    return {name: value for name, value in zip(names, point, strict=True) if value is not None}


def _of_one(point: Point) -> dict[str, Measure]:
    """What can be said of pictures of one class: accuracy, and what they are called."""
    shares = {"called_synthetic": SYNTHETIC, "called_real": REAL, "unsure": UNSURE}
    return {
        "accuracy": partial(accuracy_at, point=point),
        **{name: partial(share_called, what=what, point=point) for name, what in shares.items()},
    }


def pooled(scored: Scored, point: Point) -> dict[str, Any]:
    """The figures of pictures of both classes together; those of a class that is not there are left out."""
    fakes, reals = (figures(scored.where(scored.fake == fake), _of_one(point)) for fake in (True, False))
    found = {
        **figures(scored, {"balanced_accuracy": partial(balanced_at, point=point)}),
        "accuracy_on_fakes": fakes.get("accuracy"),
        "accuracy_on_reals": reals.get("accuracy"),
        "fakes_called_real": fakes.get("called_real"),
        "reals_called_fake": reals.get("called_synthetic"),
        "unsure_on_fakes": fakes.get("unsure"),
        "unsure_on_reals": reals.get("unsure"),
        **figures(scored, _OF_BOTH),
    }
    return {name: row for name, row in found.items() if row is not None}


def joined(one: Scored, other: Scored) -> Scored:
    """The rows of both."""
    doubts = None if one.doubt is None or other.doubt is None else np.concatenate([one.doubt, other.doubt])
    return Scored(
        np.concatenate([one.score, other.score]),
        np.concatenate([one.fake, other.fake]),
        np.concatenate([one.kind, other.kind]),
        np.concatenate([one.group, other.group]),
        doubts,
    )


def markdown(figures: dict[str, Any]) -> str:
    """The table as Markdown: value and 95 % interval in per cent, AUC as a share."""
    lines = ["| | n | accuracy % (95 %) | unsure % | AUC (95 %) |", "|---|---|---|---|---|"]
    for name, row in sorted(figures["by_kind"].items(), key=lambda item: (item[1]["kind"], item[0])):
        area = row.get("auc")
        shown = "" if area is None else f"{area['value']:.3f} ({area['low']:.3f}-{area['high']:.3f})"
        unsure = "" if "unsure" not in row else f"{100 * row['unsure']['value']:.1f}"
        cells = (f"{row['kind']} `{name}`", row["accuracy"]["n"], percent(row["accuracy"]), unsure, shown)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    for name, row in figures["pooled"].items():
        lines.append(f"| **{name.replace('_', ' ')}** | {row['n']} | {percent(row)} | | |")
    return "\n".join(lines)


def percent(row: Mapping[str, Any]) -> str:
    """A figure in per cent with its interval."""
    return f"{100 * row['value']:.1f} ({100 * row['low']:.1f}-{100 * row['high']:.1f})"
