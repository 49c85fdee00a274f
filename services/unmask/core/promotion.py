"""What whoever runs a deployment does with releases: put, promote, roll back, try in the shadow; policies too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unmask.core import releases as pointing
from unmask.core.access import AuditEntry
from unmask.core.cards import Release
from unmask.core.errors import BadModel, BadRequest
from unmask.core.office_ports import ReleaseStore
from unmask.core.policy import Policy
from unmask.core.ports import Clock
from unmask.core.releases import Pointers, StoredRelease

# Raises `BadModel` or `Unavailable` unless every model of the release is there, is what it should be, and answers.
Prove = Callable[[Release], None]


@dataclass(frozen=True, slots=True)
class ReleaseDesk:
    """The acts, each in the audit log under `actor`.

    A release is proven before it is kept, and again before any pointer moves to it: one that is refused changes nothing, and
    what was active serves on.
    """

    store: ReleaseStore
    prove: Prove
    clock: Clock
    actor: str

    def put(self, data: bytes, where: str) -> tuple[Release, bool]:
        """Keeps a release, and whether it is new.  Raises `BadModel` (naming `where` it came from) or `Unavailable`."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadModel(f"{where}: not UTF-8 text ({error.reason})") from error
        release = Release.parse(data, hashlib.sha256(data).hexdigest(), where)
        self.prove(release)
        return release, self.store.put_release(
            release, text, self._entry("release.put", release.sha256, {"name": release.name})
        )

    def promote(self, word: str) -> StoredRelease:
        """Makes a kept release the active one; fine when it is.  Raises `BadRequest`, `BadModel` or `Unavailable`."""
        chosen, before = self._chosen(word)
        self._move("release.promote", before, pointing.promoted(before, chosen.sha256))
        return chosen

    def roll_back(self) -> StoredRelease:
        """Makes the previous release the active one again.  Raises `BadRequest`, `BadModel` or `Unavailable`."""
        before = self.store.pointers()
        after = pointing.rolled_back(before)
        chosen, _ = self._chosen(after.active)
        self._move("release.rollback", before, after)
        return chosen

    def try_out(self, word: str, share: float) -> StoredRelease:
        """Makes a kept release the shadow for that share of the cases.  Raises `BadRequest`, `BadModel` or `Unavailable`."""
        chosen, before = self._chosen(word)
        self._move("release.shadow", before, pointing.shadowed(before, chosen.sha256, share))
        return chosen

    def end_trial(self) -> None:
        """No release is the shadow any more."""
        before = self.store.pointers()
        self._move("release.shadow_off", before, pointing.without_shadow(before))

    def put_policy(self, policy: Policy, tenant: str) -> None:
        """Makes the policy the tenant's (or with "" the deployment's) for new cases; raises `UnknownTenant`."""
        detail = {"name": policy.name}
        self.store.put_policy(policy, tenant, self._entry("policy.put", policy.sha256, detail, tenant))

    def _chosen(self, word: str) -> tuple[StoredRelease, Pointers]:
        """The release, proven, and the pointers as they were before that took its time."""
        before = self.store.pointers()
        chosen = pointing.named(self.store.releases(), word)
        self.prove(self.store.release(chosen.sha256))
        return chosen, before

    def _move(self, act: str, before: Pointers, after: Pointers) -> None:
        if before == after:
            return
        subject = after.shadow if act == "release.shadow" else before.shadow if act == "release.shadow_off" else after.active
        detail = {"active": before.active, "previous": before.previous, "shadow": before.shadow, "share": str(before.share)}
        if act == "release.shadow":
            detail["new_share"] = str(after.share)
        if not self.store.move(before, after, self._entry(act, subject, detail)):
            raise BadRequest("somebody else moved the releases meanwhile: look at `unmask models list`, then try again")

    def _entry(self, act: str, subject: str, detail: Mapping[str, str], tenant: str = "") -> AuditEntry:
        return AuditEntry(self.clock.now(), tenant, self.actor, act, subject, detail)
