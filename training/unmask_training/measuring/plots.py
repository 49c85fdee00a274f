"""Plots of an evaluation as inline SVG that follows the page's ink, so that light and dark both read."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# Stands for the page's text colour: matplotlib knows no `currentColor`.
INK: Final = "#010203"
REAL, FAKE = "#3a86c8", "#dd7a1f"
# Tiers differ by stroke too, for those who do not tell the colours apart.
_STROKES: Final = (("#3a86c8", "-", "o"), ("#2a9d74", "--", "s"), ("#c2559d", ":", "D"))
_STYLE: Final = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "axes.titlesize": 11, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#808080", "grid.alpha": 0.25,
    "axes.axisbelow": True, "legend.fontsize": 9, "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK,
}  # fmt: skip


def svg(figure: Figure, name: str) -> str:
    """The figure as one <svg> element: transparent, its ink the page's, its ids unlike those of another `name`."""
    text = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :].replace(INK, "currentColor")


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty plot in the report's style, in inches."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def _draw(width: float, height: float, title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = canvas(width, height)
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _legend(axes: Axes, place: str = "best") -> None:
    with mpl.rc_context(_STYLE):
        axes.legend(loc=place)


def _tiers(report: Mapping[str, Any]) -> list[tuple[str, Any, tuple[str, str, str]]]:
    return [(name, tier, stroke) for (name, tier), stroke in zip(report["tiers"].items(), _STROKES, strict=False)]


def _per_cent(axes: Axes, lows: list[float]) -> None:
    """An axis of per cent that begins below the lowest interval."""
    axes.set_xlim(max(0.0, 10.0 * np.floor(min(lows, default=0.0) / 10.0) - 5.0), 101.0)
    axes.grid(visible=False, axis="y")


def roc(report: Mapping[str, Any]) -> Figure:
    """True- against false-positive rate of each tier, pooled; the axis of false alarms is logarithmic."""
    figure, axes = _draw(5.2, 3.8, "ROC, pooled", "reals called fake (log)", "fakes found")
    for name, tier, (colour, line, _) in _tiers(report):
        curve = tier["curves"]["roc"]
        area = tier["pooled"].get("auc")
        label = name if area is None else f"{name}, AUC {area['value']:.3f}"
        fpr = np.clip(curve["fpr"], 1e-3, 1.0)
        axes.plot(fpr, curve["tpr"], line, color=colour, drawstyle="steps-post", label=label)
    axes.axvline(0.01, color=INK, linewidth=0.8, linestyle=":")
    axes.text(0.0105, 0.02, "1 %", fontsize=9, color=INK)
    axes.set_xscale("log")
    axes.set_xlim(1e-3, 1.0)
    axes.set_ylim(0.0, 1.02)
    _legend(axes, "lower right")
    return figure


def histogram(report: Mapping[str, Any], tier: str = "clean") -> Figure:
    """Shares of reals and fakes by score, with the thresholds."""
    figure, axes = _draw(5.2, 3.8, f"Scores, {tier}", "calibrated p(synthetic)", "share of the class")
    curve, point = report["tiers"][tier]["curves"]["histogram"], report["tiers"][tier]["operating_point"]
    for name, colour in (("real", REAL), ("fake", FAKE)):
        axes.stairs(curve[name], curve["edges"], fill=True, color=colour, alpha=0.35)
        axes.stairs(curve[name], curve["edges"], color=colour, linewidth=1.6, label=name)
    axes.axvspan(point["real_below"], point["synthetic_above"], color="#808080", alpha=0.3, label="unsure", linewidth=0)
    for name in ("real_below", "synthetic_above"):
        axes.axvline(point[name], color=INK, linewidth=0.8, linestyle="--")
    axes.set_xlim(0.0, 1.0)
    _legend(axes, "upper center")
    return figure


def reliability(report: Mapping[str, Any]) -> Figure:
    """Share of fakes against the mean score, in bins of equal count at prior .5."""
    figure, axes = _draw(5.2, 3.8, "Reliability, prior .5", "mean score of the bin", "fakes among the bin")
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    for name, tier, (colour, line, mark) in _tiers(report):
        curve, error = tier["curves"]["reliability"], tier["pooled"].get("ece")
        label = name if error is None else f"{name}, ECE {error['value']:.3f}"
        axes.plot(curve["score"], curve["fakes"], line, marker=mark, markersize=4, color=colour, label=label)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.02)
    _legend(axes, "upper left")
    return figure


