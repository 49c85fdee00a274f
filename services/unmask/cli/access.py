"""What the verbs of tenants, tokens and the audit log share: the store of access, the log, times and tables."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask.cli.deployment import actor, settings_of
from unmask.cli.inputs import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unmask.adapters.store_access import SqlAccess

# As `unmask.bootstrap` names it.
_STORE: Final = "unmask.sqlite3"


def add_verb(verbs: Any, name: str, run: Any, what: str) -> argparse.ArgumentParser:
    """A verb that says which database with `--state`."""
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what)
    verb.add_argument(
        "--state", type=Path, metavar="DIR", help="the folder of a server (else UNMASK_DATABASE, else UNMASK_STATE)"
    )
    verb.set_defaults(run=run)
    return verb


@contextmanager
def opened(args: argparse.Namespace, *, makes: bool = False) -> Iterator[SqlAccess]:
    """The store; raises `BadConfig` when none is named, or there is none and the verb does not begin one."""
    from unmask.bootstrap import Parts
    from unmask.core.errors import BadConfig

    settings = settings_of(args)
    if not settings.distributed and settings.state is None:
        raise BadConfig("say where tenants are kept: UNMASK_DATABASE, or --state DIR (or UNMASK_STATE)")
    # Opened without looking, a folder of something else would be given an empty store.
    if not settings.distributed and not makes and not (Path(settings.state or "") / _STORE).is_file():
        raise BadConfig(f"{settings.state}: no store is there; `unmask tenant create` begins one")
    parts = Parts(settings)
    with closing(parts.database):
        yield parts.access


def log(access: SqlAccess, tenant: str, act: str, subject: str, detail: Mapping[str, object]) -> None:
    """Writes an act to the audit log, before it is done: better one too many there than one that is missing."""
    from unmask.core.access import AuditEntry

    said = {name: "none" if value is None else str(value) for name, value in detail.items()}
    access.audit(AuditEntry(now(), tenant, actor(), act, subject, said))


def now() -> datetime:
    """The present in UTC."""
    return datetime.now(UTC)


def moment(time: datetime | None) -> str:
    """ISO 8601 in UTC, to the second; empty for none."""
    return "" if time is None else time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns, safe on a terminal."""
    table = [tuple(head), *(tuple(plain(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
