"""Corpora with a list of their pictures: our manifest.csv, OpenFake's metadata.csv, ForgeryNet's image_list.txt."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from unmask_training.data.corpora_tree import (
    LABELS,
    SPLITS,
    Corpus,
    Found,
    Tree,
    fake_label,
    is_within,
    joined,
    split_of_folders,
)

COLUMNS: Final = ("path", "label", "generator", "source", "group", "split", "licence")
MANIFEST: Final = "manifest.csv"
METADATA: Final = "metadata.csv"
_PATH_COLUMNS: Final = ("file_name", "image_path", "path")
# Source: the dataset's authors in yinanhe/ForgeryNet, issue 17.  The method is the number of the folder; the list's
# fourth column differs from it in places, and the authors say to go by the folder.
_FORGERYNET_FAKE: Final = (
    "FaceShifter", "FS-GAN", "DeepFakes", "BlendFace", "MMReplacement", "DeepFakes-StarGAN-Stack", "Talking Head Video",
    "ATVG-Net", "StarGAN-BlendFace-Stack", "First Order Motion", "StyleGAN2", "MaskGAN", "StarGAN2", "SC-FEGAN", "DiscoFaceGAN",
)  # fmt: skip
_FORGERYNET_REAL: Final = {16: "ravdess", 17: "crema_d", 18: "avspeech", 19: "voxceleb"}
_HASH: Final = re.compile(r"[0-9a-f]{16,}")


def _table(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their line numbers; refuses one without the needed columns or that is no CSV."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            lacking = [name for name in needed if name not in (reader.fieldnames or ())]
            if lacking:
                raise ValueError(f"{path}: no column {', '.join(lacking)}")
            for row in reader:
                if None in row:
                    raise ValueError(f"{path}: line {reader.line_num} has more fields than the first line names")
                yield reader.line_num, {name: text.strip() for name, text in row.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not read as CSV in UTF-8 ({error})") from error


def is_manifest(tree: Tree) -> bool:
    """Whether manifest.csv lies at the top."""
    return (tree.root / MANIFEST).is_file()


def read_manifest(tree: Tree) -> Corpus:
    """Our own manifest.csv: a row a picture; columns beyond `COLUMNS` are kept as extra ones."""
    path, found, left_out, seen = tree.root / MANIFEST, list[Found](), list[tuple[str, str]](), set[str]()
    for line, row in _table(path, COLUMNS):
        _check(path, line, row)
        if row["path"] in seen:
            left_out.append((row["path"], f"named again in line {line} of {MANIFEST}"))
            continue
        seen.add(row["path"])
        extra = {name: text for name, text in row.items() if name not in COLUMNS and text}
        found.append(Found(**{name: row[name] for name in COLUMNS}, extra=extra))
    return Corpus(found, left_out)


def _check(path: Path, line: int, row: Mapping[str, str]) -> None:
    where = f"{path}: line {line}"
    if not is_within(row["path"]):
        raise ValueError(f"{where}: path {row['path']!r} is not one within the folder, with slashes")
    if row["label"] not in LABELS:
        raise ValueError(f"{where}: label {row['label']!r} is none of {', '.join(LABELS)}")
    if not (row["generator"] or row["source"]):
        raise ValueError(f"{where}: neither a generator nor a source")
    if row["split"] and row["split"].casefold() not in SPLITS:
        raise ValueError(f"{where}: split {row['split']!r} is none of {', '.join(SPLITS)}, nor empty")


def has_metadata(tree: Tree) -> bool:
    """Whether metadata.csv lies at the top or one folder below."""
    return bool(_lists(tree.root, METADATA, 1))


def read_metadata(tree: Tree) -> Corpus:
    """OpenFake's metadata.csv: file_name, prompt, label (real, fake), model, type, release_date.

    Pictures of one prompt share a group.  Source: vicliv/OpenFake, experiments/README.md and experiments/data/splits.py.
    """
    found: list[Found] = []
    for path in _lists(tree.root, METADATA, 1):
        for line, row in _table(path, ("label",)):
            column = next((name for name in _PATH_COLUMNS if name in row), None)
            if column is None or not is_within(row[column]):
                raise ValueError(f"{path}: line {line}: no path within the folder in a column {' or '.join(_PATH_COLUMNS)}")
            found.append(_of_metadata(tree, path, line, row, column))
    return Corpus(found)


def _of_metadata(tree: Tree, path: Path, line: int, row: Mapping[str, str], column: str) -> Found:
    label, model, prompt = row["label"].casefold(), row.get("model", ""), row.get("prompt", "")
    if label not in {"fake", *LABELS}:
        raise ValueError(f"{path}: line {line}: label {row['label']!r} is none of fake, {', '.join(LABELS)}")
    # OpenFake's paths begin at the top; those of a metadata.csv beside its pictures begin there.
    beside = path.parent / row[column]
    file = beside.relative_to(tree.root).as_posix() if beside.is_file() else row[column]
    group = f"prompt:{hashlib.sha256(prompt.encode()).hexdigest()[:16]}" if prompt else ""
    split = row.get("split", "").casefold() or split_of_folders((path.parent.name, *PurePosixPath(file).parts))
    extra = {name: text for name, text in row.items() if text and name not in {column, "label", "model", "split"}}
    if label == "real":
        return Found(file, "real", source=row.get("source") or tree.name, group=group, split=split, extra=extra)
    generator = model or tree.name
    label = fake_label(generator) if label == "fake" else label
    return Found(file, label, generator, tree.name, group, split, extra=extra)


def has_forgerynet_lists(tree: Tree) -> bool:
    """Whether image_list*.txt lies at the top or up to two folders below."""
    return bool(_lists(tree.root, "image_list*.txt", 2))


def read_forgerynet(tree: Tree) -> Corpus:
    """ForgeryNet's image_list.txt: lines of `PATH BINARY TRIPLE SIXTEEN`, PATH as train_release/METHOD/HASH/HASH/frame.jpg.

    Every method edits or reenacts a real face, so all of them are manipulated.  Folders of one hash share a group.  The
    three numbers are kept as `forgerynet_binary` and so on.  Sources: He et al., ForgeryNet, CVPR 2021; Readme.txt and
    issue 17 of yinanhe/ForgeryNet.
    """
    lines = [line for path in _lists(tree.root, "image_list*.txt", 2) for line in _forgerynet_lines(path)]
    files = _Files(tree, {PurePosixPath(line.path).parts[0] for line in lines})
    found: list[Found] = []
    left_out: list[tuple[str, str]] = []
    for line in lines:
        picture = _of_forgerynet(line, files.find(line.path))
        if isinstance(picture, str):
            left_out.append((line.path, picture))
        else:
            found.append(picture)
    hashes = {one.path: [part for part in PurePosixPath(one.path).parts if _HASH.fullmatch(part)] for one in found}
    names = joined(hashes.values())
    return Corpus([replace(one, group=f"forgerynet:{_group(one.path, hashes[one.path], names)}") for one in found], left_out)


def _group(path: str, hashes: Sequence[str], names: Mapping[str, str]) -> str:
    return names[hashes[0]] if hashes else str(PurePosixPath(path).parent)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of image_list.txt: the path it names, the number of its method, its three labels, its split."""

    path: str
    method: int
    labels: tuple[str, ...]
    split: str


