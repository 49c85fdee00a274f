"""What reviewers do: list, look, decide, appeal; each decision is one more row and one event, never a changed verdict."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from unmask.core.access import AuditEntry, Caller
from unmask.core.domain import Action, Case, CaseUpdate, Decision, State
from unmask.core.errors import BadRequest, NotReady, Overtaken, Unavailable, UnknownCase
from unmask.core.office_ports import ReviewStore
from unmask.core.outcomes import event_of
from unmask.core.ports import CaseStore, Clock
from unmask.core.review import APPEAL_ACTOR, APPEALS, FAKE, REASONS, REVIEWER, CaseFile, CaseFilter, Page, Ruling, Truth

PAGE: Final = 50
LONGEST_PAGE: Final = 500
LONGEST_NOTE: Final = 2000
SCHEMA: Final = "unmask.decision/1"
# So many others may be faster before a call gives up; each of them was recorded.
_TRIES: Final = 20
_GENERATOR: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_FITS: Final[Mapping[str, frozenset[Truth]]] = {"false_positive": frozenset({Truth.REAL}), "false_negative": FAKE}


@dataclass(frozen=True, slots=True)
class Desk:
    """What a review works with: cases, the reviewers' views of them, time, and the audit log."""

    store: CaseStore
    reviews: ReviewStore
    clock: Clock
    audit: Callable[[AuditEntry], None]


def list_cases(desk: Desk, caller: Caller, wanted: CaseFilter, size: int = 0, token: str = "") -> Page:
    """A page of the caller's cases, `size` long (0: 50, at most 500), after the one that gave `token`.

    Raises `BadRequest` for a token of another filter, or that is none.
    """
    if not 0 <= size <= LONGEST_PAGE:
        raise BadRequest(f"page_size {size}: expected 0 (for {PAGE}) to {LONGEST_PAGE}")
    if "\0" in wanted.batch:
        raise BadRequest("batch: no batch has such a name")
    size = size or PAGE
    found = desk.reviews.cases(caller.tenant, wanted, _after(wanted, token), size + 1)
    shown = tuple(found[:size])
    return Page(shown, _token(wanted, shown[-1].id) if len(found) > size else "")


def look(desk: Desk, caller: Caller, case_id: str) -> CaseFile:
    """All there is to see of the case; raises `UnknownCase`."""
    case = _case(desk, caller.tenant, case_id)
    if case.state is State.ERASED:
        return CaseFile(case, None, (), (), None)
    verdict = desk.store.verdict_of(caller.tenant, case_id) if case.state is State.DECIDED else None
    picture = desk.store.picture(caller.tenant, case.sha256) if case.sha256 else None
    decisions = tuple(desk.store.decisions(caller.tenant, case_id))
    return CaseFile(case, verdict, decisions, picture.claims if picture is not None else (), picture)


def decide(desk: Desk, caller: Caller, case_id: str, ruling: Ruling) -> Case:
    """Records the ruling as the case's newest decision, and returns the row as it then is.

    The action `review` (reason `second_opinion`) leaves the case waiting.  A ruling that is the case's last decision already,
    word for word and by the same reviewer, changes nothing.  Of two at once the second comes after the first, unless it
    names the revision that it saw.  The audit log is written after the decision, and again when the call is repeated.
    Raises `BadRequest`, `UnknownCase`, `NotReady` while there is no verdict or where none will come, `Overtaken`.
    """
    _check(ruling)
    said = Decision(
        case_id,
        caller.tenant,
        f"{REVIEWER}:{caller.actor}",
        ruling.action,
        ruling.reason,
        ruling.truth.value,
        ruling.note,
        desk.clock.now(),
        ruling.generator,
    )
    return _record(desk, caller, said, ruling.revision)


def appeal(desk: Desk, caller: Caller, case_id: str, reason: str, note: str = "") -> Case:
    """Puts the case back into review, as a decision of actor `appeal`; returns the row as it then is.

    The same appeal again while it is the case's last decision changes nothing.
    Raises `BadRequest`, `UnknownCase`, `NotReady` as `decide` does.
    """
    if reason not in APPEALS:
        raise BadRequest(f"reason {reason!r}: expected one of {', '.join(APPEALS)}")
    if reason == "other" and not note:
        raise BadRequest("reason 'other' needs a note that says why")
    _check_note(note)
    said = Decision(case_id, caller.tenant, APPEAL_ACTOR, Action.REVIEW, reason, "", note, desk.clock.now())
    return _record(desk, caller, said, None)


def _case(desk: Desk, tenant: str, case_id: str) -> Case:
    if not case_id.isprintable():  # a NUL would be an error of the database
        raise UnknownCase(f"no case {case_id!r}")
    return desk.store.case(tenant, case_id)


