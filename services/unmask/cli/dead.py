"""`unmask dead …`: cases and events that ran out of attempts, submissions that nobody could read; tried again or given up."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from unmask.cli.access import add_verb, moment, print_table
from unmask.cli.backoffice import broker, opened, submitted
from unmask.cli.deployment import actor
from unmask.cli.inputs import plain
from unmask.core.dead import DeadFilter, DeadItem, DeadKind, DeadOffice, Revived, dead_items
from unmask.core.errors import BadConfig, CallerError

_SOME_REFUSED: Final = 1
_WORDS: Final = {
    Revived.PUBLISHED: "open again, and published",
    Revived.DUE: "open again; the sweeper publishes it",
    Revived.PENDING: "pending again; the relay delivers it",
    Revived.ACCEPTED: "accepted",
}


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `dead list|show|requeue|drop`."""
    parser = subparsers.add_parser(
        "dead", help="list dead cases, events and letters; requeue or drop them", description=__doc__
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = add_verb(verbs, "list", _list, "what is dead, oldest first")
    listing.add_argument("--limit", type=_limit, default=100, metavar="N", help="at most so many (default %(default)s)")
    show = add_verb(verbs, "show", _show, "one dead thing with its whole failure, labels or body")
    show.add_argument("id", metavar="ID")
    acts = (
        ("requeue", _requeue, "try again: a case at its stage, an event under its id, a letter at its door"),
        ("drop", _drop, "give up: the case ends as failed, the event is never sent, the letter is deleted"),
    )
    for name, run, what in acts:
        verb = add_verb(verbs, name, run, what)
        verb.add_argument("ids", nargs="*", metavar="ID")
        verb.add_argument("--all", action="store_true", help="all that the filters leave, instead of ids")
        _add_filters(verb)
    _add_filters(listing)
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="one JSON object each, a line each")
    show.add_argument("--tenant", metavar="TENANT", help="of this tenant only")
    verbs.choices["requeue"].add_argument("--models", type=Path, metavar="DIR", help="model repository (letters only)")


def _add_filters(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--tenant", metavar="TENANT", help="of this tenant only")
    verb.add_argument("--kind", choices=[kind.value for kind in DeadKind], help="only such")
    verb.add_argument("--code", default="", metavar="CODE", help="only those that died of this, for example unavailable")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least 1 is needed")
    return int(text)


def _filter(args: argparse.Namespace) -> DeadFilter:
    return DeadFilter(args.tenant, None if args.kind is None else DeadKind(args.kind), args.code)


def _list(args: argparse.Namespace) -> int:
    with opened(args, "dead") as parts:
        found = list(islice(dead_items(parts.dead, _filter(args)), args.limit + 1))
    shown = found[: args.limit]
    if args.json:
        for item in shown:
            print(json.dumps(_plain_row(item)))
    else:
        head = ("KIND", "ID", "TENANT", "AT", "ATTEMPTS", "ABOUT", "CODE", "DETAIL")
        print_table(head, [_cells(item) for item in shown])
    if len(found) > args.limit:
        print(f"unmask: more than {args.limit} are dead; --limit shows more", file=sys.stderr)
    return 0


def _cells(item: DeadItem) -> tuple[str, ...]:
    detail = item.detail if len(item.detail) <= 60 else f"{item.detail[:59]}…"
    return (
        item.kind.value,
        item.id,
        item.tenant or "-",
        moment(item.at),
        str(item.attempts),
        item.about,
        item.code,
        detail,
    )


def _plain_row(item: DeadItem) -> dict[str, Any]:
    own = {name: getattr(item, name) for name in ("id", "tenant", "about", "attempts", "code", "detail")}
    case = {"case": item.case_id} if item.case_id else {}
    return {"kind": item.kind.value, **own, **case, "at": moment(item.at)}


def _show(args: argparse.Namespace) -> int:
    with opened(args, "dead") as parts:
        item = parts.dead.show(args.id, args.tenant)
    whole = _plain_row(item) | ({"labels": dict(item.labels)} if item.kind is DeadKind.CASE else _body(item.body))
    if args.json:
        print(json.dumps(whole))
        return 0
    for name, value in whole.items():
        print(f"{name + ':':10} {plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}")
    return 0


def _body(body: bytes) -> dict[str, str]:
    """As text, or in base64 where it is none."""
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def _requeue(args: argparse.Namespace) -> int:
    from unmask.adapters.clock import SystemClock
    from unmask.core.dead import requeue

    with opened(args, "dead") as parts:
        queue = broker(parts)
        office = DeadOffice(parts.dead, parts.access, SystemClock(), queue, partial(submitted, parts))
        return _each(args, office, lambda item: _WORDS[requeue(office, item, actor())])


def _drop(args: argparse.Namespace) -> int:
    from unmask.adapters.clock import SystemClock
    from unmask.core.dead import drop

    with opened(args, "dead") as parts:
        office = DeadOffice(parts.dead, parts.access, SystemClock())

        def dropped(item: DeadItem) -> str:
            drop(office, item, actor())
            return "dropped"

        return _each(args, office, dropped)


def _each(args: argparse.Namespace, office: DeadOffice, act: Callable[[DeadItem], str]) -> int:
    """Does it to one after another; one that is refused is said and holds up no other."""
    code = 0
    for item_id, find in _chosen(args, office):
        try:
            item = find()
            row, words = _plain_row(item), act(item)
        except CallerError as error:
            print(f"unmask: {plain(item_id)}: {plain(error.detail)}", file=sys.stderr)
            code = _SOME_REFUSED
            continue
        print(json.dumps({"kind": row["kind"], "id": item_id, "outcome": words}) if args.json else f"{item_id}: {words}")
    return code


def _chosen(args: argparse.Namespace, office: DeadOffice) -> Iterator[tuple[str, Callable[[], DeadItem]]]:
    """Ids with what finds the thing; raises `BadConfig` unless either ids or --all are given."""
    if bool(args.ids) == args.all:
        raise BadConfig("dead: name ids, or --all with or without --kind, --tenant and --code")
    if args.all:
        for item in dead_items(office.dead, _filter(args)):
            yield item.id, lambda item=item: item  # type: ignore[misc]
    for item_id in args.ids:
        yield item_id, lambda item_id=item_id: office.dead.show(item_id, args.tenant)  # type: ignore[misc]