def _forgerynet_lines(path: Path) -> Iterator[_Line]:
    names = (path.stem, path.parent.name)
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = text.split()
        if not fields:
            continue
        if len(fields) != 4 or not all(label.isdecimal() for label in fields[1:]) or not is_within(fields[0]):
            raise ValueError(f"{path}: line {number}: {text!r} is not `PATH BINARY TRIPLE SIXTEEN`")
        parts = PurePosixPath(fields[0]).parts[:-1]
        method = next((int(part) for part in parts if part.isdecimal() and 1 <= int(part) <= 19), 0)
        if not method:
            raise ValueError(f"{path}: line {number}: no folder of {fields[0]!r} is the number of a method, 1 to 19")
        split = next((word for part in (*parts, *names) if (word := _split_word(part))), "")
        yield _Line(fields[0], method, tuple(fields[1:]), split)


def _of_forgerynet(line: _Line, file: str | None) -> Found | str:
    """The picture of a line of the list, or why there is none."""
    fake = line.method <= len(_FORGERYNET_FAKE)
    if file is None:
        return "named in the list, but not there"
    if fake != (line.labels[0] != "0"):
        return f"its folder {line.method} and its label {line.labels[0]} contradict each other"
    extra = dict(zip(("forgerynet_binary", "forgerynet_triple", "forgerynet_sixteen"), line.labels, strict=True))
    if fake:
        return Found(file, "manipulated", _FORGERYNET_FAKE[line.method - 1], "forgerynet", split=line.split, extra=extra)
    return Found(file, "real", source=_FORGERYNET_REAL[line.method], split=line.split, extra=extra)


def _split_word(name: str) -> str:
    """`train` of `train_release`, `Training` or `image_list_train`."""
    return next((word for word in re.split(r"[^a-z]+", name.casefold()) if word in SPLITS), "")


class _Files:
    """Finds what the lists name: they leave out the folders, up to three, that archives were unpacked into."""

    def __init__(self, tree: Tree, tops: set[str]) -> None:
        self._pictures = frozenset(tree.pictures)
        parts = [PurePosixPath(path).parts for path in tree.pictures]
        self._bases = sorted(
            {"".join(f"{name}/" for name in one[:i]) for one in parts for i in range(4) if one[i : i + 1] and one[i] in tops}
        )

    def find(self, path: str) -> str | None:
        """The picture's path in the corpus's folder, or None."""
        return next((base + path for base in self._bases if base + path in self._pictures), None)


def _lists(root: Path, pattern: str, depth: int) -> list[Path]:
    """Files of a name at the top or at most `depth` folders below."""
    return sorted(
        path for level in range(depth + 1) for path in root.glob("/".join(["*"] * level + [pattern])) if path.is_file()
    )