def _record(desk: Desk, caller: Caller, said: Decision, seen: int | None) -> Case:
    for _ in range(_TRIES):
        case = _case(desk, said.tenant, said.case_id)
        if case.state is not State.DECIDED:
            raise NotReady(f"case {case.id} is {case.state} (stage {case.stage}): only a case with a verdict can be decided on")
        # After the row: whoever decides in between changes the revision, and then nothing is written.
        last = desk.store.decisions(said.tenant, said.case_id)[-1]
        if replace(last, at=said.at) == said:
            desk.audit(_entry(caller, said))
            return case
        if seen is not None and case.revision != seen:
            raise Overtaken(f"case {case.id} is at revision {case.revision}, not {seen}; last, {last.actor} said {last.action}")
        update = _update(case, said, last)
        if desk.store.commit(case, update):
            desk.audit(_entry(caller, said))
            return update.case
    raise Unavailable(f"case {said.case_id}: {_TRIES} others decided meanwhile; try again")


def _update(case: Case, said: Decision, last: Decision) -> CaseUpdate:
    """The row, the decision and its event; the verdict stays what it is."""
    moved = replace(
        case,
        revision=case.revision + 1,
        action=said.action,
        truth=said.truth,
        # What a reviewer sends back, or somebody appeals, waits again.
        reviewed=said.action is not Action.REVIEW,
    )
    known = None if said.truth in {"", Truth.UNKNOWN} else said.truth in FAKE
    event = event_of(moved, "decision.made", _told(moved, said, last), said.at)
    return CaseUpdate(moved, decisions=(said,), event=event, known_fake=known)


def _told(case: Case, said: Decision, last: Decision) -> dict[str, object]:
    """The event's body: not who the reviewer is, nor the note, which are the platform's own."""
    return {
        "schema": SCHEMA,
        "id": case.id,
        "sha256": case.sha256,
        "label": case.label and case.label.value,
        "action": said.action.value,
        "before": last.action.value,
        "actor": said.actor.partition(":")[0],
        "reason": said.reason,
        "truth": said.truth or None,
        "generator": said.generator or None,
        "at": _iso(said.at),
    }


def _entry(caller: Caller, said: Decision) -> AuditEntry:
    act = "review.appeal" if said.actor == APPEAL_ACTOR else "review.decide"
    detail = {"action": said.action.value, "reason": said.reason, "truth": said.truth, "generator": said.generator}
    return AuditEntry(said.at, said.tenant, caller.actor, act, said.case_id, {k: v for k, v in detail.items() if v})


def _check(ruling: Ruling) -> None:
    if ruling.reason not in REASONS:
        raise BadRequest(f"reason {ruling.reason!r}: expected one of {', '.join(REASONS)}")
    if (ruling.reason == "second_opinion") is not (ruling.action is Action.REVIEW):
        raise BadRequest("action 'review' and reason 'second_opinion' go together: they leave the case waiting")
    fitting = _FITS.get(ruling.reason)
    if fitting is not None and ruling.truth not in fitting:
        raise BadRequest(f"reason {ruling.reason!r} says that the truth is {' or '.join(sorted(fitting))}, not {ruling.truth}")
    if ruling.generator and ruling.truth not in FAKE:
        raise BadRequest(f"generator {ruling.generator!r}: only a synthetic or manipulated picture has one")
    if ruling.generator and not _GENERATOR.fullmatch(ruling.generator):
        raise BadRequest(f"generator {ruling.generator!r}: up to 64 of a-z, 0-9, _ . and -, the first a letter or digit")
    _check_note(ruling.note)


def _check_note(note: str) -> None:
    if len(note) > LONGEST_NOTE:
        raise BadRequest(f"note: {len(note)} characters; at most {LONGEST_NOTE} are kept")
    if "\0" in note or any(0xD800 <= ord(sign) <= 0xDFFF for sign in note):
        raise BadRequest("note: a text without NUL characters and lone surrogates is needed")


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _digest(wanted: CaseFilter) -> str:
    parts = [wanted.standing, wanted.label, wanted.action, wanted.batch, wanted.order]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def _token(wanted: CaseFilter, case_id: str) -> str:
    return base64.urlsafe_b64encode(f"{_digest(wanted)}:{case_id}".encode()).decode().rstrip("=")


def _after(wanted: CaseFilter, token: str) -> str:
    """The id that a token holds; empty for none."""
    if not token:
        return ""
    try:
        digest, _, case_id = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().partition(":")
    except (binascii.Error, ValueError):
        raise BadRequest("page_token: this is not one that a page gave") from None
    if digest != _digest(wanted) or not re.fullmatch(r"[0-9a-f-]{36}", case_id):
        raise BadRequest("page_token: it belongs to a page of another filter or order")
    return case_id
