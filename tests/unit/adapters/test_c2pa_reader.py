"""The reader of Content Credentials: bombs end its child and nothing else, forks share nothing, bad anchors are said."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests import pictures
from tests.conftest import missing
from unmask.adapters import c2pa_reader
from unmask.adapters.c2pa_reader import C2paReader
from unmask.core.errors import BadConfig

if not c2pa_reader.is_available():
    missing("c2pa-python (extra service) is not installed")

from tests.signed_pictures import Authority, forged

OURS = Authority()


@pytest.fixture
def reader() -> Iterator[C2paReader]:
    made = C2paReader(OURS.anchor)
    yield made
    made.close()


def state(answer: tuple[str, str]) -> str:
    """The library's verdict in a report."""
    outcome, text = answer
    assert outcome == "report", answer
    return str(json.loads(text)["validation_state"])


def children() -> set[int]:
    """Processes that this one has started and that run."""
    found = set[int]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def test_outcomes(reader: C2paReader) -> None:
    assert state(reader.read(OURS.signed(), "PNG")) == "Trusted"
    assert reader.read(pictures.png(), "PNG") == ("none", "")
    assert reader.read(pictures.encode(pictures.scene(), "BMP"), "BMP") == ("none", "")
    outcome, said = reader.read(pictures.png_with({b"caBX": b"rubbish"}), "PNG")
    assert outcome == "broken" and said


def memory_of(pid: int) -> int:
    """The most that a process has held, in MB."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def test_a_manifest_that_says_it_has_gigabytes_gets_none(reader: C2paReader) -> None:
    """Without limits the library takes 4 GB for it."""
    before = children()
    reader.read(forged(OURS, b"\x5a\xff\xff\xff\xf0", bytes(70_000)), "PNG")
    (child,) = children() - before
    assert memory_of(child) < 512


def test_a_memory_bomb_ends_the_child_and_the_next_file_is_read() -> None:
    before, small = children(), C2paReader(megabytes=64)
    number = 900_000
    assert small.read(forged(OURS, b"\x9a" + number.to_bytes(4, "big"), b"\1" * number), "PNG") == ("stopped", "")
    assert children() == before
    assert state(small.read(OURS.signed(), "PNG")) == "Valid"
    small.close()


def test_what_takes_too_long_is_stopped() -> None:
    slow = OURS.signed(assertions=[{"label": "org.test.x", "data": {"x": i}} for i in range(1500)])
    before, hasty = children(), C2paReader(seconds=0.01)
    assert hasty.read(slow, "PNG") == ("stopped", "")
    assert children() == before


def test_a_picture_at_the_limit_of_length_is_read(reader: C2paReader) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2500, 2600, 3), np.uint8)
    large = OURS.sign(pictures.png(pixels, compress_level=0))
    assert len(large) > 19_000_000
    assert state(reader.read(large, "PNG")) == "Trusted"


def test_a_killed_child_is_replaced(reader: C2paReader) -> None:
    before = children()
    reader.read(OURS.signed(), "PNG")
    (child,) = children() - before
    os.kill(child, signal.SIGKILL)
    assert reader.read(OURS.signed(), "PNG")[0] in {"stopped", "report"}
    assert state(reader.read(OURS.signed(), "PNG")) == "Trusted"


def test_the_child_ends_with_its_reader() -> None:
    before, made = children(), C2paReader()
    made.read(OURS.signed(), "PNG")
    assert len(children() - before) == 1
    del made
    assert children() == before


def test_the_child_can_open_nothing(reader: C2paReader) -> None:
    before = children()
    reader.read(OURS.signed(), "PNG")
    (child,) = children() - before
    limits = Path(f"/proc/{child}/limits").read_text()
    assert "Max open files            0                    0" in limits
    assert b"UNMASK" not in Path(f"/proc/{child}/environ").read_bytes()


def test_threads_get_their_own_answers(reader: C2paReader) -> None:
    files = {name: OURS.signed(program=name) for name in "abcdefgh"}
    with ThreadPoolExecutor(4) as pool:
        for name, (_, text) in zip(files, pool.map(lambda name: reader.read(files[name], "PNG"), files), strict=True):
            assert f'"name": "{name}"' in text


def test_a_forked_process_has_a_child_of_its_own(reader: C2paReader) -> None:
    """As the queue's workers do: the parent may have read pictures before it forks."""
    signed = OURS.signed()
    assert state(reader.read(signed, "PNG")) == "Trusted"
    before = children()
    pid = os.fork()
    if pid == 0:
        try:
            own = state(reader.read(signed, "PNG")) == "Trusted" and len(children()) == 1
            reader.close()
            os._exit(0 if own else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert children() == before
    assert state(reader.read(signed, "PNG")) == "Trusted"


@pytest.mark.parametrize(
    "anchors",
    ["rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\u00e4"],
    ids="word broken sign".split(),
)
def test_anchors_that_are_no_certificates_are_refused(anchors: str) -> None:
    with pytest.raises(BadConfig, match="trust anchors"):
        C2paReader(anchors)


def test_anchors_may_stand_between_remarks(reader: C2paReader) -> None:
    made = C2paReader(f"# trusted by us\nsubject=Test\n{Authority().anchor}\n# and\n{OURS.anchor}")
    assert state(made.read(OURS.signed(), "PNG")) == "Trusted"
    made.close()


def test_a_child_that_does_not_start_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    made = C2paReader()
    assert [made.read(OURS.signed(), "PNG") for _ in range(3)] == [("none", "")] * 3
    assert len(caplog.records) == 1
    assert "not verified" in caplog.text
