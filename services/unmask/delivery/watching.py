"""Duties of the sweeper that look into the store and at the releases in use, for the gauges of the metrics page."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from unmask.core import metrics
from unmask.core.cards import ModelRef, Release
from unmask.core.domain import Priority
from unmask.core.errors import BadModel
from unmask.core.office_ports import WatchStore
from unmask.core.pipeline import ORDER, next_step
from unmask.core.ports import Clock, ModelServer, Observer
from unmask.core.readouts import Reference
from unmask.core.releases import Role
from unmask.core.watching import Backlog
from unmask.core.world import Catalogue
from unmask.delivery.sweeper import Duty

_log = logging.getLogger(__name__)
_REVIEWS: Final = timedelta(days=30)
# What changes with every picture is read often; reviews, discoveries and releases change slowly.
_OFTEN: Final = 5.0
_RARELY: Final = 30.0


@dataclass(frozen=True, slots=True)
class Lookout:
    """What the duties look at, and whom they tell."""

    store: WatchStore
    catalogue: Catalogue
    models: ModelServer
    clock: Clock
    observer: Observer


def watch_duties(look: Lookout, *, often: float = _OFTEN, rarely: float = _RARELY) -> tuple[Duty, ...]:
    """The queue, the outbox and the dead every `often` seconds; reviews, discoveries and releases every `rarely`."""
    return (
        Duty("watch_queue", often, lambda _: watch_queue(look)),
        Duty("watch_reviews", rarely, lambda _: watch_reviews(look)),
        Duty("watch_releases", rarely, lambda _: watch_releases(look)),
    )


def watch_queue(look: Lookout) -> int:
    """Depth and age of queue and outbox, and what is dead.  Raises `Unavailable`; the gauges then stay what they were."""
    started, gauged = time.monotonic(), look.observer.gauged
    # Every step and lane, so that an empty queue shows as 0 and not as nothing.
    backlogs = {(step.value, lane.value): Backlog(0) for step, _ in ORDER for lane in Priority}
    for waiting in look.store.waiting():
        step = next_step(waiting.stage)
        if step is not None:
            backlogs[step.value, waiting.lane.value] = waiting.backlog
    outgoing, dead, now = look.store.outgoing(), look.store.dead(), look.clock.now()
    gauged(metrics.OPEN_CASES, {labels: backlog.count for labels, backlog in backlogs.items()})
    gauged(metrics.QUEUE_AGE, {labels: _age(backlog, now) for labels, backlog in backlogs.items()})
    gauged(metrics.OUTBOX_EVENTS, {(): outgoing.count})
    gauged(metrics.OUTBOX_AGE, {(): _age(outgoing, now)})
    gauged(metrics.DEAD_ITEMS, {(kind.value,): count for kind, count in dead.items()})
    gauged(metrics.WATCHED_AT, {(): now.timestamp()})
    gauged(metrics.WATCH_SECONDS, {(): time.monotonic() - started})
    return 0


def watch_reviews(look: Lookout) -> int:
    """What reviewers confirmed, and what was last discovered.  Raises `Unavailable`."""
    reviewed = look.store.reviewed(look.clock.now() - _REVIEWS)
    look.observer.gauged(metrics.REVIEWED_CASES, {(one.label.value, one.truth): one.cases for one in reviewed})
    found = look.store.discovery()
    look.observer.gauged(metrics.UNKNOWN_CLUSTER, {} if found is None else {(): found.largest})
    look.observer.gauged(metrics.DISCOVERED_AT, {} if found is None else {(): found.at.timestamp()})
    return 0


def watch_releases(look: Lookout) -> int:
    """Which releases and models are in use, and what scores the active detector gave when it was calibrated.

    Raises `BadModel` where there is no active release that can be read, `Unavailable`.
    """
    active, trial = look.catalogue.active_release(), look.catalogue.shadow()
    used = {Role.ACTIVE: active} if trial is None else {Role.ACTIVE: active, Role.SHADOW: trial[0]}
    gauged = look.observer.gauged
    gauged(metrics.RELEASE_INFO, {_release_labels(role, release): 1.0 for role, release in used.items()})
    gauged(metrics.MODEL_INFO, {labels: 1.0 for role, release in used.items() for labels in _model_labels(role, release)})
    gauged(metrics.SHADOW_SHARE, {(): 0.0 if trial is None else trial[1]})
    gauged(metrics.REFERENCE_SHARE, _reference(look, active))
    return 0


def _reference(look: Lookout, active: Release) -> dict[tuple[str, ...], float]:
    """The shares that the release or else its detector's card states; none by other bins than the score's histogram has."""
    ref = active.model("detector")
    stated = active.reference or _stated(look, ref)
    if stated is None or stated.bins != metrics.BINS:
        return {}
    return {
        (str(ref.version), truth, metrics.bin_name(upper)): share
        for truth, shares in (("real", stated.real), ("synthetic", stated.synthetic))
        for upper, share in zip(stated.bins, shares, strict=True)
    }


def _stated(look: Lookout, ref: ModelRef) -> Reference | None:
    try:
        return look.models.card(ref).reference
    except BadModel as error:
        # A sweeper works without a model repository; whether models are good is the workers' to say.
        _log.debug("no reference of the scores: %s", error.detail)
        return None


def _age(backlog: Backlog, now: datetime) -> float:
    return 0.0 if backlog.oldest is None else max((now - backlog.oldest).total_seconds(), 0.0)


def _release_labels(role: Role, release: Release) -> tuple[str, ...]:
    return role.value, release.name, release.sha256[:12], str(release.model("detector").version)


def _model_labels(role: Role, release: Release) -> list[tuple[str, ...]]:
    return [(role.value, ref.name, str(ref.version), ref.sha256[:12]) for ref in release.models.values()]
