"""`unmask discover`: clusters what no known generator explains, so that a new generator is noticed and can be taught."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from unmask.cli.deployment import add_options

if TYPE_CHECKING:
    from unmask.bootstrap import Parts
    from unmask.cli.discover_faces import Faces, Looked, Stranger
    from unmask.core.access import Tenant

_AGO: Final = re.compile(r"([1-9][0-9]{0,4})([dhm])", re.ASCII)
_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes"}
# A matrix of distances of so many is 400 MB.
_MOST: Final = 10_000
_EXAMPLES: Final = 2


def add_parser(subparsers: Any) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "discover",
        help="find new generators among faces that no known one explains",
        description="Looks through the recent decided cases of tenants that agreed (`unmask tenant set NAME --discover on`) "
        "for faces that are unsure, or likeliest of no known family, and that nobody has reviewed; drops near-duplicates, "
        "clusters the rest by the active detector's embedding, and shows the clusters, largest first.  Embeddings are "
        "computed in memory and neither kept nor shown.  Each tenant looked at is written to the audit log.",
    )
    add_options(parser, state=True)
    parser.add_argument(
        "--since", type=_since, default="7d", metavar="AGE", help="7d, 12h, 30m or a time (default: %(default)s)"
    )
    parser.add_argument("--tenant", nargs="+", default=[], metavar="T", help="only these (default: all that agreed)")
    parser.add_argument(
        "--limit",
        type=_whole(1, _MOST),
        default=2000,
        metavar="N",
        help="pictures at most, newest first (default: %(default)s)",
    )
    parser.add_argument(
        "--min-size", type=_whole(2, _MOST), default=5, metavar="N", help="pictures that make a cluster (default: %(default)s)"
    )
    parser.add_argument(
        "--distance",
        type=_distance,
        metavar="D",
        help="average cosine distance within a cluster, at most: smaller is purer (default: by the detector's card, else .4)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write pictures, cases and contact sheets of each cluster there"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a cluster, a line each")
    parser.set_defaults(run=run)


def _since(text: str) -> datetime:
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: an age such as 7d, 12h or 30m, or a time such as 2026-03-01") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _whole(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: a whole number from {least} to {most} is needed")
        return int(text)

    return number


def _distance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value <= 2.0:
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0 and up to 2 is needed")
    return value


def run(args: argparse.Namespace) -> int:
    """Looks, clusters, prints and writes; exit code 1 when there is nothing to cluster, 2 when nobody agreed."""
    from unmask.cli.backoffice import opened
    from unmask.cli.discover_faces import Faces, look
    from unmask.cli.discover_pages import usable
    from unmask.core.discover import find_clusters, largest
    from unmask.core.errors import BadRequest
    from unmask.core.watching import DONE

    with opened(args, "discover", blobs=True) as parts:
        tenants = _agreed(parts.access.tenants(), args.tenant)
        faces = Faces(parts)
        if args.out is not None:
            usable(args.out)
        _log(parts, tenants, "discover", args)
        looked, embeddings = look(parts, faces, tenants, args.since, args.limit)
        if not looked.found:
            raise BadRequest(_nothing(looked, args.since))
        distance = faces.distance if args.distance is None else args.distance
        found = find_clusters(embeddings, least=args.min_size, distance=distance, centre=faces.centre())
        clusters = [[looked.found[index] for index in members] for members in found]
        said = [_summary(number, members, args.out, _model(parts, faces)) for number, members in enumerate(clusters, 1)]
        written = 0 if args.out is None else _write(faces, clusters, said, args.out, _intro(looked, found, args))
        size = {"pictures": len(looked.found), "clusters": len(found), "largest": largest(found), "written": written}
        _log(parts, tenants, DONE, args, size)
    _print(args, looked, said)
    return 0


def _agreed(tenants: Sequence[Tenant], named: Sequence[str]) -> list[str]:
    """Those of the tenants that agreed, or of them those that are named; raises `UnknownTenant` and `BadConfig`."""
    from unmask.core.errors import BadConfig, UnknownTenant

    known = {tenant.name: tenant.discover for tenant in tenants}
    for name in named:
        if name not in known:
            raise UnknownTenant(f"no tenant {name!r}")
        if not known[name]:
            raise BadConfig(f"discover: tenant {name} has not agreed; once it has: unmask tenant set {name} --discover on")
    agreed = [name for name, discover in known.items() if discover and (not named or name in named)]
    if not agreed:
        raise BadConfig("discover: no tenant has agreed to it; once one has: unmask tenant set NAME --discover on")
    return agreed


def _log(
    parts: Parts, tenants: Sequence[str], act: str, args: argparse.Namespace, done: Mapping[str, int] | None = None
) -> None:
    """Of each tenant that its pictures are looked at, before it is done, and what came of it in all."""
    from unmask.cli.access import log, moment

    asked = {"since": moment(args.since), "limit": args.limit}
    if args.out is not None:
        asked["out"] = str(args.out.resolve())
    for tenant in tenants:
        log(parts.access, tenant, act, "", asked if done is None else done)


def _nothing(looked: Looked, since: datetime) -> str:
    from unmask.cli.access import moment

    beside = f"; {looked.gone} pictures could not be read" if looked.gone else ""
    beside += f"; {looked.lost} faces were not found again" if looked.lost else ""
    return (
        f"discover: no face to explain since {moment(since)}: {looked.cases} cases that are not called real and not reviewed, "
        f"in none of them a face that is unsure or likeliest of no known family{beside}"
    )


def _model(parts: Parts, faces: Faces) -> Path:
    return parts.repository.folder(faces.ref)


def _summary(number: int, members: Sequence[Stranger], out: Path | None, model: Path) -> dict[str, Any]:
    """A cluster for people and JSON; medians over its pictures."""
    from unmask.cli.access import moment

    cases = [case for member in members for case in member.cases]
    times = [case.created_at for case in cases]
    samples = None if out is None else out / f"cluster-{number}"
    return {
        "number": number,
        "pictures": len(members),
        "copies": len(cases) - len(members),
        "tenants": sorted({case.tenant for case in cases}),
        "first": moment(min(times)),
        "last": moment(max(times)),
        "score": _median([member.face.score for member in members]),
        "doubt": _median([member.face.doubt for member in members]),
        "cases": [member.case.id for member in members],
        "command": None if samples is None else _command(model, samples),
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(median(known), 4) if known else None


def _command(model: Path, samples: Path) -> str:
    words = ["unmask-train", "adapt", str(model), "--generator", "NAME", "--samples", str(samples)]
    return shlex.join(words)


def _write(
    faces: Faces,
    clusters: Sequence[Sequence[Stranger]],
    said: Sequence[Mapping[str, Any]],
    out: Path,
    intro: str,
) -> int:
    """Returns how many pictures were written."""
    from unmask.cli.discover_pages import write_cluster, write_page
    from unmask.core.errors import BadConfig

    try:
        count = sum(write_cluster(faces, members, out / f"cluster-{number}") for number, members in enumerate(clusters, 1))
        shown = [{**one, "score": _figure(one["score"]), "doubt": _figure(one["doubt"])} for one in said]
        write_page(out, shown, intro)
    except OSError as error:
        raise BadConfig(f"{out}: {error.strerror}") from error
    return count


def _intro(looked: Looked, found: Sequence[Sequence[int]], args: argparse.Namespace) -> str:
    from unmask.cli.access import moment

    grouped = sum(map(len, found))
    return (
        f"{len(looked.found)} pictures since {moment(args.since)}, near-duplicates dropped: {grouped} in {len(found)} "
        f"cluster{'' if len(found) == 1 else 's'} of {args.min_size} or more, {len(looked.found) - grouped} in none"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _print(args: argparse.Namespace, looked: Looked, said: Sequence[dict[str, Any]]) -> None:
    from unmask.cli.access import print_table
    from unmask.cli.inputs import plain
    from unmask.cli.output import note

    if args.json:
        for one in said:
            print(json.dumps(one))
        return
    note(_intro(looked, [one["cases"] for one in said], args))
    if not said:
        print("no cluster")
        return
    head = ("CLUSTER", "PICTURES", "COPIES", "TENANTS", "FIRST", "LAST", "SCORE", "DOUBT", "CASES")
    print_table(head, [_row(one) for one in said])
    if args.out is not None:
        print(f"\nlook first:  {plain(str(args.out / 'index.html'))}")
        print(f"then, of one generator: {plain(said[0]['command'])}")


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (str(one["number"]), str(one["pictures"]), str(one["copies"]))
    cases = " ".join(one["cases"][:_EXAMPLES])
    return (*counts, ",".join(one["tenants"]), one["first"], one["last"], _figure(one["score"]), _figure(one["doubt"]), cases)
