"""What the domain needs from the world, as protocols; adapters implement them, one contract suite each tests them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unmask.core.cards import Card, ModelRef
from unmask.core.domain import (
    Case,
    CaseUpdate,
    Decision,
    Event,
    EventState,
    Failure,
    Findings,
    Message,
    Near,
    Outgoing,
    PictureInfo,
    State,
    Step,
    Verdict,
)
from unmask.core.metrics import Metric
from unmask.core.releases import ShadowScore

Tensors = Mapping[str, NDArray[np.generic]]


class Clock(Protocol):
    """Time; tests move it."""

    def now(self) -> datetime:
        """The present, timezone-aware UTC."""


class BlobStore(Protocol):
    """Objects by key.  A key is slash-separated; the first part is the tenant.  A malformed key raises `BadRequest`."""

    def put(self, key: str, data: bytes) -> None:
        """Stores `data`; the same key again replaces it atomically.  Raises `Unavailable`."""

    def get(self, key: str) -> bytes:
        """The bytes at `key`; raises `UnknownBlob` when there are none."""

    def size(self, key: str) -> int:
        """Length in bytes without reading them; raises `UnknownBlob`."""

    def delete(self, key: str) -> None:
        """Removes the object; a key that does not exist is no error."""

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys that begin with `prefix`, in order."""

    def aged(self, prefix: str, before: datetime) -> Iterator[str]:
        """Keys that begin with `prefix` and were last written before that moment, in any order.

        By the store's own clock and to the second: for what may go after hours, not for what happened first.
        """


class CaseStore(Protocol):
    """The truth: cases, findings, verdicts, decisions and the outbox.  Each method is one transaction.

    All raise `Unavailable` when the store cannot be reached.  No method sees another tenant's rows.
    """

    def accept(self, case: Case) -> Case:
        """Inserts a new case, or returns the one that (tenant, idempotency_key) already has.

        An empty key never matches.  Raises `IdempotencyConflict` when that case has another `body_sha256`.
        """

    def case(self, tenant: str, case_id: str) -> Case:
        """The case; raises `UnknownCase`."""

    def picture(self, tenant: str, sha256: str) -> PictureInfo | None:
        """The stored picture of those bytes, or None."""

    def findings(self, tenant: str, case_id: str) -> Findings:
        """What the stages have stored for the case."""

    def verdict(self, tenant: str, sha256: str, release: str, policy: str) -> Verdict | None:
        """The verdict of that key, or None."""

    def verdict_of(self, tenant: str, case_id: str) -> Verdict | None:
        """The case's verdict under its own id and timings, its action that of the last decision; None before it is decided."""

    def decisions(self, tenant: str, case_id: str) -> Sequence[Decision]:
        """The case's decisions, oldest first."""

    def commit(self, expected: Case, update: CaseUpdate) -> bool:
        """Writes `update` if the row still has expected.stage and expected.revision; False (and nothing written) if not.

        False too where its verdict's key has one already that says something else: of these bytes the first one stands.
        """

    def claim_due(self, now: datetime, limit: int, quiet: timedelta) -> Sequence[Case]:
        """Open cases that are due, oldest first, at most `limit`, over all tenants (for the sweeper).

        A case is given out again only after `quiet`, and each further time after twice as long (to 32 times), unless it
        moved meanwhile: a long queue must not grow by what already waits in it.
        """

    def near(self, tenant: str, phash: str, most: int) -> Sequence[Near]:
        """Known fakes of the tenant whose perceptual hash is at most `most` bits from this one, nearest first."""

    def progress(self, tenant: str, batch: str) -> Mapping[State, int]:
        """How many cases of the batch are in each state."""

    def verdicts(self, tenant: str) -> Iterator[Verdict]:
        """Every verdict of the tenant, oldest first (policy replay)."""

    def outbox(self, limit: int) -> Sequence[Event]:
        """Events that still have to go out, oldest first."""

    def claim_events(self, now: datetime, limit: int, lease: timedelta) -> Sequence[Outgoing]:
        """Due pending events, of each case only its oldest pending one; not given out again before now + lease."""

    def settle_event(
        self,
        event_id: str,
        state: EventState,
        *,
        attempts: int,
        due_at: datetime,
        taken_by: Iterable[str] = (),
        failure: Failure | None = None,
    ) -> None:
        """Writes what came of an attempt; an event that is no longer pending stays as it is."""


