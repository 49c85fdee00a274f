"""`unmask tenant …`: who may use the deployment, and how much."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

from unmask.cli.access import add_verb, log, moment, now, opened, print_table

if TYPE_CHECKING:
    from unmask.core.access import Tenant

# It is a part of blob keys and URLs.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_LIMITS: Final = {
    "per_minute": (1, "pictures a minute that are taken"),
    "per_day": (1, "pictures a day (UTC) that are taken"),
    "keep_days": (0, "days that pictures and verdicts are kept after a case has ended"),
}


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `tenant create|list|set|disable|enable|secret`."""
    parser = subparsers.add_parser("tenant", help="create, list and limit tenants", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    create = add_verb(verbs, "create", _create, "make a tenant; without limits unless told")
    change = add_verb(verbs, "set", _set, "change what is given, leave the rest; servers follow within ten seconds")
    disable = add_verb(verbs, "disable", _disable, "refuse the tenant's tokens from then on, within ten seconds")
    enable = add_verb(verbs, "enable", _enable, "take the tenant's tokens again")
    secret = add_verb(verbs, "secret", _secret, "print the secret that the tenant's webhooks are signed with")
    for verb in (create, change, disable, enable, secret):
        verb.add_argument("name", metavar="NAME", help="letters, digits, '-' and '_'")
    for verb in (create, change):
        _add_limits(verb)
    listing = add_verb(verbs, "list", _list, "every tenant and its limits")
    listing.add_argument("--json", action="store_true", help="one JSON object a tenant, a line each")


def _add_limits(verb: argparse.ArgumentParser) -> None:
    for name, (least, what) in _LIMITS.items():
        option = f"--{name.replace('_', '-')}"
        kind = _or_none(least)
        verb.add_argument(option, type=kind, default=argparse.SUPPRESS, metavar="N", help=f"{what}, or none for no limit")
    verb.add_argument(
        "--keep-landmarks-days",
        type=_at_least(0),
        default=argparse.SUPPRESS,
        metavar="N",
        help="days that landmarks (biometric data) are kept after the decision; 0: not at all, which is the default",
    )
    verb.add_argument(
        "--discover",
        type=_on_or_off,
        default=argparse.SUPPRESS,
        metavar="on|off",
        help="whether `unmask discover` may look through its unexplained pictures for new generators; off is the default",
    )


def _on_or_off(text: str) -> bool:
    if text not in {"on", "off"}:
        raise argparse.ArgumentTypeError(f"{text!r}: on or off is needed")
    return text == "on"


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        # Postgres' integer is the narrowest place it goes to.
        if not text.isascii() or not text.isdigit() or not least <= int(text) < 2**31:
            raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least {least} is needed")
        return int(text)

    return number


def _or_none(least: int) -> Any:
    number = _at_least(least)
    return lambda text: None if text == "none" else number(text)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in (*_LIMITS, "keep_landmarks_days", "discover") if hasattr(args, name)}


def _create(args: argparse.Namespace) -> int:
    from unmask.core.access import Tenant
    from unmask.core.errors import BadRequest, UnknownTenant

    if not _NAME.fullmatch(args.name):
        raise BadRequest(f"tenant {args.name!r}: up to 63 letters, digits, '-' and '_' are needed, a letter or digit first")
    with opened(args, makes=True) as access:
        try:
            access.tenant(args.name)
        except UnknownTenant:
            given = _given(args)
            log(access, args.name, "tenant.create", args.name, given)
            access.put_tenant(Tenant(args.name, now(), **given))
        else:
            raise BadRequest(f"tenant {args.name!r} is there already; `unmask tenant set` changes it")
    print(f"tenant {args.name}: created")
    return 0


def _set(args: argparse.Namespace) -> int:
    from unmask.core.errors import BadRequest

    given = _given(args)
    if not given:
        raise BadRequest("tenant set: say what, for example --per-minute 600")
    return _change(args, "tenant.set", "changed", given)


def _disable(args: argparse.Namespace) -> int:
    return _change(args, "tenant.disable", "disabled", {"disabled": True})


def _enable(args: argparse.Namespace) -> int:
    return _change(args, "tenant.enable", "enabled", {"disabled": False})


def _change(args: argparse.Namespace, act: str, done: str, given: dict[str, Any]) -> int:
    with opened(args) as access:
        changed = replace(access.tenant(args.name), **given)
        log(access, args.name, act, args.name, given)
        access.put_tenant(changed)
    print(f"tenant {args.name}: {done}")
    return 0


def _secret(args: argparse.Namespace) -> int:
    """Under the newest key: while there are several, each signs, so that receivers change over one by one."""
    from unmask.adapters.sink_webhook import webhook_secret
    from unmask.core.errors import BadConfig
    from unmask.settings import Settings

    keys = Settings.from_environment().webhook_keys
    if not keys:
        raise BadConfig("tenant secret: UNMASK_WEBHOOK_KEYS is not set, so that webhooks are off")
    with opened(args) as access:
        access.tenant(args.name)
        log(access, args.name, "tenant.secret", args.name, {})
    print(webhook_secret(keys[0].encode(), args.name))
    return 0


def _list(args: argparse.Namespace) -> int:
    with opened(args) as access:
        found = access.tenants()
    if args.json:
        for tenant in found:
            print(json.dumps(asdict(tenant) | {"created_at": moment(tenant.created_at)}))
        return 0
    head = ("TENANT", "STATE", "A MINUTE", "A DAY", "KEEP DAYS", "LANDMARKS DAYS", "DISCOVER", "POLICY", "CREATED")
    print_table(head, [_row(tenant) for tenant in found])
    return 0


def _row(tenant: Tenant) -> tuple[str, ...]:
    limits = ("-" if limit is None else str(limit) for limit in (tenant.per_minute, tenant.per_day, tenant.keep_days))
    state, policy = "disabled" if tenant.disabled else "enabled", tenant.policy[:12] or "-"
    kept, discover = str(tenant.keep_landmarks_days), "on" if tenant.discover else "off"
    return (tenant.name, state, *limits, kept, discover, policy, moment(tenant.created_at))
