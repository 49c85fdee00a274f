"""The verbs of `unmask models` that move versions and releases: push, pull, put-release, promote, rollback, shadow, …"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask.cli.access import moment, print_table
from unmask.cli.deployment import add_options, desk, settings_of, shared_parts

if TYPE_CHECKING:
    from unmask.bootstrap import Parts
    from unmask.core.ports import BlobStore
    from unmask.core.releases import Disagreement
    from unmask.settings import Settings

_S3: Final = "s3://"
_PLACE: Final = "a folder, or s3://BUCKET (UNMASK_S3 and its keys say where and who)"
Run = Callable[[argparse.Namespace], int]


def add_verbs(verbs: Any) -> None:
    """Adds them to `unmask models`."""
    for name, run, option, what in (
        ("push", _push, "--to", "copy model versions out of the repository; every file is checked at both ends"),
        ("pull", _pull, "--from", "copy model versions into the repository; one appears whole or not at all"),
    ):
        verb = _verb(verbs, name, run, what)
        verb.add_argument("versions", nargs="*", metavar="NAME/VERSION", help="which ones (default: all)")
        verb.add_argument(option, dest="place", required=True, metavar="PLACE", help=_PLACE)
    put = _verb(verbs, "put-release", _put, "keep a release in the deployment's database, once all its models answer")
    put.add_argument("file", type=Path, metavar="FILE", help="the release (JSON)")
    promote = _verb(verbs, "promote", _promote, "make a kept release the active one, everywhere, without a restart")
    _release(promote)
    _verb(verbs, "rollback", _rollback, "make the release that was active before the active one again")
    shadow = _verb(verbs, "shadow", _shadow, "score a share of the cases under another release too; verdicts stay as they are")
    _release(shadow, nargs="?")
    shadow.add_argument("--share", type=float, metavar="X", help="of the cases, more than 0 and at most 1")
    shadow.add_argument("--off", action="store_true", help="end the trial")
    compared = _verb(verbs, "disagreement", _disagreement, "how the shadow release differs from the active one")
    _release(compared, nargs="?")
    compared.add_argument("--json", action="store_true", help="one JSON object")


def _verb(verbs: Any, name: str, run: Run, what: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what)
    add_options(verb)
    verb.set_defaults(run=run)
    return verb


def _release(verb: argparse.ArgumentParser, **more: Any) -> None:
    verb.add_argument("release", metavar="RELEASE", help="its name, its sha256, or the first 8 or more digits of it", **more)


def _push(args: argparse.Namespace) -> int:
    from unmask.adapters.model_repository import ModelRepository
    from unmask.adapters.model_transfer import parse_version, push
    from unmask.bootstrap import find_models

    settings = settings_of(args)
    wanted = [parse_version(word) for word in args.versions]
    for moved in push(ModelRepository(find_models(settings.models)), _blobs(args.place, settings), wanted):
        print(f"{moved.ref.name}/{moved.ref.version}: {f'{moved.files} files sent' if moved.files else 'already there'}")
    return 0


def _pull(args: argparse.Namespace) -> int:
    from unmask.adapters.model_transfer import parse_version, pull
    from unmask.bootstrap import find_models

    settings = settings_of(args)
    root = find_models(settings.models)
    wanted = [parse_version(word) for word in args.versions]
    names = set()
    try:
        for moved in pull(_blobs(args.place, settings), root, wanted):
            names.add(moved.ref.name)
            print(f"{moved.ref.name}/{moved.ref.version}: {f'{moved.files} files taken' if moved.files else 'already there'}")
    finally:  # those that came before one that was refused are there to stay
        _write_configs(root, names)
    return 0


def _write_configs(root: Path, names: set[str]) -> None:
    """Triton's description of a model is made of the cards of all its versions."""
    from unmask.adapters.model_repository import ModelRepository
    from unmask.adapters.verify_models import configs
    from unmask.adapters.wheel_weights import write_atomically

    for path, text in configs(ModelRepository(root)).items() if names else ():
        if path.parent.name in names and not (path.is_file() and path.read_text(encoding="utf-8") == text):
            write_atomically(path, text.encode())


def _blobs(place: str, settings: Settings) -> BlobStore:
    from unmask.adapters.blobs_files import FileBlobs
    from unmask.core.errors import BadConfig, BadRequest
    from unmask.distributed import DistributedParts

    if not place.startswith(_S3):
        return FileBlobs(Path(place))
    bucket = place.removeprefix(_S3).rstrip("/")
    if not bucket or "/" in bucket:
        raise BadRequest(f"{place!r}: expected s3://BUCKET; versions lie under _models/ in it")
    if not settings.s3.endpoint:
        raise BadConfig(f"{place}: UNMASK_S3 does not say where the store is")
    return DistributedParts(replace(settings, s3=replace(settings.s3, bucket=bucket))).blobs


