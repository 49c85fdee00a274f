"""What `unmask check` prints: a line of JSON a picture, or a table for people."""

from __future__ import annotations

import io
import json
import shutil
import sys
import unicodedata
from dataclasses import dataclass
from typing import Any, Final

from unmask.cli.inputs import plain, shown
from unmask.core.contract import error_json, to_json
from unmask.core.domain import Label, Verdict
from unmask.core.errors import UnmaskError

_MARKED: Final = frozenset({Label.MANIPULATED, Label.UNSURE})
_COLUMNS: Final = ("picture", "label", "score", "generator", "regions", "action", "   ms")
# Columns beside the name: at the least, and how many more each takes where there is room, after the name has had its own.
_LEAST: Final = (11, 5, 15, 12, 6, 5)
_EXTRA: Final = (0, 0, 8, 16, 0, 1)
_NAME: Final = (16, 48)


@dataclass(frozen=True, slots=True)
class Answer:
    """One picture's outcome: exactly one of verdict and error is set."""

    name: str
    verdict: Verdict | None
    error: UnmaskError | None


def json_line(answer: Answer) -> str:
    """One object of the contract, or the error object, on one line."""
    name = shown(answer.name)
    if answer.verdict is None:
        error = answer.error or UnmaskError("no answer")
        return json.dumps(error_json(name, error.code, plain(error.detail)), ensure_ascii=False)
    body: dict[str, Any] = {**to_json(answer.verdict), "path": name}
    return json.dumps({"schema": body.pop("schema"), "path": body.pop("path"), **body}, ensure_ascii=False)


def in_utf8() -> None:
    """JSON is UTF-8 (RFC 8259), whatever the locale says."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def top_family(verdict: Verdict) -> str:
    """The likeliest family of the face that looks most synthetic, where one is called synthetic; else empty."""
    faces = [f for f in verdict.faces if f.generator and f.label.value == "synthetic"]
    if not faces:
        return ""
    face = max(faces, key=lambda f: f.synthetic or 0.0)
    name, share = max((face.generator or {}).items(), key=lambda item: item[1])
    return f"{name} {share:.0%}"


def region_words(verdict: Verdict) -> str:
    """Names of the regions of faces that are changed or may be, each once."""
    names = [region.name for face in verdict.faces if face.label in _MARKED for region in face.regions]
    return ", ".join(dict.fromkeys(names))


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, columns: int, *, keep_end: bool = False) -> str:
    """The text in exactly so many columns, cut with an ellipsis where it is longer."""
    if width(text) > columns:
        while text and width(text) > columns - 1:
            text = text[1:] if keep_end else text[:-1]
        text = f"…{text}" if keep_end else f"{text}…"
    return text + " " * (columns - width(text))


class Table:
    """Prints answers row by row, as wide as the terminal (80 columns show everything that matters)."""

    def __init__(self, columns: int | None = None) -> None:
        available = columns or shutil.get_terminal_size((120, 24)).columns
        spare = available - sum(_LEAST) - len(_LEAST)
        self._name = min(max(spare, _NAME[0]), _NAME[1])
        spare = max(spare - self._name, 0)
        widths = []
        for least, extra in zip(_LEAST, _EXTRA, strict=True):
            widths.append(least + min(extra, spare))
            spare -= min(extra, spare)
        self._widths = tuple(widths)

    def _row(self, cells: tuple[str, ...]) -> str:
        parts = [fit(cells[0], self._name, keep_end=True)]
        parts += [fit(cell, columns) for cell, columns in zip(cells[1:], self._widths, strict=True)]
        return " ".join(parts).rstrip()

    def head(self) -> str:
        """The heading."""
        return self._row(_COLUMNS)

    def line(self, answer: Answer) -> str:
        """One picture's row; an error takes the place of the figures."""
        name = shown(answer.name)
        verdict = answer.verdict
        if verdict is None:
            error = answer.error or UnmaskError("no answer")
            return f"{fit(name, self._name, keep_end=True)} {error.code}: {plain(error.detail)}"
        score = "" if verdict.score is None else f"{verdict.score:.3f}"
        spent = f"{verdict.timings_ms.get('total', 0.0):5.0f}"
        words = (top_family(verdict), region_words(verdict))
        return self._row((name, verdict.label.value, score, *words, verdict.action.value, spent))


def note(text: str) -> None:
    """A line for people, beside the results."""
    print(f"unmask: {text}", file=sys.stderr)
