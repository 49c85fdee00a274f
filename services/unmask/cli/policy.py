"""`unmask policy …`: the default text, and what a policy would change on stored verdicts."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.core.domain import Classified, FaceRow, Findings, Localized, PictureInfo, Verdict

if TYPE_CHECKING:
    from unmask.core.policy import Outcome, Policy
    from unmask.core.world import World

_TENANT = "default"
# As `unmask.bootstrap` names it.
_STORE = "unmask.sqlite3"


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `policy show|test`."""
    parser = subparsers.add_parser("policy", help="show the default policy; test another on stored verdicts")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print the default policy, a text to start from")
    show.set_defaults(run=_show)
    test = verbs.add_parser("test", help="replay stored verdicts under a policy and print what would change")
    test.add_argument("file", type=Path, metavar="FILE", help="the policy (YAML)")
    test.add_argument("--state", type=Path, metavar="DIR", help="where verdicts are kept (else UNMASK_STATE)")
    test.add_argument("--models", type=Path, metavar="DIR", help="model repository")
    test.add_argument("--json", action="store_true", help="one JSON object a verdict that would change")
    test.set_defaults(run=_test)


def _show(args: argparse.Namespace) -> int:
    from unmask.core.policy_text import DEFAULT_POLICY

    print(DEFAULT_POLICY, end="" if DEFAULT_POLICY.endswith("\n") else "\n")
    return 0


@dataclass(frozen=True, slots=True)
class Change:
    """A stored verdict and what the policy under test makes of the same findings."""

    before: Verdict
    after: Outcome

    @property
    def differs(self) -> bool:
        """Whether label or action would be another."""
        return (self.before.label, self.before.action) != (self.after.label, self.after.action)

    def line(self) -> str:
        """For people."""
        before, after = self.before, self.after
        return f"{before.sha256[:16]}  {before.label} {before.action} -> {after.label} {after.action}"

    def json(self) -> str:
        """For programs."""
        pair = {"label": self.before.label, "action": self.before.action}
        new = {"label": self.after.label, "action": self.after.action}
        return json.dumps({"id": self.before.id, "sha256": self.before.sha256, "before": pair, "after": new})


def replay(verdict: Verdict, world: World, policy: Policy) -> Change:
    """Decides the stored verdict's own findings again, under the release that they were found with."""
    from unmask.core.policy import decide

    classified = tuple(Classified(f.synthetic, f.generator, f.defence, f.doubt) for f in verdict.faces)
    localized = tuple(Localized(f.manipulated, f.regions) for f in verdict.faces)
    rows = tuple(FaceRow(f.box, _five(f.landmarks), 1.0) for f in verdict.faces)
    picture = PictureInfo(_TENANT, verdict.sha256, "", 0, "", verdict.width, verdict.height, verdict.claims)
    release = world.catalogue.release(verdict.release.sha256)
    return Change(verdict, decide(Findings(rows, classified, localized), picture, release, policy))


def _five(points: tuple[tuple[float, float], ...]) -> Any:
    eye_r, eye_l, nose, mouth_r, mouth_l = points
    return eye_r, eye_l, nose, mouth_r, mouth_l


def _test(args: argparse.Namespace) -> int:
    from unmask.bootstrap import Parts, inline_world, read_policy
    from unmask.core.errors import BadConfig
    from unmask.settings import Settings

    policy = read_policy(args.file)
    told = {name: getattr(args, name) for name in ("state", "models") if getattr(args, name) is not None}
    settings = replace(Settings.from_environment(), **told)
    # Opened without looking, a folder of something else would be given an empty store.
    if settings.state is None or not (settings.state / _STORE).is_file():
        raise BadConfig("policy test replays stored verdicts: name their folder with --state DIR (`unmask check --state DIR`)")
    world = inline_world(Parts(settings))
    moves: Counter[str] = Counter()
    for verdict in world.store.verdicts(_TENANT):
        change = replay(verdict, world, policy)
        moves[f"{verdict.action} -> {change.after.action}" if change.differs else "unchanged"] += 1
        if change.differs:
            print(change.json() if args.json else change.line())
    summary = ", ".join(f"{count} {move}" for move, count in sorted(moves.items())) or "no stored verdicts"
    print(f"unmask: {policy.name}: {summary}", file=sys.stderr if args.json else sys.stdout)
    return 0
