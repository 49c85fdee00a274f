"""`unmask batch …`: very many pictures by reference, streamed; and how far they are."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from unmask.cli.deployment import reading_parts, settings_of
from unmask.cli.inputs import plain
from unmask.cli.output import note
from unmask.core.domain import State
from unmask.core.errors import BadConfig, BadRequest, UnmaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from unmask.cli.batch_lines import Item
    from unmask.core.batches import BatchProgress
    from unmask.rpc.client import Client

_FORMAT: Final = """\
one JSON object a line:
  {"source": {"blob": "KEY"} | {"url": "https://…"} | {"path": "FILE"},
   "idempotency_key": "…", "labels": {"NAME": "VALUE"}, "callback": "https://…", "parent": "…"}
everything but the source may be left out.  A line without an idempotency key gets one of its own text and the batch's name: a
run that was cut off, or of which lines were refused for a while, is simply repeated.

answers are lines of JSON on stdout as they come: {"line": 1, "case": "…"} or {"line": 1, "error": "…", "detail": "…"}
"""
_LONGEST_NAME: Final = 255


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `batch submit|show`."""
    parser = subparsers.add_parser("batch", help="submit very many pictures, and see how far they are", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    what = "submit a picture for each line of a file, as a batch"
    form = argparse.RawDescriptionHelpFormatter
    submit = verbs.add_parser("submit", help=what, description=what, epilog=_FORMAT, formatter_class=form)
    submit.add_argument("file", metavar="FILE", help="lines of JSON (see below), or - for stdin")
    submit.add_argument("--name", required=True, metavar="NAME", help="the batch's name; a name again adds to the batch")
    submit.add_argument("--models", type=Path, metavar="DIR", help="model repository, without --server")
    submit.set_defaults(run=_submit)
    show = verbs.add_parser("show", help="how many of a batch's cases are in each state", description=_show.__doc__)
    show.add_argument("name", metavar="NAME", help="the batch's name")
    show.add_argument("--json", action="store_true", help="one JSON object a look")
    show.add_argument("--watch", action="store_true", help="look again and again until all cases have ended")
    show.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="between looks (default: %(default)s)")
    show.set_defaults(run=_show)
    for verb in (submit, show):
        verb.add_argument("--server", metavar="HOST:PORT", help="a server of ingestion; without one, this process does it")
        verb.add_argument("--token", default="", metavar="TOKEN", help="says who calls; others see it in the list of processes")
        verb.add_argument("--token-file", type=Path, metavar="FILE", help="the token in a file")
        verb.add_argument("--ca", type=Path, metavar="FILE", help="trust this authority (else UNMASK_TLS_CA, else the usual)")
        verb.add_argument(
            "--state", type=Path, metavar="DIR", help="without --server: where cases are kept (else UNMASK_STATE)"
        )
        verb.add_argument(
            "--tenant", default="default", metavar="TENANT", help="without --server: whose (default: %(default)s)"
        )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r}: seconds from 0.1 to 3600 are needed")
    return value


@dataclass
class _Answers:
    """Prints answers, from whatever thread they come, and counts them."""

    worst: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accepted(self, line: int, case_id: str) -> None:
        """A case."""
        self._print("accepted", {"line": line, "case": case_id}, 0)

    def refused(self, line: int, error: UnmaskError) -> None:
        """No case, and why."""
        from unmask.cli.main import exit_code

        self._print(error.code, {"line": line, "error": error.code, "detail": plain(error.detail)}, exit_code(error))

    def _print(self, kind: str, body: dict[str, object], code: int) -> None:
        with self._lock:
            self.counts[kind] += 1
            self.worst = max(self.worst, code)
            print(json.dumps(body), flush=True)


def _submit(args: argparse.Namespace) -> int:
    from unmask.cli.batch_lines import items

    if not args.name or len(args.name) > _LONGEST_NAME or not args.name.isprintable():
        raise BadConfig(f"--name: 1 to {_LONGEST_NAME} printable characters are needed")
    settings, answers = settings_of(args), _Answers()
    take = _to_server if args.server else _here
    with _stream(args.file) as stream:
        take(args, items(stream, args.name, settings.max_bytes), answers)
    note(", ".join(f"{count} {kind}" for kind, count in sorted(answers.counts.items())) or "no lines")
    return answers.worst


