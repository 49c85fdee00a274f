"""The pictures of an experiment: prepared data, perhaps a slice of it, by generator and real source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unmask_training.data.chips import INDEX, PIXELS, Chips, Row

# Generators that share an architecture or a maker; `--families` adds others.
FAMILIES: Final = {
    "stylegan": ("stylegan1", "stylegan2", "stylegan3"),
    "diffusion": ("sd21", "sdxl", "flux1_schnell"),
    "closed": ("gpt_image_2", "nano_banana_pro"),
}
TRAINED_PARTS: Final = ("fit", "calibrate")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Real and wholly synthetic rows of prepared data; `folder` holds these rows alone, `fingerprint` is of its index."""

    folder: Path
    chips: Chips
    rows: tuple[Row, ...]
    generators: tuple[str, ...]
    sources: tuple[str, ...]
    fingerprint: str

    def of(self, kinds: Iterable[str], parts: Collection[str] = (*TRAINED_PARTS, "val")) -> list[Row]:
        """Rows of these kinds and parts."""
        wanted = set(kinds)
        return [row for row in self.rows if row.kind in wanted and row.part in parts]

    def unknown(self, names: Iterable[str], known: Sequence[str], what: str) -> None:
        """Raises `ValueError` for names that the data do not have."""
        strange = sorted(set(names) - set(known))
        if strange:
            raise ValueError(f"{what} {', '.join(strange)}: not in the data; there are {', '.join(known)}")


def open_corpus(data: Path, out: Path, limit: int = 0) -> Corpus:
    """Opens prepared data; with `limit`, at most so many pictures a kind, chosen by the hash of their paths.

    A slice is written to `out`/slice (its index, and a link to the pixels), so that `fit` sees the same pictures.
    """
    chips = Chips(data)
    if limit:
        _slice(data, out / "slice", {row.path for row in _limited(_detection(chips.rows), limit)})
        data, chips = out / "slice", Chips(out / "slice")
    rows = _detection(chips.rows)
    generators = tuple(sorted({row.kind for row in rows if row.label == "synthetic"}))
    sources = tuple(sorted({row.kind for row in rows if row.label == "real"}))
    if not generators or not sources:
        raise ValueError(f"{data}: an experiment needs real and synthetic pictures")
    mixed = sorted(set(generators) & set(sources))
    if mixed:
        raise ValueError(f"{data}: {', '.join(mixed)}: both a generator and a real source")
    fingerprint = hashlib.sha256((data / INDEX).read_bytes()).hexdigest()
    return Corpus(data, chips, rows, generators, sources, fingerprint)


def families(corpus: Corpus, told: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Families by name, each with its generators in the data; `told` ("name=a,b") adds or replaces.

    Raises `ValueError` for one without generators, with unknown ones, or with all there are (nothing would be left to learn).
    """
    found = {name: tuple(g for g in members if g in corpus.generators) for name, members in FAMILIES.items()}
    for text in told:
        name, _, members = text.partition("=")
        wanted = tuple(member.strip() for member in members.split(",") if member.strip())
        if not name or not wanted:
            raise ValueError(f"family {text!r}: needs NAME=GENERATOR,GENERATOR")
        corpus.unknown(wanted, corpus.generators, f"family {name}: generator")
        if set(wanted) == set(corpus.generators):
            raise ValueError(f"family {name}: has every generator of the data; none would be left to train on")
        found[name] = wanted
    found = {name: members for name, members in found.items() if members and set(members) != set(corpus.generators)}
    if not found:
        raise ValueError(f"no family known of {', '.join(corpus.generators)}; tell one by --families NAME=GENERATOR,GENERATOR")
    return found


def _detection(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(row for row in rows if row.label in {"real", "synthetic"})


def _limited(rows: Sequence[Row], limit: int) -> list[Row]:
    taken: dict[str, int] = {}
    chosen = []
    for row in sorted(rows, key=lambda row: hashlib.sha256(row.path.encode()).digest()):
        taken[row.kind] = taken.get(row.kind, 0) + 1
        if taken[row.kind] <= limit:
            chosen.append(row)
    return chosen


def _slice(data: Path, folder: Path, paths: Collection[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = (data / INDEX).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["path"] in paths]
    aside = folder / "index.writing"
    aside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    aside.replace(folder / INDEX)
    link = folder / PIXELS
    if not link.is_symlink():
        link.symlink_to((data / PIXELS).resolve())
