"""The page that `--report` writes: a card a picture, self-contained, written as the verdicts come."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from unmask.cli.inputs import plain, shown
from unmask.cli.output import Answer
from unmask.core.domain import FaceVerdict
from unmask.core.errors import BadConfig

_THUMBNAIL: Final = 640
_FAMILIES: Final = 3
# What asks for a look comes first.
_ORDER: Final = ("manipulated", "synthetic", "unsure", "real", "no_face", "refused")


class Report:
    """Collects cards in a file aside, then puts the counts before them: any number of pictures in little memory."""

    def __init__(self, path: Path, title: str = "Unmask: what the pictures show", intro: str = "") -> None:
        self._path, self._title, self._intro = path, title, intro
        self._pages = Environment(
            loader=PackageLoader("unmask.cli", "pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._counts: Counter[str] = Counter()
        self._aside = path.with_name(f".{path.name}.cards")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Opened now and not after an hour of judging; an older page stays until the new one is written.
            path.open("a").close()
            self._cards = self._aside.open("w+", encoding="utf-8")
        except OSError as error:
            raise self._unusable(error) from error

    def add(self, answer: Answer, picture: Image.Image | None, expected: str = "") -> None:
        """One picture's card; `expected` is what it is known to be, where that is known."""
        label = answer.verdict.label.value if answer.verdict else "refused"
        self._counts[label] += 1
        folder, base = os.path.split(answer.name)
        card = self._pages.get_template("card.html.j2").render(
            name=shown(base),
            folder=shown(folder),
            verdict=answer.verdict,
            error=answer.error,
            detail="" if answer.error is None else plain(answer.error.detail),
            label=label,
            expected=expected,
            thumbnail=None if picture is None else thumbnail(picture),
            number=lambda value: "not measured" if value is None else f"{value:.3f}",
            families=families,
        )
        try:
            self._cards.write(card + "\n")
        except OSError as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Writes the page; raises `BadConfig` when it cannot."""
        total = sum(self._counts.values())
        intro = self._intro or f"{total} picture{'' if total == 1 else 's'}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        counts = [(label, self._counts[label]) for label in _ORDER if self._counts[label]]
        head = self._pages.get_template("report.html.j2").render(title=self._title, intro=intro, counts=counts)
        try:
            self._cards.seek(0)
            with self._path.open("w", encoding="utf-8") as page:
                page.write(head)
                shutil.copyfileobj(self._cards, page)
                page.write("</div>\n</main></body></html>\n")
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            with suppress(OSError):  # of a full disk: said already
                self._cards.close()
            self._aside.unlink(missing_ok=True)

    def _unusable(self, error: OSError) -> BadConfig:
        return BadConfig(f"report {self._path}: {error.strerror or error}")


def families(face: FaceVerdict) -> list[tuple[str, float]]:
    """The likeliest generator families, best first."""
    return sorted((face.generator or {}).items(), key=lambda item: -item[1])[:_FAMILIES]


def thumbnail(picture: Image.Image) -> str:
    """A small JPEG as base64."""
    small = picture.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, format="JPEG", quality=85)
    return base64.b64encode(data.getvalue()).decode()
