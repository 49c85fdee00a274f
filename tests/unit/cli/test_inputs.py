"""Which pictures a command line names, and how their names are shown."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unmask.cli.inputs import Input, Skipped, expand, plain, shown
from unmask.core.errors import BadConfig


def _names(found: list[Input], root: Path) -> list[str]:
    return [str(Path(item.name).relative_to(root)) for item in found]


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


# Signs that escapes are made of, and that have to be escaped, more often than chance would have them.
_SIGNS = st.sampled_from([b"\\", b"x", b"8", b"5", b"u", b"0", b"n", b"\n", b"\x85", b"\xc2\x85", b"\xc3\xa9", b"\xff"])
_NAMES = st.lists(_SIGNS, min_size=1, max_size=5).map(b"".join) | st.binary(min_size=1, max_size=8)


@given(_NAMES)
def test_a_shown_name_is_printable_and_utf8(name: bytes) -> None:
    text = shown(os.fsdecode(name))
    assert text.isprintable()
    text.encode("utf-8")


@given(_NAMES, _NAMES)
@example(b"\x85", b"\xc2\x85")
@example(b"\\xff", b"\xff")
def test_no_two_names_are_shown_alike(one: bytes, other: bytes) -> None:
    assert (shown(os.fsdecode(one)) == shown(os.fsdecode(other))) == (one == other)


def test_plain_leaves_ordinary_words_and_backslashes_alone() -> None:
    assert plain(r"C:\x41 café 日本") == r"C:\x41 café 日本"
    assert plain("a\tb\x1b[0m\u2028") == r"a\tb\x1b[0m\u2028"
    assert plain(os.fsdecode(b"\xff")) == r"\xff"


def test_folders_are_searched_in_order_and_others_counted(tmp_path: Path) -> None:
    _touch(tmp_path, "z.jpg", "a/2.PNG", "a/1.heic", "a/x.txt", "b/c/d.webp", ".hidden/e.gif", "Makefile")
    skipped = Skipped()
    found = list(expand([str(tmp_path)], 10, skipped))
    assert _names(found, tmp_path) == ["z.jpg", ".hidden/e.gif", "a/1.heic", "a/2.PNG", "b/c/d.webp"]
    assert skipped.files == 2


def test_a_file_named_outright_is_tried_whatever_its_name(tmp_path: Path) -> None:
    _touch(tmp_path, "notes.txt")
    (item,) = expand([str(tmp_path / "notes.txt")], 10, Skipped())
    assert (item.source, item.error) == (tmp_path / "notes.txt", None)


def test_order_is_that_of_the_command_line_and_repeats_stay(tmp_path: Path) -> None:
    _touch(tmp_path, "b/1.png", "a.png")
    found = expand([str(tmp_path / "b"), str(tmp_path / "a.png"), str(tmp_path / "b")], 10, Skipped())
    assert _names(list(found), tmp_path) == ["b/1.png", "a.png", "b/1.png"]


def test_the_runs_own_folder_is_passed_over_only_below_a_searched_one(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "out/b.png", "else/out/c.png")
    own = tmp_path / "else" / ".." / "out"
    assert _names(list(expand([str(tmp_path)], 10, Skipped(), own)), tmp_path) == ["a.png", "else/out/c.png"]
    assert _names(list(expand([str(tmp_path / "out")], 10, Skipped(), own)), tmp_path) == ["out/b.png"]


def test_stdin_is_read_no_further_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO(bytes(1000))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
    (item,) = expand(["-"], 100, Skipped())
    assert (item.source, stream.tell()) == (None, 101)
    assert "100 bytes" in str(item.error)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(100))))
    (item,) = expand(["-"], 100, Skipped())
    assert item.source == bytes(100)


def test_stdin_twice_is_refused_before_anything_is_read() -> None:
    with pytest.raises(BadConfig, match="once"):
        expand(["-", "a.png", "-"], 10, Skipped())
