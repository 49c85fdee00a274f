"""A platform on this machine to measure: real servers, workers over them, submissions as the doors make them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from unmask.core.domain import BytesSource, Case, State, Submission
from unmask.core.submit import accept
from unmask.distributed import DistributedParts
from unmask.settings import Settings
from unmask_dev.ports import LOOPBACK, free_port
from unmask_dev.process import Process
from unmask_dev.stack import Broker, Stack

ROOT: Final = Path(__file__).resolve().parents[2]
TENANT: Final = "bench"
# As `unmask up` has them: a case goes through all stages in one worker.
STEP_WORKERS: Final = ("ingest align classify localize",)
SINGLE_WORKERS: Final = ("ingest", "align", "classify", "localize")
_SUBMITTERS: Final = 2
_POLL_SECONDS: Final = 0.05
_PATIENCE_SECONDS: Final = 600.0


class Rig:
    """A running stack, the parts of this process (which submits, as a door does), and the workers that a part starts."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        told = {name: value for name, value in stack.environment.items() if name.startswith("UNMASK_")}
        self.parts = DistributedParts(Settings.from_environment(told))
        self.world = self.parts.distributed_world()

    @contextmanager
    def workers(
        self,
        concurrency: Mapping[str, int] | None = None,
        *,
        kinds: Sequence[str] = STEP_WORKERS,
        noop: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[dict[str, int]]:
        """Step workers, each with that many at once (else its default), stopped at the end; their pids by name."""
        started: dict[str, Process] = {}
        try:
            for name in kinds:
                started[name] = self._worker(name, (concurrency or {}).get(name, 0), noop, env or {})
            self.stack.wait_ready()
            yield {name: process.pid for name, process in started.items()}
        finally:
            for name, process in started.items():
                process.stop(30)
                self.stack.metrics.pop(name, None)

    def _worker(self, name: str, concurrency: int, noop: bool, env: Mapping[str, str]) -> Process:
        """`align`, or `align+2` for a second one of a kind."""
        module = "bench.rig.noop" if noop else "unmask.cli.main"
        told = ("--concurrency", str(concurrency)) if concurrency else ()
        argv = [sys.executable, "-m", module, "work", *name.partition("+")[0].split(), *told]
        address = f"{LOOPBACK}:{free_port()}"
        own = {**self.stack.environment, **env, "UNMASK_METRICS": address, "PYTHONPATH": str(ROOT)}
        process = Process(argv, folder=self.stack.folder, log=self.stack.folder / f"{name}.log", env=own)
        process.start()
        self.stack.processes[name], self.stack.metrics[name] = process, address
        return process

    def servers(self) -> dict[str, int]:
        """The servers' pids by name."""
        return {name: server.process.pid for name, server in self.stack.servers.items()}

    def submit(self, picture: bytes, batch: str) -> Case:
        """One picture in, as every door does it: blob, row, message."""
        return accept(self.world, Submission(TENANT, BytesSource(picture), batch=batch))

    def run(self, pictures: Iterable[bytes]) -> tuple[str, float]:
        """Submits the pictures and waits for the last one's end: the batch's name and seconds; a case that fails ends it."""
        batch, started = uuid4().hex, time.perf_counter()
        with ThreadPoolExecutor(_SUBMITTERS) as pool:
            count = len(list(pool.map(lambda picture: self.submit(picture, batch), pictures)))
        self.wait(batch, count)
        return batch, time.perf_counter() - started

    def wait(self, batch: str, count: int) -> None:
        """Returns when so many cases of the batch are decided; raises `SystemExit` when one ended otherwise, or none moves."""
        deadline, before = time.monotonic() + _PATIENCE_SECONDS, -1
        while True:
            found = self.world.store.progress(TENANT, batch)
            done = found.get(State.DECIDED, 0)
            if other := {state.value: number for state, number in found.items() if state not in {State.OPEN, State.DECIDED}}:
                raise SystemExit(f"bench: cases ended otherwise than decided: {other}{self._tails()}")
            if done >= count:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: {done} of {count} decided, and no more for a long time{self._tails()}")
            if done != before:
                deadline, before = time.monotonic() + 60.0, done
            time.sleep(_POLL_SECONDS)

    def _tails(self) -> str:
        return "".join(f"\n== {name}\n{process.tail()[-1500:]}" for name, process in self.stack.processes.items())


@contextmanager
def rig(models: Path, broker: Broker, *, triton: bool, env: Mapping[str, str] | None = None) -> Iterator[Rig]:
    """A platform in a temporary folder, gone at the end; the sweeper's patience is long, so that nothing is published twice."""
    with tempfile.TemporaryDirectory(prefix="unmask-bench-") as folder:
        Path(folder).chmod(0o711)  # Postgres does not run as root
        told = {"UNMASK_STUCK_SECONDS": "600", **(env or {})}
        with Stack(Path(folder) / "stack", models, broker=broker, triton=triton, env=told) as stack:
            stack.command("tenant", "create", TENANT)
            yield Rig(stack)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))
