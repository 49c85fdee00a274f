"""When a TLS certificate stops being valid."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path


def expires_at(path: Path) -> datetime | None:
    """The end of the first certificate in a PEM file, the server's own, UTC; None while the file cannot be read."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):  # what serves it says so; a page of metrics goes on
        return None
