"""What comes through the queue: one description of a submission behind both doors (Celery task, plain JSON)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from unmask.core.access import Caller, Scope
from unmask.core.dead import Letter
from unmask.core.domain import BlobSource, BytesSource, Case, Media, Priority, Source, Submission, UrlSource
from unmask.core.errors import BadRequest, CallerError, Forbidden
from unmask.core.ids import new_case_id
from unmask.core.office_ports import DeadStore
from unmask.core.submit import accept
from unmask.core.world import World

_SOURCES: Final = ("blob", "url", "base64")
_TEXTS: Final = ("token", *_SOURCES, "idempotency_key", "priority", "batch", "callback", "parent")
_FIELDS: Final = frozenset((*_TEXTS, "labels"))


@dataclass(frozen=True, slots=True)
class Door:
    """Takes submissions as JSON: `{"token": …, "blob" | "url" | "base64": …, "idempotency_key": …, "priority": "live|batch",
    "batch": …, "labels": {…}, "callback": "https://…", "parent": …}`; everything but token and one source may be left out.

    `authenticate` turns a token into its caller; `accept` is `core.submit.accept`, or one that counts against quotas too.  (The
    rate a minute is not held against a queue: it is a buffer itself.)
    """

    world: World
    dead: DeadStore
    authenticate: Callable[[str], Caller]
    accept: Callable[[World, Submission], Case] = accept
    # Characters of base64 that are decoded; larger pictures go through the blob store.
    longest_base64: int = 8 * 1024 * 1024

    def take(self, body: bytes, default_key: str = "") -> Case:
        """Accepts one submission; without an idempotency key of its own it goes under `default_key`.

        Raises a `CallerError` naming the field when it is refused (nothing was kept), `Unavailable` when it may be tried again.
        """
        fields = parsed(body)
        caller = self.authenticate(_token(fields))
        return self.take_as(caller, {**fields, "idempotency_key": fields.get("idempotency_key") or default_key})

    def take_as(self, caller: Caller, fields: Mapping[str, Any]) -> Case:
        """Accepts one submission of a caller who is known already."""
        if Scope.SUBMIT not in caller.scopes:
            raise Forbidden("the token lacks the scope 'submit'")
        return self.accept(self.world, self._submission(caller.tenant, fields))

    def take_again(self, body: bytes, tenant: str) -> Case:
        """Accepts a dead letter that somebody put back, for the tenant that it proved to be of; raises as `take` does."""
        if not tenant:
            raise Forbidden("the letter proved no tenant when it came: let its sender submit it again")
        key = f"letter:{hashlib.sha256(body).hexdigest()}"
        fields = parsed(body)
        caller = Caller(tenant, frozenset({Scope.SUBMIT}), "requeue")
        return self.take_as(caller, {**fields, "idempotency_key": fields.get("idempotency_key") or key})

    def bury(self, door: str, body: bytes, error: CallerError) -> None:
        """Keeps a refused message as a dead letter, without its token; raises `Unavailable`."""
        now = self.world.clock.now()
        tenant = self._owner(body)
        self.dead.bury(Letter(new_case_id(now), tenant, door, without_token(body), error.code, error.detail, now))

    def _owner(self, body: bytes) -> str:
        """Whose the submission is as far as its token proves it; empty otherwise."""
        try:
            return self.authenticate(_token(parsed(body))).tenant
        except CallerError:
            return ""

    def _submission(self, tenant: str, fields: Mapping[str, Any]) -> Submission:
        labels = fields.get("labels") or {}
        if not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values()):
            raise BadRequest("labels: an object of texts is needed")
        return Submission(
            tenant=tenant,
            source=self._source(fields),
            idempotency_key=fields.get("idempotency_key") or "",
            media=Media("image", fields.get("parent") or ""),
            labels=dict(labels),
            callback=fields.get("callback") or "",
            priority=_priority(fields.get("priority")),
            batch=fields.get("batch") or "",
        )

    def _source(self, fields: Mapping[str, Any]) -> Source:
        given = [name for name in _SOURCES if fields.get(name)]
        if len(given) != 1:
            raise BadRequest(f"exactly one of blob, url and base64 is needed, got {', '.join(given) or 'none'}")
        (kind,) = given
        if kind == "blob":
            return BlobSource(fields["blob"])
        return UrlSource(fields["url"]) if kind == "url" else BytesSource(self._decoded(fields["base64"]))

    def _decoded(self, text: str) -> bytes:
        if len(text) > self.longest_base64:
            raise BadRequest(
                f"base64: {len(text)} characters, at most {self.longest_base64}; larger pictures go through the blob store"
            )
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"base64: {error}") from error


def parsed(
    body: bytes, what: str = "message", texts: Collection[str] = _TEXTS, known: Collection[str] = _FIELDS
) -> dict[str, Any]:
    """The fields of a submission as JSON, of which `texts` are texts.

    Raises `BadRequest` for what is no JSON object, for unknown fields and wrong kinds.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the {what} is not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise BadRequest(f"the {what} is not a JSON object")
    unknown = sorted(fields.keys() - set(known))
    if unknown:
        raise BadRequest(f"unknown field {unknown[0][:40]!r}; known are {', '.join(sorted(known))}")
    for name in texts:
        if not isinstance(fields.get(name) or "", str):
            raise BadRequest(f"{name}: a text is needed")
    return fields


def without_token(body: bytes) -> bytes:
    """The message without its token, for keeping: a secret does not belong among dead letters."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(fields, dict) or "token" not in fields:
        return body
    return json.dumps({name: value for name, value in fields.items() if name != "token"}).encode()


def _token(fields: Mapping[str, Any]) -> str:
    return str(fields.get("token") or "")


def _priority(word: str | None) -> Priority:
    try:
        return Priority(word or Priority.LIVE)
    except ValueError:
        raise BadRequest(f"priority {word!r}: expected live or batch") from None
