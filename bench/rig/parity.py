"""The same pictures judged in one process and by the platform: labels, actions and scores side by side."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

from bench.rig.platform import TENANT, Rig

from unmask import Unmask
from unmask.core.cards import Thresholds
from unmask.core.domain import Verdict

TOLERANCE: Final = 1e-3


@dataclass
class Parity:
    """What came out; `unlike` names the pictures that differ and how."""

    same: int = 0
    near_threshold: int = 0
    largest: float = 0.0
    labels: dict[str, int] = field(default_factory=dict)
    unlike: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        labels = ", ".join(f"{label} {count}" for label, count in sorted(self.labels.items()))
        return (
            f"{self.same} alike ({labels}), {len(self.unlike)} unlike, {self.near_threshold} left out "
            f"(within {TOLERANCE:g} of a threshold); largest difference of a score {self.largest:.1e}"
        )


def sample(faces: Path, number: int) -> list[Path]:
    """So many pictures of the corpus's `val` split (0: all), by the hash of their path: always the same ones."""
    with (faces / "manifest.csv").open(encoding="utf-8", newline="") as file:
        found = [row["path"] for row in csv.DictReader(file) if row["split"] == "val"]
    found.sort(key=lambda path: hashlib.sha256(path.encode()).digest())
    return [faces / path for path in found[: number or None]]


def compare(on: Rig, paths: Sequence[Path]) -> Parity:
    """Judges them both ways; workers have to be running."""
    found, pictures = Parity(), {path: path.read_bytes() for path in paths}
    thresholds = on.parts.catalogue.active_release().thresholds
    with Unmask(models=on.stack.models) as unmask:
        embedded = {path: unmask.check(picture) for path, picture in pictures.items()}
    for path, theirs in _distributed(on, pictures):
        ours = embedded[path]
        if any(abs(one - other) <= TOLERANCE for one in _values(ours) if one is not None for other in _limits(thresholds)):
            found.near_threshold += 1
            continue
        difference = _difference(ours, theirs)
        found.largest = max(found.largest, difference)
        if (ours.label, ours.action) != (theirs.label, theirs.action) or difference > TOLERANCE:
            found.unlike.append(
                f"{path}: {ours.label} {ours.action} {ours.score}, distributed {theirs.label} {theirs.action} {theirs.score}"
            )
            continue
        found.same += 1
        found.labels[ours.label.value] = found.labels.get(ours.label.value, 0) + 1
    return found


def _distributed(on: Rig, pictures: dict[Path, bytes]) -> Iterator[tuple[Path, Verdict]]:
    batch = uuid4().hex
    with ThreadPoolExecutor(2) as pool:
        cases = list(pool.map(lambda picture: on.submit(picture, batch), pictures.values()))
    on.wait(batch, len(cases))
    for path, case in zip(pictures, cases, strict=True):
        verdict = on.world.store.verdict_of(TENANT, case.id)
        if verdict is None:
            raise SystemExit(f"bench: {path}: decided, and no verdict")
        yield path, verdict


def _limits(thresholds: Thresholds) -> tuple[float, ...]:
    """Those of probabilities that are stated; `min_face` is in pixels."""
    return tuple(value for value in asdict(thresholds).values() if value is not None and 0.0 < value < 1.0)


def _values(verdict: Verdict) -> list[float | None]:
    """The score and its parts, a fixed order."""
    return [verdict.score, *(part for face in verdict.faces for part in (face.score, face.synthetic, face.manipulated))]


def _difference(one: Verdict, other: Verdict) -> float:
    """The largest between two verdicts' values; infinite where only one has a value."""
    pairs = list(zip(_values(one), _values(other), strict=False))
    if len(one.faces) != len(other.faces) or any((left is None) != (right is None) for left, right in pairs):
        return float("inf")
    return max((abs(left - right) for left, right in pairs if left is not None and right is not None), default=0.0)
