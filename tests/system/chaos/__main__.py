"""`python -m tests.system.chaos`: a run from the command line; exit code 1 when the ledger is broken."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.system.chaos.faults import FAULTS
from tests.system.chaos.run import Plan, run


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.chaos", description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000, metavar="N")
    parser.add_argument("--broker", choices=("rabbitmq", "valkey"), default="rabbitmq")
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"in this order (default: {','.join(FAULTS)})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the servers' folder with its logs")
    args = parser.parse_args()
    faults = [name for name in args.faults.split(",") if name]
    if unknown := [name for name in faults if name not in FAULTS]:
        parser.error(f"unknown fault {unknown[0]!r}: known are {', '.join(FAULTS)}")
    folder = Path(tempfile.mkdtemp(prefix="unmask-chaos-"))
    folder.chmod(0o711)  # Postgres does not run as root
    try:
        print(f"chaos: {args.pictures} pictures on {args.broker}, seed {args.seed}", flush=True)
        ledger = run(Plan(args.pictures, args.broker, faults, args.seed), folder, lambda line: print(line, flush=True))
    finally:
        if args.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(ledger.text())
    return 1 if ledger.broken else 0


if __name__ == "__main__":
    sys.exit(main())
