"""Reads docs/: what its shell blocks say, and which of them are marked as tried."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
_BLOCK = re.compile(r"(?:^<!-- tried: (\w+) -->\n)?^(?P<indent> *)```sh\n(.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
_COMPOSED = re.compile(r"docker compose((?: -f \S+)+) (\S+)(.*)")


@dataclass(frozen=True)
class Block:
    """A shell block: its page, where it is tried (`alone`, `platform`, or empty), its lines."""

    page: str
    tried: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """For a shell."""
        return "\n".join(self.lines)


def blocks() -> list[Block]:
    """Every shell block of every page."""
    found = []
    for page in PAGES:
        for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
            lines = textwrap.dedent(match[3]).splitlines()
            found.append(Block(page.name, match[1] or "", tuple(line for line in lines if line.strip())))
    return found


def in_prose() -> list[tuple[str, str]]:
    """Commands between backticks in running text, with their pages; ones that trail off (`…`) are no commands."""
    found = []
    for page in PAGES:
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for words in re.findall(r"`((?:unmask|unmask-train|make|docker compose) [^`]+)`", text):
            found.append((page.name, words))
    return found


def commands() -> list[tuple[str, str]]:
    """Every command line of the pages, with its page."""
    return [(block.page, line) for block in blocks() for line in block.lines] + in_prose()


def composed(line: str) -> tuple[list[str], str, list[str]] | None:
    """Of a line of `docker compose`: its files, its verb, and the rest; None for another line."""
    match = _COMPOSED.match(line)
    if match is None:
        return None
    files = match[1].split("-f")[1:]
    rest = re.sub(r"[<>] ?\S+$", "", match[3])
    return [file.strip() for file in files], match[2], shlex.split(rest)


def unmask_arguments(line: str) -> list[str] | None:
    """What a line says to `unmask`, by itself or in a container of Compose; None where it says nothing to it."""
    if line.startswith("unmask "):
        return shlex.split(line.partition(" > ")[0])[1:]
    told = composed(line)
    if told is None or told[1] != "run":
        return None
    words = told[2]
    if "admin" in words:
        return words[words.index("admin") + 1 :]
    if "--entrypoint" in words and words[words.index("--entrypoint") + 1] == "unmask":
        return words[words.index("models") + 1 :]
    return None


def exists(name: str) -> bool:
    """Whether the checkout has that file or folder."""
    return Path(ROOT / name).exists()
