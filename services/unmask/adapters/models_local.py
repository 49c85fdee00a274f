"""Models in this process: ONNX Runtime sessions on the processor, one a version, requests gathered into batches."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from unmask.adapters.gather import Gatherer
from unmask.adapters.model_contract import Repository, check_declared, check_inputs, chosen, joined, label, parts
from unmask.core.cards import Card, ModelRef, TensorSpec
from unmask.core.deadlines import remaining
from unmask.core.errors import BadModel, Unavailable
from unmask.core.golden import golden_pictures
from unmask.core.ports import Tensors

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_ONNX_TYPES: Final = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(double)": "float64",
}


class _Loaded:
    """A session with its card, held against each other."""

    def __init__(self, card: Card, data: bytes, threads: int) -> None:
        self.card = card
        self.name = label(card)
        self._session = open_session(data, threads, self.name)
        check_contract(card, self._session)
        self._outputs = [spec.name for spec in card.outputs]
        self._gatherer = Gatherer(self._run, card.max_batch_size)

    def infer(self, inputs: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """One request of any number of rows.

        All outputs are computed, whatever is asked for: requests that ask for others share a batch, and nothing is sent.
        """
        check_inputs(self.card, inputs)
        name, wanted = self.card.input.name, chosen(self.card, outputs)
        found = joined([self._gatherer.submit({name: part}) for part in parts(inputs[name], self.card.max_batch_size)])
        return {spec.name: found[spec.name] for spec in wanted}

    def _run(self, inputs: Tensors) -> Tensors:
        try:
            results = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            # ONNX Runtime has one exception for everything; out of memory passes, anything else does not.
            kind = Unavailable if "allocate memory" in str(error) or "bad_alloc" in str(error) else BadModel
            raise kind(f"{self.name}: running {_shapes(inputs)} failed: {error}") from error
        return dict(zip(self._outputs, results, strict=True))


class LocalModels:
    """The ports `ModelServer` and `ModelControl` over ONNX Runtime.

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

    def infer(self, ref: ModelRef, inputs: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """See `ModelServer.infer`."""
        # What is begun cannot be broken off, so what nobody waits for any more is not begun.
        remaining(math.inf)
        return self._get(ref).infer(inputs, outputs)

    def load(self, ref: ModelRef) -> None:
        """See `ModelControl.load`."""
        self._get(ref)

    def unload(self, ref: ModelRef) -> None:
        """See `ModelControl.unload`; what runs on it now still ends well."""
        with self._lock:
            self._loaded.pop((ref.name, ref.version), None)

    def loaded(self, ref: ModelRef) -> bool:
        """See `ModelControl.loaded`."""
        with self._lock:
            return (ref.name, ref.version) in self._loaded

    def _get(self, ref: ModelRef) -> _Loaded:
        # The card is asked for every time: a release with another card's sha256 is refused though the version is loaded.
        card, key = self._repository.card(ref), (ref.name, ref.version)
        with self._lock:
            if key in self._loaded:
                return self._loaded[key]
            turn = self._loading.setdefault(key, threading.Lock())
        # A lock a version: one that loads slowly does not hold up another.
        with turn:
            with self._lock:
                found = self._loaded.get(key)
            if found is None:
                found = _Loaded(card, self._repository.file(ref), self._threads)
                with self._lock:
                    self._loaded[key] = found
            return found


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
    check_declared(card, _declared(session.get_inputs()), _declared(session.get_outputs()), "model.onnx")


def check_golden(card: Card, session: InferenceSession) -> None:
    """Raises `BadModel` where the graph does not answer the card's golden pictures on this machine as it did when exported."""
    if card.golden is None or card.view is None:
        return
    pictures = golden_pictures(card.view.size, len(card.golden.answers))
    (found,) = session.run(["synthetic"], {card.input.name: pictures})
    gap = card.golden.gap(found)
    if not gap <= card.golden.tolerance:
        raise BadModel(
            f"{label(card)}: answers the golden pictures by {gap:.2g} otherwise than when it was exported, more than "
            f"{card.golden.tolerance:g}: this machine computes it differently, and its thresholds do not hold here"
        )


def _declared(tensors: Sequence[Any]) -> list[TensorSpec]:
    """A graph's tensors; a length that it leaves open is -1."""
    return [
        TensorSpec(
            str(tensor.name),
            _ONNX_TYPES.get(tensor.type, str(tensor.type)),
            tuple(size if isinstance(size, int) else -1 for size in tensor.shape),
        )
        for tensor in tensors
    ]


def _shapes(inputs: Tensors) -> str:
    return ", ".join(f"{name} {tensor.shape}" for name, tensor in inputs.items())
