"""The shortcut alarm: does the evidence lie on the face, or on what happens to stand around it."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.core import geometry
from unmask.core.geometry import Floats
from unmask_training.measuring.measures import percentiles, resamples, stated

# The median face box (.72 x .96 template squares about .50, .58; the box reaches from forehead to chin).
_CENTRE: Final = np.array([0.5, 0.58])
_RADII: Final = np.array([0.36, 0.48])
ALARM: Final = 1.25


def face_share(unit_to_view: Floats, size: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Share of each cell (h, w) of a map over an (S, S) view that lies on the face.

    The face is the ellipse inscribed in the median face box of the landmark template, brought into the view by the (2, 3)
    map of the unit square: forehead to chin, ear to ear.
    """
    angle = np.linspace(0.0, 2.0 * np.pi, 90, endpoint=False)
    rim = _CENTRE + np.column_stack([np.cos(angle), np.sin(angle)]) * _RADII
    canvas = np.zeros((size, size), dtype=np.uint8)
    points = np.round(geometry.apply(unit_to_view, rim) * 16.0).astype(np.int32)
    cv2.fillPoly(canvas, [points], 1, shift=4)
    cells = cv2.resize(canvas.astype(np.float64), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return cells.astype(np.float64, copy=False)


def outside(cam: NDArray[np.float64], on_face: NDArray[np.float64], fake: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share (N,) of each picture's evidence for its own class that lies beside the face; nan where there is no evidence.

    `cam` (N, h, w) is the logit at each position: what speaks for a fake is its positive part, for a real its negative one.
    """
    evidence = np.maximum(np.where(fake[:, None, None], cam, -cam), 0.0)
    total = evidence.sum(axis=(1, 2))
    beside = (evidence * (1.0 - on_face)).sum(axis=(1, 2))
    share: NDArray[np.float64] = np.divide(beside, total, out=np.full(len(cam), np.nan), where=total > 0.0)
    return share


def table(
    cam: NDArray[np.float64],
    on_face: NDArray[np.float64],
    fake: NDArray[np.bool_],
    kind: NDArray[np.str_],
    group: NDArray[np.str_],
) -> dict[str, Any]:
    """For fakes, reals and each kind: mean share of the evidence and of the area beside the face, and their ratio.

    `alarm` where the ratio is above `ALARM` for a class or kind: more evidence beside the face than its area explains.
    """
    share = outside(cam, on_face, fake)
    area = 1.0 - on_face.mean(axis=(1, 2))
    named = {"fakes": fake, "reals": ~fake} | {str(name): kind == name for name in np.unique(kind)}
    found = {name: _ratio(share[chosen], area[chosen], group[chosen]) for name, chosen in named.items()}
    kept = {name: row for name, row in found.items() if row is not None}
    classes = {name: kept.pop(name) for name in ("fakes", "reals") if name in kept}
    return {"alarm_above": ALARM, "by_class": classes, "by_kind": kept}


def _ratio(share: NDArray[np.float64], area: NDArray[np.float64], group: NDArray[np.str_]) -> dict[str, Any] | None:
    known = ~np.isnan(share) & (area > 0.0)
    if not known.any():
        return None
    share, area = share[known], area[known]
    drawn = [float(share[rows].mean() / area[rows].mean()) for rows in resamples(group[known])]
    ratio = stated(float(share.mean() / area.mean()), *percentiles(drawn), len(share))
    shares = {"evidence_outside": round(float(share.mean()), 4), "area_outside": round(float(area.mean()), 4)}
    return {**shares, "ratio": ratio, "alarm": ratio["value"] > ALARM}
