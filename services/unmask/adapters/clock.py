"""The time of the machine."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The port `Clock`."""

    def now(self) -> datetime:
        """The present, timezone-aware UTC."""
        return datetime.now(UTC)
