"""Runs the real command in a process of its own, as a shell would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "unmask.cli.main")


def environment(**more: str) -> dict[str, str]:
    """The caller's, without what would change Unmask; 80 columns."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("UNMASK_")}
    own.pop("ORT_DISABLE_TELEMETRY", None)
    return {**own, "PYTHONPATH": str(ROOT / "services"), "COLUMNS": "80", **more}


@dataclass(frozen=True)
class Ran:
    """What one run left."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; every line has to be one object."""
        found = [json.loads(line) for line in self.out.decode("utf-8").splitlines()]
        assert all(isinstance(line, dict) for line in found)
        return found

    @property
    def complaint(self) -> str:
        """The only line on stderr: one plain line, and no traceback."""
        (line,) = self.err.splitlines()
        assert line.startswith("unmask: "), line
        return line


def run(*arguments: str | bytes | Path, stdin: bytes = b"", timeout: float = 60, **more: str) -> Ran:
    """Runs `unmask` with these arguments."""
    done = subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, env=environment(**more), timeout=timeout, check=False
    )
    err = done.stderr.decode("utf-8")
    assert "Traceback" not in err, err
    return Ran(done.returncode, done.stdout, err)
