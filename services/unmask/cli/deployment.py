"""What verbs share that look at or change a deployment: its settings, its parts, and who it was that changed something."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from unmask.bootstrap import Parts
    from unmask.core.promotion import ReleaseDesk
    from unmask.settings import Settings

# As `unmask.bootstrap` names it.
_STORE: Final = "unmask.sqlite3"


def add_options(parser: argparse.ArgumentParser, *, state: bool = False) -> None:
    """The options that say where models are, and where a verb only looks, which folder of an embedded run."""
    parser.add_argument("--models", type=Path, metavar="DIR", help="model repository (else UNMASK_MODELS, else the default)")
    if state:
        parser.add_argument(
            "--state", type=Path, metavar="DIR", help="where verdicts are kept (else UNMASK_DATABASE, UNMASK_STATE)"
        )


def settings_of(args: argparse.Namespace) -> Settings:
    """The environment's settings under the command line's; a folder that is named there is meant, and no database."""
    from unmask.settings import Settings

    told: dict[str, Any] = {name: getattr(args, name, None) for name in ("state", "models")}
    found = Settings.from_environment()
    if told["state"] is not None:
        found = replace(found, database="")
    return replace(found, **{name: value for name, value in told.items() if value is not None})


def shared_parts(args: argparse.Namespace, verb: str) -> Parts:
    """The parts over the database that the deployment's processes share; raises `BadConfig` when none is named."""
    from unmask.core.errors import BadConfig
    from unmask.distributed import parts_of

    settings = settings_of(args)
    if not settings.distributed:
        raise BadConfig(
            f"{verb}: say which database, e.g. UNMASK_DATABASE=postgresql://user:password@host/unmask "
            "(what keeps to a folder of its own goes by the release.json and the policy that it is started with)"
        )
    return parts_of(settings)


def reading_parts(args: argparse.Namespace, verb: str) -> Parts:
    """The parts over the shared database, or over the folder of an embedded run; raises `BadConfig` when neither is there."""
    from unmask.core.errors import BadConfig
    from unmask.distributed import parts_of

    settings = settings_of(args)
    # Opened without looking, a folder of something else would be given an empty store.
    if not settings.distributed and (settings.state is None or not (settings.state / _STORE).is_file()):
        raise BadConfig(
            f"{verb}: say where verdicts are kept: --state DIR (a folder of `unmask check --state DIR`) or UNMASK_DATABASE"
        )
    return parts_of(settings)


def desk(parts: Parts) -> ReleaseDesk:
    """Where releases and policies are put and moved, in this user's name."""
    from unmask.adapters.clock import SystemClock
    from unmask.adapters.prove_release import prove
    from unmask.core.promotion import ReleaseDesk

    return ReleaseDesk(parts.releases, lambda release: prove(release, parts.repository, parts.models), SystemClock(), actor())


def actor() -> str:
    """Who types, as the audit log says it: the system's word, not the environment's."""
    import pwd

    try:
        return f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli:{os.getuid()}"
