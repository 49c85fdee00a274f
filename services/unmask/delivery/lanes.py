"""What waits to be delivered, a lane an endpoint: a slow one fills its own lane and holds up no other."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")
# Weight of the newest delivery in a lane's mean time, and what a lane is taken for before its first.
_NEWEST: Final = 0.3
_UNKNOWN_SECONDS: Final = 0.1


@dataclass(slots=True)
class _Lane(Generic[T]):
    waiting: deque[T] = field(default_factory=deque)
    in_hand: int = 0
    seconds: float = _UNKNOWN_SECONDS
    booked: float = 0.0


class Lanes(Generic[T]):
    """Items in lanes, taken in turns over the lanes, at most `each` of a lane at a time.

    A lane takes in what it is likely to give out within `patience` seconds, at most `room`.  Thread-safe.  Every `take` is
    answered by one `done`.
    """

    def __init__(self, *, each: int, room: int = 256, patience: float = 30.0) -> None:
        self._each, self._room, self._patience = each, room, patience
        self._lanes: dict[str, _Lane[T]] = {}
        self._ready: deque[str] = deque()  # lanes that have something which may be taken now, each once
        self._count = 0
        self._closed = False
        lock = threading.Lock()
        self._offered, self._changed = threading.Condition(lock), threading.Condition(lock)

    @property
    def count(self) -> int:
        """How many wait or are in hand."""
        with self._changed:
            return self._count

    def put(self, name: str, item: T) -> float | None:
        """Adds to the lane and returns None; where it is full, the seconds after which its turn may come."""
        with self._changed:
            if self._closed:
                return 0.0
            lane = self._lanes.setdefault(name, _Lane())
            ahead = len(lane.waiting)
            if ahead >= self._room or ahead * lane.seconds / self._each > self._patience:
                return self._booked(lane)
            lane.waiting.append(item)
            self._count += 1
            self._offer(name, lane)
            return None

    def take(self) -> tuple[str, T] | None:
        """The next item and its lane; waits for one.  None once closed."""
        with self._changed:
            while not self._ready and not self._closed:
                self._offered.wait()
            if self._closed:
                return None
            name = self._ready.popleft()
            lane = self._lanes[name]
            item = lane.waiting.popleft()
            lane.in_hand += 1
            self._offer(name, lane)
            return name, item

    def done(self, name: str, seconds: float) -> None:
        """What was taken of the lane is through, after so many seconds."""
        with self._changed:
            lane = self._lanes[name]
            lane.in_hand -= 1
            lane.seconds += (seconds - lane.seconds) * _NEWEST
            self._count -= 1
            if not lane.waiting and not lane.in_hand:
                del self._lanes[name]
            else:
                self._offer(name, lane)
            self._changed.notify_all()

    def wait(self, most: int, timeout: float | None = None) -> bool:
        """Waits until at most `most` items wait or are in hand; False when the time ran out before."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count <= most, timeout)

    def close(self) -> list[T]:
        """Gives nothing out any more, and back what waited."""
        with self._changed:
            self._closed = True
            left = [item for lane in self._lanes.values() for item in lane.waiting]
            for lane in self._lanes.values():
                lane.waiting.clear()
            self._ready.clear()
            self._count -= len(left)
            self._offered.notify_all()
            self._changed.notify_all()
            return left

    def _offer(self, name: str, lane: _Lane[T]) -> None:
        if lane.waiting and lane.in_hand < self._each and name not in self._ready:
            self._ready.append(name)
            self._offered.notify()

    def _booked(self, lane: _Lane[T]) -> float:
        """Each that is turned away is told a later time, so that they come back at the pace at which the lane moves."""
        now, pace = time.monotonic(), lane.seconds / self._each
        lane.booked = max(lane.booked, now + pace * len(lane.waiting)) + pace
        return lane.booked - now
