"""`unmask review …`: what waits for a person, decided on the database itself; confirmed pictures for training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.cli.access import moment, print_table
from unmask.cli.deployment import actor, reading_parts
from unmask.cli.inputs import plain
from unmask.core.domain import Action, Label
from unmask.core.review import APPEALS, REASONS, CaseFile, CaseFilter, Order, Ruling, SampleFilter, Standing, Truth

if TYPE_CHECKING:
    from unmask.bootstrap import Parts
    from unmask.core.access import Caller
    from unmask.core.domain import Case, Decision

_CODES = "\n".join(f"  {code:<16} {what}" for code, what in REASONS.items())
_APPEALS = "\n".join(f"  {code:<16} {what}" for code, what in APPEALS.items())


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `review list|show|decide|appeal|export`."""
    parser = subparsers.add_parser("review", help="list, decide and export what people review", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_list(verbs)
    show = _verb(verbs, "show", _show, "one case whole: verdict, claims, decisions")
    show.add_argument("case", metavar="CASE", help="its id")
    show.add_argument("--json", action="store_true", help="one JSON object")
    _add_decide(verbs)
    appeal = _verb(verbs, "appeal", _appeal, "put a case back into review", f"reasons:\n{_APPEALS}")
    appeal.add_argument("case", metavar="CASE", help="its id")
    appeal.add_argument("--reason", required=True, choices=APPEALS, metavar="CODE", help="see below")
    appeal.add_argument("--note", default="", metavar="TEXT", help="for whoever looks next")
    _add_export(verbs)


def _verb(verbs: Any, name: str, run: Any, what: str, epilog: str = "") -> argparse.ArgumentParser:
    """A verb that says which tenant of which database."""
    form = argparse.RawDescriptionHelpFormatter
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what, epilog=epilog, formatter_class=form)
    verb.add_argument("--state", type=Path, metavar="DIR", help="where cases are kept (else UNMASK_DATABASE, UNMASK_STATE)")
    verb.add_argument("--tenant", default="default", metavar="TENANT", help="whose cases (default: %(default)s)")
    verb.set_defaults(run=run)
    return verb


def _add_list(verbs: Any) -> None:
    verb = _verb(verbs, "list", _list, "cases that wait for a person, oldest first, unless told otherwise")
    standing = [standing.value for standing in Standing]
    verb.add_argument("--standing", choices=standing, default="waiting", help="which (default: %(default)s)")
    verb.add_argument("--label", choices=[label.value for label in Label], help="the verdict's")
    verb.add_argument("--action", choices=[action.value for action in Action], help="the last decision's")
    verb.add_argument("--batch", default="", metavar="NAME", help="of this batch")
    verb.add_argument("--newest", action="store_true", help="newest first")
    verb.add_argument("--limit", type=_count, default=50, metavar="N", help="at most so many (default: %(default)s)")
    verb.add_argument("--json", action="store_true", help="one JSON object a case, a line each")


def _add_decide(verbs: Any) -> None:
    verb = _verb(verbs, "decide", _decide, "say what is done with a case, and what the picture is", f"reasons:\n{_CODES}")
    verb.add_argument("case", metavar="CASE", help="its id")
    verb.add_argument("--action", required=True, choices=[action.value for action in Action], help="what is done with it")
    verb.add_argument("--reason", required=True, choices=REASONS, metavar="CODE", help="see below")
    verb.add_argument("--truth", required=True, choices=[truth.value for truth in Truth], help="what the picture is")
    verb.add_argument("--generator", default="", metavar="NAME", help="who made it, where it is no photograph and you know")
    verb.add_argument("--note", default="", metavar="TEXT", help="for whoever looks next")
    verb.add_argument("--revision", type=int, metavar="N", help="refuse if the case has changed since it was at this revision")