@contextmanager
def _stream(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(Path(file).open("rb"))
        except OSError as error:
            raise BadConfig(f"{plain(file)}: cannot be read ({error.strerror})") from error
        yield stream


def _to_server(args: argparse.Namespace, items: Iterator[Item], answers: _Answers) -> None:
    """Streams to the server, which reads no faster than it takes; a line that holds no request is answered at once."""
    from unmask.rpc.asking import Request

    def asked() -> Iterator[tuple[str, Request]]:
        for item in items:
            if isinstance(item.asked, UnmaskError):
                answers.refused(item.number, item.asked)
            else:
                yield str(item.number), item.asked

    with _client(args) as client:
        for number, answer in client.submit_many(asked()):
            if isinstance(answer, UnmaskError):
                answers.refused(int(number), answer)
            else:
                answers.accepted(int(number), answer.id)


def _here(args: argparse.Namespace, items: Iterator[Item], answers: _Answers) -> None:
    """Judges in this process, a few at a time."""
    from unmask.bootstrap import Parts, inline_world
    from unmask.cli.batch_work import work
    from unmask.core.submit import accept

    settings = settings_of(args)
    if settings.distributed or settings.state is None:
        raise BadConfig("batch submit: name a server (--server HOST:PORT), or a folder to keep cases in (--state DIR)")
    parts = Parts(settings)
    world = inline_world(parts)

    def take(item: Item) -> None:
        try:
            if isinstance(item.asked, UnmaskError):
                raise item.asked
            answers.accepted(item.number, accept(world, item.asked.submission(args.tenant)).id)
        except UnmaskError as error:
            answers.refused(item.number, error)

    with closing(parts.database):
        work(items, take, parts.threads + 1)


@contextmanager
def _client(args: argparse.Namespace) -> Iterator[Client]:
    """The client of the server that is named: with TLS unless it is on this machine and no authority is told."""
    from unmask.rpc.channels import is_loopback
    from unmask.rpc.client import Client
    from unmask.rpc.tls import Tls

    told = settings_of(args).tls
    ca = args.ca or told.ca
    tls = None if ca is None and is_loopback(args.server) else Tls(ca, told.cert, told.key)
    with Client(args.server, token=_token(args), tls=tls) as client:
        yield client


def _token(args: argparse.Namespace) -> str:
    if args.token_file is None:
        return str(args.token)
    if args.token:
        raise BadConfig("--token and --token-file: one of them")
    try:
        return str(args.token_file.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{args.token_file}: cannot be read ({getattr(error, 'strerror', None) or 'not a token'})") from error


def _show(args: argparse.Namespace) -> int:
    """Counts by state, and which share has ended; with --watch also how many a second ended since the last look."""
    with _looking(args) as look:
        batch, at = look(), time.monotonic()
        if not batch.total and not args.watch:
            raise BadRequest(f"no case belongs to a batch {args.name!r}")
        _print_look(batch, None, as_json=args.json)
        is_last = batch.total > 0 and batch.done == 1.0
        while args.watch and not is_last:
            time.sleep(args.every)
            last, since, batch, at = batch, at, look(), time.monotonic()
            _print_look(batch, (batch.ended - last.ended) / (at - since), as_json=args.json)
            # Somebody may still be submitting: all that are there have ended, and none came since.
            is_last = batch.total > 0 and batch.done == 1.0 and batch.total == last.total
    return 0


@contextmanager
def _looking(args: argparse.Namespace) -> Iterator[Callable[[], BatchProgress]]:
    from unmask.core.batches import BatchProgress

    if args.server:
        with _client(args) as client:
            yield lambda: client.get_batch(args.name)
        return
    parts = reading_parts(args, "batch show")
    with closing(parts.database):
        yield lambda: BatchProgress(args.name, parts.store.progress(args.tenant, args.name))


def _print_look(batch: BatchProgress, rate: float | None, *, as_json: bool) -> None:
    counts = {state.value: batch.states.get(state, 0) for state in State}
    if as_json:
        body = {"batch": batch.name, "states": counts, "total": batch.total, "ended": batch.ended, "done": batch.done}
        print(json.dumps({**body, "per_second": None if rate is None else round(rate, 2)}), flush=True)
        return
    share = "" if batch.done is None else f" ({batch.done:.1%})"
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no cases yet"
    pace = "" if rate is None else f"; {rate:.1f} a second"
    print(f"{plain(batch.name)}: {batch.ended} of {batch.total} ended{share}: {words}{pace}", flush=True)
