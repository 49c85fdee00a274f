"""Certificates for development: an authority of one's own, a server's and a client's (`python -m unmask_dev.certs`)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from unmask_dev.kept import write_whole

HOSTS: Final = ("localhost", "127.0.0.1", "::1")


def write_certificates(folder: Path, hosts: Sequence[str] = HOSTS, client: str = "unmask-client") -> list[Path]:
    """Writes ca.pem, server.pem and .key for these names and addresses, client.pem and .key; keys for the owner's eyes only.

    The authority's own key is not kept: new certificates mean a new authority.  They are good for a year.
    """
    import trustme

    authority = trustme.CA(organization_name="Unmask development")
    until = datetime.now(UTC) + timedelta(days=365)
    server, shown = authority.issue_cert(*hosts, not_after=until), authority.issue_cert(client, not_after=until)
    written = [write_whole(folder / "ca.pem", authority.cert_pem.bytes(), 0o644)]
    for name, made in (("server", server), ("client", shown)):
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        # The key first: a server that reads its files again in between keeps to the pair that it has.
        written.append(write_whole(folder / f"{name}.key", made.private_key_pem.bytes(), 0o600))
        written.append(write_whole(folder / f"{name}.pem", chain, 0o644))
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m unmask_dev.certs", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument("hosts", nargs="*", help=f"the server's names and addresses (default: {' '.join(HOSTS)})")
    args = parser.parse_args(arguments)
    for path in write_certificates(args.folder, args.hosts or HOSTS):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