def _add_export(verbs: Any) -> None:
    verb = _verb(verbs, "export", _export, "write confirmed pictures and a manifest that `unmask-train prepare` reads")
    verb.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where to; what is there stays, new ones are added"
    )
    verb.add_argument("--generator", default="", metavar="NAME", help="only those that reviewers say it made")
    verb.add_argument("--truth", choices=[truth.value for truth in Truth if truth is not Truth.UNKNOWN], help="only these")
    verb.add_argument(
        "--since", type=_since, metavar="TIME", help="decided at or after this time (ISO 8601; UTC unless it says)"
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least 1 is needed")
    return int(text)


def _since(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: a time such as 2026-03-01 or 2026-03-01T12:30:00Z is needed") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[tuple[Parts, Caller]]:
    """The parts, and this user as a reviewer of the tenant."""
    from unmask.core.access import Caller, Scope

    parts = reading_parts(args, "review")
    with closing(parts.database):
        yield parts, Caller(args.tenant, frozenset({Scope.REVIEW}), actor())


def _list(args: argparse.Namespace) -> int:
    order = Order.NEWEST if args.newest else Order.OLDEST
    label, action = args.label and Label(args.label), args.action and Action(args.action)
    wanted = CaseFilter(Standing(args.standing), label or None, action or None, args.batch, order)
    with _opened(args) as (parts, caller):
        cases = list(_pages(parts, caller, wanted, args.limit))
    if args.json:
        for case in cases:
            print(json.dumps(_case_json(case)))
        return 0
    head = ("CASE", "SUBMITTED", "LABEL", "ACTION", "TRUTH", "BATCH")
    rows = [(c.id, moment(c.created_at), c.label or "-", c.action or "-", c.truth or "-", c.batch or "-") for c in cases]
    print_table(head, rows)
    return 0


def _pages(parts: Parts, caller: Caller, wanted: CaseFilter, limit: int) -> Iterator[Case]:
    from unmask.review.handler import LONGEST_PAGE, list_cases

    token = ""
    while limit > 0:
        page = list_cases(parts.desk, caller, wanted, min(limit, LONGEST_PAGE), token)
        yield from page.cases
        limit, token = limit - len(page.cases), page.next_token
        if not token:
            return


def _show(args: argparse.Namespace) -> int:
    from unmask.review.handler import look

    with _opened(args) as (parts, caller):
        file = look(parts.desk, caller, args.case)
    if args.json:
        print(json.dumps(_file_json(file)))
        return 0
    for line in _lines(file):
        print(plain(line))
    return 0


def _decide(args: argparse.Namespace) -> int:
    from unmask.review.handler import decide

    ruling = Ruling(Action(args.action), args.reason, Truth(args.truth), args.generator, args.note, args.revision)
    with _opened(args) as (parts, caller):
        case = decide(parts.desk, caller, args.case, ruling)
    print(f"{case.id}: {case.action}, revision {case.revision}")
    return 0


def _appeal(args: argparse.Namespace) -> int:
    from unmask.review.handler import appeal

    with _opened(args) as (parts, caller):
        case = appeal(parts.desk, caller, args.case, args.reason, args.note)
    print(f"{case.id}: waits for a person, revision {case.revision}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from unmask.cli.samples import export

    wanted = SampleFilter(Truth(args.truth) if args.truth else None, args.generator, args.since)
    with _opened(args) as (parts, caller):
        done = export(parts, caller, wanted, args.out)
    print(f"{args.out}: {done.written} pictures written, {done.kept} were there")
    return 0


def _case_json(case: Case) -> dict[str, Any]:
    return {
        "id": case.id,
        "created_at": moment(case.created_at),
        "state": case.state.value,
        "label": case.label and case.label.value,
        "action": case.action and case.action.value,
        "truth": case.truth or None,
        "reviewed": case.reviewed,
        "revision": case.revision,
        "sha256": case.sha256,
        "batch": case.batch or None,
        "labels": dict(case.labels),
        "parent": case.media.parent or None,
    }


def _decision_json(decision: Decision) -> dict[str, Any]:
    own = {name: getattr(decision, name) or None for name in ("reason", "truth", "generator", "note")}
    return {"at": moment(decision.at), "actor": decision.actor, "action": decision.action.value, **own}


def _file_json(file: CaseFile) -> dict[str, Any]:
    from unmask.core.contract import to_json

    return {
        "case": _case_json(file.case),
        "verdict": None if file.verdict is None else to_json(file.verdict),
        "decisions": [_decision_json(decision) for decision in file.decisions],
        "claims": [{"kind": claim.kind, "field": claim.field, "value": claim.value} for claim in file.claims],
        "picture": file.picture and file.picture.blob_key,
    }


def _lines(file: CaseFile) -> Iterator[str]:
    """The case for people."""
    case, verdict = file.case, file.verdict
    yield f"case      {case.id}, submitted {moment(case.created_at)}, revision {case.revision}"
    yield f"state     {case.state}" + (f": {case.failure.code}: {case.failure.detail}" if case.failure is not None else "")
    if file.picture is not None:
        picture = file.picture
        yield f"picture   {picture.blob_key} ({picture.format}, {picture.width} x {picture.height})"
    if case.batch or case.labels:
        yield "labels    " + " ".join([*([f"batch={case.batch}"] if case.batch else []), *_pairs(dict(case.labels))])
    if verdict is not None:
        score = "" if verdict.score is None else f", score {verdict.score:.3f}"
        yield f"verdict   {verdict.label}{score}; action {verdict.action}"
        yield from (f"  because {reason.text}" for reason in verdict.reasons)
    yield from (f"claim     {claim.kind}: {claim.value} ({claim.field})" for claim in file.claims)
    for said in file.decisions:
        truth = " ".join(filter(None, (said.truth, said.generator)))
        note = f": {said.note}" if said.note else ""
        yield f"decision  {moment(said.at)} {said.actor} {said.action} ({said.reason}{'; ' + truth if truth else ''}){note}"


def _pairs(labels: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(labels.items())]
