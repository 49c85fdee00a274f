"""`python -m bench.rig.noop work KIND …`: `unmask work KIND …` in everything but the handlers, which do nothing.

What remains is the platform's own work: the broker's messages, the case's rows, the picture's blob read by each worker once.
BENCH_WAIT_MS is how long `align` waits, as for a model server on another machine.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np

from unmask import working
from unmask.bootstrap import runtime_versions
from unmask.cli.main import main
from unmask.core.cards import Release
from unmask.core.domain import Case, Classified, FaceRow, Findings, Localized, PictureInfo, Verdict
from unmask.core.images import Pixels
from unmask.core.judge import judge
from unmask.core.pictures import DecodedCache
from unmask.core.policy import Policy
from unmask.core.submit import picture_key
from unmask.core.world import Handlers
from unmask.distributed import DistributedParts

_FACE: Final = FaceRow((30.0, 20.0, 130.0, 150.0), ((60, 70), (100, 70), (80, 95), (65, 120), (95, 120)), 0.99)


def _nothing(_: bytes = b"") -> Pixels:
    """What stands for the pixels; an array of its own, as the cache wants it."""
    return np.zeros((1, 1, 3), dtype=np.uint8)


@dataclass(frozen=True)
class NoopHandlers:
    """The port `Handlers`: one face, always the same, and the real policy over it."""

    runtime: Mapping[str, str]
    wait_seconds: float
    cache: DecodedCache = field(default_factory=lambda: DecodedCache(1024 * 1024))

    def ingest(self, tenant: str, data: bytes) -> PictureInfo:
        """See `Handlers.ingest`."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.cache.get(sha256, _nothing)
        return PictureInfo(tenant, sha256, picture_key(tenant, sha256), len(data), "JPEG", 160, 160)

    def decode(self, sha256: str, load: Callable[[], bytes]) -> Pixels:
        """See `Handlers.decode`; where the picture is not at hand its bytes are read, and not decoded."""
        return self.cache.get(sha256, lambda: _nothing(load()))

    def align(self, picture: Pixels, release: Release) -> tuple[FaceRow, ...]:
        """See `Handlers.align`."""
        time.sleep(self.wait_seconds)
        return (_FACE,)

    def classify(self, picture: Pixels, faces: tuple[FaceRow, ...], release: Release) -> tuple[Classified, ...]:
        """See `Handlers.classify`."""
        return (Classified(0.1),)

    def localize(
        self, picture: Pixels, faces: tuple[FaceRow, ...], classified: tuple[Classified, ...], release: Release
    ) -> tuple[Localized, ...]:
        """See `Handlers.localize`."""
        return (Localized(0.1),)

    def judge(self, case: Case, picture: PictureInfo, findings: Findings, release: Release, policy: Policy) -> Verdict:
        """See `Handlers.judge`."""
        return judge(case, picture, findings, release, policy, self.runtime)


class NoopParts(DistributedParts):
    """The platform's parts with those handlers."""

    @cached_property
    def handlers(self) -> Handlers:  # type: ignore[override]
        """The steps that do nothing."""
        return NoopHandlers(runtime_versions(), float(os.environ.get("BENCH_WAIT_MS", "0")) / 1000.0)


if __name__ == "__main__":
    working.DistributedParts = NoopParts  # type: ignore[attr-defined]
    sys.exit(main(sys.argv[1:]))
