"""The gate: what an adapted head may lose of what was known, and that it gains the new generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from unmask_training.adaptation.heads import Bools, Floats, Readout
from unmask_training.adaptation.memory import Memory
from unmask_training.adaptation.operating import Operating
from unmask_training.detector.evaluate import SOFT_SOURCES
from unmask_training.measuring.measures import calibration_error

POOLED_POINTS: Final = 0.5
KIND_POINTS: Final = 2.0
KIND_PICTURES: Final = 2
FAKES: Final = "known fakes"
REALS: Final = "reals"
_EPSILON: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Regression:
    """Pictures that no fit saw: features (N, 2, C), truth (N,), kind by name (N,), and whether the present version is right."""

    features: NDArray[np.float32]
    fake: Bools
    kind: NDArray[np.str_]
    before: Bools
    scores: Floats

    @staticmethod
    def of(memory: Memory, readout: Readout, point: Operating) -> Regression:
        """The held-out rows of a memory; raises `ValueError` where a class has none."""
        rows = memory.where(memory.held_out)
        if not rows.fake.any() or rows.fake.all():
            raise ValueError("memory: needs held-out rows (calibrate, val) of both classes for the gate")
        features = rows.features.astype(np.float32)
        before = point.right(readout, features, rows.fake)
        return Regression(features, rows.fake, rows.names, before, point.scores(readout(features)))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the gate's table: right before and after of n, pictures lost and won, the exact McNemar p, the verdict."""

    name: str
    n: int
    before: int
    after: int
    lost: int
    won: int
    p: float
    allowed: str
    broken: str

    @property
    def points(self) -> float:
        """Net change in points of accuracy."""
        return 100.0 * (self.after - self.before) / self.n


@dataclass(frozen=True, slots=True)
class Gate:
    """All lines; it holds where none is broken."""

    lines: tuple[Line, ...]
    ece_before: float
    ece_after: float

    @property
    def broken(self) -> tuple[str, ...]:
        """What broke, by how much; empty where the gate holds."""
        return tuple(f"{line.name}: {line.broken}" for line in self.lines if line.broken)

    def line(self, name: str) -> Line:
        """The line of that name."""
        return next(line for line in self.lines if line.name == name)

    def table(self) -> str:
        """As Markdown."""
        rows = ["| | n | before % | after % | lost, won | McNemar p | may lose | |", "|---|---|---|---|---|---|---|---|"]
        for line in self.lines:
            shares = f"{100 * line.before / line.n:.1f} | {100 * line.after / line.n:.1f}"
            said = f"BROKEN: {line.broken}" if line.broken else "holds"
            rows.append(
                f"| {line.name} | {line.n} | {shares} | {line.lost}, {line.won} | {line.p:.2g} | {line.allowed} | {said} |"
            )
        return "\n".join(rows)

    def figures(self) -> dict[str, Any]:
        """As the card states it."""
        return {
            line.name: {
                "n": line.n,
                "before": round(line.before / line.n, 4),
                "after": round(line.after / line.n, 4),
                "lost": line.lost,
                "won": line.won,
                "mcnemar_p": round(line.p, 4),
            }
            for line in self.lines
        }


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p of a paired change: a binomial test on the discordant pairs (McNemar, Psychometrika 1947)."""
    return float(binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0


def judge(known: Regression, after: Bools, scores: Floats, new: tuple[str, Bools, Bools]) -> Gate:
    """Holds what an adapted version calls rightly (`after`, with its `scores`, (N,)) to what the present one does.

    Pooled known fakes and pooled reals (soft sources aside, as in every pooled figure) may lose half a point each, every
    kind 2 pictures or 2 points net, whichever is more.  `new` names the samples and says which were called fake before and
    after: they must gain, or lose none where all were.
    """
    pooled = {FAKES: known.fake, REALS: ~known.fake & ~np.isin(known.kind, SOFT_SOURCES)}
    lines = [_pooled(name, known.before[rows], after[rows]) for name, rows in pooled.items() if rows.any()]
    lines.append(_gained(*new, wants_gain=not new[1].all()))
    for fake, what in ((True, "generator"), (False, "real")):
        for kind in np.unique(known.kind[known.fake == fake]):
            rows = (known.kind == kind) & (known.fake == fake)
            lines.append(_kind(f"{what} {kind}", known.before[rows], after[rows]))
    main = pooled[FAKES] | pooled[REALS]
    errors = [calibration_error(part[main], known.fake[main]) for part in (known.scores, scores)]
    return Gate(tuple(lines), *errors)


def _line(name: str, was: Bools, now: Bools, allowed: str, broken: str) -> Line:
    lost, won = int((was & ~now).sum()), int((~was & now).sum())
    return Line(name, len(was), int(was.sum()), int(now.sum()), lost, won, mcnemar(lost, won), allowed, broken)


def _net(was: Bools, now: Bools) -> tuple[int, float]:
    """Pictures lost net of those won, and the same in points."""
    net = int(was.sum()) - int(now.sum())
    return net, 100.0 * net / len(was)


def _pooled(name: str, was: Bools, now: Bools) -> Line:
    net, points = _net(was, now)
    is_broken = points > POOLED_POINTS + _EPSILON
    broken = f"{points:.2f} points lost ({net} of {len(was)} net), {POOLED_POINTS} allowed" if is_broken else ""
    return _line(name, was, now, f"{POOLED_POINTS} points", broken)


def _kind(name: str, was: Bools, now: Bools) -> Line:
    net, points = _net(was, now)
    is_broken = net > KIND_PICTURES and points > KIND_POINTS + _EPSILON
    broken = f"{net} pictures lost net ({points:.1f} points)" if is_broken else ""
    return _line(name, was, now, f"{KIND_PICTURES} or {KIND_POINTS:g} points", broken)


def _gained(name: str, was: Bools, now: Bools, *, wants_gain: bool) -> Line:
    net, _ = _net(was, now)
    is_broken = net >= 0 if wants_gain else net > 0
    broken = f"{int(was.sum())} of {len(was)} called fake before, {int(now.sum())} after: no gain" if is_broken else ""
    return _line(name, was, now, "must gain" if wants_gain else "nothing", broken)


def path_table(path: Sequence[tuple[float, Gate]], new: str) -> str:
    """The path of biases as text, highest first; of those that give the same, the first."""
    rows = ["| bias | known fakes | reals | new | |", "|---|---|---|---|---|"]
    told = ""
    for bias, gate in path:
        changes = [f"{gate.line(name).points:+.2f}" for name in (FAKES, REALS)]
        fresh, said = gate.line(new), f"breaks {len(gate.broken)}" if gate.broken else "holds"
        line = f"{changes[0]} | {changes[1]} | {fresh.before} to {fresh.after} of {fresh.n} | {said} |"
        if line != told:
            rows.append(f"| {bias:g} | {line}")
        told = line
    return "\n".join(rows)
