"""Content Credentials (C2PA) of picture files, read by the c2pa library in a child process that hostile bytes may kill."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
import weakref
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, Literal, cast

from unmask.core.errors import BadConfig

Outcome = Literal["report", "broken", "none", "stopped"]
# By format (core.containers.sniff); the library knows no BMP.
_MIME: Final = MappingProxyType({name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF")})
_OUTCOMES: Final[MappingProxyType[bytes, Outcome]] = MappingProxyType({b"R": "report", b"E": "broken", b"N": "none"})
_SECONDS: Final = 5.0
_MEGABYTES: Final = 512
_log: Final = logging.getLogger(__name__)


def is_available() -> bool:
    """Whether the c2pa library (extra `service`) is installed."""
    return find_spec("c2pa") is not None


class C2paReader:
    """Reads and verifies manifests; thread-safe, one file at a time.

    `anchors` are certificates in PEM of the authorities whose signers are trusted (for time stamps too); none trusts
    nobody.  Raises `BadConfig` when they cannot be read.

    The library runs in a child, because a manifest of 2 KB can make it take 4 GB of memory and 12 s, and others end the
    process where memory is limited.  The child has `megabytes` and `seconds` a file, and starts with the first one
    (0.2 s).  It never fetches anything: neither manifests, nor OCSP answers, nor identities.
    """

    def __init__(self, anchors: str = "", *, seconds: float = _SECONDS, megabytes: int = _MEGABYTES) -> None:
        self._settings = settings(anchors)
        self._limits = (str(seconds), str(megabytes))
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._unusable = False
        forget = weakref.WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (found := forget()) and found())

    def read(self, data: bytes, image_format: str) -> tuple[Outcome, str]:
        """What the library says of a file: its report (JSON), or why it refused the manifest, or none there, or stopped.

        `stopped`: over the limits of time and memory, or crashed.  Never raises.
        """
        mime = _MIME.get(image_format)
        if mime is None:
            return "none", ""
        with self._lock:
            try:
                if self._child is None and not self._start():
                    return "none", ""
                answer = cast("_Child", self._child).ask(mime.encode(), data)
            except OSError:
                self._stop()
                return "stopped", ""
        outcome = _OUTCOMES.get(answer[:1], "stopped")
        return outcome, answer[1:].decode("utf-8", "replace")

    def close(self) -> None:
        """Ends the child; a later `read` starts another."""
        with self._lock:
            self._stop()

    def _start(self) -> bool:
        if self._unusable:
            return False
        try:
            self._child = _Child(self._limits, self._settings)
        except OSError as error:
            # Not a matter of the file: trying again with each one would cost much and change nothing.
            self._unusable = True
            _log.warning("Content Credentials are not verified: their reader does not start (%s)", error)
        return self._child is not None

    def _stop(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _forget(self) -> None:
        """After a fork: the child and the lock, perhaps held, are the parent's."""
        self._lock = threading.Lock()
        if self._child is not None:
            self._child.disown()
            self._child = None


def settings(anchors: str) -> str:
    """The library's settings, JSON: trust by `anchors` alone, and nothing that is fetched."""
    told: dict[str, dict[str, object]] = {
        "verify": {"verify_trust": True, "verify_timestamp_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
        "core": {
            "allowed_network_hosts": [],
            "allow_redirects": False,
            # Identities are looked up at the places they name.
            "decode_identity_assertions": False,
            "max_decompressed_manifest_size_in_mb": 16,
        },
    }
    if anchors.strip():
        told["trust"] = {"trust_anchors": _checked(anchors)}
    return json.dumps(told)


def _checked(anchors: str) -> str:
    """The library takes a PEM file without any certificate, silently; OpenSSL says so."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=anchors)
    except (ssl.SSLError, ValueError, TypeError) as error:
        raise BadConfig(f"trust anchors of Content Credentials: no certificates in PEM ({error})") from error
    return anchors


class _Child:
    """The running child; raises OSError when it does not answer."""

    def __init__(self, limits: tuple[str, ...], settings: str) -> None:
        script = Path(__file__).with_name("c2pa_child.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(script), _library(), *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        self._finalizer = weakref.finalize(self, _end, self._process)
        try:
            self._send(settings.encode())
            if self._receive() != b"ready":
                raise OSError("it says something else than that it is ready")
        except OSError:
            self.end()
            raise

    def ask(self, mime: bytes, data: bytes) -> bytes:
        """The answer to one file."""
        self._send(mime)
        self._send(data)
        return self._receive()

    def end(self) -> None:
        """Kills it."""
        self._finalizer()

    def disown(self) -> None:
        """In a forked process: lets go of the pipes, or the child would outlive its parent."""
        self._finalizer.detach()
        self._process.returncode = 0
        nowhere = os.open(os.devnull, os.O_RDWR)
        for pipe in (self._input, self._output):
            # Not closed: that would first send what a half-written buffer still holds.
            os.dup2(nowhere, pipe.fileno())
        os.close(nowhere)

    def _send(self, payload: bytes) -> None:
        self._input.write(len(payload).to_bytes(4, "big"))
        self._input.write(payload)
        self._input.flush()

    def _receive(self) -> bytes:
        head = self._output.read(4)
        length = int.from_bytes(head, "big")
        payload = self._output.read(length)
        if len(head) < 4 or len(payload) < length:
            raise OSError(f"it ended ({_cause(self._process)})")
        return payload


def _environment() -> dict[str, str]:
    """What Python may need to start, and nothing else: no proxies, no secrets."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _library() -> str:
    """The folder that this process would import the library from."""
    found = find_spec("c2pa")
    if found is None or found.origin is None:
        raise OSError("the c2pa library is gone")
    return str(Path(found.origin).parents[1])


def _cause(process: subprocess.Popen[bytes]) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = process.wait(1)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return "its output is closed"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
