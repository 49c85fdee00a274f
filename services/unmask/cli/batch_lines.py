"""Lines of JSON to submissions, one at a time: what a line may say, and what is wrong with one that is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from unmask.core.domain import BlobSource, BytesSource, Media, Priority, Source, UrlSource
from unmask.core.errors import BadImage, BadRequest, UnmaskError
from unmask.ingestion.door import parsed
from unmask.rpc.asking import Request

_SOURCES: Final = ("blob", "url", "path")
_TEXTS: Final = ("idempotency_key", "callback", "parent")
_FIELDS: Final = frozenset((*_SOURCES, *_TEXTS, "source", "labels"))
# Of a line, with its newline: references and labels are short, and pictures go by reference.
LONGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Item:
    """One line: its number from 1, and the request in it or why there is none."""

    number: int
    asked: Request | UnmaskError


def items(stream: BinaryIO, batch: str, byte_limit: int) -> Iterator[Item]:
    """The items of a stream as they are read; blank lines are none.  Holds one line, and one picture given by its path."""
    number = 0
    while line := stream.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            while line and not line.endswith(b"\n"):
                line = stream.readline(LONGEST)
            yield Item(number, BadRequest(f"the line is longer than {LONGEST} bytes"))
        elif line.strip():
            try:
                yield Item(number, _request(line.strip(), batch, byte_limit))
            except UnmaskError as error:
                # Its traceback's frames hold the picture's bytes.
                yield Item(number, error.with_traceback(None))


def _request(line: bytes, batch: str, byte_limit: int) -> Request:
    fields = parsed(line, "line", _TEXTS, _FIELDS)
    source = _source(fields, byte_limit)
    asked = Request(
        source,
        idempotency_key=fields.get("idempotency_key") or _key(batch, line, source),
        media=Media("image", fields.get("parent") or ""),
        labels=_labels(fields.get("labels")),
        callback=fields.get("callback") or "",
        priority=Priority.BATCH,
        batch=batch,
    )
    for text in (asked.idempotency_key, asked.media.parent, asked.callback, *asked.labels, *asked.labels.values()):
        _checked(text)
    return asked


def _source(fields: Mapping[str, Any], byte_limit: int) -> Source:
    """Of `{"source": {"blob": …}}`, or as messages on the queue have it, `{"blob": …}`."""
    inner = fields.get("source") or {}
    if not isinstance(inner, dict) or inner.keys() - set(_SOURCES):
        raise BadRequest('source: an object is needed such as {"blob": "…"}, {"url": "…"} or {"path": "…"}')
    given = [(name, place[name]) for place in (inner, fields) for name in _SOURCES if place.get(name)]
    if len(given) != 1:
        raise BadRequest(f"exactly one of blob, url and path is needed, got {len(given) or 'none'}")
    ((kind, value),) = given
    if not isinstance(value, str):
        raise BadRequest(f"{kind}: a text is needed")
    _checked(value)
    if kind == "path":
        return BytesSource(_read(value, byte_limit))
    return BlobSource(value) if kind == "blob" else UrlSource(value)


def _read(path: str, limit: int) -> bytes:
    """The bytes of a file; one beyond the limit is not read."""
    try:
        if not Path(path).is_file():
            raise BadImage(f"{path}: no such file, or no regular one")
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise BadImage(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(data) > limit:
        raise BadImage(f"{path}: longer than the {limit} bytes that are read")
    return data


def _labels(value: Any) -> dict[str, str]:
    labels = value or {}
    if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
        raise BadRequest("labels: an object of texts is needed")
    return labels


def _checked(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{text[:40]!r} is not Unicode") from None


def _key(batch: str, line: bytes, source: Source) -> str:
    """The same line of the same batch is the same case: what was cut off can be submitted again whole."""
    digest = hashlib.sha256(line)
    if isinstance(source, BytesSource):
        digest.update(source.data)
    return f"batch:{hashlib.sha256(batch.encode()).hexdigest()[:16]}:{digest.hexdigest()[:32]}"
