"""The plots of the experiments, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unmask_training.measuring.measures import Floats


def heat_map(values: Floats, rows: Sequence[str], columns: Sequence[str], title: str) -> bytes:
    """Shares (R, C) as a map with their per cent in each cell; nan stays blank."""
    figure = Figure(figsize=(2.6 + 0.85 * len(columns), 1.8 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(100.0 * values, cmap="viridis", vmin=0.0, vmax=100.0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("tested on")
    axes.set_ylabel("trained on")
    axes.set_title(title)
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color="black" if value > 0.6 else "white")
    figure.colorbar(shown, ax=axes, label="%")
    return _png(figure)


def bars(shares: Mapping[str, Mapping[str, float]], title: str) -> bytes:
    """One stacked bar a row: shares called fake, unsure, real."""
    figure = Figure(figsize=(8.0, 1.6 + 0.42 * len(shares)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(shares))
    for name, colour in (("fake", "#b5442e"), ("unsure", "#d9b44a"), ("real", "#3d7ea6")):
        widths = np.array([100.0 * row[name] for row in shares.values()])
        drawn = axes.barh(range(len(shares)), widths, left=left, color=colour, label=f"called {name}")
        texts = [f"{width:.0f}" if width >= 6 else "" for width in widths]
        axes.bar_label(drawn, texts, label_type="center", color="black" if name == "unsure" else "white")
        left += widths
    axes.set_yticks(range(len(shares)), list(shares))
    axes.invert_yaxis()
    axes.set_xlim(0.0, 100.0)
    axes.set_xlabel("% of the pictures left out")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, title=title)
    return _png(figure)


def curve(
    counts: Sequence[int], lines: Mapping[str, Sequence[tuple[float, float]]], anchor: tuple[str, float], title: str
) -> bytes:
    """Mean and standard deviation (shares) against the number of samples; `anchor`: what it is called, and its share."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(counts))
    for (name, points), marker in zip(lines.items(), "osD^", strict=False):
        mean, std = 100.0 * np.array(points).T
        (drawn,) = axes.plot(places, mean, marker=marker, label=name)
        axes.fill_between(places, mean - std, mean + std, alpha=0.2, color=drawn.get_color())
    axes.axhline(100.0 * anchor[1], color="grey", linestyle="--", label=anchor[0])
    axes.set_xticks(places, [str(count) for count in counts])
    axes.set_ylim(0.0, 102.0)
    axes.set_xlabel("samples of the generator left out")
    axes.set_ylabel("accuracy, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
