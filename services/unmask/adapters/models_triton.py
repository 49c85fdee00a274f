"""Models in NVIDIA Triton, over gRPC: cards from the model repository, every call to an exact version."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from unmask.adapters.model_contract import (
    Repository,
    check_declared,
    check_inputs,
    check_outputs,
    chosen,
    joined,
    label,
    parts,
)
from unmask.core.cards import Card, ModelRef, TensorSpec
from unmask.core.deadlines import remaining
from unmask.core.errors import BadConfig, BadModel, DeadlineExceeded, Unavailable, UnmaskError
from unmask.core.ports import Tensors

_Result = TypeVar("_Result")
_SECONDS: Final = 10.0
_LOAD_SECONDS: Final = 120.0
_DTYPES: Final = {
    "TYPE_UINT8": "uint8",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
}
_CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own wait up to two minutes before they look again at a server that was restarted.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Or one client's wait holds up another that was just made.
    ("grpc.use_local_subchannel_pool", 1),
    # Behind one name there may be several servers.
    ("grpc.lb_policy_name", "round_robin"),
    # A connection that a firewall dropped is noticed while nothing is sent, too.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]
_OF_TIME: Final = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED", "UNKNOWN"}
_OF_SETTINGS: Final = {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"}
# INTERNAL is Triton's word for whatever a backend says; these pass, or end with a restart of the model.
_PASSING: Final = ("is not healthy", "allocate memory", "bad_alloc", "out of memory", "shared memory")


@dataclass(frozen=True, slots=True)
class Tls:
    """Files (PEM) of a TLS channel: whose certificates are trusted (None: the system's), and our own for mutual TLS."""

    ca: Path | None = None
    key: Path | None = None
    certificate: Path | None = None


class TritonModels:
    """The ports `ModelServer` and `ModelControl` over a Triton at `url` (HOST:PORT of its gRPC).

    Batching across calls is Triton's.  A call waits `seconds` at most for each of its batches (a load `load_seconds`), less
    where the deadline in hand (`core.deadlines`) is nearer.  Thread-safe; every process has a channel of its own, opened at
    its first call, so that one made before a fork serves after it.

    Triton loads, reloads and unloads models, not versions.  `load` asks for all versions of the model that lie in its
    repository, and where that does not bring the version for those ready and this one.  `unload` asks for those ready but
    this one, which Triton loads anew beside the old ones before it lets these go: for that moment it needs room for both.
    Behind one name for several servers either reaches one of them.
    """

    def __init__(
        self,
        repository: Repository,
        url: str,
        *,
        seconds: float = _SECONDS,
        load_seconds: float = _LOAD_SECONDS,
        tls: Tls | None = None,
    ) -> None:
        self._repository, self._url, self._tls = repository, url, tls
        self._seconds, self._load_seconds = seconds, load_seconds
        # By process: a parent's client must be neither used nor closed by its children.
        self._clients: dict[int, InferenceServerClient] = {}
        self._limits: dict[tuple[str, int], int] = {}

    def card(self, ref: ModelRef) -> Card:
        """See `ModelServer.card`."""
        return self._repository.card(ref)

    def infer(self, ref: ModelRef, inputs: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """See `ModelServer.infer`; raises `DeadlineExceeded` when the deadline in hand is what ran out."""
        card = self._repository.card(ref)
        check_inputs(card, inputs)
        tensor, wanted = inputs[card.input.name], chosen(card, outputs)
        known = (card.name, card.version) in self._limits
        try:
            return self._run(card, tensor, wanted)
        except BadModel:
            # Perhaps it was loaded anew with another batch size since; once, and only where that could be.
            self._limits.pop((card.name, card.version), None)
            if not known:
                raise
            return self._run(card, tensor, wanted)

    def load(self, ref: ModelRef) -> None:
        """See `ModelControl.load`."""
        card = self._repository.card(ref)
        if not self.loaded(ref):
            self._load(card)
        self._limits.pop((card.name, card.version), None)
        self._limit(card)

    def unload(self, ref: ModelRef) -> None:
        """See `ModelControl.unload`."""
        self._limits.pop((ref.name, ref.version), None)
        if not self.loaded(ref):
            return
        where = f"unloading model {ref.name}/{ref.version}"
        if others := [version for version in self._ready(ref.name) if version != ref.version]:
            self._load_versions(ref.name, others, where)
        else:
            self._call(where, lambda client, seconds: client.unload_model(ref.name, client_timeout=seconds), self._load_seconds)

    def loaded(self, ref: ModelRef) -> bool:
        """See `ModelControl.loaded`."""
        name, version = ref.name, str(ref.version)
        return bool(
            self._call(
                f"model {name}/{version}", lambda client, seconds: client.is_model_ready(name, version, client_timeout=seconds)
            )
        )

    def close(self) -> None:
        """Closes this process's channel; the next call opens another."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _run(self, card: Card, tensor: NDArray[np.generic], wanted: Sequence[TensorSpec]) -> Tensors:
        return joined([self._infer_part(card, part, wanted) for part in parts(tensor, self._limit(card))])

    def _infer_part(self, card: Card, tensor: NDArray[np.generic], wanted: Sequence[TensorSpec]) -> Tensors:
        given = InferInput(card.input.name, list(tensor.shape), "UINT8")
        given.set_data_from_numpy(tensor)
        asked = [InferRequestedOutput(spec.name) for spec in wanted]
        answer = self._call(
            label(card),
            lambda client, seconds: client.infer(
                card.name, [given], outputs=asked, model_version=str(card.version), client_timeout=seconds
            ),
        )
        outputs = {output.name: _tensor(card, answer, output.name) for output in answer.get_response().outputs}
        check_outputs(card, wanted, len(tensor), outputs, "Triton")
        return outputs

    def _limit(self, card: Card) -> int:
        """Rows of a batch: the card's limit or, where that is less, Triton's, whose configuration is held against the card."""
        key = (card.name, card.version)
        if key not in self._limits:
            config = self._config(card.name, card.version, label(card))
            batch = int(config.get("max_batch_size", 0))
            inputs, outputs = (_declared(config.get(kind, ()), batched=batch > 0) for kind in ("input", "output"))
            check_declared(card, inputs, outputs, "Triton's configuration")
            self._limits[key] = min(card.max_batch_size, batch or card.max_batch_size)
        return self._limits[key]

    def _config(self, name: str, version: int, where: str) -> dict[str, Any]:
        answer = self._call(
            where, lambda client, seconds: client.get_model_config(name, str(version), as_json=True, client_timeout=seconds)
        )
        config: dict[str, Any] = answer["config"]
        return config

    def _load(self, card: Card) -> None:
        where = f"loading {label(card)}"
        try:
            self._call(where, lambda client, seconds: client.load_model(card.name, client_timeout=seconds), self._load_seconds)
        except BadModel:
            # Another version may be the broken one.
            if not self.loaded(card.ref) and not self._ready(card.name):
                raise
        if not self.loaded(card.ref) and (ready := self._ready(card.name)):
            # An earlier unload left a list of versions, to which Triton holds.
            self._load_versions(card.name, [*ready, card.version], where)
        if not self.loaded(card.ref):
            raise BadModel(f"{where}: Triton at {self._url} has no such version in its repository")

    def _load_versions(self, name: str, versions: Sequence[int], where: str) -> None:
        config = self._config(name, self._ready(name)[0], where)
        config["version_policy"] = {"specific": {"versions": sorted(versions)}}
        text = json.dumps(config)
        self._call(
            where, lambda client, seconds: client.load_model(name, config=text, client_timeout=seconds), self._load_seconds
        )

    def _ready(self, name: str) -> list[int]:
        """The versions of a model that answer."""
        index = self._call(f"model {name}", lambda client, seconds: client.get_model_repository_index(client_timeout=seconds))
        return sorted(int(one.version) for one in index.models if one.name == name and one.state == "READY")

    def _call(
        self, where: str, ask: Callable[[InferenceServerClient, float], _Result], seconds: float | None = None
    ) -> _Result:
        """What Triton answers within the time allowed; every error becomes one of ours."""
        allowed = self._seconds if seconds is None else seconds
        left = remaining(allowed)
        try:
            return ask(self._client(), left)
        except InferenceServerException as error:
            if _code(error) == "DEADLINE_EXCEEDED" and left < allowed:
                raise DeadlineExceeded(f"{where}: the call's deadline ran out while Triton at {self._url} worked") from error
            raise self._error(where, error, left) from error
        except ValueError as error:  # a closed channel: `close` on another thread
            raise Unavailable(f"{where}: the channel to Triton at {self._url} was closed") from error

    def _error(self, where: str, error: InferenceServerException, seconds: float) -> UnmaskError:
        code, said = _code(error), error.message() or "no reason given"
        if code == "DEADLINE_EXCEEDED":
            return Unavailable(f"{where}: Triton at {self._url} did not answer within {seconds:g} s")
        if code in _OF_TIME or (code == "INTERNAL" and any(words in said for words in _PASSING)):
            return Unavailable(f"{where}: Triton at {self._url}: {said}")
        if code in _OF_SETTINGS:
            return BadConfig(f"{where}: Triton at {self._url} refuses ({code}): {said}")
        return BadModel(f"{where}: Triton at {self._url}: {said}")

    def _client(self) -> InferenceServerClient:
        process = os.getpid()
        client = self._clients.get(process)
        if client is None:
            # Without a lock, which a fork could leave held: of two made at once the first one stays.
            client = self._clients.setdefault(process, self._connected())
        return client

    def _connected(self) -> InferenceServerClient:
        credentials = None if self._tls is None else _credentials(self._tls)
        return InferenceServerClient(self._url, creds=credentials, channel_args=_CHANNEL)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    try:
        ca, key, certificate = (None if path is None else path.read_bytes() for path in (tls.ca, tls.key, tls.certificate))
    except OSError as error:
        raise BadConfig(f"TLS to Triton: {error.filename}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _code(error: InferenceServerException) -> str:
    """The gRPC status's name."""
    return str(error.status()).removeprefix("StatusCode.")


def _tensor(card: Card, answer: Any, name: str) -> NDArray[np.generic]:
    """An output as the card shapes it: Triton has no tensor of one number a row and says (N, 1)."""
    try:
        tensor: NDArray[np.generic] = answer.as_numpy(name)
    except ValueError as error:  # fewer bytes than its shape says
        raise BadModel(f"{label(card)}: output {name}: Triton's answer is broken: {error}") from error
    ranks = {spec.name: len(spec.shape) for spec in card.outputs}
    return tensor[:, 0] if ranks.get(name) == 1 and tensor.ndim == 2 and tensor.shape[1] == 1 else tensor


def _declared(entries: Sequence[dict[str, Any]], *, batched: bool) -> list[TensorSpec]:
    """A configuration's tensors as the graph has them: reshaped inside, with the batch axis that Triton adds."""
    return [
        TensorSpec(
            entry["name"],
            _DTYPES.get(entry["data_type"], entry["data_type"]),
            (*([-1] if batched else []), *map(int, entry["reshape"].get("shape", ()) if "reshape" in entry else entry["dims"])),
        )
        for entry in entries
    ]
