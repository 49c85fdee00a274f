"""Attribution to known generators or to none of them, and whether two pictures come from the same one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unmask.core.readouts import UNKNOWN, OpenSet
from unmask_training.measuring.measures import SEED, percentiles, resamples, stated

Floats = NDArray[np.float64]
# Pairs grow with the square: of more fakes than this, as many are drawn (seed 0).
_MOST: Final = 1000


def families(family: Floats, classes: Sequence[str], open_set: OpenSet | None) -> NDArray[np.str_]:
    """The likeliest family (N,) by family logits (N, F); with an open set `unknown` is one, as serving reads it."""
    names = [*classes, UNKNOWN] if open_set is not None else list(classes)
    logits = family if open_set is None else np.array([open_set.logits(row) for row in family.tolist()])
    likeliest: NDArray[np.str_] = np.array(names)[logits.argmax(axis=1)]
    return likeliest


def attribution(
    family: Floats,
    kind: NDArray[np.str_],
    group: NDArray[np.str_],
    classes: Sequence[str],
    open_set: OpenSet | None,
) -> dict[str, Any]:
    """Figures of the family that fakes are attributed to.

    Accuracy and the share called `unknown` over fakes of known families, the share called `unknown` over those of none
    (where the card has an open set), and the confusion of every kind with every family, in pictures.
    """
    names = [*classes, *([UNKNOWN] if open_set is not None else [])]
    called = families(family, classes, open_set)
    known = np.isin(kind, classes)
    found: dict[str, Any] = {"accuracy_among_known": _share(called == kind, known, group)}
    if open_set is not None:
        found |= {"unknown_on_known": _share(called == UNKNOWN, known, group)}
        found |= {"unknown_on_others": _share(called == UNKNOWN, ~known, group)}
    order = {name: number for number, name in enumerate(classes)}
    kinds = sorted(set(kind.tolist()), key=lambda name: (order.get(name, len(order)), name))
    counts = [[int(((kind == row) & (called == column)).sum()) for column in names] for row in kinds]
    kept = {name: row for name, row in found.items() if row is not None}
    return {**kept, "confusion": {"rows": kinds, "columns": names, "pictures": counts}}


def _share(right: NDArray[np.bool_], chosen: NDArray[np.bool_], group: NDArray[np.str_]) -> dict[str, Any] | None:
    if not chosen.any():
        return None
    values = right[chosen]
    drawn = [float(values[rows].mean()) for rows in resamples(group[chosen])]
    return stated(float(values.mean()), *percentiles(drawn), len(values))


def verification(embedding: Floats, kind: NDArray[np.str_], group: NDArray[np.str_]) -> dict[str, Any] | None:
    """AUC of "both come from the same generator" by the cosine of embeddings, over all pairs of fakes of two groups.

    Pairs within a group (one prompt, one person) are left out.  The interval draws groups; a pair counts as often as both of
    its pictures were drawn.  None where there are no pairs of both sorts.
    """
    if len(kind) > _MOST:
        some = np.sort(np.random.default_rng(SEED).choice(len(kind), _MOST, replace=False))
        embedding, kind, group = embedding[some], kind[some], group[some]
    one, other = np.triu_indices(len(kind), k=1)
    apart = group[one] != group[other]
    one, other = one[apart], other[apart]
    same = kind[one] == kind[other]
    if not same.any() or same.all():
        return None
    unit = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    cosine = (unit @ unit.T)[one, other]
    order = np.argsort(cosine, kind="stable")
    # The last pair of each run of equal cosines: ties count half.
    ends = np.searchsorted(cosine[order], cosine[order], side="right") - 1
    starts = np.searchsorted(cosine[order], cosine[order], side="left")
    one, other, same = one[order], other[order], same[order]

    def area(times: NDArray[np.float64]) -> float:
        weight = times[one] * times[other]
        differ = np.concatenate([[0.0], np.cumsum(np.where(same, 0.0, weight))])
        pairs = float(weight[same].sum()) * differ[-1]
        below = (differ[starts] + differ[ends + 1]) / 2.0
        return float((weight * below)[same].sum() / pairs) if pairs else float("nan")

    drawn = [area(np.bincount(rows, minlength=len(kind)).astype(np.float64)) for rows in resamples(group)]
    return {**stated(area(np.ones(len(kind))), *percentiles(drawn), len(kind)), "pairs": len(one)}
