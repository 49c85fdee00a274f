"""`unmask up`: the whole platform on this machine, for development."""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unmask.cli.inputs import plain
from unmask.cli.serve import SERVICES

if TYPE_CHECKING:
    from unmask_dev.stack import Stack

TENANT: Final = "demo"
_SCOPES: Final = ("submit", "read", "review")
_BROKERS: Final = ("valkey", "rabbitmq")
_HOST: Final = "127.0.0.1"
_PORT: Final = 50051
# All stages in one worker: the quickest on one machine, and a case keeps its pixels at hand.
_STAGES: Final = "ingest align classify localize"
_WORKERS: Final = (_STAGES, "shadow", "submit", "deliver", "sweep")
_READY_SECONDS: Final = 180.0
_SAME_SECONDS: Final = 1.0
# What may be tuned from outside; where things are is what `up` itself decides.
_LIMITS: Final = ("MAX_BYTES", "MAX_PIXELS", "MAX_SIDE", "MAX_FACES", "ATTEMPTS", "RETRY_SECONDS", "STUCK_SECONDS")
_TUNED: Final = tuple(f"UNMASK_{name}" for name in (*_LIMITS, "CHILD_MEMORY", "FETCH", "LOG"))
_FILES: Final = ("UNMASK_POLICY", "UNMASK_C2PA_TRUST")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "up",
        help="run the whole platform on this machine, for development",
        description="Runs Postgres, a broker, SeaweedFS, Triton and every process of Unmask on loopback until Ctrl-C, which "
        "lets them finish what is in hand. What dies is started again. Data, passwords, ports and the token stay in --state.",
    )
    parser.add_argument(
        "--state", type=Path, default=Path("build/up"), metavar="DIR", help="what is kept between runs (default: %(default)s)"
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="model repository (default: UNMASK_MODELS, else the one that comes along)"
    )
    parser.add_argument("--broker", choices=_BROKERS, default=_BROKERS[0], help="(default: %(default)s)")
    parser.add_argument(
        "--port",
        type=int,
        default=_PORT,
        metavar="N",
        help="of gRPC; the status pages are on those that follow (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs until SIGINT or SIGTERM; exit code 0 after a drain.  Raises `BadConfig`, `BadModel`, `OperatorError`."""
    from unmask.core.errors import BadConfig, OperatorError

    try:
        from unmask_dev.process import ServerFailed, ServerMissing
    except ImportError:
        raise BadConfig("up: the servers for development are not installed; run `make setup` in a checkout of Unmask") from None
    try:
        with _locked(args.state):
            return _run(args)
    except ServerMissing as error:
        raise BadConfig(f"up: {error}") from error
    except ServerFailed as error:
        raise OperatorError(f"up: {_short(str(error))}; logs are in {args.state}") from error


def _short(text: str) -> str:
    """Of an error with a log's tail: what failed, and the last line of the log."""
    first, *more = [line for line in text.splitlines() if line.strip()]
    return f"{first} ({more[-1]})" if more else first


def _run(args: argparse.Namespace) -> int:
    from unmask_dev.supervisor import Supervisor

    stack = _stack(args)
    asked = _Asked()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    try:
        _start(stack, args.port)
        token = _token(stack)
        _write_environment(stack, token)
        print(_told(stack, args, token), flush=True)
        Supervisor(stack, _say).run()
    except KeyboardInterrupt:
        _say("stopping: what is in hand is finished (again: at once)")
    finally:
        stack.close()
    return 0


class _Asked:
    """Signal handler: the first one interrupts; one that comes later than a second after it ends this process at once.

    Earlier ones are the same again: `make`, `timeout` and a terminal each pass Ctrl-C on.
    """

    def __init__(self) -> None:
        self._first: float | None = None

    def __call__(self, number: int, _: object) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            raise KeyboardInterrupt
        if now - self._first > _SAME_SECONDS:
            os._exit(128 + number)  # and everything with it


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Holds the folder, which it makes; raises `BadConfig` while somebody else does."""
    from unmask.core.errors import BadConfig

    state.mkdir(mode=0o711, parents=True, exist_ok=True)  # Postgres, which root runs as nobody, passes through
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadConfig(f"up: another one runs on {state}; stop it, or choose another folder by --state") from None
        yield


def _stack(args: argparse.Namespace) -> Stack:
    """The stack, nothing of it started; raises `BadConfig` for ports and `BadModel` for models that cannot be used."""
    from unmask.adapters.model_repository import ModelRepository
    from unmask.bootstrap import find_models
    from unmask.core.errors import BadConfig
    from unmask.settings import Settings
    from unmask_dev.ports import is_free, set_aside
    from unmask_dev.process import ServerMissing
    from unmask_dev.stack import Stack
    from unmask_dev.triton import require

    last = args.port + len(_WORKERS) + 1
    if not 1024 <= args.port <= last <= 65535 or not all(map(is_free, range(args.port, last + 1))):
        raise BadConfig(f"up: ports {args.port} to {last} are needed and not all free; choose others by --port")
    set_aside(range(args.port, last + 1))
    repository = ModelRepository(find_models(args.models or Settings.from_environment().models).absolute())
    for ref in repository.release().models.values():
        repository.file(ref)
    triton = True
    try:
        require()
    except ServerMissing as error:
        triton = False
        _say(f"models run inside the workers ({error})")
    return Stack(args.state, repository.root, broker=args.broker, triton=triton, env=_tuned(os.environ))


def _tuned(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the caller's variables the processes are told; they run in another folder."""
    found = {name: environment[name] for name in _TUNED if environment.get(name)}
    found |= {name: str(Path(environment[name]).absolute()) for name in _FILES if environment.get(name)}
    return {"UNMASK_FETCH": "1", **found}


def _start(stack: Stack, port: int) -> None:
    """Starts everything; returns when it is ready."""
    _say(f"starting {', '.join(stack.servers)}")
    stack.start()
    _say(f"starting {len(_WORKERS) + 1} processes of Unmask")
    stack.spawn("serve", "serve", *SERVICES, "--listen", f"{_HOST}:{port}", port=port + 1)
    for number, kinds in enumerate(_WORKERS, port + 2):
        stack.spawn(kinds.replace(" ", "-"), "work", *kinds.split(), port=number)
    stack.wait_ready(_READY_SECONDS)


def _token(stack: Stack) -> str:
    """The token of the tenant `demo`; both are made where they are not there, the first time above all."""
    from unmask.core.tokens import token_id

    if f'"{TENANT}"' not in stack.command("tenant", "list", "--json"):
        stack.command("tenant", "create", TENANT)
    scopes = [part for scope in _SCOPES for part in ("--scope", scope)]

    def create() -> str:
        return stack.command("token", "create", TENANT, "--name", "unmask up", *scopes).strip()

    token = stack.kept.get("token", create)
    good = f'"{token_id(token)}"' in stack.command("token", "list", TENANT, "--json")
    return token if good else stack.kept.put("token", create())


def _write_environment(stack: Stack, token: str) -> None:
    """Writes `env`, which a shell reads to be told what every process is, and the token."""
    from unmask_dev.kept import write_whole

    told = {name: value for name, value in stack.environment.items() if name.startswith("UNMASK_")}
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted({**told, "UNMASK_TOKEN": token}.items())]
    write_whole(stack.folder / "env", "".join(lines).encode())


