"""What people decide about cases: what they may say, what they look for, and what they have confirmed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from unmask.core.domain import Action, Case, Claim, Decision, Label, PictureInfo, Verdict

APPEAL_ACTOR: Final = "appeal"
REVIEWER: Final = "reviewer"

# Why a reviewer decides as they do.
REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "confirmed": "the verdict is right",
        "false_positive": "it was flagged, but it is a plain photograph",
        "false_negative": "it passed, but it is generated or manipulated",
        "wrong_kind": "it is no photograph, but of the other kind than the verdict says",
        "permitted": "whatever it is, the platform's rules allow it here",
        "forbidden": "whatever it is, the platform's rules forbid it here",
        "unclear": "what it is cannot be told",
        "second_opinion": "somebody else should look; the case goes on waiting",
    }
)
# Why somebody asks for another look.
APPEALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "says_real": "the uploader says that it is a plain photograph",
        "says_permitted": "the uploader says that the rules allow it",
        "reported": "somebody reported what had passed",
        "other": "the note says why",
    }
)


class Truth(StrEnum):
    """What a reviewer says that the picture is."""

    REAL = "real"
    SYNTHETIC = "synthetic"
    MANIPULATED = "manipulated"
    UNKNOWN = "unknown"


FAKE: Final = frozenset({Truth.SYNTHETIC, Truth.MANIPULATED})


class Standing(StrEnum):
    """Where a case with a verdict stands: it waits for a person, a person has decided, or either."""

    WAITING = "waiting"
    DECIDED = "decided"
    ALL = "all"


class Order(StrEnum):
    """By when the case was submitted."""

    OLDEST = "oldest"
    NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """Which cases, and in which order; what is None or empty is not asked for.  `action` is the last decision's.

    `since` is when a case was submitted at the earliest, to the millisecond.
    """

    standing: Standing = Standing.WAITING
    label: Label | None = None
    action: Action | None = None
    batch: str = ""
    order: Order = Order.OLDEST
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some cases, and the token that asks for those after them; empty at the end."""

    cases: tuple[Case, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class CaseFile:
    """All that a reviewer is shown of a case; before it is decided there is no verdict."""

    case: Case
    verdict: Verdict | None
    decisions: tuple[Decision, ...]
    claims: tuple[Claim, ...]
    picture: PictureInfo | None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a reviewer decides: the action, why (a code of `REASONS`), and what the picture is.

    `generator` names who made a picture that is no photograph.  With `revision` (the case's, as the reviewer saw it) the
    ruling is refused when the case has changed since.
    """

    action: Action
    reason: str
    truth: Truth
    generator: str = ""
    note: str = ""
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class SampleFilter:
    """Which confirmed pictures; what is None or empty is not asked for."""

    truth: Truth | None = None
    generator: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of which a person has the last word: what it is, and by whom it was made."""

    case: Case
    picture: PictureInfo
    decision: Decision