def kinds(report: Mapping[str, Any]) -> Figure:
    """Accuracy of each generator and real source with its interval, tier beside tier."""
    rows = report["tiers"]["clean"]["by_kind"]
    names = sorted(rows, key=lambda name: (rows[name]["kind"], name))
    figure, axes = _draw(10.6, 0.8 + 0.32 * len(names), "Accuracy (unsure counts as wrong), 95 % intervals", "%", "")
    tiers, lows = _tiers(report), list[float]()
    for number, (label, tier, (colour, _, mark)) in enumerate(tiers):
        place = np.arange(len(names)) + 0.22 * (number - (len(tiers) - 1) / 2)
        found = [tier["by_kind"][name]["accuracy"] for name in names]
        value, low, high = (100.0 * np.array([row[key] for row in found]) for key in ("value", "low", "high"))
        lows.extend(low)
        # A percentile interval need not hold the value itself, where a handful of groups stand behind it.
        spread = np.maximum([value - low, high - value], 0.0)
        axes.errorbar(value, place, xerr=spread, fmt=mark, markersize=4, color=colour, elinewidth=1.2, capsize=2, label=label)
    reals = [i for i, name in enumerate(names) if rows[name]["kind"] == "real"]
    if reals:
        axes.axhline(reals[0] - 0.5, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(names)), [f"{rows[name]['kind']} {name}  ({rows[name]['accuracy']['n']})" for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    _per_cent(axes, lows)
    if len(tiers) > 1:
        _legend(axes, "lower left")
    return figure


def risk_coverage(report: Mapping[str, Any]) -> Figure:
    """Share of forced calls that are wrong, against the share of pictures answered."""
    figure, axes = _draw(
        5.2, 3.8, "Risk against coverage", "share answered, least uncertain first", "share of these called wrongly"
    )
    for name, tier, (colour, line, _) in _tiers(report):
        for way, curve in tier["doubt"]["risk_coverage"].items():
            width = 2.4 if way == "doubt" else 1.2
            label = f"{name}, by {way} (AURC {curve['aurc']:.3f})"
            axes.plot(curve["coverage"], curve["risk"], line, color=colour, linewidth=width, label=label)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(bottom=0.0)
    _legend(axes, "upper left")
    return figure


def confusion(told: Mapping[str, Any]) -> Figure:
    """Where fakes of each kind (rows) are attributed (columns): per cent of the row."""
    rows, columns, pictures = told["rows"], told["columns"], np.array(told["pictures"], dtype=np.float64)
    shares = pictures / np.maximum(pictures.sum(axis=1, keepdims=True), 1.0)
    figure, axes = _draw(10.6, 1.4 + 0.36 * len(rows), "Families, clean: % of each row", "attributed to", "")
    ramp = LinearSegmentedColormap.from_list("ramp", [(0.23, 0.53, 0.78, 0.0), (0.23, 0.53, 0.78, 0.85)])
    axes.pcolormesh(shares, cmap=ramp, vmin=0.0, vmax=1.0, edgecolors="none")
    for y, x in zip(*np.nonzero(shares >= 0.005), strict=True):
        axes.text(x + 0.5, y + 0.5, f"{100 * shares[y, x]:.0f}", ha="center", va="center", fontsize=9, color=INK)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        np.arange(len(rows)) + 0.5, [f"{name}  ({int(n)})" for name, n in zip(rows, pictures.sum(axis=1), strict=True)]
    )
    axes.invert_yaxis()
    axes.grid(visible=False)
    return figure


def strata(column: str, bins: Mapping[str, Any]) -> Figure:
    """Accuracy on reals and on fakes in each bin of a column, with intervals."""
    names: Sequence[str] = list(bins)
    lows: list[float] = []
    figure, axes = _draw(10.6, 1.0 + 0.34 * len(names), f"By {column}: accuracy, 95 % intervals", "%", "")
    for shift, (what, colour, mark) in zip((-0.12, 0.12), (("reals", REAL, "o"), ("fakes", FAKE, "s")), strict=True):
        there = [(i, bins[name][f"accuracy_on_{what}"]) for i, name in enumerate(names) if f"accuracy_on_{what}" in bins[name]]
        value, low, high = (100.0 * np.array([row[key] for _, row in there]) for key in ("value", "low", "high"))
        lows.extend(low)
        spread, place = np.maximum([value - low, high - value], 0.0), np.array([i + shift for i, _ in there])
        axes.errorbar(value, place, xerr=spread, fmt=mark, markersize=4, color=colour, elinewidth=1.2, capsize=2, label=what)
    axes.set_yticks(range(len(names)), [f"{name}  ({bins[name]['reals']} + {bins[name]['fakes']})" for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    _per_cent(axes, lows)
    _legend(axes)
    return figure
