"""Pictures with their scores before and after, as one contact sheet (PNG) and as a page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unmask.core.images import Pixels

_COLUMNS: Final = 10
_SIDE: Final = 128
_CAPTION: Final = 38
_GAP: Final = 6
_HEAD: Final = 58
_COLOURS: Final = {"synthetic": (150, 20, 20), "unsure": (150, 105, 0), "real": (20, 110, 45)}
_STYLE: Final = (
    "body{font:15px system-ui;margin:2em;max-width:90em}figure{display:inline-block;margin:.4em;width:9em}img{width:100%}"
    "figcaption{font-size:.85em}.synthetic{color:#961414}.unsure{color:#966900}.real{color:#146e2d}pre{overflow:auto}"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture: the face as the detector sees it, and (score, label) before and after."""

    name: str
    view: Pixels
    before: tuple[float, str]
    after: tuple[float, str]


def sheet(shown: Sequence[Shown], title: str, path: Path) -> None:
    """Draws the contact sheet."""
    rows, cell = math.ceil(len(shown) / _COLUMNS), (_SIDE + _GAP, _SIDE + _CAPTION + _GAP)
    size = (_COLUMNS * cell[0] + _GAP, _HEAD + rows * cell[1] + _GAP)
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    draw.multiline_text((_GAP, _GAP), title, "black", ImageFont.load_default(size=16), spacing=6)
    for number, one in enumerate(shown):
        x, y = _GAP + (number % _COLUMNS) * cell[0], _HEAD + (number // _COLUMNS) * cell[1]
        picture.paste(Image.fromarray(np.ascontiguousarray(one.view)).resize((_SIDE, _SIDE)), (x, y))
        for line, (what, (score, label)) in enumerate((("before", one.before), ("after", one.after))):
            draw.text((x, y + _SIDE + 2 + 17 * line), f"{what} {score:.2f} {label}", _COLOURS[label], font)
    picture.save(path)


def page(shown: Sequence[Shown], title: str, gate: str, pictures: Path, path: Path) -> None:
    """Writes the page; `pictures` is the folder, beside it, that the views are written to."""
    pictures.mkdir(parents=True, exist_ok=True)
    figures = []
    for one in shown:
        name = f"{Path(one.name).stem}.png"
        Image.fromarray(np.ascontiguousarray(one.view)).save(pictures / name)
        said = "<br>".join(_said(what, told) for what, told in (("before", one.before), ("after", one.after)))
        picture = f'<img src="{pictures.name}/{html.escape(name)}" alt="">'
        figures.append(f"<figure>{picture}<figcaption>{said}</figcaption></figure>")
    lines = "<br>".join(html.escape(line) for line in title.splitlines())
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Adaptation</title><style>{_STYLE}</style>'
        f"<h1>Adaptation</h1><p>{lines}</p><pre>{html.escape(gate)}</pre>{''.join(figures)}</html>\n",
        encoding="utf-8",
    )


def _said(what: str, told: tuple[float, str]) -> str:
    return f'{what} <b class="{told[1]}">{told[0]:.2f} {told[1]}</b>'
