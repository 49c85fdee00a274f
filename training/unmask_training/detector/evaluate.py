"""Measures a detector's version folder on prepared data, through its ONNX file as serving runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.core.cards import Card
from unmask_training.data.chips import INDEX, Chips, Row
from unmask_training.detector.outputs import Outputs, outputs
from unmask_training.measuring import curves, doubts, openset, shortcut
from unmask_training.measuring.measures import DRAWS, SEED, Point, Scored, figures, pooled, table
from unmask_training.measuring.strata import bins
from unmask_training.measuring.tiers import CLEAN, TIERS

# Soft, small pictures: against generators they separate by blur alone, so they count for false alarms only.
SOFT_SOURCES: Final = ("lfw", "dfdc")
EVALUATION_SCHEMA: Final = "unmask.evaluation/1"


def logits(folder: Path, card: Card, chips: Chips, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Raw logits (N,) of the rows' faces, in the view that the card states."""
    return outputs(folder, card, chips, rows).synthetic


def detection_rows(chips: Chips, part: str) -> list[Row]:
    """Real and wholly synthetic pictures of a part; manipulated ones are the localizer's."""
    return [row for row in chips.rows if row.part == part and row.label in {"real", "synthetic"}]


def scored(card: Card, raw: NDArray[np.float64], rows: Sequence[Row], distance: NDArray[np.float64] | None = None) -> Scored:
    """Calibrated scores with truth, kind and group; doubt too, where there is a distance and the card's map for it."""
    return Scored(
        score=np.array([card.calibration.probability(float(value)) for value in raw]),
        fake=np.array([row.label == "synthetic" for row in rows]),
        kind=np.array([row.kind for row in rows]),
        group=np.array([row.group for row in rows]),
        doubt=None if distance is None or card.doubt is None else np.array([card.doubt.doubt(float(far)) for far in distance]),
    )


def main_sources(rows: Sequence[Row]) -> list[str]:
    """The real sources of the pooled figures."""
    return sorted({row.kind for row in rows if row.label == "real"} - set(SOFT_SOURCES))


def point_of(card: Card) -> Point:
    """The card's operating point; raises `ValueError` naming a threshold that it lacks."""
    lacking = sorted({"real_below", "synthetic_above"} - set(card.thresholds))
    if lacking:
        raise ValueError(f"model {card.name} {card.version}: the card states no threshold {', '.join(lacking)}")
    limits = card.thresholds
    spared = limits.get("synthetic_despite_doubt")
    return Point(limits["real_below"], limits["synthetic_above"], limits.get("doubt"), spared)


def evaluate(folder: Path, card: Card, data: Path, part: str = "val") -> dict[str, Any]:
    """The figures of `measures.table` on a part of prepared data."""
    chips = Chips(data)
    rows = _rows(chips, data, part)
    found = outputs(folder, card, chips, rows)
    return table(scored(card, found.synthetic, rows, found.distance), main_sources(rows), point_of(card))


def _rows(chips: Chips, data: Path, part: str) -> list[Row]:
    rows = detection_rows(chips, part)
    if not rows:
        raise ValueError(f"{data}: no real or synthetic pictures in part {part!r}")
    return rows


def report(
    folder: Path, card: Card, data: Path, part: str, *, tiers: bool, by: Sequence[str], preprocess: str
) -> dict[str, Any]:
    """All that `unmask-train evaluate` says: figures and curves for each tier, by column, and what they were made from.

    Raises `ValueError` for data without pictures of the part, and for a column that none of them has.
    """
    chips = Chips(data)
    rows = _rows(chips, data, part)
    strata = {column: bins(rows, column) for column in by}  # a wrong name is told before the minutes of measuring
    found = {tier.name: outputs(folder, card, chips, rows, tier, preprocess) for tier in (TIERS if tiers else (CLEAN,))}
    point, clean = point_of(card), found[CLEAN.name]
    rated = scored(card, clean.synthetic, rows, clean.distance)
    main = rated.fake | np.isin(rated.kind, main_sources(rows))
    return {
        "schema": EVALUATION_SCHEMA,
        "model": _model(folder, card),
        "data": {"sha256": _sha256(data / INDEX), "part": part, "pictures": len(rows), "real_sources": main_sources(rows)},
        "preprocess": preprocess,
        "bootstrap": {"draws": DRAWS, "seed": SEED, "unit": "group"},
        "tiers": {name: {**_settings(name), **measured(card, answers, rows)} for name, answers in found.items()},
        "by": {
            column: {name: _bin(rated.where(mask & main), point) for name, mask in masks.items()}
            for column, masks in strata.items()
        },
    }


def measured(card: Card, found: Outputs, rows: Sequence[Row]) -> dict[str, Any]:
    """One tier: the table, the curves of the pooled figures, and what the graph's further outputs tell."""
    point, reals = point_of(card), main_sources(rows)
    rated = scored(card, found.synthetic, rows, found.distance)
    main = rated.fake | np.isin(rated.kind, reals)
    told: dict[str, Any] = table(rated, reals, point)
    told["curves"] = curves.table(rated.where(main))
    told["doubt"] = doubts.table(rated.where(main), point)
    fake = rated.fake
    if found.family is not None and fake.any():
        told["attribution"] = openset.attribution(
            found.family[fake], rated.kind[fake], rated.group[fake], card.classes, card.open_set
        )
    if found.embedding is not None and fake.any():
        told["verification"] = openset.verification(found.embedding[fake], rated.kind[fake], rated.group[fake])
    if found.plain is not None and found.blurred is not None:
        told["blur_gap"] = _gap(rated, found.plain - found.blurred)
    if found.cam is not None and found.on_face is not None:
        told["shortcut"] = shortcut.table(found.cam, found.on_face, fake, rated.kind, rated.group)
    return told


def _gap(rated: Scored, gap: NDArray[np.float64]) -> dict[str, Any]:
    """Mean of plain minus blurred logit, and of its absolute value, on fakes and on reals."""
    told: dict[str, Any] = {}
    for name, chosen in (("fakes", rated.fake), ("reals", ~rated.fake)):
        for what, values in (("signed", gap), ("absolute", np.abs(gap))):
            rows = Scored(values[chosen], rated.fake[chosen], rated.kind[chosen], rated.group[chosen])
            told |= {f"{what}_on_{name}": row for row in figures(rows, {"mean": _mean_score}).values()}
    return told


def _mean_score(rows: Scored) -> float:
    return float(rows.score.mean()) if rows.score.size else float("nan")


def _bin(rows: Scored, point: Point) -> dict[str, Any]:
    counts = {"reals": int((~rows.fake).sum()), "fakes": int(rows.fake.sum())}
    return {**counts, **pooled(rows, point)}


def _model(folder: Path, card: Card) -> Mapping[str, Any]:
    return {"name": card.name, "version": card.version, "sha256": _sha256(folder / "model.onnx"), "card_sha256": card.sha256}


def _settings(name: str) -> dict[str, Any]:
    tier = next(tier for tier in TIERS if tier.name == name)
    if tier.resize is None:
        return {"delivery": None}
    return {"delivery": {"resize": list(tier.resize), "jpeg": list(tier.jpeg), "seed": "sha256 of 'tier:path'"}}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