def _put(args: argparse.Namespace) -> int:
    from unmask.core.errors import BadConfig

    counter = desk(shared_parts(args, "models put-release"))
    try:
        data = args.file.read_bytes()
    except OSError as error:
        raise BadConfig(f"{args.file}: {error.strerror}") from error
    release, is_new = counter.put(data, str(args.file))
    print(f"{release.name} ({release.sha256}): {'kept; all its models answer' if is_new else 'already kept'}")
    return 0


def _promote(args: argparse.Namespace) -> int:
    release = desk(shared_parts(args, "models promote")).promote(args.release)
    print(f"{release.name} ({release.sha256}) is active")
    return 0


def _rollback(args: argparse.Namespace) -> int:
    release = desk(shared_parts(args, "models rollback")).roll_back()
    print(f"{release.name} ({release.sha256}) is active again")
    return 0


def _shadow(args: argparse.Namespace) -> int:
    from unmask.core.errors import BadRequest

    if {args.release is None, args.share is None} != {args.off}:
        raise BadRequest("models shadow: say RELEASE --share X, or --off")
    counter = desk(shared_parts(args, "models shadow"))
    if args.off:
        counter.end_trial()
        print("no release is the shadow")
        return 0
    release = counter.try_out(args.release, args.share)
    print(f"{release.name} ({release.sha256}) is the shadow, for {args.share:.2%} of the cases")
    return 0


def _disagreement(args: argparse.Namespace) -> int:
    from unmask.core import releases as pointing
    from unmask.core.errors import BadRequest

    parts = shared_parts(args, "models disagreement")
    pointers, kept = parts.releases.pointers(), parts.releases.releases()
    if args.release is None and not pointers.shadow:
        raise BadRequest("models disagreement: no release is the shadow; say which RELEASE was")
    chosen = pointing.named(kept, args.release or pointers.shadow)
    names = {release.sha256: release.name for release in kept}
    # Of one that was promoted since, what it was tried beside is of interest.
    against = pointers.previous if chosen.sha256 == pointers.active else pointers.active
    found = pointing.disagreement(parts.shadows.compared(chosen.sha256, against))
    pair = {"shadow": chosen.name, "active": names.get(against, against)}
    if args.json:
        print(json.dumps({**pair, **_json(found)}))
    else:
        _print(pair, found)
    return 0


def _json(found: Disagreement) -> dict[str, Any]:
    return {
        "cases": found.cases,
        "failed": found.failed,
        "differ": found.differ,
        "mean_difference": found.difference,
        "labels": {active: dict(row) for active, row in found.matrix.items()},
        "mean_difference_by_label": dict(found.differences),
    }


def _print(pair: dict[str, str], found: Disagreement) -> None:
    """A table: a row for each label of the active release, a column for each of the shadow's."""
    share = f" ({found.differ / found.cases:.1%})" if found.cases else ""
    print(
        f"shadow {pair['shadow']} beside active {pair['active']}: {found.cases} cases, {found.differ} labelled otherwise{share}"
    )
    if found.failed:
        print(f"the shadow broke on {found.failed} more", file=sys.stderr)
    labels = sorted({label for row in found.matrix.values() for label in row})
    if not labels:
        return
    rows = []
    for active, row in sorted(found.matrix.items()):
        mean = found.differences[active]
        rows.append((active, *(str(row.get(label, 0)) for label in labels), "-" if mean is None else f"{mean:.4f}"))
    print_table(("ACTIVE \\ SHADOW", *labels, "|DIFFERENCE|"), rows)


def print_releases(parts: Parts, as_json: bool) -> None:
    """Every kept release, newest first, with what it is at the moment."""
    from unmask.core.releases import Role

    pointers, rows = parts.releases.pointers(), []
    for release in parts.releases.releases():
        roles, at = pointers.roles(release.sha256), moment(release.created_at)
        if as_json:
            row = {"release": release.name, "sha256": release.sha256, "kept_at": at, "roles": list(roles)}
            print(json.dumps(row | ({"share": pointers.share} if Role.SHADOW in roles else {})))
        words = [f"{role} {pointers.share:.2%}" if role is Role.SHADOW else role for role in roles]
        rows.append((release.name, release.sha256[:12], at, ", ".join(words)))
    if not as_json:
        print()
        print_table(("RELEASE", "SHA256", "KEPT AT", "ROLE"), rows)
