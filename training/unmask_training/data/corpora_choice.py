"""Which pictures of corpora are prepared: their groups and splits, and what is left out as a double of another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from unmask_training.data.corpora import Source
from unmask_training.data.corpora_tree import SPLITS, Found

_SPLIT_STEPS: Final = 1_000_000
LeftOut = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to prepare: its file, its name in the index, the hash of its bytes, and what is known of it.

    `path` begins with the corpus's folder name, so that corpora never meet; `split` is `train` or `val`.
    """

    file: Path
    path: str
    sha256: str
    label: str
    generator: str
    source: str
    group: str
    split: str
    licence: str
    extra: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Choice:
    """Pictures to prepare, names of those that the index holds already, and what is left out with the reason."""

    fresh: Sequence[Picture]
    done: Sequence[str]
    left_out: Sequence[LeftOut]


def split_of(group: str, share: float) -> str:
    """`val` for `share` of all groups, by the hash of their name, else `train`: it moves with nothing else."""
    number = int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest(), "big")
    return "val" if number % _SPLIT_STEPS < share * _SPLIT_STEPS else "train"


def choose(sources: Sequence[Source], share: float, licence: str, index: Sequence[Mapping[str, Any]]) -> Choice:
    """Reads every file once and says what is to be done with it.

    Without a group of its own a picture is of the group of its bytes; without a split it gets its group's.  The same
    bytes in both splits stay in `val` alone, under several labels in neither.  What `index` holds stays as it is.
    """
    pictures, left_out = _pictures(sources, share, licence)
    before = {str(entry["path"]): entry for entry in index}
    fresh: list[Picture] = []
    done: list[str] = []
    for picture in pictures:
        name, entry = _held(picture, before)
        if entry is None:
            fresh.append(picture)
        elif entry.get("sha256", picture.sha256) == picture.sha256:
            done.append(name)
        else:
            left_out.append((picture.path, "another file was prepared under this name before; rename the corpus's folder"))
    reasons = _doubles(fresh, {str(entry["sha256"]): entry for entry in index if "sha256" in entry})
    left_out += reasons.items()
    return Choice([picture for picture in fresh if picture.path not in reasons], done, left_out)


def _held(picture: Picture, before: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any] | None]:
    """The picture's entry in the index and its name there; before hashes were kept, names were without the folder's."""
    if picture.path in before:
        return picture.path, before[picture.path]
    old = picture.path.split("/", 1)[1]
    entry = before.get(old)
    return old, None if entry is None or "sha256" in entry else entry


def _pictures(sources: Sequence[Source], share: float, licence: str) -> tuple[list[Picture], list[LeftOut]]:
    pictures: list[Picture] = []
    left_out = [(f"{source.tree.name}/{path}", why) for source in sources for path, why in source.corpus.left_out]
    everything = [(source, found) for source in sources for found in source.corpus.found]
    for source, found in tqdm(everything, desc="read", unit="picture", mininterval=2.0):
        try:
            digest = hashlib.sha256((source.tree.root / found.path).read_bytes()).hexdigest()
        except OSError as error:
            left_out.append((f"{source.tree.name}/{found.path}", f"not read: {error.strerror or error}"))
            continue
        pictures.append(_picture(source, found, digest, share, licence))
    return pictures, left_out


def _picture(source: Source, found: Found, digest: str, share: float, licence: str) -> Picture:
    group, word = found.group or f"bytes:{digest[:16]}", found.split.casefold()
    split = SPLITS[word] if word else split_of(group, share)
    extra = {name: text for name, text in (("source", found.source), ("split", word)) if text} | dict(found.extra)
    told = (found.label, found.generator, found.source, group, split, found.licence or licence, extra)
    return Picture(source.tree.root / found.path, f"{source.tree.name}/{found.path}", digest, *told)


def _doubles(fresh: Sequence[Picture], known: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Why a picture is left out for another of the same bytes, by its path; `known` are earlier ones by their hash."""
    same: dict[str, list[Picture]] = {}
    for picture in fresh:
        same.setdefault(picture.sha256, []).append(picture)
    reasons: dict[str, str] = {}
    for digest, fellows in same.items():
        held = next((picture for picture in fellows if picture.split == "val"), None)
        if len({picture.label for picture in fellows}) > 1:
            paths = " and ".join(picture.path for picture in fellows)
            reasons |= {picture.path: f"the same bytes under several labels: {paths}" for picture in fellows}
        elif held is not None:
            why = f"the same bytes as {held.path}, which is held out"
            reasons |= {picture.path: why for picture in fellows if picture.split == "train"}
        if digest in known:
            reasons |= {picture.path: why for picture in fellows if (why := _against(picture, known[digest]))}
    return reasons


def _against(picture: Picture, before: Mapping[str, Any]) -> str:
    """Why a picture may not join one of the same bytes that was prepared before; empty where it may."""
    if picture.label != before["label"]:
        return f"the same bytes as {before['path']}, which was prepared as {before['label']}"
    if (before["part"] == "val") != (picture.split == "val"):
        return f"the same bytes as {before['path']}, which was prepared in part {before['part']}"
    return ""
