"""`python -m unmask_dashboards FOLDER`: writes every dashboard; `--check`: says which files are not what they should be."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unmask_dashboards.all import DASHBOARDS
from unmask_dashboards.grafana import to_json


def main() -> int:
    """Exit code 1 where a check finds another text, a file too many or one that is missing."""
    parser = argparse.ArgumentParser(prog="unmask_dashboards", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files lie: helm/unmask/dashboards")
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    texts = {args.folder / f"{one.uid}.json": to_json(one) for one in DASHBOARDS}
    if args.check:
        return _check(args.folder, texts)
    args.folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


def _check(folder: Path, texts: dict[Path, str]) -> int:
    found = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    wrong = sorted(str(path) for path in texts.keys() | found.keys() if texts.get(path) != found.get(path))
    for path in wrong:
        print(f"{path} is not what deploy/grafana gives: run make dashboards", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
