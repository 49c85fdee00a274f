"""A relay in a process of its own, over a SQLite file and real webhooks: `relay_process.py DATABASE CA LEASE [hold]`.

With `hold` it says `accepted` once a receiver has accepted an event, and stops there for good: between send and settle.
It ends with its parent.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

from unmask.adapters.clock import SystemClock
from unmask.adapters.sink_webhook import WebhookSink
from unmask.adapters.store_sql import SqlStore
from unmask.delivery.relay import Relay, RelayRule

MASTER = b"a key of the tests, of 32 bytes."
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Holding(SqlStore):
    """Never settles."""

    def settle_event(self, *_: Any, **__: Any) -> None:
        """Says so and waits to be killed."""
        sys.stdout.write("accepted\n")
        sys.stdout.flush()
        threading.Event().wait()


def main() -> None:
    """Runs until its parent is gone."""
    database, authority, lease, *hold = sys.argv[1:]
    store = (Holding if hold else SqlStore)(f"sqlite:///{database}")
    context = ssl.create_default_context(cafile=authority)
    sink = WebhookSink(keys=[MASTER], clock=SystemClock(), seconds=2, allowed=LOOPBACK, context=context)
    rule = RelayRule(workers=2, lease=timedelta(seconds=float(lease)), period=0.05)
    Relay(store, [sink], SystemClock(), rule).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    Path(sys.argv[1]).stat()
    main()
