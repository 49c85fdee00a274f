"""`unmask token …`: what a tenant's programs and reviewers show; kept as hashes, shown once."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from unmask.cli.access import add_verb, log, moment, now, opened, print_table
from unmask.cli.inputs import plain

if TYPE_CHECKING:
    from unmask.core.access import Token

# Those of `unmask.core.access.Scope`.
_SCOPES: Final = ("submit", "read", "review", "admin")
_LONGEST_NAME: Final = 255
_MOST_DAYS: Final = 36_500


def add_parser(subparsers: Any) -> None:
    """Adds the verbs `token create|list|revoke`."""
    parser = subparsers.add_parser("token", help="create, list and revoke tokens", description=__doc__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    create = add_verb(verbs, "create", _create, "make a token and print it, this once, alone on standard output")
    create.add_argument("tenant", metavar="TENANT", help="whose it is")
    create.add_argument(
        "--scope",
        action="append",
        choices=_SCOPES,
        metavar="SCOPE",
        help=f"what it is good for, again for each: {', '.join(_SCOPES)} (default: submit and read)",
    )
    create.add_argument("--name", default="", help="what it is for, in your words")
    create.add_argument("--days", type=_days, metavar="N", help="days until it expires (default: never)")
    create.add_argument("--json", action="store_true", help="one JSON object, with the token")
    listing = add_verb(verbs, "list", _list, "a tenant's tokens, without their secrets")
    listing.add_argument("tenant", metavar="TENANT")
    listing.add_argument("--json", action="store_true", help="one JSON object a token, a line each")
    revoke = add_verb(verbs, "revoke", _revoke, "refuse a token from then on, within ten seconds")
    revoke.add_argument("id", metavar="ID", help="its id, as `token list` shows it (the middle part of the token)")


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0.0 < days <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of days is needed, more than 0 and at most {_MOST_DAYS}")
    return days


def _create(args: argparse.Namespace) -> int:
    from unmask.core.access import Scope
    from unmask.core.errors import BadRequest
    from unmask.core.tokens import hashed, new_token

    if len(args.name) > _LONGEST_NAME or not args.name.isprintable():
        raise BadRequest(f"--name: at most {_LONGEST_NAME} printable characters")
    made_at = now()
    expires_at = None if args.days is None else made_at + timedelta(days=args.days)
    scopes = [Scope(scope) for scope in args.scope or ("submit", "read")]
    with opened(args) as access:
        access.tenant(args.tenant)
        token, text = new_token(args.tenant, args.name, scopes, made_at, expires_at)
        said = _json(token)
        log(access, args.tenant, "token.create", token.id, {name: said[name] for name in ("name", "scopes", "expires_at")})
        access.add_token(token, hashed(text))
    if args.json:
        print(json.dumps(said | {"token": text}))
        return 0
    print(text)
    until = f"until {moment(expires_at)}" if expires_at else "without end"
    print(f"unmask: token {token.id} of {token.tenant} for {said['scopes']}, {until}; it is not shown again", file=sys.stderr)
    return 0


def _list(args: argparse.Namespace) -> int:
    with opened(args) as access:
        access.tenant(args.tenant)
        found = access.tokens(args.tenant)
    if args.json:
        for token in found:
            print(json.dumps(_json(token)))
        return 0
    head = ("ID", "STATE", "SCOPES", "CREATED", "EXPIRES", "NAME")
    print_table(head, [_row(token) for token in found])
    return 0


def _revoke(args: argparse.Namespace) -> int:
    from unmask.core.errors import BadRequest

    with opened(args) as access:
        found = access.token(args.id)
        if found is None or found[0].revoked_at is not None:
            raise BadRequest(f"token {args.id!r}: {'revoked before' if found else 'there is none of this id'}")
        token = found[0]
        log(access, token.tenant, "token.revoke", token.id, {"name": token.name})
        access.revoke(token.id, now())
    print(f"token {plain(token.id)} of {token.tenant}: revoked")
    return 0


def _json(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "tenant": token.tenant,
        "name": token.name,
        "scopes": " ".join(sorted(scope.value for scope in token.scopes)),
        "created_at": moment(token.created_at),
        "expires_at": moment(token.expires_at) or None,
        "revoked_at": moment(token.revoked_at) or None,
    }


def _row(token: Token) -> tuple[str, ...]:
    said = _json(token)
    is_over = token.expires_at is not None and token.expires_at <= now()
    state = "revoked" if token.revoked_at else "expired" if is_over else "good"
    return (token.id, state, said["scopes"], said["created_at"], said["expires_at"] or "-", token.name or "-")
