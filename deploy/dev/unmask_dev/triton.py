"""NVIDIA Triton out of the `nvidia-pytriton` wheel, on the processor, in an environment of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask_dev.ports import LOOPBACK, free_port
from unmask_dev.process import Process, Server, ServerMissing

if TYPE_CHECKING:
    from tritonclient.grpc import InferenceServerClient

_CHECKOUT: Final = Path(__file__).resolve().parents[3]
ENVIRONMENT: Final = _CHECKOUT / ".venv-triton"
_BACKEND: Final = _CHECKOUT / "deploy/dev/backends/onnxruntime"
_SHARED_MEMORY: Final = Path("/dev/shm")
_STUB: Final = "triton_python_backend_stub"
# What a length that a model leaves open is when the launcher tries it.
_OPEN_SIDE: Final = 64
_ASK: Final = """
import json
from sysconfig import get_config_var, get_path, get_python_version
print(json.dumps([get_python_version(), get_path("purelib"), get_config_var("LIBDIR")]))
"""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the server's certificate and key, and the authority that signed it."""

    certificate: Path
    key: Path
    ca: Path


@dataclass(frozen=True)
class _Installed:
    """Where the server of an environment lies."""

    environment: Path
    site: Path
    library_path: str
    stub: Path

    @property
    def root(self) -> Path:
        """The folder with `bin` and `backends`."""
        return self.site / "pytriton/tritonserver"


class Triton(Server):
    """Serves the repository folder `models` as it stands; `load` names the models to load at the start (None: every one).

    With `tls` its gRPC speaks nothing else.  Models are loaded and unloaded over its API only (explicit control).  It counts
    as started once each of those models has answered an inference: one whose process is dead still says that it is ready.
    """

    name = "triton"

    def __init__(
        self,
        folder: Path,
        models: Path,
        *,
        load: Sequence[str] | None = None,
        tls: TlsFiles | None = None,
        environment: Path = ENVIRONMENT,
    ) -> None:
        super().__init__(folder)
        self.models = models.absolute()
        self.port, self.metrics_port = self.kept.get("port", free_port), self.kept.get("metrics", free_port)
        self._load, self._tls, self._environment = load, tls, environment
        self._prefix = f"unmask_dev_{secrets.token_hex(4)}_"

    @property
    def url(self) -> str:
        """HOST:PORT of gRPC."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def metrics_url(self) -> str:
        """Of its Prometheus metrics."""
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    def connect(self) -> InferenceServerClient:
        """A client; close it."""
        try:
            from tritonclient.grpc import InferenceServerClient
        except ImportError:
            raise ServerMissing("Triton needs its client: install unmask[service]") from None
        ca = None if self._tls is None else str(self._tls.ca)
        return InferenceServerClient(self.url, ssl=ca is not None, root_certificates=ca)

    def slow(self, milliseconds: float) -> None:
        """From now on each batch takes that much longer; 0 is as fast as it can."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self._delay.with_suffix(".new")
        draft.write_text(str(milliseconds))
        draft.replace(self._delay)

    def stubs(self, model: str = "") -> list[int]:
        """The processes that run this model (or any), which Triton starts for each instance of each version."""
        return [pid for pid, argv in _group(self.process.pid) if _STUB in argv[0] and (not model or _serves(argv, model))]

    def kill_stubs(self, model: str) -> int:
        """SIGKILL to the processes of a model, as a crash inside it would do; how many they were."""
        pids = self.stubs(model)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def stop(self) -> None:
        """See `Server.stop`."""
        super().stop()
        self._forget_shared_memory()

    def kill(self) -> None:
        """See `Server.kill`."""
        super().kill()
        self._forget_shared_memory()

    @property
    def _delay(self) -> Path:
        return self.folder / "delay"

    def _to_load(self) -> Sequence[str]:
        if self._load is None:
            return sorted(path.parent.name for path in self.models.glob("*/config.pbtxt"))
        return self._load

    def _process(self) -> Process:
        found = _installed(self._environment)
        backends = _backends(found, self.folder / "backends")
        environment = _environment(found) | {
            "UNMASK_DEV_TRITON_DELAY": str(self._delay),
            "UNMASK_DEV_TRITON_LIFE": str(self._life_line()),
        }
        argv = [str(found.root / "bin/tritonserver"), *self._options(backends)]
        return Process(argv, folder=self.folder, log=self.folder / "triton.log", env=environment)

    def _options(self, backends: Path) -> list[str]:
        settings: dict[str, object] = {
            "model-repository": self.models,
            "backend-directory": backends,
            # Two servers of one machine must not take each other's shared memory.
            "backend-config": f"python,shm-region-prefix-name={self._prefix}",
            "model-control-mode": "explicit",
            "exit-timeout-secs": 5,
            "allow-http": "false",
            "grpc-address": LOOPBACK,
            "grpc-port": self.port,
            "metrics-address": LOOPBACK,
            "metrics-port": self.metrics_port,
        }
        if self._tls is not None:
            files = {"cert": self._tls.certificate, "key": self._tls.key}
            settings |= {"grpc-use-ssl": "true", "grpc-root-cert": self._tls.ca}
            settings |= {f"grpc-server-{name}": path for name, path in files.items()}
        loads = [f"--load-model={name}" for name in self._to_load()]
        return ["--disable-auto-complete-config", *(f"--{name}={value}" for name, value in settings.items()), *loads]

    def _life_line(self) -> Path:
        """A pipe held open and never written: the kernel closes it when this process ends, and kills who reads it."""
        path = self.folder / "life"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        self._life = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        return path

    def _use(self) -> object:
        client = self.connect()
        try:
            return client.is_server_ready(client_timeout=5) and all(_answers(client, name) for name in self._to_load())
        finally:
            client.close()

    def _forget_shared_memory(self) -> None:
        """What a killed server left in memory; nobody else has this prefix."""
        for path in _SHARED_MEMORY.glob(f"{self._prefix}*"):
            path.unlink(missing_ok=True)


