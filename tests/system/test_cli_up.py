"""`unmask up` as the README shows it: both doors, gRPC and webhooks; what dies comes back; nothing outlives it, all is kept."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT, missing
from tests.system.backends import open_folder
from tests.system.command import COMMAND, environment, run
from tests.system.tiny_models import face_picture, make_repository
from unmask.rpc.client import Client
from unmask_dev import rabbitmq, triton
from unmask_dev.ports import free_port
from unmask_dev.process import Process, ServerFailed, ServerMissing, wait_until
from unmask_dev.supervisor import Supervisor

_BLOCK = re.compile(r"<!-- run by tests/system/test_cli_up.py -->\n```sh\n(.*?)```", re.DOTALL)
_NEEDED_PORTS = 11


def documented() -> list[str]:
    """The README's lines for another shell, each a command."""
    (block,) = _BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    return [line.partition("   #")[0] for line in block.splitlines()]


def ports_in_a_row(count: int) -> int:
    """The first of so many free ports."""
    from unmask_dev.ports import is_free, set_aside

    while not all(map(is_free, range(port := free_port(), port + count))):
        pass
    set_aside(range(port, port + count))
    return port


@dataclass
class Up:
    """A running `unmask up`, and a shell beside it."""

    folder: Path
    broker: str
    port: int = field(default_factory=lambda: ports_in_a_row(_NEEDED_PORTS))
    hook: int = field(default_factory=free_port)
    starts: int = 0

    def __post_init__(self) -> None:
        self.state, self.models = self.folder / "state", make_repository(self.folder / "models")
        (self.folder / "photo.jpg").write_bytes(face_picture(red=240, blue=10))
        self.process = self.beside("up", [*COMMAND, *self.arguments, "--broker", self.broker])

    @property
    def arguments(self) -> list[str]:
        return ["up", "--state", str(self.state), "--models", str(self.models), "--port", str(self.port)]

    def beside(self, name: str, argv: list[str]) -> Process:
        """A process that dies with this one; its lines are in `log_of(name)`."""
        told = environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        return Process(argv, folder=ROOT, log=self.folder / f"{name}.log", env=told)

    def start(self) -> None:
        """Starts it; returns when it has told how to use it."""
        self.process.start()
        self.starts += 1
        self.until(lambda: self.log_of("up").count("In another shell") == self.starts, "started", 180)

    def until(self, check: Any, what: str, seconds: float = 60) -> None:
        try:
            wait_until(check, seconds, what, lambda: self.process.running)
        except ServerFailed as error:
            logs = [path for place in (self.folder, self.state) for path in sorted(place.glob("*.log"))]
            raise AssertionError("\n".join([str(error), *(f"== {p}\n{p.read_text()[-1500:]}" for p in logs)])) from None

    def log_of(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def here(self, line: str) -> str:
        """A documented line with this run's folder, ports and picture."""
        for said, meant in (
            ("build/up", shlex.quote(str(self.state))),
            ("photo.jpg", shlex.quote(str(self.folder / "photo.jpg"))),
            ("8080", str(self.hook)),
            ("50051", str(self.port)),
        ):
            line = line.replace(said, meant)
        return line

    def shell(self, line: str, name: str) -> Process:
        """Starts the line in a shell that has read the environment first."""
        enter = next(one for one in documented() if "/env" in one)
        process = self.beside(name, ["bash", "-euc", f"{self.here(enter)}\n{self.here(line)}"])
        process.start()
        return process

    def done(self, line: str) -> str:
        """Runs the line; what it printed."""
        name = f"line-{len(list(self.folder.glob('line-*')))}"
        process = self.shell(line, name)
        self.until(lambda: not process.running, line)
        assert process.returncode == 0, self.log_of(name)
        return self.log_of(name)

    def events(self) -> list[dict[str, Any]]:
        """What the webhook receiver printed: it prints only what it has verified."""
        whole = self.log_of("receiver").rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def processes(self) -> dict[int, str]:
        """What of it lives, with its command line."""
        return processes_in(self.state)

    def worker(self, kind: str) -> int:
        """The process of that kind that `unmask up` started."""
        words = f" work {kind.replace('-', ' ')} "
        stats = dict[int, str]()
        for pid in (pid for pid, line in self.processes().items() if words in line):
            with suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
                stats[pid] = Path(f"/proc/{pid}/stat").read_text()
        (pid,) = [pid for pid, stat in stats.items() if int(stat.rpartition(")")[2].split()[1]) == self.process.pid]
        return pid


def processes_in(folder: Path) -> dict[int, str]:
    """Every process that runs in the folder or names it, with its command line."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = place.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(folder) in line or _folder(place).is_relative_to(folder):
                found[int(place.name)] = line
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _folder(process: Path) -> Path:
    """Where it runs; Postgres' own, which is another user's, may be hidden even from root."""
    try:
        return process.joinpath("cwd").readlink()
    except PermissionError:
        return Path("/")


@pytest.fixture(scope="module", params=["valkey", "rabbitmq"])
def up(request: pytest.FixtureRequest) -> Iterator[Up]:
    try:
        triton.require()
        if request.param == "rabbitmq":
            rabbitmq.binary()
    except ServerMissing as error:
        missing(str(error))
    with open_folder() as folder, ExitStack() as stack:
        one = Up(folder, request.param)
        stack.callback(one.process.stop, 60)
        one.start()
        lines = documented()
        (receiver,) = [line for line in lines if line.endswith("&")]
        receiving = one.shell(f"exec {receiver.removesuffix('&')}", "receiver")
        stack.callback(receiving.stop)
        yield one


def submissions() -> list[str]:
    return [line for line in documented() if "/submit_" in line]


def test_what_the_readme_shows_works(up: Up) -> None:
    doors = submissions()
    assert len(doors) == 2
    for line in doors:
        assert up.done(line) == ""
    up.until(lambda: len(up.events()) >= len(doors), "an event for each submission")
    data = [event["data"] for event in up.events()]
    assert [(one["label"], one["tenant"]) for one in data] == [("synthetic", "demo")] * 2
    (check,) = [line for line in documented() if "check_grpc" in line]
    assert " synthetic " in up.done(check)


def test_the_same_upload_again_is_no_second_case(up: Up) -> None:
    before = len(up.events())
    for line in submissions():
        up.done(line)
    up.done(submissions()[0].replace("upload-1", "upload-again"))
    up.until(lambda: len(up.events()) > before, "the event of the new one")
    assert len({event["data"]["case_id"] for event in up.events()}) == len(up.events()) == before + 1


def test_a_receiver_with_another_secret_takes_nothing(up: Up) -> None:
    port = free_port()
    (line,) = [line.removesuffix("&") for line in documented() if line.endswith("&")]
    line = re.sub(r'"\$\(.*\)"', "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldA==", line.replace("8080", str(port)))
    process = up.shell(f"exec {line}", "stranger")
    try:
        up.done(submissions()[0].replace("upload-1", "upload-stranger").replace("8080", str(port)))
        up.until(lambda: '" 400 ' in up.log_of("stranger"), "a refusal")
    finally:
        process.stop()
    assert not [one for one in up.log_of("stranger").splitlines() if one.startswith("{")]


def test_a_second_one_on_the_same_state_is_refused(up: Up) -> None:
    assert f"another one runs on {up.state}" in run(*up.arguments).complaint


def test_what_is_killed_comes_back(up: Up) -> None:
    for kind in ("ingest-align-classify-localize", "submit"):
        os.kill(up.worker(kind), signal.SIGKILL)
        up.until(lambda kind=kind: f"{kind} is started again" in up.log_of("up"), f"{kind} started again")
        assert f"{kind} died (exit code -9)" in up.log_of("up")
    before = len(up.events())
    up.done(submissions()[1].replace("upload-2", "upload-killed"))
    up.until(lambda: len(up.events()) > before, "the event after all")


def test_sigterm_ends_all_of_it_and_the_next_start_goes_on(up: Up) -> None:
    (case,) = {event["data"]["case_id"] for event in up.events()[:1]}
    token, kept = _told(up), (up.state / "kept.json").read_text()
    assert (up.state / "env").stat().st_mode & 0o777 == (up.state / "kept.json").stat().st_mode & 0o777 == 0o600
    up.process.send(signal.SIGTERM)
    up.process.send(signal.SIGINT)  # as `make` and a terminal both pass it on: no second wish
    assert up.process.wait(60) and up.process.returncode == 0, up.log_of("up")
    assert up.processes() == {}
    up.start()
    assert _told(up) == token and (up.state / "kept.json").read_text() == kept
    with Client(f"127.0.0.1:{up.port}", token=token) as client:
        found = client.get_verdict(case).verdict
    assert found is not None and found.label == "synthetic"


def test_nothing_outlives_kill_9(up: Up) -> None:
    assert len(up.processes()) > 20
    up.process.send(signal.SIGKILL)
    up.process.wait(5)
    wait_until(lambda: not up.processes(), 20, "all gone")


def _told(up: Up) -> str:
    return str(re.findall(r"^  token +(\S+)", up.log_of("up"), re.MULTILINE)[-1])


NO_RABBIT = """
import unmask_dev.rabbitmq as module
module._PROGRAM, module.shutil.which = module.Path("none"), lambda name: None
"""


@pytest.mark.parametrize(
    ("broken", "argument", "said"),
    [
        ("sys.modules['unmask_dev'] = None", "--broker=valkey", "run `make setup` in a checkout of Unmask"),
        (NO_RABBIT, "--broker=rabbitmq", "no RabbitMQ: install the system's rabbitmq-server"),
        ("", "--models=none", "there is no model repository at"),
        ("", "--port=80", "ports 80 to 86 are needed and not all free"),
    ],
    ids=["package", "server", "models", "port"],
)
def test_what_is_missing_is_one_line_and_nothing_stays(broken: str, argument: str, said: str) -> None:
    program = f"import sys\n{broken}\nfrom unmask.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    with open_folder() as folder:
        told = ["up", "--state", str(folder / "state"), "--models", str(make_repository(folder / "models"))]
        argv = [sys.executable, "-c", program, *told, f"--port={ports_in_a_row(_NEEDED_PORTS)}", argument]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=environment(), check=False, cwd=folder)
        assert (done.returncode, done.stdout) == (3 if "models" in argument else 2, ""), done.stderr
        (last,) = [
            line for line in done.stderr.splitlines() if not line.startswith(("unmask: starting ", "unmask: models run "))
        ]
        assert last.startswith("unmask: ") and said in last
        assert processes_in(folder / "state") == {}


def test_what_keeps_dying_is_started_later_each_time(tmp_path: Path) -> None:
    process = Process(["false"], folder=tmp_path, log=tmp_path / "false.log")
    process.start()
    lines: list[str] = []
    stack: Any = SimpleNamespace(servers={}, processes={"false": process})
    supervisor = Supervisor(stack, lines.append)
    deadline = time.monotonic() + 20
    while len(lines) < 5 and time.monotonic() < deadline:
        supervisor.look()
        time.sleep(0.02)
    assert [line.partition(" (/")[0] for line in lines] == [
        "false died (exit code 1); it is started again in 1 s",
        "false is started again",
        "false died (exit code 1); it is started again in 2 s",
        "false is started again",
        "false died (exit code 1); it is started again in 4 s",
    ]
