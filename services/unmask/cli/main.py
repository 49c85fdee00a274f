"""`unmask`: collects the verbs, maps errors to one line on stderr and an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

from unmask.cli.inputs import plain
from unmask.core.errors import BadConfig, BadPolicy, CallerError, UnmaskError

OK: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
NOT_JUDGED: Final = 3
_INTERRUPTED: Final = 130
_VERBS: Final = (
    "check",
    "demo",
    "serve",
    "models",
    "policy",
    "work",
    "up",
    "db",
    "tenant",
    "token",
    "audit",
    "dead",
    "erase",
    "review",
    "batch",
    "discover",
)


class _Parser(argparse.ArgumentParser):
    """Shows what was typed with its control characters escaped: a file's name may reach the command line by a `*`."""

    def error(self, message: str) -> NoReturn:
        """Usage, the fault, exit code 2."""
        super().error(plain(message))


class _Version(argparse.Action):
    """Prints the version; asked for only then, because finding it costs as much as all the rest of the start."""

    def __call__(self, top: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"unmask {version('unmask')}")
        except PackageNotFoundError:
            print("unmask (not installed)")
        top.exit(OK)


def parser() -> argparse.ArgumentParser:
    """The whole command line; the modules import what they need only when they run."""
    top = _Parser(
        prog="unmask", description="Says whether the faces of a picture are real, generated or manipulated, and where."
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A sign that the terminal's encoding lacks must not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args = parser().parse_args(arguments)
        code: int = args.run(args)
        sys.stdout.flush()
    except UnmaskError as error:
        print(f"unmask: {plain(error.detail)}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return OK
    except OSError as error:
        # A full disk, most likely that of our own output.
        _silence_stdout()
        print(f"unmask: {plain(str(error))}", file=sys.stderr)
        return NOT_JUDGED
    return code


def _silence_stdout() -> None:
    """Nobody can take what is left in the buffer; closing stdout at exit must not complain of it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
