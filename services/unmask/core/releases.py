"""Releases on a live system: the pointers to those in use and how they move, and how a shadow release compares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from unmask.core.domain import Label
from unmask.core.errors import BadRequest

_SHORTEST_PREFIX: Final = 8


class Role(StrEnum):
    """What a pointer is for."""

    ACTIVE = "active"
    PREVIOUS = "previous"
    SHADOW = "shadow"
    # The deployment's policy; tenants' own are with the tenants.
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Pointers:
    """The releases in use by their sha256, empty for none; `share` is that of the cases which the shadow scores, 0 to 1."""

    active: str = ""
    previous: str = ""
    shadow: str = ""
    share: float = 0.0

    def roles(self, sha256: str) -> tuple[Role, ...]:
        """What a release is at the moment."""
        named = ((Role.ACTIVE, self.active), (Role.PREVIOUS, self.previous), (Role.SHADOW, self.shadow))
        return tuple(role for role, found in named if found == sha256)


@dataclass(frozen=True, slots=True)
class StoredRelease:
    """A release that the store keeps."""

    name: str
    sha256: str
    created_at: datetime


def promoted(pointers: Pointers, sha256: str) -> Pointers:
    """The release becomes the active one, and is no shadow any more; the active one is remembered as the previous."""
    if pointers.active == sha256:
        return pointers
    moved = replace(pointers, active=sha256, previous=pointers.active)
    return without_shadow(moved) if pointers.shadow == sha256 else moved


def rolled_back(pointers: Pointers) -> Pointers:
    """Active and previous change places, so that a second rollback undoes the first; raises `BadRequest` without a previous."""
    if not pointers.previous:
        raise BadRequest("nothing was promoted yet: there is no previous release to go back to")
    return promoted(pointers, pointers.previous)


def shadowed(pointers: Pointers, sha256: str, share: float) -> Pointers:
    """The release is tried on a share of the cases; raises `BadRequest` for the active one or a share that is none."""
    if not 0.0 < share <= 1.0:
        raise BadRequest(f"share {share}: expected more than 0 and at most 1")
    if sha256 == pointers.active:
        raise BadRequest("the active release judges every case already: it cannot be the shadow too")
    return replace(pointers, shadow=sha256, share=share)


def without_shadow(pointers: Pointers) -> Pointers:
    """No release is tried."""
    return replace(pointers, shadow="", share=0.0)


def named(releases: Sequence[StoredRelease], word: str) -> StoredRelease:
    """The release of that name, sha256 or beginning of its sha256; raises `BadRequest` when it is none or several."""
    fits = [r for r in releases if r.name == word or (len(word) >= _SHORTEST_PREFIX and r.sha256.startswith(word))]
    if not fits:
        known = ", ".join(f"{release.name} ({release.sha256[:12]})" for release in releases) or "none"
        raise BadRequest(f"no release {word!r}; kept are: {known}.  Add one by `unmask models put-release FILE`")
    if len(fits) > 1:
        raise BadRequest(f"release {word!r} may be {' or '.join(release.sha256[:12] for release in fits)}: say its sha256")
    return fits[0]


def is_chosen(case_id: str, share: float) -> bool:
    """Whether a case belongs to that share of all: by a hash of its id, so that a larger share holds every smaller one."""
    number = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big")
    return number < share * 2.0**64


@dataclass(frozen=True, slots=True)
class ShadowScore:
    """What a shadow release says of a case beside what was decided under `active`; a label of None: it broke on the case."""

    tenant: str
    case_id: str
    release: str
    active: str
    label: Label | None
    score: float | None
    active_label: Label
    active_score: float | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Cell:
    """Cases by both labels (a shadow's None: it broke); `difference` sums the absolute one over the `scored`: both gave one."""

    active: Label
    shadow: Label | None
    cases: int
    scored: int
    difference: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How a shadow release differs from the active one.

    `matrix` counts cases by the active label, then the shadow's; `differences` is the mean absolute difference of the scores
    by the active label, over the cases that both gave a score; None where there is none.  Cases that the shadow broke on are
    counted in `failed` alone.
    """

    cases: int
    failed: int
    differ: int
    difference: float | None
    matrix: Mapping[Label, Mapping[Label, int]]
    differences: Mapping[Label, float | None]


def disagreement(cells: Iterable[Cell]) -> Disagreement:
    """The summary of what a store counted."""
    cells = tuple(cells)
    good = [(cell.active, cell.shadow, cell) for cell in cells if cell.shadow is not None]
    matrix: dict[Label, dict[Label, int]] = {}
    for active, shadow, cell in good:
        row = matrix.setdefault(active, {})
        row[shadow] = row.get(shadow, 0) + cell.cases
    return Disagreement(
        cases=sum(cell.cases for _, _, cell in good),
        failed=sum(cell.cases for cell in cells if cell.shadow is None),
        differ=sum(cell.cases for active, shadow, cell in good if active is not shadow),
        difference=_mean([cell for _, _, cell in good]),
        matrix=matrix,
        differences={label: _mean([cell for active, _, cell in good if active is label]) for label in matrix},
    )


def _mean(cells: Sequence[Cell]) -> float | None:
    scored = sum(cell.scored for cell in cells)
    return sum(cell.difference for cell in cells) / scored if scored else None
