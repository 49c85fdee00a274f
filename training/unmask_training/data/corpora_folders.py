"""Corpora whose folders say what lies in them: a folder a generator, GenImage and its like, DFFD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from unmask_training.data.corpora_tree import (
    FAKE_WORDS,
    MANIPULATED_WORD,
    REAL_WORDS,
    SPLITS,
    Corpus,
    Found,
    Tree,
    fake_label,
    folders_of,
    split_of_folders,
)

# DFFD's subsets as its archives name them: real ones, and the others by label.  Source: Dang et al., On the Detection of
# Digital Face Manipulation, CVPR 2020, table 2, and the project's page (cvlab.cse.msu.edu/project-ffd.html).
_DFFD_REAL: Final = {"ffhq": "ffhq", "celeba": "celeba", "celeba_2w": "celeba", "youtube": "ff_youtube", "actors": "ff_actors"}
_DFFD_ONLY: Final = frozenset("stylegan_ffhq stylegan_celeba pggan_v1 pggan_v2".split())
_DFFD_FAKE: Final = _DFFD_ONLY | frozenset("faceapp stargan deepfakes face2face faceswap".split())


def has_fake_words(tree: Tree) -> bool:
    """Whether folders tell real from generated: `ai` and `nature`, `1_fake` and `0_real`."""
    return any(_words(path) & (FAKE_WORDS | {MANIPULATED_WORD}) for path in tree.pictures)


def has_real_words_only(tree: Tree) -> bool:
    """Whether some folder is called real, and none generated: the others are generators by name."""
    return any(_words(path) & REAL_WORDS for path in tree.pictures) and not has_fake_words(tree)


def is_dffd(tree: Tree) -> bool:
    """Whether two of DFFD's subsets are there, one of them of a name that only DFFD uses."""
    words = set[str]().union(*map(_words, tree.pictures))
    known = words & (_DFFD_FAKE | set(_DFFD_REAL))
    return bool(words & _DFFD_ONLY) and len(known) >= 2 and not words & (REAL_WORDS | FAKE_WORDS)


def read_folders(tree: Tree) -> Corpus:
    """One folder of real pictures (`real`, `0_real`, `nature`), every other one a generator's; split levels anywhere.

    Below `real` a further folder names the source; else the source is the corpus.  What lies in no folder is left out.
    """
    return _corpus(tree, generators=True)


def read_genimage(tree: Tree) -> Corpus:
    """Folders that tell real from generated, below the generator's (`GENERATOR/train/ai`) or above it (`fake/GENERATOR`).

    GenImage: GENERATOR/{train,val}/{ai,nature}.  WildFake-like and CNNDetection-like trees: GENERATOR/{real,fake} and
    GENERATOR/CLASS/{0_real,1_fake}.  Without a generator's folder it is the corpus's name.  Sources: the Readme of
    GenImage-Dataset/GenImage (Zhu et al., NeurIPS 2023); Wang et al., CNN-generated images are surprisingly easy to
    spot, CVPR 2020; Hong et al., WildFake, AAAI 2025, whose tree is published nowhere and is taken to be of this form.
    """
    return _corpus(tree, generators=False)


def _corpus(tree: Tree, generators: bool) -> Corpus:
    found: list[Found] = []
    left_out: list[tuple[str, str]] = []
    for path in tree.pictures:
        picture = _classified(path, tree.name, generators)
        if picture is None:
            left_out.append((path, "no folder says whether it is real or generated"))
        else:
            found.append(picture)
    return Corpus(found, left_out)


def _classified(path: str, corpus: str, generators: bool) -> Found | None:
    """A picture by its folders; None where they say nothing."""
    folders = folders_of(path)
    split = split_of_folders(folders)
    rest = [name for name in folders if name.casefold() not in SPLITS]
    words = REAL_WORDS | FAKE_WORDS | {MANIPULATED_WORD}
    place = next((i for i, name in enumerate(rest) if name.casefold() in words), None)
    if place is None:
        if not generators or not rest:
            return None
        return Found(path, fake_label(rest[0]), rest[0], corpus, split=split)
    word, below = rest[place].casefold(), rest[place + 1 :]
    if word in REAL_WORDS:
        return Found(path, "real", source=below[0] if below else corpus, split=split)
    generator = next(iter((*rest[:place], *below)), corpus)
    label = "manipulated" if word == MANIPULATED_WORD else fake_label(generator)
    return Found(path, label, generator, corpus, split=split)


def read_dffd(tree: Tree) -> Corpus:
    """SUBSET/{train,validation,test}/*.png, or the split above the subset.

    StyleGAN and PGGAN pictures are synthetic; FaceApp, StarGAN and the methods of FaceForensics++ manipulated.  DFFD's
    own split is kept, though some FaceApp pictures of its validation and test parts were made from FFHQ photographs of
    its training part: names do not tell which.
    """
    found: list[Found] = []
    left_out: list[tuple[str, str]] = []
    for path in tree.pictures:
        folders = folders_of(path)
        subset = next((name for name in folders if name.casefold() in _DFFD_FAKE | set(_DFFD_REAL)), "")
        source, split = _DFFD_REAL.get(subset.casefold(), ""), split_of_folders(folders)
        if not subset:
            left_out.append((path, "in none of DFFD's subsets"))
        elif source:
            found.append(Found(path, "real", source=source, split=split))
        else:
            found.append(Found(path, fake_label(subset), subset, "dffd", split=split))
    return Corpus(found, left_out)


def _words(path: str) -> frozenset[str]:
    return _casefolded(folders_of(path))


def _casefolded(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.casefold() for name in names)
