"""`unmask work`: one of the platform's processes that nobody talks to, until SIGTERM."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

KINDS: Final = {
    "ingest": "checks pictures and keeps them (child processes)",
    "align": "finds faces (child processes)",
    "classify": "says how likely each face is generated (threads)",
    "localize": "says where faces were changed, and decides (threads)",
    "shadow": "scores a share of decided cases under the release on trial, where there is one (child processes)",
    "submit": "takes submissions from the queue: the task unmask.submit, and JSON on unmask.submissions",
    "deliver": "delivers events: webhooks, the event exchange",
    "sweep": "publishes again what is due or stuck; retention, orphans",
}
_LANES: Final = ("all", "live", "batch")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the verb."""
    kinds = "\n".join(f"  {name:9} {what}" for name, what in KINDS.items())
    parser = subparsers.add_parser(
        "work",
        help="work stages of the pipeline from the broker, or take, deliver, sweep",
        description=f"Works until SIGTERM, which lets it finish what is in hand.\n\n{kinds}\n\n"
        "Several stages may be named (`work ingest align`): a case goes on through them in one worker, without a message and\n"
        "with its pixels at hand.  That is quicker; workers of one stage each are scaled by themselves.\n"
        "UNMASK_DATABASE and UNMASK_BROKER say where; UNMASK_S3 and UNMASK_TRITON where pictures and models are; with\n"
        "UNMASK_METRICS=HOST:PORT it answers /livez, /readyz and /metrics.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="+", choices=tuple(KINDS), metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--concurrency", type=int, default=0, metavar="N", help="how many at once (default: by the processors)")
    parser.add_argument(
        "--lane",
        choices=_LANES,
        default="all",
        help="take only live or batch cases; with all, each lane gets its turn (default)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Works until a signal; exit code 0 after a drain.  Raises `BadConfig`."""
    from unmask.core.domain import Priority
    from unmask.core.errors import BadConfig
    from unmask.logs import set_up
    from unmask.settings import Settings
    from unmask.working import checked, run_work, work_of

    settings = checked(Settings.from_environment())
    if not 0 <= args.concurrency <= 1000:
        raise BadConfig(f"--concurrency {args.concurrency}: expected 1 to 1000, or 0 for the default")
    lanes = tuple(Priority) if args.lane == "all" else (Priority(args.lane),)
    work = work_of(args.kinds, args.concurrency, lanes)
    set_up(settings.log, sys.stderr)
    return run_work(settings, work)
