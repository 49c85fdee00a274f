"""`unmask check`: judges files, folders and stdin in this process."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.cli.inputs import Input, Skipped, expand, shown
from unmask.cli.output import Answer, Table, json_line, note

if TYPE_CHECKING:
    from unmask.cli.report import Report
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
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page to look at")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="a policy (YAML) in place of the default")
    parser.add_argument("--state", type=Path, metavar="DIR", help="keep cases and verdicts here, and reuse them")
    parser.add_argument("--models", type=Path, metavar="DIR", help="model repository")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Judges everything in order; the worst exit code wins."""
    from unmask.cli.main import OK, exit_code
    from unmask.embedded import Unmask

    skipped, worst, labels = Skipped(), OK, Counter[str]()
    with ExitStack() as stack:
        unmask = stack.enter_context(Unmask(models=args.models, state=args.state, policy=args.policy))
        report = _report(args)
        table = Table()
        if not args.json:
            print(table.head())
        for item, answer in _progress(_answers(unmask, expand(args.paths, unmask.byte_limit, skipped)), args):
            print(json_line(answer) if args.json else table.line(answer), flush=True)
            worst = max(worst, OK if answer.error is None else exit_code(answer.error))
            labels[answer.verdict.label.value if answer.verdict else "refused"] += 1
            _draw(args, item, answer, report)
        if report is not None:
            report.close()
    _summary(args, labels, skipped)
    return worst


def _answers(unmask: Unmask, inputs: Iterable[Input]) -> Iterator[tuple[Input, Answer]]:
    """Answers in input order; what could not even be named as bytes or path keeps its place."""
    waiting: list[Input] = []

    def sources() -> Iterator[bytes | Path]:
        for item in inputs:
            waiting.append(item)
            # An input that is an error already goes through as empty bytes, to keep the order.
            yield b"" if item.source is None else item.source

    for checked in unmask.check_many(sources()):
        item = waiting.pop(0)
        yield item, Answer(item.name, None if item.error else checked.verdict, item.error or checked.error)


def _progress(answers: Iterator[tuple[Input, Answer]], args: argparse.Namespace) -> Iterator[tuple[Input, Answer]]:
    """A bar on stderr where a terminal shows it and stdout goes elsewhere (a bar between table rows would only flicker)."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return answers
    from tqdm import tqdm

    return iter(tqdm(answers, unit="picture", file=sys.stderr))


def _report(args: argparse.Namespace) -> Report | None:
    if args.report is None:
        return None
    from unmask.cli.report import Report

    return Report(args.report)


def _draw(args: argparse.Namespace, item: Input, answer: Answer, report: Report | None) -> None:
    """The overlay and the page's card of one answer."""
    if args.overlay is None and report is None:
        return
    from unmask.cli.overlay import annotated, save

    picture = None if answer.verdict is None or item.source is None else annotated(item.source, answer.verdict)
    if args.overlay is not None and picture is not None:
        save(picture, args.overlay, item.name)
    if report is not None:
        report.add(answer, picture)


def _summary(args: argparse.Namespace, labels: Counter[str], skipped: Skipped) -> None:
    if skipped.files:
        note(f"{skipped.files} files in folders are not named like pictures and were passed over")
    if not args.json and sum(labels.values()) > 1:
        note(", ".join(f"{count} {label}" for label, count in sorted(labels.items())))
    for place in (args.overlay, args.report):
        if place is not None:
            note(f"wrote {shown(str(place))}")
