"""`unmask check`: judges files, folders and stdin in this process."""

from __future__ import annotations

import argparse
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from unmask.cli.inputs import Input, Skipped, expand, plain, shown
from unmask.cli.output import Answer, Table, in_utf8, json_line, note
from unmask.core.errors import BadConfig, UnmaskError

if TYPE_CHECKING:
    from PIL import Image

    from unmask.core.domain import Verdict
    from unmask.embedded import Unmask

_EXITS = (
    "exit codes: 0 every picture got a verdict; 1 some input was refused; 2 wrong usage or configuration; "
    "3 a picture could not be judged for a reason that is not its own (model, store)"
)


def add_parser(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser("check", help="judge pictures: files, folders, or - for stdin", epilog=_EXITS)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a picture, a folder (searched for pictures), or - for stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object (unmask.verdict/1) a picture, a line each")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="write each picture with faces and regions drawn in")
    parser.add_argument("--heat", action="store_true", help="tint drawn faces by how manipulated each spot looks")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page to look at")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="a policy (YAML) in place of the default")
    parser.add_argument("--state", type=Path, metavar="DIR", help="keep cases and verdicts here, and reuse them")
    parser.add_argument("--models", type=Path, metavar="DIR", help="model repository")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judges everything in order; the worst exit code wins."""
    from unmask.cli.main import OK, exit_code
    from unmask.embedded import Unmask

    if args.heat and args.overlay is None and args.report is None:
        raise BadConfig("--heat tints what is drawn: give --overlay DIR or --report FILE.html too")
    skipped, worst, labels = Skipped(), OK, Counter[str]()
    with ExitStack() as stack:
        unmask = stack.enter_context(Unmask(models=args.models, state=args.state, policy=args.policy))
        inputs = expand(args.paths, unmask.byte_limit, skipped, args.overlay)
        # Everything that can be wrong with the command is found before the first picture is judged.
        drawing = stack.enter_context(_Drawing(unmask, args))
        table = Table()
        if args.json:
            in_utf8()
        else:
            print(table.head(), flush=True)
        for item, answer in _progress(_answers(unmask, inputs), args):
            print(json_line(answer) if args.json else table.line(answer), flush=True)
            worst = max(worst, OK if answer.error is None else exit_code(answer.error))
            labels[answer.verdict.label.value if answer.verdict else "refused"] += 1
            drawing.add(item, answer)
    _summary(args, labels, skipped)
    return worst


def _answers(unmask: Unmask, inputs: Iterable[Input]) -> Iterator[tuple[Input, Answer]]:
    """Answers in input order; what is refused without being read keeps its place."""
    waiting: deque[Input] = deque()

    def sources() -> Iterator[bytes | Path]:
        for item in inputs:
            waiting.append(item)
            if item.source is not None:
                yield item.source

    for checked in unmask.check_many(sources()):
        yield from _refused(waiting)
        item = waiting.popleft()
        yield item, Answer(item.name, checked.verdict, checked.error)
    yield from _refused(waiting)


def _refused(waiting: deque[Input]) -> Iterator[tuple[Input, Answer]]:
    """The answers at the front that needed no model."""
    while waiting and waiting[0].source is None:
        item = waiting.popleft()
        yield item, Answer(item.name, None, item.error)


def _progress(answers: Iterator[tuple[Input, Answer]], args: argparse.Namespace) -> Iterator[tuple[Input, Answer]]:
    """A bar on stderr where a terminal shows it and stdout goes elsewhere (a bar between table rows would only flicker)."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return answers
    from tqdm import tqdm

    return iter(tqdm(answers, unit=" pictures", file=sys.stderr))


class _Drawing:
    """What a run leaves to look at: overlays, the page, both or neither; the page is written however the run ends."""

    def __init__(self, unmask: Unmask, args: argparse.Namespace) -> None:
        self._unmask, self._folder, self._report, self._heat = unmask, args.overlay, None, args.heat
        if self._folder is not None:
            from unmask.cli.overlay import usable

            usable(self._folder)
        if args.report is not None:
            from unmask.cli.report import Report

            self._report = Report(args.report)

    def add(self, item: Input, answer: Answer) -> None:
        """The overlay and the page's card of one answer."""
        if self._folder is None and self._report is None:
            return
        from unmask.cli.overlay import save

        picture = None if answer.verdict is None or item.source is None else self._drawn(item, answer.verdict)
        if self._folder is not None and picture is not None:
            save(picture, self._folder, item.name)
        if self._report is not None:
            self._report.add(answer, picture)

    def _drawn(self, item: Input, verdict: Verdict) -> Image.Image | None:
        """None for a picture that is another now, or gone: its verdict stands, but there is nothing to draw on."""
        from unmask.cli.overlay import annotated

        try:
            data = self._unmask.read(item.source or b"")
            heats = self._unmask.heats(data, verdict) if self._heat else ()
            return annotated(data, verdict, self._unmask.limits, heats)
        except UnmaskError as error:
            note(f"{shown(item.name)}: not drawn: {plain(error.detail)}")
            return None

    def __enter__(self) -> _Drawing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._report is not None:
            self._report.close()


def _summary(args: argparse.Namespace, labels: Counter[str], skipped: Skipped) -> None:
    if skipped.files:
        note(f"passed over in folders, being no pictures by their names: {skipped.files}")
    if not args.json and sum(labels.values()) > 1:
        note(", ".join(f"{count} {label}" for label, count in sorted(labels.items())))
    for place in (args.overlay, args.report):
        if place is not None:
            note(f"wrote {shown(str(place))}")
