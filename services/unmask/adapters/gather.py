"""Gathers the requests of several threads into one batch, without a thread of its own and without added delay."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unmask.core.errors import BadModel, Unavailable
from unmask.core.ports import Tensors


class _Request:
    """One caller's rows, and later their outputs or the error in their place."""

    __slots__ = ("error", "inputs", "outputs", "rows", "shapes")

    def __init__(self, inputs: Tensors, rows: int) -> None:
        self.inputs, self.rows = inputs, rows
        # Only rows of equal shapes can lie in one tensor (canvases come in several sizes).
        self.shapes = {name: tensor.shape[1:] for name, tensor in inputs.items()}
        self.outputs: Tensors | None = None
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the caller can go on."""
        return self.outputs is not None or self.error is not None


class Gatherer:
    """Runs requests in batches of at most `limit` rows.

    The first thread that finds nothing running becomes the leader: it runs what waits, oldest first, itself included, and
    hands the rows back.  What arrives meanwhile gathers for the next leader, so a lone caller never waits for company.
    """

    def __init__(self, run: Callable[[Tensors], Tensors], limit: int) -> None:
        self._run, self._limit = run, limit
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._busy = False

    def submit(self, inputs: Tensors) -> Tensors:
        """The outputs of at least one and at most `limit` rows; raises what running them raised."""
        request = _Request(inputs, len(next(iter(inputs.values()))))
        with self._changed:
            self._waiting.append(request)
        while batch := self._next(request):
            self._lead(batch)
        if request.error is not None:
            # A fresh exception a caller: threads must not share one traceback.
            raise _copy(request.error) from request.error
        return request.outputs or {}

    def _next(self, request: _Request) -> list[_Request]:
        """Waits until `request` is done (then nothing is returned) or its thread may lead the batch returned."""
        with self._changed:
            while self._busy and not request.done:
                self._changed.wait()
            if request.done:
                return []
            self._busy = True
            return self._take()

    def _take(self) -> list[_Request]:
        """The oldest request and those after it of the same shapes, as many as fit."""
        batch = [self._waiting.popleft()]
        room = self._limit - batch[0].rows
        left: deque[_Request] = deque()
        for request in self._waiting:
            if request.shapes == batch[0].shapes and request.rows <= room:
                batch.append(request)
                room -= request.rows
            else:
                left.append(request)
        self._waiting = left
        return batch

    def _lead(self, batch: Sequence[_Request]) -> None:
        """Runs a batch; whatever happens, every request of it is done afterwards and the next leader may go."""
        error: BaseException | None = None
        try:
            _scatter(batch, self._run(_joined(batch)))
        except Exception as caught:
            error = caught
        except BaseException:
            error = Unavailable("the thread that ran this batch was interrupted")
            raise
        finally:
            with self._changed:
                for request in batch:
                    request.error = error
                self._busy = False
                self._changed.notify_all()


def _joined(batch: Sequence[_Request]) -> Tensors:
    if len(batch) == 1:
        return batch[0].inputs
    return {name: np.concatenate([request.inputs[name] for request in batch]) for name in batch[0].inputs}


def _scatter(batch: Sequence[_Request], outputs: Tensors) -> None:
    """Hands each request its rows; raises `BadModel` when the model gave another number of rows than it got."""
    total = sum(request.rows for request in batch)
    for name, tensor in outputs.items():
        if tensor.ndim == 0 or len(tensor) != total:
            raise BadModel(f"output {name}: {total} rows went in, a tensor of shape {tensor.shape} came out")
    start = 0
    shares: list[dict[str, NDArray[np.generic]]] = []
    for request in batch:
        shares.append({name: tensor[start : start + request.rows] for name, tensor in outputs.items()})
        start += request.rows
    for request, share in zip(batch, shares, strict=True):
        request.outputs = share


def _copy(error: BaseException) -> BaseException:
    try:
        return type(error)(*error.args)
    except TypeError:
        return Unavailable(str(error))
