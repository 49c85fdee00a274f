"""`unmask policy …`: the text in force, a new one put in force, and what one would change on stored verdicts."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.cli.deployment import add_options, desk, reading_parts, settings_of, shared_parts
from unmask.core.domain import Classified, FaceRow, Findings, Localized, PictureInfo, Verdict

if TYPE_CHECKING:
    from unmask.core.policy import Outcome, Policy
    from unmask.core.world import World

_TENANT = "default"


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `policy show|put|test`."""
    parser = subparsers.add_parser("policy", help="show policies, put them in force, test one on stored verdicts")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print the policy in force; without UNMASK_DATABASE the default, a text to start from")
    show.add_argument("--tenant", metavar="T", help="a tenant's (its own, else the deployment's)")
    show.add_argument("--default", action="store_true", help="the default, whatever is in force")
    show.set_defaults(run=_show)
    put = verbs.add_parser("put", help="keep a policy and put it in force for new cases")
    put.add_argument("file", type=Path, metavar="FILE", help="the policy (YAML)")
    put.add_argument("--tenant", metavar="T", default="", help="for this tenant only (default: for all without their own)")
    put.set_defaults(run=_put)
    test = verbs.add_parser("test", help="replay stored verdicts under a policy and print what would change")
    test.add_argument("file", type=Path, metavar="FILE", help="the policy (YAML)")
    test.add_argument("--tenant", metavar="T", default=_TENANT, help=f"whose verdicts (default: {_TENANT})")
    add_options(test, state=True)
    test.add_argument("--json", action="store_true", help="one JSON object a verdict that would change")
    test.set_defaults(run=_test)


def _show(args: argparse.Namespace) -> int:
    from unmask.core.errors import BadRequest
    from unmask.core.policy_text import DEFAULT_POLICY

    if args.default and args.tenant is not None:
        raise BadRequest("policy show: --default is nobody's; leave out --tenant")
    text = DEFAULT_POLICY
    if not args.default and (args.tenant is not None or settings_of(args).distributed):
        parts = shared_parts(args, "policy show")
        if args.tenant:
            parts.access.tenant(args.tenant)
        text = parts.catalogue.active_policy(args.tenant or "").text
    print(text, end="" if text.endswith("\n") else "\n")
    return 0


def _put(args: argparse.Namespace) -> int:
    from unmask.bootstrap import read_policy

    policy = read_policy(args.file)
    desk(shared_parts(args, "policy put")).put_policy(policy, args.tenant)
    whose = f"tenant {args.tenant}'s" if args.tenant else "the deployment's"
    print(f"{policy.name} ({policy.sha256}) is {whose} policy for new cases")
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
    """Landmarks that were not kept are nowhere: no policy looks at them."""
    eye_r, eye_l, nose, mouth_r, mouth_l = points or ((0.0, 0.0),) * 5
    return eye_r, eye_l, nose, mouth_r, mouth_l


def _test(args: argparse.Namespace) -> int:
    from unmask.bootstrap import inline_world, read_policy

    policy = read_policy(args.file)
    world = inline_world(reading_parts(args, "policy test"))
    moves: Counter[str] = Counter()
    for verdict in world.store.verdicts(args.tenant):
        change = replay(verdict, world, policy)
        moves[f"{verdict.action} -> {change.after.action}" if change.differs else "unchanged"] += 1
        if change.differs:
            print(change.json() if args.json else change.line())
    summary = ", ".join(f"{count} {move}" for move, count in sorted(moves.items())) or "no stored verdicts"
    print(f"unmask: {policy.name}: {summary}", file=sys.stderr if args.json else sys.stdout)
    return 0
