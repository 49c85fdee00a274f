"""Rows of prepared data in bins of a manifest column: what a detector does at which yaw, age, number of faces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unmask_training.data.chips import Row

UNSET: Final = "(unset)"
# What every row says of itself, besides the manifest's own columns.
_OWN: Final = ("face", "licence")
_YAW: Final = (15.0, 30.0, 45.0)
# With as many different values or fewer a column of numbers is told value by value (faces in a picture: 1, 2, 3).
_FEW: Final = 4


def columns(rows: Sequence[Row]) -> list[str]:
    """The columns that rows can be told apart by."""
    return sorted({name for row in rows for name in _extra(row)} | set(_OWN))


def _extra(row: Row) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(row, "extra", {})
    return found


def bins(rows: Sequence[Row], column: str) -> dict[str, NDArray[np.bool_]]:
    """Each bin's name and mask (N,), in order.

    Numbers fall into quartiles (`yaw`, in degrees: by its absolute value 0-15, 15-30, 30-45, >45), other values stand for
    themselves, rows that say nothing are `(unset)`.  Raises `ValueError` naming the columns there are.
    """
    if column not in columns(rows):
        raise ValueError(f"column {column!r} is in none of these pictures; there are {', '.join(columns(rows))}")
    values = [str(getattr(row, column)) if column in _OWN else _extra(row).get(column, "") for row in rows]
    told = np.array([bool(value) for value in values])
    numbers = [_number(value) for value in values if value]
    if None in numbers:
        names = np.array(values)
    else:
        names = np.full(len(values), "", dtype=object)
        names[told] = _ranges(np.array(numbers, dtype=np.float64), column)
    found = {str(name): np.asarray(names == name) for name in dict.fromkeys(_ordered(names[told]))}
    return found if told.all() else {**found, UNSET: ~told}


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _ordered(names: NDArray[np.object_] | NDArray[np.str_]) -> list[str]:
    """Ranges by where they begin, words by the alphabet."""

    def key(name: str) -> tuple[float, str]:
        start = _number(name.removeprefix(">").removeprefix("<= ").split(" to ")[0])
        return (-math.inf if name.startswith("<=") else math.inf if start is None else start, name)

    return sorted(map(str, names), key=key)


def _ranges(numbers: NDArray[np.float64], column: str) -> list[str]:
    if column == "yaw":
        names: tuple[str, ...] = ("0 to 15", "15 to 30", "30 to 45", ">45")
        return [names[i] for i in np.searchsorted(_YAW, np.abs(numbers), side="left")]
    if len(np.unique(numbers)) <= _FEW:
        return [f"{number:g}" for number in numbers]
    # Where many rows share a value, two quartiles' bounds fall together and so do their bins.
    bounds = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75]))
    between = (f"{low:g} to {high:g}" for low, high in pairwise(bounds))
    names = (f"<= {bounds[0]:g}", *between, f">{bounds[-1]:g}")
    return [names[i] for i in np.searchsorted(bounds, numbers, side="left")]
