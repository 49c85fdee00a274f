"""When a certificate ends: the server's own, not its authority's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from unmask.adapters.certificates import expires_at


def test_the_end_of_the_servers_own_certificate_is_told(tmp_path: Path) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    made = trustme.CA().issue_cert("localhost", not_after=until)
    chain = tmp_path / "server.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    assert expires_at(chain) == until


def test_a_file_that_is_gone_or_no_certificate_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    assert expires_at(tmp_path / "x.pem") is None and expires_at(tmp_path / "none.pem") is None
