"""What a dashboard consists of, in words: panels with their queries, rows of panels; `grafana` makes Grafana's JSON of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Look(StrEnum):
    """How a panel shows what it asks for."""

    LINES = "lines"
    STACK = "stack"
    STAT = "stat"
    BARS = "bars"
    HEATMAP = "heatmap"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what its series are called in the legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Steps:
    """Where the colour changes; without `orange` from green to red at once.  `falling`: small values are the bad ones."""

    orange: float | None = None
    red: float | None = None
    falling: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: `unit` is Grafana's name of a unit, `width` in columns of 24.

    `hidden` are labels that a table leaves out; `words` are shown in place of whole numbers; `most` is the end of the axis.
    `production` says why it has no data on a developer's machine, for the very few that have not.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    look: Look = Look.LINES
    width: int = 8
    height: int = 8
    steps: Steps | None = None
    hidden: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    decimals: int | None = None
    most: float | None = None
    production: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard; `uid` is the end of its address and its file's name.  `tenants`: it can be narrowed down to some."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    tenants: bool = False

    def panels(self) -> Iterator[Panel]:
        """All of them, in reading order."""
        for row in self.rows:
            yield from row.panels


def stat(title: str, description: str, expr: str, **more: object) -> Panel:
    """One number; six fit in a line."""
    told = {"look": Look.STAT, "width": 4, "height": 4, **more}
    return Panel(title, description, (Query(expr),), **told)  # type: ignore[arg-type]


def lines(title: str, description: str, *queries: Query, **more: object) -> Panel:
    """Lines over time."""
    return Panel(title, description, queries, **more)  # type: ignore[arg-type]


def stack(title: str, description: str, *queries: Query, **more: object) -> Panel:
    """Areas over time that add up."""
    return Panel(title, description, queries, **{"look": Look.STACK, **more})  # type: ignore[arg-type]
