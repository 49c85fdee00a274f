"""Models in this process: ONNX Runtime sessions on the processor, one a version, requests gathered into batches."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from unmask.adapters.gather import Gatherer
from unmask.core.cards import Card, ModelRef, TensorSpec
from unmask.core.errors import BadModel, Unavailable
from unmask.core.ports import Tensors

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_ONNX_TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(double)": "float64",
}


class Repository(Protocol):
    """Where cards and files come from (`ModelRepository`)."""

    def card(self, ref: ModelRef) -> Card:
        """The card of a version."""

    def file(self, ref: ModelRef, name: str = "model.onnx") -> bytes:
        """A file of a version, checked."""


class _Loaded:
    """A session with its card, held against each other."""

    def __init__(self, card: Card, data: bytes, threads: int) -> None:
        self.card = card
        self.name = f"model {card.name}/{card.version}"
        self._session = open_session(data, threads, self.name)
        check_contract(card, self._session)
        self._outputs = [spec.name for spec in card.outputs]
        self._gatherer = Gatherer(self._run, card.max_batch_size)

    def infer(self, inputs: Tensors) -> Tensors:
        """One request of any number of rows."""
        check_inputs(self.card, inputs)
        tensor, limit = inputs[self.card.input.name], self.card.max_batch_size
        parts = [
            self._gatherer.submit({self.card.input.name: tensor[start : start + limit]})
            for start in range(0, len(tensor), limit)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, inputs: Tensors) -> Tensors:
        try:
            results = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            # ONNX Runtime has one exception for everything; out of memory passes, anything else does not.
            kind = Unavailable if "allocate memory" in str(error) or "bad_alloc" in str(error) else BadModel
            raise kind(f"{self.name}: running {_shapes(inputs)} failed: {error}") from error
        return dict(zip(self._outputs, results, strict=True))


class LocalModels:
    """The port `ModelServer` over ONNX Runtime.

    `threads` is how many processors one batch may use.  A version is loaded when first asked for, once; its file's sha256
    and its tensors are then held against its card.
    """

    def __init__(self, repository: Repository, *, threads: int = 1) -> None:
        self._repository, self._threads = repository, threads
        self._lock = threading.Lock()
        self._loading: dict[tuple[str, int], threading.Lock] = {}
        self._loaded: dict[tuple[str, int], _Loaded] = {}

    def card(self, ref: ModelRef) -> Card:
        """See `ModelServer.card`."""
        return self._repository.card(ref)

    def infer(self, ref: ModelRef, inputs: Tensors) -> Tensors:
        """See `ModelServer.infer`."""
        return self._get(ref).infer(inputs)

    def load(self, ref: ModelRef) -> None:
        """Loads and checks a version now instead of at its first request; raises `BadModel`."""
        self._get(ref)

    def _get(self, ref: ModelRef) -> _Loaded:
        # The card is asked for every time: a release with another card's sha256 is refused though the version is loaded.
        card, key = self._repository.card(ref), (ref.name, ref.version)
        with self._lock:
            if key in self._loaded:
                return self._loaded[key]
            turn = self._loading.setdefault(key, threading.Lock())
        # A lock a version: one that loads slowly does not hold up another.
        with turn:
            if key not in self._loaded:
                self._loaded[key] = _Loaded(card, self._repository.file(ref), self._threads)
            return self._loaded[key]


def open_session(data: bytes, threads: int, name: str) -> InferenceSession:
    """A session on the processor with `threads` threads; raises `BadModel` naming the model when ONNX Runtime refuses it."""
    # Read when the library is loaded: official builds report to their maker otherwise, and leave a device id in HOME.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # 0.1 s that the command line's start does not pay.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait take the processor from decoding and from the other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BadModel(f"{name}: model.onnx cannot be loaded: {error}") from error


def check_contract(card: Card, session: InferenceSession) -> None:
    """Raises `BadModel` naming model, tensor, expected and found where the graph is not what its card says."""
    name = f"model {card.name}/{card.version}"
    _check_tensors(f"{name}: input", [card.input], session.get_inputs())
    _check_tensors(f"{name}: output", card.outputs, session.get_outputs())


def _check_tensors(where: str, specs: Sequence[TensorSpec], found: Sequence[Any]) -> None:
    expected, present = sorted(spec.name for spec in specs), sorted(str(tensor.name) for tensor in found)
    if expected != present:
        raise BadModel(f"{where}s: the card names {', '.join(expected)}; model.onnx has {', '.join(present)}")
    by_name: Mapping[str, Any] = {tensor.name: tensor for tensor in found}
    for spec in specs:
        tensor = by_name[spec.name]
        dtype = _ONNX_TYPES.get(tensor.type, tensor.type)
        if dtype != spec.dtype:
            raise BadModel(f"{where} {spec.name}: the card says {spec.dtype}, model.onnx has {dtype}")
        shape = tuple(size if isinstance(size, int) else -1 for size in tensor.shape)
        # A length the graph leaves open may be fixed by the card; one that the graph fixes must be the card's.
        if len(shape) != len(spec.shape) or any(has not in {-1, says} for has, says in zip(shape, spec.shape, strict=True)):
            raise BadModel(f"{where} {spec.name}: the card says shape {spec.shape}, model.onnx has {shape}")


def check_inputs(card: Card, inputs: Tensors) -> None:
    """Raises `BadModel` naming model, tensor, expected and found where a request breaks the card's input contract."""
    name, spec = f"model {card.name}/{card.version}", card.input
    if list(inputs) != [spec.name]:
        raise BadModel(f"{name}: expected the input {spec.name}, the request has {', '.join(inputs) or 'none'}")
    tensor = inputs[spec.name]
    if tensor.dtype.name != spec.dtype:
        raise BadModel(f"{name}: input {spec.name}: expected {spec.dtype}, the request has {tensor.dtype.name}")
    fits = len(tensor.shape) == len(spec.shape) and all(
        says in {-1, has} for has, says in zip(tensor.shape, spec.shape, strict=True)
    )
    if not fits or not all(tensor.shape):
        raise BadModel(f"{name}: input {spec.name}: expected shape {spec.shape}, the request has {tensor.shape}")


def _shapes(inputs: Tensors) -> str:
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in inputs.items())