def _told(stack: Stack, args: argparse.Namespace, token: str) -> str:
    """Where everything is, and what to do next."""
    import unmask_dev

    examples = os.path.relpath(Path(unmask_dev.__file__).resolve().parents[1] / "examples")
    state, address = shlex.quote(str(args.state)), f"{_HOST}:{args.port}"
    models = "in the workers" if stack.triton is None else f"Triton, gRPC {stack.triton.url}"
    pages = "".join(f"\n             http://{at}/metrics  {name}" for name, at in stack.metrics.items())
    return f"""
Unmask runs on this machine, for development.  Ctrl-C stops it; what it holds stays in {state}.

  gRPC       {address}: {", ".join(SERVICES)}
  token      {token}  (tenant {TENANT}: {", ".join(_SCOPES)})
  broker     {args.broker} at {_where(stack.broker.url)}: task unmask.submit, queue unmask.submissions, events on unmask.events
  database   Postgres at {_where(stack.postgres.url)}
  pictures   S3 at http://{stack.blobs.endpoint}, bucket unmask
  models     {models}
  logs       {state}/*.log
  metrics, /livez and /readyz{pages}

In another shell:

  set -a; . {state}/env; set +a   # addresses, passwords and UNMASK_TOKEN, for the commands of unmask too
  python {examples}/check_grpc.py {address} PICTURE
  python {examples}/webhook_receiver.py 8080 "$(unmask tenant secret {TENANT})"
  python {examples}/submit_celery.py ID PICTURE http://127.0.0.1:8080/
  python {examples}/submit_json.py ID PICTURE http://127.0.0.1:8080/
"""


def _where(url: str) -> str:
    """host:port of a URL: the password is in `env`, and need not be on a screen."""
    return url.rpartition("@")[2].partition("/")[0]


def _say(line: str) -> None:
    print(f"unmask: {plain(line)}", file=sys.stderr, flush=True)
