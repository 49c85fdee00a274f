"""A server process: started with its parent's life, waited for by using it, stopped or killed with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final, Self

from unmask_dev.kept import Kept

_TETHER: Final = Path(__file__).with_name("tether.py")
_TAIL_BYTES: Final = 4000


class ServerMissing(RuntimeError):
    """No such server on this machine; the message says what to install."""


class ServerFailed(RuntimeError):
    """A server did not start, answer or stop; the message ends with the tail of its log."""


def wait_until(check: Callable[[], object], seconds: float, what: str, still: Callable[[], object] = lambda: True) -> None:
    """Returns once `check()` is true; raises `ServerFailed` when it is not within `seconds`, or as soon as `still()` is false.

    An exception of `check` counts as "not yet"; the last one is told.
    """
    deadline = time.monotonic() + seconds
    pause, last = 0.005, "no answer"
    while True:
        try:
            if check():
                return
        except Exception as error:
            last = f"{type(error).__name__}: {error}"
        if not still():
            raise ServerFailed(f"{what}: the process has ended")
        if time.monotonic() > deadline:
            raise ServerFailed(f"{what}: not within {seconds:g} s ({last})")
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


@cache
def _starter() -> ThreadPoolExecutor:
    """The thread that starts everything: a child dies with the *thread* that made it, so it has to be one that lasts."""
    return ThreadPoolExecutor(1, "unmask-dev")


class Process:
    """One process (and its group), whose output goes to a file; dies with this process, even by kill -9.

    Only the process itself is tied to its parent's life, not its children: those of our servers end when it does.
    May be started again after it ended.  `argv[0]` is a path or found on PATH; `user` is whom to become, for root only.
    """

    def __init__(
        self, argv: Sequence[str | Path], *, folder: Path, log: Path, env: Mapping[str, str] | None = None, user: str = ""
    ) -> None:
        self.argv = [str(part) for part in argv]
        self.folder = folder
        self.log = log
        self.env = dict(os.environ if env is None else env)
        self.user = user
        self._child: subprocess.Popen[bytes] | None = None
        self._group = 0

    @property
    def pid(self) -> int:
        """Of the process and of its group; 0 before the first start."""
        return self._child.pid if self._child else 0

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """As `subprocess` tells it; None before it has ended."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        """Starts it and returns at once; raises `ServerFailed` when it already runs."""
        if self.running:
            raise ServerFailed(f"{self.argv[0]} already runs (process {self.pid})")
        tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), self.user, *self.argv]
        self._child = _starter().submit(self._spawn, tether).result()
        self._group = self._child.pid

    def stop(self, seconds: float = 15, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """That signal, and SIGKILL to the whole group for what is left after `seconds`; fine when it has ended."""
        if self._child is None:
            return
        if self.running:
            self._child.send_signal(with_signal)
            self.wait(seconds)
        self.kill()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal; fine when it has ended."""
        if self._child is not None:
            self._child.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Returns when it has ended, or after `seconds`; whether it has."""
        if self._child is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)
        return not self.running

    def kill(self) -> None:
        """SIGKILL to the whole group, as a crash would; returns when the process is gone."""
        if self._child is None:
            return
        if self._group:  # once only: the number may be another group's later
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
        self._child.wait()
        self._group = 0

    def pause(self) -> None:
        """Stops it from running, as a machine that hangs would; returns when it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", 5, f"pausing {self.argv[0]}")

    def resume(self) -> None:
        """Lets it run on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def tail(self) -> str:
        """The last lines of the log."""
        if not self.log.is_file():
            return "(no log)"
        return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                argv, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )


class Server(ABC):
    """A server in a folder of its own, on loopback; a context manager.

    One made on a folder that was used before has its ports, passwords and data; one at a time may run there.

    The subclass says how to run it (`_process`, called once, after it has written its configuration) and how to use it
    (`_use`: raises, or returns something false, as long as it does not serve).
    """

    name: str = "server"
    start_seconds: float = 60
    stop_seconds: float = 15

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.kept = Kept(self.folder / "kept.json")
        self._made: Process | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client needs, with user and password."""

    @abstractmethod
    def _process(self) -> Process:
        """Prepares the folder, which exists, and says what to run; raises `ServerMissing`."""

    @abstractmethod
    def _use(self) -> object:
        """Does what clients will do; true when it worked."""

    @property
    def process(self) -> Process:
        """The server's process; prepares it when it was never started."""
        if self._made is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made = self._process()
        return self._made

    def start(self) -> None:
        """Returns when the server has answered; raises `ServerMissing`, or `ServerFailed` with the tail of its log."""
        process = self.process
        process.start()
        try:
            wait_until(self._use, self.start_seconds, f"starting {self.name}", lambda: process.running)
        except BaseException as error:
            process.kill()
            if isinstance(error, ServerFailed):
                raise ServerFailed(f"{error}\n{process.tail()}") from None
            raise

    def stop(self) -> None:
        """Stops it in its own good way, or by SIGKILL when that takes too long."""
        if self._made is not None:
            self._made.stop(self.stop_seconds)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._made is not None:
            self._made.kill()

    def restart(self) -> None:
        """Stops it if it runs, and starts it on the same port and data."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
