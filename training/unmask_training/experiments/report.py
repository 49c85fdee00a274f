"""An experiment's report: JSON, Markdown, plots, and one HTML page that holds them."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from unmask_training.measuring.measures import REAL, SYNTHETIC, UNSURE, Point, Scored, figures, share_called

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --alarm: #c62828; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { white-space: normal; vertical-align: bottom; }
div.wide { overflow-x: auto; } code { background: var(--soft); padding: .1rem .3rem; overflow-wrap: anywhere; }
img { max-width: 100%; background: #fff; }
p.alarm { border-left: .4rem solid var(--alarm); padding: .4rem .8rem; font-weight: 600; }
"""


@dataclass(frozen=True, slots=True)
class Table:
    """Header and rows of text; the first column is left-aligned."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def html(self) -> str:
        """As HTML."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f'<h2>{html.escape(self.caption)}</h2><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


@dataclass(frozen=True, slots=True)
class Report:
    """Title, alarms (said loudest), tables, plots (PNG by name), notes, and the figures themselves for the JSON."""

    title: str
    tables: Sequence[Table]
    plots: dict[str, bytes]
    notes: Sequence[str]
    figures: dict[str, Any]
    alarms: Sequence[str] = field(default=())

    def markdown(self) -> str:
        """What the command prints, and the .md file."""
        parts = [f"# {self.title}", *[f"**WARNING: {alarm}**" for alarm in self.alarms]]
        for table in self.tables:
            parts += [f"## {table.caption}", table.markdown()]
        return "\n\n".join([*parts, "\n".join(f"- {note}" for note in self.notes)]) + "\n"

    def html(self) -> str:
        """The page; it needs nothing beside itself."""
        alarms = "".join(f'<p class="alarm">{html.escape(alarm)}</p>' for alarm in self.alarms)
        images = "".join(
            f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}"></p>'
            for name, data in self.plots.items()
        )
        notes = "".join(f"<li>{_code(note)}</li>" for note in self.notes)
        title, tables = html.escape(self.title), "".join(table.html() for table in self.tables)
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>{alarms}{images}{tables}<ul>{notes}</ul></html>\n"
        )

    def write(self, out: Path, stem: str) -> list[Path]:
        """Writes `stem`.json, .md, .html and each plot; returns the paths."""
        texts = {".json": json.dumps(self.figures, indent=2) + "\n", ".md": self.markdown(), ".html": self.html()}
        paths = []
        for suffix, text in texts.items():
            paths.append(out / f"{stem}{suffix}")
            paths[-1].write_text(text, encoding="utf-8")
        for name, data in self.plots.items():
            paths.append(out / f"{name}.png")
            paths[-1].write_bytes(data)
        return paths


def shares(scored: Scored, point: Point) -> dict[str, dict[str, Any]]:
    """Shares called fake, unsure and real at an operating point, each with its 95 % interval."""
    names = {"fake": SYNTHETIC, "unsure": UNSURE, "real": REAL}
    return figures(scored, {name: partial(share_called, what=what, point=point) for name, what in names.items()})


def percent(value: dict[str, Any], *, bounds: bool = True) -> str:
    """A figure in per cent with its interval."""
    shown = f"{100 * value['value']:.1f}"
    return f"{shown} ({100 * value['low']:.0f}-{100 * value['high']:.0f})" if bounds else shown


def _code(note: str) -> str:
    """Backticks as code."""
    pieces = html.escape(note).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))
