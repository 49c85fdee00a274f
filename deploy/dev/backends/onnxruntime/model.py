"""Triton's backend `onnxruntime` for development: the same repository as the official one serves, run from Python.

Tensors cross by DLPack only: under numpy 2 this server's as_numpy() and Tensor(name, array) give empty tensors, and no error.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # only inside Triton

_F_SETSIG = 10  # Linux; fcntl has no name for it
_TYPES = {
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
}


class TritonPythonModel:
    """One instance of one version; Triton calls its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens model.onnx and holds it against config.pbtxt, as the official backend does; raising fails the load."""
        config = json.loads(args["model_config"])
        self._session = _open(Path(args["model_repository"]) / args["model_version"] / "model.onnx")
        _check("input", config["input"], self._session.get_inputs())
        _check("output", config["output"], self._session.get_outputs())
        self._input = config["input"][0]["name"]
        self._outputs = [entry["name"] for entry in config["output"]]
        if "UNMASK_DEV_TRITON_LIFE" in os.environ:
            _end_with(os.environ["UNMASK_DEV_TRITON_LIFE"])
            _forget_shared_memory()
        self._delay = Path(os.environ.get("UNMASK_DEV_TRITON_DELAY", os.devnull))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """All requests that Triton's batcher gathered, in one run."""
        self._wait()
        given = [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, self._input)) for request in requests]
        try:
            found = self._session.run(self._outputs, {self._input: given[0] if len(given) == 1 else np.concatenate(given)})
        except Exception as error:
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(f"onnx runtime error: {error}"))] * len(requests)
        ends = np.cumsum([len(rows) for rows in given])
        return [self._response(found, end - len(rows), end) for rows, end in zip(given, ends, strict=True)]

    def _response(self, found: Sequence[np.ndarray], start: int, end: int) -> Any:
        tensors = [
            pb_utils.Tensor.from_dlpack(name, _handed_over(np.ascontiguousarray(tensor[start:end])))
            for name, tensor in zip(self._outputs, found, strict=True)
        ]
        return pb_utils.InferenceResponse(tensors)

    def _wait(self) -> None:
        """As long as the file says, in milliseconds, so that a test can make a running server slow."""
        try:
            text = self._delay.read_text()
        except OSError:
            return
        time.sleep(float(text or 0) / 1000)


def _handed_over(tensor: np.ndarray) -> Any:
    """The tensor's capsule, for Triton to free.

    It marks a capsule that it took by a name that numpy does not know, so that numpy's destructor, which has nothing left to
    do then, would print a traceback each time.
    """
    capsule = tensor.__dlpack__()
    ctypes.pythonapi.PyCapsule_SetDestructor(ctypes.py_object(capsule), None)
    return capsule


def _end_with(pipe: str) -> None:
    """Has the kernel kill this process when the last writer of a named pipe, the launcher, is gone.

    A Triton that was killed can leave a lock for which its stubs wait for ever, and they hold the GIL: no thread could tell.
    """
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(reader, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)


def _forget_shared_memory() -> None:
    """Takes the name off the memory shared with Triton, which both have open: it goes with the last of them, however killed."""
    region = Path("/proc/self/cmdline").read_bytes().decode().split("\0")[2]
    (Path("/dev/shm") / region).unlink(missing_ok=True)


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Triton runs two instances of each model; more threads than that only take turns.
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _check(kind: str, configured: Sequence[dict[str, Any]], present: Sequence[Any]) -> None:
    graph = {tensor.name: tensor for tensor in present}
    for entry in configured:
        name = entry["name"]
        if name not in graph:
            raise ValueError(f"unexpected inference {kind} '{name}', allowed {kind}s are: {', '.join(graph)}")
        if graph[name].type != _TYPES.get(entry["data_type"]):
            raise ValueError(f"{kind} '{name}': config.pbtxt says {entry['data_type']}, the graph has {graph[name].type}")
        says = [-1, *map(int, entry.get("reshape", {}).get("shape", entry["dims"]))]
        has = [size if isinstance(size, int) else -1 for size in graph[name].shape]
        if len(says) != len(has) or any(-1 not in {one, other} and one != other for one, other in zip(says, has, strict=True)):
            raise ValueError(f"{kind} '{name}': config.pbtxt says {says}, the graph has {has}")
