"""What is done to the platform: each fault strikes, lasts a while, and is over when its function returns."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from unmask_dev.process import Server
    from unmask_dev.stack import Stack

Fault = Callable[["Stack"], None]
# How long what was killed stays away, and how long the others last: long enough that everybody meets it.
_AWAY: Final = 2.0
_LASTS: Final = 6.0
# Longer than a publish waits for its confirmation.
_HANGS: Final = 8.0
# Of each batch in Triton, beyond what its callers wait.
_SLOW_MS: Final = 4000.0
_BALLAST: Final = bytes(256 * 1024)
_KINDS: Final = ("ingest", "align", "classify", "localize", "submit", "deliver", "sweep", "ingestion")


def kill_process(name: str) -> Fault:
    """Kill -9 to a process of Unmask and all its children; over when another one in its place is ready."""

    def strike(stack: Stack) -> None:
        from unmask_dev.process import wait_until
        from unmask_dev.stack import is_ready

        process = stack.processes[name]
        process.kill()
        process.start()
        wait_until(lambda: is_ready(stack.metrics[name]), 90, f"restarting {name}", lambda: process.running)

    return strike


def kill_server(name: str) -> Fault:
    """Kill -9 to a server; later it is started on what it left on disk."""

    def strike(stack: Stack) -> None:
        server: Server = stack.servers[name]
        if server.name == "rabbitmq":
            server.sync()  # type: ignore[attr-defined]
        server.kill()
        time.sleep(_AWAY)
        server.start()

    return strike


def hang_server(name: str) -> Fault:
    """A server that keeps its connections and says nothing, as a machine that swaps or a network that drops packets would."""

    def strike(stack: Stack) -> None:
        process = stack.servers[name].process
        process.pause()
        time.sleep(_HANGS)
        process.resume()

    return strike


def fill_blobs(stack: Stack) -> None:
    """Objects until the store refuses them, and a while later room again."""
    from unmask_dev.process import wait_until

    client, kept = stack.blobs.client(), 0

    def put(name: str) -> None:
        client.put_object("unmask", f"_ballast/{name}", io.BytesIO(_BALLAST), len(_BALLAST))

    try:
        for kept in range(10_000):
            put(str(kept))
    except Exception:
        pass
    else:
        raise RuntimeError("the blob store took 2.5 GB and is not full: make it smaller")
    time.sleep(_LASTS)

    def has_room() -> bool:
        stack.blobs.vacuum()
        put("room")
        return True

    for number in range(kept):
        client.remove_object("unmask", f"_ballast/{number}")
    wait_until(has_room, 90, "room in the blob store")
    client.remove_object("unmask", "_ballast/room")


def read_only(stack: Stack) -> None:
    """Postgres refuses every write, also on connections that are open."""

    def switch(word: str) -> None:
        with stack.postgres.connect() as connection:
            connection.execute(f"ALTER SYSTEM {word}".encode())
            connection.execute("SELECT pg_reload_conf()")

    switch("SET default_transaction_read_only = on")
    time.sleep(_LASTS)
    switch("RESET default_transaction_read_only")


def slow_triton(stack: Stack) -> None:
    """Triton takes longer for a batch than anybody waits."""
    if stack.triton is None:
        raise RuntimeError("this stack has no Triton")
    stack.triton.slow(_SLOW_MS)
    time.sleep(_LASTS)
    stack.triton.slow(0)


FAULTS: Final[Mapping[str, Fault]] = {
    **{kind: kill_process("ingestion" if kind == "ingestion" else f"{kind}-1") for kind in _KINDS},
    **{name: kill_server(name) for name in ("broker", "triton", "postgres", "seaweedfs")},
    **{f"{name}-hangs": hang_server(name) for name in ("broker", "triton", "seaweedfs")},
    "blobs-full": fill_blobs,
    "read-only": read_only,
    "slow-triton": slow_triton,
}
