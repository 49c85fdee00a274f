"""Lines of JSON to submissions: what they may say, what is refused, and in how much memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unmask.cli.batch_lines import LONGEST, Item, items
from unmask.cli.batch_work import work
from unmask.core.domain import BlobSource, BytesSource, Media, Priority, UrlSource
from unmask.core.errors import BadImage, BadRequest, UnmaskError
from unmask.rpc.asking import Request

LIMIT = 1000


def read(*lines: bytes | dict[str, Any], name: str = "monday") -> list[Item]:
    body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return list(items(io.BytesIO(body), name, LIMIT))


def asked(*lines: bytes | dict[str, Any], name: str = "monday") -> list[Request]:
    found = [item.asked for item in read(*lines, name=name)]
    assert all(isinstance(one, Request) for one in found), found
    return found  # type: ignore[return-value]


def test_a_line_says_everything_that_a_submission_has(tmp_path: Path) -> None:
    file = tmp_path / "a face.png"
    file.write_bytes(b"picture")
    told = {"idempotency_key": "k", "labels": {"post": "71"}, "callback": "https://a.example/hook", "parent": "video-3"}
    blob, url, path = asked(
        {"source": {"blob": "default/a.png"}, **told},
        {"source": {"url": "https://a.example/"}},
        {"source": {"path": str(file)}},
    )
    assert blob == Request(
        BlobSource("default/a.png"),
        "k",
        Media("image", "video-3"),
        {"post": "71"},
        "https://a.example/hook",
        Priority.BATCH,
        "monday",
    )
    assert url.picture == UrlSource("https://a.example/") and path.picture == BytesSource(b"picture")
    # As messages on the queue have it.
    assert asked({"blob": "default/a.png", **told}) == [blob]


def test_numbers_are_of_lines_and_blank_ones_are_none() -> None:
    found = read(b"", {"blob": "default/a"}, b"   ", b"{", {"blob": "default/b"}, b"")
    assert [item.number for item in found] == [2, 4, 5]
    assert [isinstance(item.asked, Request) for item in found] == [True, False, True]


def test_the_same_line_of_a_batch_is_the_same_case(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    line, by_path = {"blob": "default/a"}, {"path": str(file)}

    def keys(name: str = "monday") -> list[str]:
        return [request.idempotency_key for request in asked(line, line, {"blob": "default/b"}, by_path, name=name)]

    first, second, other, of_file = keys()
    assert first == second and len({first, other, of_file}) == 3 and keys()[0] == first
    assert not set(keys("tuesday")) & {first, other, of_file}
    assert len(first) < 255
    file.write_bytes(b"two")  # another picture by the same name
    assert keys()[3] != of_file


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"nonsense", "not JSON"),
        (b"[" * 100_000, "longer than"),
        (b"[" * 60_000, "not JSON"),
        (b'["blob"]', "not a JSON object"),
        (b"\xff\xfe", "not JSON"),
        ({}, "exactly one of blob, url and path is needed, got none"),
        ({"blob": "a", "url": "b"}, "got 2"),
        ({"source": {"blob": "a"}, "blob": "a"}, "got 2"),
        ({"source": "a.png"}, "source: an object"),
        ({"source": {"file": "a.png"}}, "source: an object"),
        ({"source": {"blob": ["a"]}}, "blob: a text"),
        ({"blob": "a", "key": "k"}, "unknown field 'key'"),
        ({"blob": "a", "labels": ["x"]}, "labels"),
        ({"blob": "a", "labels": {"x": 1}}, "labels"),
        ({"blob": "a", "idempotency_key": 7}, "idempotency_key: a text"),
        ({"blob": "a", "labels": {"x": "\ud800"}}, "not Unicode"),
        ({"path": "\ud800"}, "not Unicode"),
        ({"path": "nul\0.png"}, "cannot be read|no such file"),
        ({"path": "/no/such/file.png"}, "no such file"),
        ({"path": "/"}, "no regular one"),
        ({"path": "/dev/zero"}, "no regular one"),
        (b"x" * (LONGEST + 10), "longer than"),
    ],
)
def test_what_is_refused_does_not_end_the_batch(line: bytes | dict[str, Any], says: str) -> None:
    bad, good = read(line, {"blob": "default/a"})
    assert isinstance(bad.asked, BadRequest | BadImage) and isinstance(good.asked, Request)
    with pytest.raises(UnmaskError, match=says):
        raise bad.asked


def test_a_file_beyond_the_limit_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(bytes(LIMIT + 1))
    (item,) = read({"path": str(file)})
    assert isinstance(item.asked, BadImage) and "longer than the 1000 bytes" in item.asked.detail
    file.write_bytes(bytes(LIMIT))
    assert isinstance(read({"path": str(file)})[0].asked, Request)


class Endless(io.RawIOBase):
    """So many lines, made as they are read."""

    def __init__(self, count: int) -> None:
        self._lines: Iterator[bytes] = (
            b"{" if n % 3 == 0 else json.dumps({"blob": f"default/{n}", "labels": {"post": str(n)}}).encode()
            for n in range(count)
        )

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line."""
        line = next(self._lines, None)
        return b"" if line is None else line + b"\n"


@pytest.mark.slow
def test_a_hundred_thousand_lines_take_the_memory_of_a_few() -> None:
    seen: list[int] = []

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            seen.append(sum(1 for _ in items(Endless(count), "monday", LIMIT)))  # type: ignore[arg-type]
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1000)  # what is made once
    few, many = peak(1000), peak(100_000)
    print(f"peak of 1 000 lines {few / 1024:.0f} KiB, of 100 000 lines {many / 1024:.0f} KiB")
    assert seen == [1000, 1000, 100_000]
    assert many < few + 256 * 1024


def test_no_more_is_read_than_is_in_hand() -> None:
    begun, ended, most = 0, [0], 0

    def numbers() -> Iterator[int]:
        nonlocal begun, most
        for number in range(5000):
            begun += 1
            most = max(most, begun - ended[0])
            yield number

    work(numbers(), lambda number: ended.__setitem__(0, ended[0] + 1), 1)
    assert (begun, ended[0]) == (5000, 5000) and most <= 3


def test_an_error_that_is_no_answer_ends_the_work() -> None:
    taken: list[int] = []

    def take(number: int) -> None:
        taken.append(number)
        if number == 5:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        work(range(100_000), take, 2)
    assert len(taken) < 50
