"""Corpora by their layout: which one a folder has, and what it tells of its pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unmask_training.data import corpora_faceforensics, corpora_folders, corpora_lists
from unmask_training.data.corpora_tree import Corpus, Tree, walk

AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class Layout:
    """A form that corpora come in: its name, what it looks like, how it is recognised and read."""

    name: str
    expects: str
    recognises: Callable[[Tree], bool]
    read: Callable[[Tree], Corpus]


def _is_genimage(tree: Tree) -> bool:
    return corpora_lists.has_metadata(tree) or corpora_folders.has_fake_words(tree)


def _read_genimage(tree: Tree) -> Corpus:
    return corpora_lists.read_metadata(tree) if corpora_lists.has_metadata(tree) else corpora_folders.read_genimage(tree)


LAYOUTS: Final = {
    layout.name: layout
    for layout in (
        Layout(
            "manifest",
            f"{corpora_lists.MANIFEST} with the columns {' '.join(corpora_lists.COLUMNS)}",
            corpora_lists.is_manifest,
            corpora_lists.read_manifest,
        ),
        Layout(
            "folders",
            "real/ (or 0_real/, nature/) beside a folder for each generator, train/ val/ test/ above or below",
            corpora_folders.has_real_words_only,
            corpora_folders.read_folders,
        ),
        Layout(
            "dffd",
            "ffhq/ stylegan_ffhq/ pggan_v1/ faceapp/ ..., each with train/ validation/ test/",
            corpora_folders.is_dffd,
            corpora_folders.read_dffd,
        ),
        Layout(
            "faceforensics",
            "original_sequences/youtube/c23/frames/ID/ and manipulated_sequences/METHOD/c23/frames/AAA_BBB/",
            corpora_faceforensics.is_faceforensics,
            corpora_faceforensics.read_faceforensics,
        ),
        Layout(
            "forgerynet",
            "image_list.txt with lines `train_release/METHOD/.../frame.jpg BINARY TRIPLE SIXTEEN`",
            corpora_lists.has_forgerynet_lists,
            corpora_lists.read_forgerynet,
        ),
        Layout(
            "genimage",
            "GENERATOR/train/ai and nature, GENERATOR/real and fake, or metadata.csv with file_name label model",
            _is_genimage,
            _read_genimage,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Source:
    """A corpus that was read: its tree, the layout it was taken for, what it tells."""

    tree: Tree
    layout: str
    corpus: Corpus

    def summary(self) -> str:
        """One line: where, as what, how many pictures of which label."""
        labels = Counter(found.label for found in self.corpus.found)
        said = ", ".join(f"{count} {label}" for label, count in sorted(labels.items())) or "no pictures"
        return f"{self.tree.root}: layout {self.layout}: {said}"


def recognise(tree: Tree) -> Layout:
    """The layout of a tree; a manifest is believed before anything else.  Raises `ValueError` where none or several fit."""
    if corpora_lists.is_manifest(tree):
        return LAYOUTS["manifest"]
    fitting = [layout for layout in LAYOUTS.values() if layout.recognises(tree)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(layout.name for layout in fitting)
        raise ValueError(f"{tree.root}: looks like {names}; say which with --layout")
    expected = "; ".join(f"{layout.name}: {layout.expects}" for layout in LAYOUTS.values())
    raise ValueError(f"{tree.root}: no known layout; say one with --layout, or arrange it as one of {expected}")


def read(root: Path, layout: str = AUTO) -> Source:
    """Reads a corpus by a named layout or the one that it is recognised as; a folder without anything has no pictures."""
    tree = walk(root)
    empty = [(f"{folder}/", "empty folder") for folder in tree.empty]
    if layout == AUTO and not tree.pictures and not tree.videos and not corpora_lists.is_manifest(tree):
        return Source(tree, "none", Corpus((), [*empty, ("", "no pictures in it")]))
    chosen = recognise(tree) if layout == AUTO else LAYOUTS[layout]
    if layout == "manifest" and not corpora_lists.is_manifest(tree):
        raise ValueError(f"{root}: not of layout manifest, which is {chosen.expects}")
    corpus = chosen.read(tree)
    if not corpus.found and tree.pictures and layout != AUTO:
        raise ValueError(f"{root}: nothing in it fits layout {layout}, which is {chosen.expects}")
    return Source(tree, chosen.name, Corpus(corpus.found, [*corpus.left_out, *empty]))


def read_all(roots: Sequence[Path], layout: str = AUTO) -> list[Source]:
    """Reads several corpora; raises `ValueError` where two of them have the same folder name, which tells pictures apart."""
    sources = [read(root, layout) for root in roots]
    names = Counter(source.tree.name for source in sources)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"two sources are called {', '.join(twice)}; rename one: the folder's name tells their pictures apart")
    return sources
