"""What Triton alone would do: the very inferences of the pictures, and nothing else on the machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice

from bench.rig.platform import Rig

from unmask.bootstrap import BoundHandlers
from unmask.core.cards import Card, ModelRef
from unmask.core.pictures import decode
from unmask.core.ports import ModelServer, Tensors

# A model, what it is given, and which of its outputs are asked for.
Calls = list[tuple[ModelRef, Tensors, Sequence[str] | None]]


@dataclass(frozen=True)
class _Recorder:
    """A model server that notes what it is asked."""

    server: ModelServer
    calls: Calls

    def card(self, ref: ModelRef) -> Card:
        """See `ModelServer.card`."""
        return self.server.card(ref)

    def infer(self, ref: ModelRef, inputs: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """See `ModelServer.infer`."""
        self.calls.append((ref, inputs, outputs))
        return self.server.infer(ref, inputs, outputs)


def recorded(rig: Rig, pictures: Iterable[bytes]) -> list[Calls]:
    """The inferences that the stages ask for, a list a picture."""
    handlers, release = rig.parts.handlers, rig.parts.catalogue.active_release()
    found = []
    for data in pictures:
        calls: Calls = []
        asked: BoundHandlers = replace(handlers, models=_Recorder(handlers.models, calls))
        pixels = decode(data, rig.parts.limits)
        faces = asked.align(pixels, release)
        asked.localize(pixels, faces, asked.classify(pixels, faces, release), release)
        found.append(calls)
    return found


def seconds(rig: Rig, calls: list[Calls], number: int, at_once: int) -> float:
    """How long so many pictures take: one inference after the other for each picture, `at_once` pictures at a time."""

    def ask(one: Calls) -> None:
        for ref, tensors, outputs in one:
            rig.parts.models.infer(ref, tensors, outputs)

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(ask, islice(cycle(calls), number)))
    return time.perf_counter() - started
