"""Builds the immutable verdict out of what the policy decided."""

from __future__ import annotations

from collections.abc import Mapping

from unmask.core import policy as rules
from unmask.core.cards import Release
from unmask.core.domain import Case, Findings, ModelVersion, Named, PictureInfo, Verdict
from unmask.core.policy import Policy


def judge(
    case: Case, picture: PictureInfo, findings: Findings, release: Release, policy: Policy, runtime: Mapping[str, str]
) -> Verdict:
    """The verdict of `findings` under `policy`; `runtime` names the versions that replay depends on."""
    outcome = rules.decide(findings, picture, release, policy)
    return Verdict(
        id=case.id,
        sha256=picture.sha256,
        width=picture.width,
        height=picture.height,
        label=outcome.label,
        score=outcome.score,
        doubt=outcome.doubt,
        action=outcome.action,
        faces=outcome.faces,
        claims=picture.claims,
        release=Named(release.name, release.sha256),
        models=tuple(ModelVersion(ref.name, ref.version, ref.sha256) for ref in release.models.values()),
        policy=Named(policy.name, policy.sha256),
        reasons=outcome.reasons,
        runtime=dict(runtime),
    )
