"""The real command against real servers and folders: batches streamed, answered by item, and looked at."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.command import COMMAND, Ran, environment, run
from tests.system.inside import inside
from tests.system.review_office import Office, served_office
from tests.system.tiny_models import face_picture
from unmask.bootstrap import Parts
from unmask.core.access import Scope
from unmask.core.domain import Priority, State
from unmask.settings import Settings


def lines(*bodies: dict[str, Any] | str) -> bytes:
    return b"".join((body if isinstance(body, str) else json.dumps(body)).encode() + b"\n" for body in bodies)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three faces and a text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.png").write_bytes(face_picture(red=255, blue=60, seed=n))
    (folder / "words.png").write_bytes(b"words")
    return folder


def mixed(pictures: Path) -> bytes:
    """Good lines and bad."""
    return lines(
        *({"source": {"path": str(pictures / f"{n}.png")}, "labels": {"post": str(n)}} for n in range(3)),
        "nonsense",
        {"path": str(pictures / "words.png"), "idempotency_key": "w"},
        {"url": "https://platform.example/a.jpg"},
        {"blob": "other/a.png"},
        {"path": str(pictures / "none.png")},
        {"path": str(pictures / "0.png"), "idempotency_key": "w"},
    )


ERRORS = {4: "bad_field", 6: "bad_field", 7: "bad_field", 8: "bad_image"}


def answers(ran: Ran, count: int) -> dict[int, dict[str, Any]]:
    """By line, each once."""
    found = {line["line"]: line for line in ran.lines}
    assert len(ran.lines) == len(found) == count
    return found


def check_mixed(ran: Ran) -> dict[int, dict[str, Any]]:
    found = answers(ran, 9)
    conflict = {n for n in (5, 9) if found[n].get("error") == "idempotency_conflict"}
    assert len(conflict) == 1  # two pictures under one key: whichever came first is the case's
    refused = {n: line["error"] for n, line in found.items() if "error" in line and n not in conflict}
    assert refused == ERRORS and ran.code == 1
    return found


def test_into_a_folder(tiny: Path, tmp_path: Path, pictures: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "batch.jsonl"
    file.write_bytes(mixed(pictures))
    told = ("--name", "monday", "--state", state, "--models", tiny)
    first = run("batch", "submit", file, *told)
    found = check_mixed(first)
    assert first.complaint == "unmask: 4 accepted, 3 bad_field, 1 bad_image, 1 idempotency_conflict"
    # The whole file again: the cases are there already.
    again = answers(run("batch", "submit", "-", *told, stdin=file.read_bytes()), 9)
    assert {n: again[n]["case"] for n in (1, 2, 3)} == {n: found[n]["case"] for n in (1, 2, 3)}

    shown = inside("batch", "show", "monday", "--state", state)
    assert shown.out.decode().startswith("monday: 4 of 4 ended (100.0%): ")
    (look,) = inside("batch", "show", "monday", "--json", "--watch", "--state", state).lines
    assert (look["total"], look["ended"], look["done"], look["per_second"]) == (4, 4, 1.0, None)
    parts = Parts(Settings(state=state))
    case = parts.store.case("default", found[1]["case"])
    assert (case.priority, case.batch, dict(case.labels), case.state) == (
        Priority.BATCH,
        "monday",
        {"post": "0"},
        State.DECIDED,
    )
    parts.database.close()
    assert "no case belongs" in inside("batch", "show", "tuesday", "--state", state).complaint
    assert "no case belongs" in inside("batch", "show", "monday", "--tenant", "other", "--state", state).complaint


@pytest.fixture
async def office(tiny: Path, tmp_path: Path) -> AsyncIterator[Office]:
    async with served_office(tiny, tmp_path / "served") as office:
        yield office


async def in_process_of_its_own(*arguments: str | Path, stdin: bytes = b"") -> Ran:
    return await asyncio.to_thread(lambda: run(*arguments, stdin=stdin))


async def test_over_grpc_with_a_token(office: Office, pictures: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(office.token("acme", "uploader", [Scope.SUBMIT, Scope.READ]) + "\n")
    server = ("--server", office.address, "--token-file", token)
    ran = await in_process_of_its_own("batch", "submit", "-", "--name", "monday", *server, stdin=mixed(pictures))
    found = check_mixed(ran)
    case = office.parts.store.case("acme", found[2]["case"])
    assert (case.priority, case.batch, dict(case.labels)) == (Priority.BATCH, "monday", {"post": "1"})
    shown = await in_process_of_its_own("batch", "show", "monday", "--json", *server)
    assert shown.lines[0]["total"] == 4
    rival = office.token("rival", "uploader")
    theirs = await in_process_of_its_own("batch", "show", "monday", "--server", office.address, "--token", rival)
    assert theirs.code == 1 and "no case belongs" in theirs.complaint


async def test_what_ends_the_command(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_bytes(lines({"blob": "acme/a.png"}))
    submit = ("batch", "submit", file, "--name", "b")
    for arguments, code, says in (
        ((*submit, "--server", office.address), 1, "no token"),
        ((*submit, "--server", office.address, "--token", "unm_wrong"), 1, "not valid"),
        ((*submit, "--server", "127.0.0.1:1"), 3, ""),
        ((*submit, "--server", "platform.example:443", "--token", "t", "--ca", tmp_path / "none.pem"), 2, "none.pem"),
        ((*submit, "--server", office.address, "--token", "a", "--token-file", file), 2, "one of them"),
        (submit, 2, "name a server"),
        (("batch", "submit", tmp_path / "none.jsonl", "--name", "b", "--server", office.address), 2, "cannot be read"),
        (("batch", "submit", file, "--name", "", "--server", office.address), 2, "--name"),
        (("batch", "submit", file, "--name", "a\nb", "--server", office.address), 2, "--name"),
    ):
        ran = await asyncio.to_thread(inside, *arguments)
        assert ran.code == code and says in ran.complaint and not ran.out, arguments


async def test_memory_does_not_grow_with_the_batch(office: Office) -> None:
    """Peak of the command's process; every line crosses the wire and is refused there, each third here."""
    token = office.token("acme", "uploader")

    def bodies(count: int) -> Iterator[bytes]:
        for n in range(count):
            yield b"{\n" if n % 3 == 0 else lines({"url": f"https://platform.example/{n}.jpg", "labels": {"post": str(n)}})

    few, many = [await asyncio.to_thread(peak, office.address, token, bodies(count), count) for count in (300, 9000)]
    print(f"peak of 300 lines {few / 1024:.1f} MiB, of 9 000 lines {many / 1024:.1f} MiB")
    assert many < few + 12 * 1024


def peak(address: str, token: str, bodies: Iterable[bytes], count: int) -> int:
    """The command's largest resident set in KiB."""
    command = [*COMMAND, "batch", "submit", "-", "--name", "b", "--server", address, "--token", token]
    measured = [sys.executable, "-c", _MEASURE, *command]
    with subprocess.Popen(
        measured, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None

        def feed() -> None:
            assert process.stdin is not None
            for body in bodies:
                process.stdin.write(body)
            process.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        seen = {json.loads(line)["line"] for line in process.stdout}
        feeder.join()
        said = process.stderr.read().decode().splitlines()
    assert seen == set(range(1, count + 1)) and "bad_field" in said[0], said
    return int(said[-1])


_MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""
