"""Reads Content Credentials with the c2pa library, in a process that may die of them; started and asked by c2pa_reader.

It imports nothing of unmask.  Frames on its pipes are a length (4 bytes, big end first) and so many bytes.  It is given
its settings (JSON), answers `ready`, then for each MIME type and file one frame: a letter and a text.  R: the library's
report, JSON; E: its refusal of a manifest; N: nothing to read; S: more than this is meant to read.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
from typing import Any, BinaryIO, Final

_MIB: Final = 1024 * 1024
_LONGEST_REPORT: Final = 4 * _MIB


def main(library: str, seconds: float, megabytes: int) -> None:
    """Answers until its input ends."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal, meant for the parent: the end of input ends this too
    signal.alarm(60)
    sys.path.append(library)
    import c2pa  # before the limits: what it maps is far more than it uses

    settings = _frame(source).decode()
    c2pa.Context(c2pa.Settings.from_json(settings))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (megabytes * _MIB, megabytes * _MIB))
    # No more files or sockets: that nothing is fetched, as the settings say, holds even if they were misread.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    signal.alarm(0)
    _send(sink, b"ready")
    while mime := _frame(source):
        # Unhandled, so that it ends the process wherever it is, in native code too.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        answer = _answer(c2pa, settings, mime.decode(), _frame(source))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(sink, answer)


def _answer(c2pa: Any, settings: str, mime: str, data: bytes) -> bytes:
    try:
        # A context of its own each time takes 0.4 ms, and nothing is carried from one file to another.
        context = c2pa.Context(c2pa.Settings.from_json(settings))
        with c2pa.Reader(mime, io.BytesIO(data), context=context) as reader:
            report: bytes = reader.json().encode()
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.NotSupported):
        return b"N"
    except c2pa.C2paError as error:
        said = str(error)
        # Only a link to a manifest elsewhere, which is not fetched.
        return b"N" if said.startswith(("Remote", "ManifestNotFound")) else b"E" + said[:500].encode()
    return b"R" + report if len(report) <= _LONGEST_REPORT else b"S"


def _frame(source: BinaryIO) -> bytes:
    length = int.from_bytes(source.read(4), "big")
    return source.read(length)


def _send(sink: BinaryIO, payload: bytes) -> None:
    sink.write(len(payload).to_bytes(4, "big") + payload)
    sink.flush()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
