"""`unmask erase`: a picture with everything that was made of it goes; tombstones of its cases stay."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "erase",
        help="erase a tenant's picture, with all cases of it",
        description="Erases pictures with all of the tenant's cases of them: rows, verdicts, hashes, landmarks, labels, "
        "objects. Of each case a tombstone stays (id, times, who erased it and why), and receivers hear `case.erased`. A case "
        "that is still open ends. The same bytes sent again are judged anew.",
    )
    parser.add_argument("--tenant", required=True, metavar="TENANT", help="whose")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--case", metavar="ID", help="the picture of this case")
    what.add_argument("--sha256", metavar="HASH", help="the picture of this sha256")
    what.add_argument("--label", type=_label, metavar="NAME=VALUE", help="the pictures of all cases with this label")
    parser.add_argument("--reason", default="requested", metavar="CODE", help="why, as a code (default %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only count what would go")
    parser.add_argument("--json", action="store_true", help="the counts as one JSON object")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="the folder of a server (else UNMASK_DATABASE, else UNMASK_STATE)"
    )
    parser.set_defaults(run=run)


def _label(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"{text!r}: NAME=VALUE is needed")
    return name, value


def run(args: argparse.Namespace) -> int:
    """Erases; exit code 0 also when there was nothing (any more)."""
    from unmask.cli.backoffice import opened
    from unmask.cli.deployment import actor
    from unmask.core.erasing import ErasureOrder, Selection, erase

    selection = Selection(args.case or "", (args.sha256 or "").lower(), args.label)
    order = ErasureOrder(actor(), args.reason, datetime.now(UTC))
    with opened(args, "erase", blobs=True) as parts:
        counts = erase(parts.erasing, args.tenant, selection, order, dry_run=args.dry_run).counts
    if args.json:
        print(json.dumps({"tenant": args.tenant, "dry_run": args.dry_run, **counts}))
        return 0
    said = ", ".join(f"{count} {name if count != 1 else name.removesuffix('s')}" for name, count in counts.items() if count)
    print(f"{'would erase' if args.dry_run else 'erased'}: {said or 'nothing'}")
    return 0
