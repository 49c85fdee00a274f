"""What a corpus is made of, whatever its layout: its files, its folders' words, its pictures and what it says of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from scipy.cluster.hierarchy import DisjointSet

LABELS: Final = ("real", "synthetic", "manipulated")
SUFFIXES: Final = frozenset(".jpg .jpeg .png .webp .bmp .gif .tif .tiff .avif".split())
VIDEOS: Final = frozenset(".mp4 .avi .mov .mkv .webm".split())
# Folder names that say what lies below, compared without regard to case.
REAL_WORDS: Final = frozenset("real reals 0_real nature natural original originals authentic".split())
FAKE_WORDS: Final = frozenset("fake fakes 1_fake ai generated synthetic".split())
MANIPULATED_WORD: Final = "manipulated"
# `test` is held out as `val` is; the corpus's own word stays in the column `split`.
SPLITS: Final = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "val", "testing": "val",
}  # fmt: skip
# Folders beside the pictures that hold none, though what they hold may be stored as pictures.
_ASIDE: Final = frozenset("mask masks landmark landmarks spatial_localize".split())
# Methods that change a part of a real face.  Sources: Rossler et al., FaceForensics++, ICCV 2019; Dufour et al.,
# DeepFakeDetection, 2019; Li et al., FaceShifter, CVPR 2020; Dang et al., DFFD, CVPR 2020 (FaceApp and StarGAN change
# attributes of a photograph).
_MANIPULATIONS: Final = frozenset(
    "deepfakes face2face faceswap neuraltextures faceshifter deepfakedetection faceapp stargan photoshop".split()
)


@dataclass(frozen=True, slots=True)
class Found:
    """A picture as its corpus tells of it; what the corpus does not say is empty.

    `path` is relative to the corpus's folder, with slashes; `split` is the corpus's own word.
    """

    path: str
    label: str
    generator: str = ""
    source: str = ""
    group: str = ""
    split: str = ""
    licence: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tree:
    """A corpus's folder: its pictures by relative path, how many videos it has, and the folders without anything in them."""

    root: Path
    pictures: tuple[str, ...]
    videos: int
    empty: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the corpus is called: its folder's name."""
        return self.root.resolve().name


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a layout made of a tree: the pictures, and what it could not use with the reason."""

    found: Sequence[Found]
    left_out: Sequence[tuple[str, str]] = ()


def walk(root: Path) -> Tree:
    """Looks through a folder; links to folders are followed, each real folder once; hidden ones are passed over."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; SRC is the folder of a corpus")
    pictures: list[str] = []
    empty: list[str] = []
    videos, seen = 0, set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        # Emptied in place, which is how os.walk is told to go no further.
        below[:] = (
            [] if real in seen else sorted(name for name in below if not name.startswith(".") and name.casefold() not in _ASIDE)
        )
        if real in seen:
            continue
        seen.add(real)
        relative = Path(folder).relative_to(root).as_posix()
        inside = [name for name in files if not name.startswith(".")]
        pictures += [name if relative == "." else f"{relative}/{name}" for name in sorted(inside) if is_picture(name)]
        videos += sum(PurePosixPath(name).suffix.lower() in VIDEOS for name in inside)
        if not inside and not below and relative != ".":
            empty.append(relative)
    return Tree(root, tuple(pictures), videos, tuple(sorted(empty)))


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture of a format that is read."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def folders_of(path: str) -> tuple[str, ...]:
    """The folders above a file, from the top."""
    return PurePosixPath(path).parts[:-1]


def split_of_folders(folders: Iterable[str]) -> str:
    """The first folder that names a split, in the corpus's own word and lower case; empty if none does."""
    return next((word.casefold() for word in folders if word.casefold() in SPLITS), "")


def fake_label(generator: str) -> str:
    """`manipulated` for methods known to change a part of a real face, else `synthetic`."""
    return "manipulated" if generator.casefold() in _MANIPULATIONS else "synthetic"


def is_within(path: str) -> bool:
    """Whether a path that a list names stays within the corpus's folder."""
    pure = PurePosixPath(path)
    return bool(path) and "\\" not in path and not pure.is_absolute() and ".." not in pure.parts


def joined(chains: Iterable[Sequence[str]]) -> dict[str, str]:
    """One name for all that is linked, directly or by others, through a common chain: each member's least fellow."""
    chains = list(chains)
    sets = DisjointSet(dict.fromkeys(member for chain in chains for member in chain))
    for chain in chains:
        for other in chain[1:]:
            sets.merge(chain[0], other)
    return {member: min(fellows) for fellows in sets.subsets() for member in fellows}
