"""`unmask`: collects the verbs, maps errors to one line on stderr and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Final

from unmask.core.errors import BadConfig, BadPolicy, CallerError, UnmaskError

OK: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
NOT_JUDGED: Final = 3
_INTERRUPTED: Final = 130
_VERBS: Final = ("check", "demo", "serve", "models", "policy")


def parser() -> argparse.ArgumentParser:
    """The whole command line; the modules import what they need only when they run."""
    top = argparse.ArgumentParser(
        prog="unmask", description="Says whether the faces of a picture are real, generated or manipulated, and where."
    )
    top.add_argument("--version", action="version", version=f"unmask {version('unmask')}")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _VERBS:
        import_module(f"unmask.cli.{name}").add_parser(verbs)
    return top


def exit_code(error: UnmaskError) -> int:
    """1 for a refused input, 2 for configuration, 3 for what is not the input's fault."""
    if isinstance(error, BadConfig | BadPolicy):
        return USAGE
    return REFUSED if isinstance(error, CallerError) else NOT_JUDGED


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    # Pillow warns of odd files in passing; what matters of them is in the verdict or the error.
    warnings.filterwarnings("ignore", module="PIL")
    args = parser().parse_args(arguments)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except UnmaskError as error:
        print(f"unmask: {error.detail}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; closing stdout again at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code


if __name__ == "__main__":
    sys.exit(main())
