"""Accuracy of the whole product, pictures in and verdicts out, on a labelled folder with a manifest.csv.

`python bench/accuracy.py --faces DIR` judges every `val` picture that is real or wholly generated, but for the soft
sources named by --without, prints a row a generator and a source, and the pooled figures with 95 % intervals (bootstrap
over groups); `unsure` counts as wrong.  It ends with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from unmask import Checked, Unmask

_FAKE: Final = frozenset({"synthetic", "manipulated"})
_DRAWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One judged picture."""

    path: str
    kind: str
    group: str
    fake: bool
    label: str

    @property
    def right(self) -> bool:
        """Called what it is: a generated face synthetic or manipulated, a photograph real."""
        return self.label in _FAKE if self.fake else self.label == "real"


def judge(folder: Path, rows: Sequence[Mapping[str, str]], unmask: Unmask) -> Iterator[Row]:
    """Verdicts in the manifest's order; an error is a row with the label `error`."""
    answers: Iterator[Checked] = unmask.check_many(folder / row["path"] for row in rows)
    for row, answer in zip(rows, answers, strict=True):
        label = "error" if answer.verdict is None else answer.verdict.label.value
        if answer.error is not None:
            print(f"{row['path']}: {answer.error.detail}", file=sys.stderr)
        yield Row(row["path"], row["generator"] or row["source"], row["group"], row["label"] != "real", label)


def share(rows: Sequence[Row]) -> float:
    """Share called rightly; nan where there are none."""
    return float(np.mean([row.right for row in rows])) if rows else float("nan")


def balanced(rows: Sequence[Row]) -> float:
    """Mean of the shares of fakes and of reals called rightly."""
    return (share([row for row in rows if row.fake]) + share([row for row in rows if not row.fake])) / 2.0


def interval(rows: Sequence[Row], seed: int = 0) -> tuple[float, float]:
    """95 % interval of `balanced` (of `share` where there is one class only), whole groups drawn."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    members, rng = list(groups.values()), np.random.default_rng(seed)
    measure = balanced if len({row.fake for row in rows}) == 2 else share
    draws = (rng.integers(len(members), size=len(members)) for _ in range(_DRAWS))
    low, high = np.nanpercentile([measure([r for i in drawn for r in members[i]]) for drawn in draws], [2.5, 97.5])
    return float(low), float(high)


def line(name: str, rows: Sequence[Row], value: float) -> str:
    """One row of the table."""
    low, high = interval(rows)
    unsure, faceless = (sum(row.label == label for row in rows) for label in ("unsure", "no_face"))
    return f"{name:<24} {len(rows):>5}  {100 * value:5.1f} ({100 * low:.1f}-{100 * high:.1f})   {unsure:>4}  {faceless:>4}"


def main() -> int:
    """Prints the table; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--without", nargs="*", default=["lfw", "dfdc"], help="real sources left out (default: lfw dfdc)")
    parser.add_argument("--target", type=float, default=0.85, help="of balanced and of real accuracy (default: .85)")
    args = parser.parse_args()
    with (args.faces / "manifest.csv").open(encoding="utf-8", newline="") as file:
        wanted = [
            row
            for row in csv.DictReader(file)
            if row["split"] == "val"
            and row["label"] != "manipulated"
            and (row["generator"] or row["source"] not in args.without)
        ]
    with Unmask() as unmask:
        rows = list(judge(args.faces, wanted, unmask))
    print(f"{'':<24} {'n':>5}  right % (95 %)      unsure  no face")
    for fake in (True, False):
        for kind in sorted({row.kind for row in rows if row.fake is fake}):
            chosen = [row for row in rows if row.kind == kind and row.fake is fake]
            print(line(kind, chosen, share(chosen)))
    reals, fakes = [row for row in rows if not row.fake], [row for row in rows if row.fake]
    print(line("all generators", fakes, share(fakes)))
    print(line("all reals", reals, share(reals)))
    print(line("balanced accuracy", rows, balanced(rows)))
    errors = sum(row.label == "error" for row in rows)
    faces = np.mean([row.label != "no_face" for row in rows])
    print(f"errors {errors}; a face found in {100 * faces:.1f} %")
    for row in rows:
        if row.label == "no_face":
            print(f"no face: {row.path}")
    return int(errors > 0 or faces < 0.97 or min(balanced(rows), share(reals)) < args.target)


if __name__ == "__main__":
    sys.exit(main())