class ModelServer(Protocol):
    """Runs models of exact versions.  Thread-safe; batching across calls is its own business."""

    def card(self, ref: ModelRef) -> Card:
        """The card of that version; raises `BadModel` when it is missing, broken or has another sha256."""

    def infer(self, ref: ModelRef, inputs: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """Runs one batch (first axis N of every tensor) and returns those outputs, for None every one of the card.

        N larger than the card's max_batch_size is split and put together again.  Raises `BadModel` for a wrong name, dtype or
        shape, `Unavailable` when the server does not answer, `DeadlineExceeded` when `core.deadlines` leaves no time.
        """


@runtime_checkable
class ModelControl(Protocol):
    """Which versions a model server holds ready.  Thread-safe; every method raises `Unavailable` when it does not answer."""

    def load(self, ref: ModelRef) -> None:
        """Makes that exact version ready; fine when it is.  Versions that were ready go on serving meanwhile.

        Other versions of the model may become ready too.  Raises `BadModel` when it is missing, cannot be loaded or is not
        what its card says.
        """

    def unload(self, ref: ModelRef) -> None:
        """Gives that version's memory back; fine when it is not loaded.  Other versions, and calls in hand, go on."""

    def loaded(self, ref: ModelRef) -> bool:
        """Whether that exact version is ready now."""


class StageQueue(Protocol):
    """Carries hints; may lose, repeat or reorder them: the store is the truth."""

    def publish(self, message: Message) -> None:
        """Hands a message to whoever works its step.  Raises `Unavailable`; the sweeper repairs what was not published."""


class EventSink(Protocol):
    """Takes outgoing events; at least once, always the same event id."""

    @property
    def name(self) -> str:
        """Its name in what is remembered of an event's deliveries."""

    def takes(self, event: Event) -> bool:
        """Whether this event goes here."""

    def endpoint(self, event: Event) -> str:
        """What fails as one (scheme, host and port; an exchange), for circuit breaking."""

    def send(self, event: Event) -> None:
        """Delivers one event; raises `Unavailable` when it was not accepted, a `CallerError` when it never will be."""


class Observer(Protocol):
    """Hears what is done, for metrics; never raises."""

    def stepped(self, case: Case, step: Step, seconds: float | None, verdict: Verdict | None = None) -> None:
        """A step was worked and its result stored; `case` is the row after it, `verdict` what it was told where it is decided.

        `seconds` is None for a step that somebody began and never finished.
        """

    def compared(self, score: ShadowScore, release: str) -> None:
        """The release on trial, of that name, has scored a case."""

    def counted(self, duty: str, count: int) -> None:
        """A background duty did `count` things."""

    def delivered(self, sink: str, outcome: str, lag: float) -> None:
        """An event was handed to a sink: `accepted`, `failed`, `refused` or `postponed`, `lag` seconds after it happened."""

    def answered(self, method: str, code: str, seconds: float) -> None:
        """A gRPC call ended; `code` is the error's, `ok` where there was none."""

    def gauged(self, metric: Metric, values: Mapping[tuple[str, ...], float]) -> None:
        """What a gauge shows from now on, by the values of its labels; series that are not among them go."""


class Fetcher(Protocol):
    """Reads a URL under the deployment's rules (schemes, addresses, size, time)."""

    def fetch(self, url: str, limit: int) -> bytes:
        """At most `limit` bytes.

        Raises `BadRequest` for a refused address or a 4xx answer, `BadImage` past the limit, else `Unavailable`.
        """
