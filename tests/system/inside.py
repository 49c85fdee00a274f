"""Runs the command in the test's own process, where starting one each time would load everything again."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from tests.system.command import Ran
from unmask.cli.main import main


def inside(*arguments: str | Path) -> Ran:
    """What `run` of tests.system.command gives, of the same command."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as usage:
            code = int(usage.code or 0)
    out.flush()
    return Ran(code, out.buffer.getvalue(), err.getvalue())  # type: ignore[attr-defined]
