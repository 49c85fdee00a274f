"""Figures of a run, for people: counts, and how long things took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.system.chaos.ledger import Books


def figures(books: Books) -> dict[str, str]:
    """Counts, and how long things took."""
    sent, stored = books.sent, books.stored
    states = Counter(row["state"] for row in stored.cases)
    doors = Counter(one.order.door for one in sent if one.acknowledged)
    why = Counter((row["failure"] or {}).get("code") for row in stored.cases if row["state"] in {"failed", "dead"})
    good = [one for one in books.deliveries if one.answered]
    at = {row["id"]: row["at"] / 1e6 for row in stored.events}
    first: dict[str, float] = {}
    for one in good:
        first[one.event] = min(one.at, first.get(one.event, one.at))
    born = {(row["tenant"], row["id"]): row["created_at"] / 1e6 for row in stored.cases}
    lives = [row["at"] / 1e6 - born[key] for row in stored.events if (key := (row["tenant"], row["case_id"])) in born]
    letters = len({bytes(row["body"]) for row in stored.letters})
    return {
        "submissions": f"{len(sent)}, acknowledged {sum(one.acknowledged for one in sent)} ({_listed(doors)})",
        "attempts of the producer": str(sum(one.attempts for one in sent)),
        "cases": f"{len(stored.cases)} ({_listed(states)})",
        "failed or dead because of": _listed(why) or "-",
        "verdicts, decisions": f"{len(stored.verdicts)}, {len(stored.decisions)}",
        "events": f"{len(stored.events)} ({_listed(Counter(row['state'] for row in stored.events))})",
        "deliveries": f"{len(books.deliveries)} of {len({one.event for one in books.deliveries})} ids, {len(good)} accepted",
        "events on the exchange": "-"
        if stored.exchange is None
        else f"{len(stored.exchange)} of {len(set(stored.exchange))} ids",
        "dead letters": f"{len(stored.letters)} of {letters} messages",
        "blobs, pictures": f"{len(stored.blobs)}, {len(stored.pictures)}",
        "accepted to decided, s": _spread(lives),
        "decided to delivered, s": _spread([moment - at[event] for event, moment in first.items() if event in at]),
    }


def _listed(found: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items(), key=str))


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    return f"p50 {ordered[len(ordered) // 2]:.1f}, p99 {ordered[int(len(ordered) * 0.99)]:.1f}, longest {ordered[-1]:.1f}"
