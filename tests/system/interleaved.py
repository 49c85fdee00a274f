"""Workers that stop at every call of a port until a test lets them go on, or die there: any interleaving, at will."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from unmask.core.domain import Message
from unmask.core.errors import UnmaskError
from unmask.core.world import World

_PATIENCE = 30.0


class Died(BaseException):
    """What a process that is killed does not live to handle."""


class Actor:
    """Something done on a thread of its own that goes on, by one call of a port at a time, only when told to."""

    def __init__(self, name: str, world: World, do: Callable[[World], object]) -> None:
        self.name, self.at = name, "begin"
        self.error: BaseException | None = None
        self.done = self.dead = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(do, self._cut_up(world)), name=name, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Lets it do one more call, or end."""
        self._go.release()
        if not self._stopped.acquire(timeout=_PATIENCE):
            raise AssertionError(f"{self.name} hangs in {self.at}")

    def die(self) -> None:
        """Kills it where it stands."""
        self.dead = True
        self.step()

    def _run(self, do: Callable[[World], object], world: World) -> None:
        self._go.acquire()
        try:
            if not self.dead:
                do(world)
        except UnmaskError as error:
            self.error = error
        except Died:
            pass
        except BaseException as error:
            self.error = error
        self.done = True
        self._stopped.release()

    def _cut(self, at: str) -> None:
        self.at = at
        self._stopped.release()
        self._go.acquire()
        if self.dead:
            raise Died

    def _cut_up(self, world: World) -> World:
        parts: dict[str, Any] = {
            name: Cut(getattr(world, name), name, self._cut) for name in ("store", "blobs", "queue", "handlers")
        }
        return replace(world, **parts)


class Cut:
    """A port that waits before every call."""

    def __init__(self, inner: Any, name: str, cut: Callable[[str], None]) -> None:
        self._inner, self._name, self._cut = inner, name, cut

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._cut(f"{self._name}.{name}")
            return found(*arguments, **named)

        return call


@dataclass
class Broker:
    """At least once and in no order: what was published, and whether somebody had taken it before."""

    waiting: list[tuple[Message, bool]] = field(default_factory=list)

    def publish(self, message: Message) -> None:
        """Keeps the message."""
        self.waiting.append((message, False))

    def take(self, index: int) -> tuple[Message, bool]:
        """A message and whether somebody had taken it before."""
        return self.waiting.pop(index)

    def hand_back(self, message: Message) -> None:
        """Whoever had taken it died."""
        self.waiting.append((message, True))
