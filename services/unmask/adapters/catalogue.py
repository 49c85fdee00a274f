"""Releases and policies: the active ones, and beside the pictures those that stored cases are pinned to."""

from __future__ import annotations

import hashlib
import threading
from typing import Final

from unmask.core.cards import Release
from unmask.core.errors import BadConfig, BadModel, UnknownBlob
from unmask.core.policy import Policy
from unmask.core.policy_text import parse_policy
from unmask.core.ports import BlobStore

# No tenant can have this name (`unmask.core.submit`), so these keys never meet a picture's.
_ROOT: Final = "_catalogue"


class BlobCatalogue:
    """The port `Catalogue` over a blob store; what is active is written there once, when the process starts."""

    def __init__(self, blobs: BlobStore, release_text: bytes, policy: Policy) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._release = Release.parse(release_text, hashlib.sha256(release_text).hexdigest())
        self._policy = policy
        self._releases = {self._release.sha256: self._release}
        self._policies = {policy.sha256: policy}
        blobs.put(f"{_ROOT}/releases/{self._release.sha256}", release_text)
        blobs.put(f"{_ROOT}/policies/{policy.sha256}", policy.text.encode())

    def active_release(self) -> Release:
        """See `Catalogue.active_release`."""
        return self._release

    def active_policy(self, tenant: str) -> Policy:
        """See `Catalogue.active_policy`; one policy for all until tenants have their own."""
        return self._policy

    def shadow(self) -> tuple[Release, float] | None:
        """See `Catalogue.shadow`; embedded, nobody looks at what a second release would say."""
        return None

    def keeps_landmarks(self, tenant: str) -> bool:
        """See `Catalogue.keeps_landmarks`; what this machine's own user keeps is kept whole."""
        return True

    def release(self, sha256: str) -> Release:
        """See `Catalogue.release`."""
        with self._lock:
            if sha256 not in self._releases:
                try:
                    text = self._blobs.get(f"{_ROOT}/releases/{sha256}")
                except UnknownBlob as error:
                    raise BadModel(f"release {sha256[:12]}, which a case is pinned to, is gone from the store") from error
                self._releases[sha256] = Release.parse(text, sha256)
            return self._releases[sha256]

    def policy(self, sha256: str) -> Policy:
        """See `Catalogue.policy`."""
        with self._lock:
            if sha256 not in self._policies:
                try:
                    text = self._blobs.get(f"{_ROOT}/policies/{sha256}").decode()
                except UnknownBlob as error:
                    raise BadConfig(f"policy {sha256[:12]}, which a case is pinned to, is gone from the store") from error
                self._policies[sha256] = parse_policy(text, f"stored policy {sha256[:12]}")
            return self._policies[sha256]
