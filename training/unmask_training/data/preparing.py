"""`unmask-train prepare`: every picture of corpora once through face detection, its chip kept without loss."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from tqdm import tqdm

from unmask.core.errors import UnmaskError
from unmask.core.faces import Infer
from unmask.core.images import make_chip
from unmask.core.pictures import ImageLimits, decode
from unmask_training.data.chips import (
    INDEX,
    PIXELS,
    Chips,
    add_face_detector,
    drop_torn_line,
    entries,
    face_detector,
    faces_of,
    part_of,
    yaw_of,
)
from unmask_training.data.compose import compose
from unmask_training.data.corpora import AUTO, LAYOUTS, read_all
from unmask_training.data.corpora_choice import Choice, LeftOut, Picture, choose

LEFT_OUT: Final = "left_out.csv"
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did: pictures added to the index, those of its corpora that were there before, and all left out."""

    added: int
    before: int
    left_out: Sequence[LeftOut]

    def lines(self) -> list[str]:
        """What is left out, counted by reason, the first ones named."""
        reasons = Counter(why for _, why in self.left_out)
        if len(self.left_out) <= _SHOWN:
            return [f"  {path}: {why}" for path, why in self.left_out]
        return [f"  {count} x {why}" for why, count in reasons.most_common(_SHOWN)]


def prepare(choice: Choice, out: Path, infer: Infer) -> Report:
    """Adds the chosen pictures to the index in `out`; one that cannot be decoded or has no face is left out, and said.

    A run that was cut off goes on where it was: the index line of a picture is written after its pixels.
    """
    left_out = list(choice.left_out)
    added, here = 0, {*choice.done, *(picture.path for picture in choice.fresh)}
    out.mkdir(parents=True, exist_ok=True)
    drop_torn_line(out / INDEX)
    with (out / INDEX).open("a", encoding="utf-8") as index, (out / PIXELS).open("ab") as pixels:
        # A run that was cut off may have left pixels without an index line; they are simply never read.
        for picture in tqdm(choice.fresh, desc="prepare", unit="picture", mininterval=2.0):
            try:
                entry = _entry(picture, pixels, infer)
            except (UnmaskError, OSError) as error:
                left_out.append((picture.path, f"not read: {' '.join(str(error).split())}"))
                continue
            index.write(json.dumps(entry) + "\n")
            index.flush()
            added += "offset" in entry
    faceless = [str(entry["path"]) for entry in entries(out) if "offset" not in entry and entry["path"] in here]
    left_out += [(path, "no face found") for path in faceless]
    return Report(added, len(choice.done), left_out)


def _entry(picture: Picture, pixels: BinaryIO, infer: Infer) -> Mapping[str, Any]:
    """The index line of a picture, its chip's pixels written; without `offset` where no face is found."""
    image = decode(picture.file.read_bytes(), ImageLimits())
    faces = faces_of(image, infer)
    same = {name: getattr(picture, name) for name in ("path", "label", "group", "licence", "sha256")}
    kind, extra = picture.generator or picture.source, {"faces": str(len(faces))}
    entry: dict[str, Any] = {**same, "kind": kind, "part": part_of(picture.split, picture.group)}
    if faces:
        face = faces[0]
        chip = make_chip(image, face.box, face.landmarks)
        extra["yaw"] = f"{yaw_of(face.landmarks):.1f}"
        entry |= {"offset": pixels.tell(), "shape": chip.pixels.shape, "face": round(face.side)}
        entry |= {"to_chip": chip.to_chip.tolist(), "to_unit": chip.to_unit.tolist()}
        pixels.write(chip.pixels.tobytes())
        pixels.flush()
    # What the corpus states is believed before what is computed here.
    return entry | {"extra": {**extra, **picture.extra}}


def _write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "reason"))
        writer.writerows(left_out)


def run(args: argparse.Namespace) -> int:
    """Reads the corpora, prepares them, says what was left out; raises `ValueError` if nothing at all is prepared."""
    infer, share = face_detector(args.face_detector), _share(args.split)
    if args.compose < 0:
        raise ValueError(f"--compose must be at least 0, not {args.compose}")
    sources = read_all(args.sources, args.layout)
    for source in sources:
        print(source.summary(), file=sys.stderr)
    drop_torn_line(args.out / INDEX)
    report = prepare(choose(sources, share, args.licence, list(entries(args.out))), args.out, infer)
    _write_left_out(args.out / LEFT_OUT, report.left_out)
    print(f"{report.added} pictures prepared in {args.out}, {report.before} were there before")
    print(f"{len(report.left_out)} left out, all of them in {args.out / LEFT_OUT}")
    for line in report.lines():
        print(line)
    if not any("offset" in entry for entry in entries(args.out)):
        raise ValueError(f"{args.out}: nothing prepared: no picture with a face")
    if args.compose:
        folder = compose(Chips(args.out), args.out / "composed", args.compose, args.seed)
        print(f"{args.compose} composed pictures in {folder}")
    return 0


def _share(text: str) -> float:
    """The share of `val=SHARE`, 0 to below 1."""
    name, _, number = text.partition("=")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if name != "val" or not 0.0 <= share < 1.0:
        raise ValueError(f"--split must be val=SHARE with a share from 0 to below 1, as in val=0.1, not {text!r}")
    return share


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    command = subparsers.add_parser(
        "prepare", help="find faces in corpora and keep their chips, so that training need not decode"
    )
    command.add_argument("sources", metavar="SRC", type=Path, nargs="+", help="folder of a corpus")
    command.add_argument(
        "--out", metavar="DATA", type=Path, required=True, help="folder for the prepared data; what it holds stays"
    )
    command.add_argument(
        "--layout", default=AUTO, choices=(AUTO, *LAYOUTS), help="how the corpora are arranged (default: auto)"
    )
    command.add_argument(
        "--split",
        default="val=0.1",
        metavar="val=SHARE",
        help="share of groups held out where the corpus has no split (default: 0.1)",
    )
    command.add_argument("--licence", metavar="TEXT", default="not stated", help="licence where the corpus states none")
    command.add_argument(
        "--compose", metavar="N", type=int, default=0, help="also make N pictures of several faces in DATA/composed"
    )
    command.add_argument("--seed", type=int, default=1, help="seed of the composed pictures (default: 1)")
    add_face_detector(command)
    command.set_defaults(run=run)
