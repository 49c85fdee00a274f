"""`unmask audit …`: who did what as administrator or reviewer."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from unmask.cli.access import add_verb, moment, opened, print_table

_MOST: Final = 1_000_000


def add_parser(subparsers: Any) -> None:
    """Adds the verb `audit list`."""
    parser = subparsers.add_parser("audit", help="list what administrators and reviewers did", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = add_verb(verbs, "list", _list, "the newest acts, newest first")
    listing.add_argument("--tenant", metavar="TENANT", help="of this tenant only")
    listing.add_argument("--limit", type=_limit, default=100, metavar="N", help="at most so many (default %(default)s)")
    listing.add_argument("--json", action="store_true", help="one JSON object an act, a line each")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 to {_MOST} is needed")
    return int(text)


def _list(args: argparse.Namespace) -> int:
    with opened(args) as access:
        found = access.audited(args.tenant, args.limit)
    if args.json:
        for entry in found:
            own = {name: getattr(entry, name) for name in ("tenant", "actor", "act", "subject")}
            print(json.dumps({"at": moment(entry.at), **own, "detail": dict(entry.detail)}))
        return 0
    head = ("AT", "TENANT", "ACTOR", "ACT", "SUBJECT", "DETAIL")
    rows = [
        (moment(entry.at), entry.tenant or "-", entry.actor, entry.act, entry.subject, _words(dict(entry.detail)))
        for entry in found
    ]
    print_table(head, rows)
    return 0


def _words(detail: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(detail.items()) if value)