def require(environment: Path = ENVIRONMENT) -> None:
    """Raises `ServerMissing` when there is no Triton that runs."""
    _installed(environment)


def _installed(environment: Path) -> _Installed:
    """What is in the environment; raises `ServerMissing` when it is not there or cannot run."""
    python = environment / "bin/python"
    if not python.is_file():
        raise ServerMissing(f"no Triton: there is no {environment.name}; run make setup-triton")
    answer = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ServerMissing(f"no Triton: {environment.name}'s Python does not run; remove it and run make setup-triton")
    version, site, libraries = json.loads(answer.stdout)
    stubs = Path(site) / "pytriton/tritonserver/python_backend_stubs"
    if not stubs.is_dir():
        raise ServerMissing(f"no Triton: {environment.name} has no nvidia-pytriton; run make setup-triton")
    stub = stubs / version / _STUB
    if not stub.is_file():
        known = ", ".join(sorted((path.name for path in stubs.iterdir()), key=lambda name: int(name.partition(".")[2])))
        raise ServerMissing(f"no Triton for CPython {version}: nvidia-pytriton has stubs for {known}")
    found = _Installed(environment, Path(site), f"{site}/nvidia_pytriton.libs:{libraries}", stub)
    # Without arguments it prints its usage, unless the loader misses a library: a Python built without a shared one.
    tried = subprocess.run([stub], env=_environment(found), capture_output=True, text=True, check=False)
    if "shared libraries" in tried.stderr:
        raise ServerMissing(f"no Triton: its stub for CPython {version} does not start: {tried.stderr.strip()}")
    return found


def _environment(found: _Installed) -> dict[str, str]:
    """Nothing of ours but PATH; its stubs find their packages through the Python that is first on it."""
    return {
        "PATH": f"{found.environment.absolute()}/bin:{os.environ.get('PATH', os.defpath)}",
        "LD_LIBRARY_PATH": found.library_path,
        "LC_ALL": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _backends(found: _Installed, folder: Path) -> Path:
    """The backend directory: the wheel's own with the right stub, and ours; copied, for Triton resolves links and gets lost."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(found.root / "backends/python", folder / "python")
    shutil.copy(found.stub, folder / "python" / _STUB)
    shutil.copytree(_BACKEND, folder / "onnxruntime", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _answers(client: InferenceServerClient, name: str) -> bool:
    """Whether an inference on zeros comes back with something in every output."""
    import numpy as np
    from tritonclient.grpc import InferInput
    from tritonclient.utils import triton_to_np_dtype

    given = []
    for tensor in client.get_model_metadata(name, client_timeout=5).inputs:
        batch, *sides = tensor.shape
        shape = (1 if batch < 0 else batch, *(_OPEN_SIDE if side < 0 else side for side in sides))
        given.append(InferInput(tensor.name, shape, tensor.datatype))
        given[-1].set_data_from_numpy(np.zeros(shape, dtype=triton_to_np_dtype(tensor.datatype)))
    response: Any = client.infer(name, given, client_timeout=30).get_response()
    return bool(response.raw_output_contents) and all(response.raw_output_contents)


def _group(leader: int) -> list[tuple[int, list[str]]]:
    """Process id and argv of every live process in a group."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # After the name, which may hold anything: state, parent, group.
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            argv = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has ended
            continue
        if int(group) == leader and state != "Z":
            found.append((int(folder.name), argv))
    return found


def _serves(argv: Sequence[str], model: str) -> bool:
    """Instances are named after their model: NAME_0, NAME_1 …"""
    return any(part.rpartition("_")[0] == model and part.rpartition("_")[2].isdigit() for part in argv)
