"""Where the processes' Python time goes, by library: samples of whoever holds the interpreter's lock (py-spy)."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PLACE: Final = re.compile(r"\(([\w.\-]+)/")
_KINDS: Final = {
    "sqlalchemy": "database", "psycopg": "database", "psycopg_pool": "database",
    "celery": "broker", "kombu": "broker", "amqp": "broker", "vine": "broker", "redis": "broker", "billiard": "broker",
    "minio": "blobs", "urllib3": "blobs", "PIL": "pictures", "cv2": "pictures", "numpy": "pictures", "imagehash": "pictures",
    "grpc": "triton", "tritonclient": "triton", "google": "triton", "prometheus_client": "metrics", "unmask": "unmask",
}  # fmt: skip


@contextmanager
def watched(pids: Mapping[str, int], seconds: int) -> Iterator[dict[str, Counter[str]]]:
    """Samples these processes and their children meanwhile; filled when the block ends.  Empty where there is no py-spy."""
    found: dict[str, Counter[str]] = {}
    program = shutil.which("py-spy")
    if program is None:
        print("no profile: py-spy is not installed")
        yield found
        return
    with tempfile.TemporaryDirectory() as folder:
        told = ("record", "--subprocesses", "--gil", "--rate", "100", "--format", "raw", "--duration", str(seconds))
        running = {
            name: subprocess.Popen(
                [program, *told, "--output", f"{folder}/{name}", "--pid", str(pid)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, pid in pids.items()
        }
        yield found
        for name, process in running.items():
            process.wait()
            output = Path(folder, name)
            found[name] = _by_kind(output.read_text() if output.is_file() else "")


def _by_kind(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, number = line.rpartition(" ")
        counts[_kind(stack.split(";"))] += int(number)
    return counts


def _kind(frames: list[str]) -> str:
    """Of the innermost frame that is a library's: the standard library works for whoever called it."""
    for frame in reversed(frames):
        place = _PLACE.search(frame)
        if place is not None and place.group(1) in _KINDS:
            return _KINDS[place.group(1)]
    return "other"


def table(found: Mapping[str, Counter[str]]) -> str:
    """A row a process: shares of its samples, largest first."""
    lines = []
    for name, counts in found.items():
        total = max(counts.total(), 1)
        shares = ", ".join(f"{kind} {100 * count / total:.0f} %" for kind, count in counts.most_common(5))
        lines.append(f"    {name:<12} {shares}")
    return "\n".join(lines)
