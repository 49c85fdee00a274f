"""The door: a submission becomes a case, in the order blob, row, message."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from typing import Final

from unmask.core.blob_keys import key_parts
from unmask.core.domain import BlobSource, BytesSource, Case, Message, Submission, UrlSource
from unmask.core.errors import BadImage, BadRequest, Unavailable
from unmask.core.ids import new_case_id
from unmask.core.pipeline import waits_for
from unmask.core.world import World

_log = logging.getLogger(__name__)
_LONGEST_KEY: Final = 255
_LONGEST_TEXT: Final = 2048
_MOST_LABELS: Final = 64


def accept(world: World, submission: Submission) -> Case:
    """Stores the submission and publishes its first step; the same (tenant, idempotency key) gives the same case.

    Raises `BadRequest`, `BadImage` (over the byte limit), `IdempotencyConflict`, `BadModel` (no usable release) or
    `Unavailable`; nothing was accepted then.
    """
    _check(submission)
    kind, reference, digest = _source(world, submission)
    now = world.clock.now()
    case = Case(
        id=new_case_id(now),
        tenant=submission.tenant,
        idempotency_key=submission.idempotency_key,
        body_sha256=_body_sha256(submission, kind, digest),
        source_kind=kind,
        source_ref=reference,
        media=submission.media,
        labels=dict(submission.labels),
        callback=submission.callback,
        release=world.catalogue.active_release().sha256,
        policy=world.catalogue.active_policy(submission.tenant).sha256,
        created_at=now,
        # Until its message is worked the sweeper may take the case up again.
        due_at=now + world.retry.stuck,
        priority=submission.priority,
        batch=submission.batch,
    )
    if isinstance(submission.source, BytesSource):
        world.blobs.put(reference, submission.source.data)
    stored = world.store.accept(case)
    if stored.id == case.id:
        publish(world, stored)
    return stored


def publish(world: World, case: Case) -> None:
    """Hints that the case may go on; a queue that is down costs time, not the case."""
    step = waits_for(case)
    if step is None:
        return
    try:
        world.queue.publish(Message(case.tenant, case.id, step, case.priority))
    except Unavailable as error:
        _log.warning("case %s: step %s not published (%s); the sweeper will", case.id, step, error.detail)


def picture_key(tenant: str, sha256: str) -> str:
    """Where a tenant's picture lies in the blob store."""
    return f"{tenant}/pictures/{sha256}"


def _check(submission: Submission) -> None:
    tenant = submission.tenant
    if not tenant or not all(part.isalnum() for part in tenant.replace("_", "-").split("-")):
        raise BadRequest(f"tenant {tenant!r}: letters, digits, '-' and '_' only")
    if submission.media.kind != "image":
        raise BadRequest(f"media kind {submission.media.kind!r}: only 'image' is judged")
    if len(submission.labels) > _MOST_LABELS:
        raise BadRequest(f"labels: at most {_MOST_LABELS}, got {len(submission.labels)}")
    for name, given in _texts(submission):
        most = _LONGEST_KEY if name in {"idempotency key", "batch"} else _LONGEST_TEXT
        if len(given) > most:
            raise BadRequest(f"{name}: at most {most} characters, got {len(given)}")
        if "\0" in given or (not given.isascii() and not _is_unicode(given)):
            raise BadRequest(f"{name}: a text without NUL characters and lone surrogates is needed")


def _texts(submission: Submission) -> Iterator[tuple[str, str]]:
    """Every text that is stored, by the name that an error says."""
    source = submission.source
    yield "idempotency key", submission.idempotency_key
    yield "batch", submission.batch
    yield "media parent", submission.media.parent
    yield "callback", submission.callback
    if not isinstance(source, BytesSource):
        yield "source", source.key if isinstance(source, BlobSource) else source.url
    for name, value in submission.labels.items():
        yield "label", name
        yield f"label {name[:40]!r}", value


def _is_unicode(given: str) -> bool:
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True


def _source(world: World, submission: Submission) -> tuple[str, str, str]:
    """Kind, reference and digest of the source; the digest tells one body from another under an idempotency key."""
    source = submission.source
    if isinstance(source, BytesSource):
        if len(source.data) > world.limits.bytes:
            raise BadImage(f"{len(source.data)} bytes; at most {world.limits.bytes} are read")
        sha256 = hashlib.sha256(source.data).hexdigest()
        return "bytes", picture_key(submission.tenant, sha256), sha256
    if isinstance(source, BlobSource):
        if not source.key.startswith(f"{submission.tenant}/"):
            raise BadRequest(f"blob {source.key!r}: not this tenant's (its keys begin with {submission.tenant + '/'!r})")
        key_parts(source.key)
        return "blob", source.key, source.key
    return _url(world, source)


def _url(world: World, source: UrlSource) -> tuple[str, str, str]:
    if world.fetcher is None:
        raise BadRequest("url sources are switched off in this deployment; send bytes or a blob reference")
    if not source.url.startswith("https://"):
        raise BadRequest(f"url {source.url!r}: only https is fetched")
    return "url", source.url, source.url


def _body_sha256(submission: Submission, kind: str, digest: str) -> str:
    media = [submission.media.kind, submission.media.parent]
    body = [kind, digest, media, dict(submission.labels), submission.callback]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
