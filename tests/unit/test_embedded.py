"""The library: answers in order, few in hand, many threads, errors by their kind, nothing told to anybody."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pictures import text_as_jpeg
from tests.system.tiny_models import dark_picture, face_picture, make_repository
from unmask import Unmask, Verdict, errors

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("tiny") / "models")


@pytest.fixture(scope="module")
def unmask(repository: Path) -> Iterator[Unmask]:
    with Unmask(models=repository, threads=2) as made:
        yield made


def _timeless(verdict: Verdict) -> Verdict:
    """What two askings of the same bytes must agree on."""
    return replace(verdict, id="", timings_ms={}, path=None)


def test_bytes_and_paths_give_the_same_verdict(unmask: Unmask, tmp_path: Path) -> None:
    data, path = face_picture(red=210, blue=10), tmp_path / "a.png"
    path.write_bytes(data)
    from_bytes, from_path, from_text = unmask.check(data), unmask.check(path), unmask.check(str(path))
    assert (from_bytes.label, from_bytes.path, from_path.path) == ("synthetic", None, str(path))
    assert _timeless(from_bytes) == _timeless(from_path) == _timeless(from_text)


@pytest.mark.parametrize(
    ("picture", "said"),
    [(b"", "empty"), (text_as_jpeg(), "not an image"), ("/dev/zero", "regular"), (ROOT, "folder"), ("gone", "not found")],
    ids="empty text device folder gone".split(),
)
def test_what_is_no_picture_is_refused(unmask: Unmask, picture: bytes | str | Path, said: str) -> None:
    with pytest.raises(errors.BadImage, match=said):
        unmask.check(picture)


def test_a_name_with_a_nul_or_too_long_is_refused_not_a_crash(unmask: Unmask) -> None:
    for name in ("a\0b.png", "x" * 5000):
        with pytest.raises(errors.BadImage):
            unmask.check(name)


def test_a_long_file_is_refused_by_the_limit(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_MAX_BYTES", "100")
    (tmp_path / "a.png").write_bytes(bytes(101))
    small = Unmask(models=repository)
    assert (small.byte_limit, small.limits.bytes) == (100, 100)
    for picture in (tmp_path / "a.png", bytes(101)):
        with pytest.raises(errors.BadImage, match="100"):
            small.check(picture)
    (tmp_path / "a.png").write_bytes(bytes(100))
    assert len(small.read(tmp_path / "a.png")) == 100


def test_no_picture_is_held_after_its_answer(unmask: Unmask) -> None:
    """Also not until the garbage collector comes by: pictures are what takes memory here."""
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        answers = [len(str(answer.error)) for answer in unmask.check_many(bytes(4_000_000 + i) for i in range(20))]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(answers) == 20
    assert held < 6_000_000


def test_a_file_over_the_limit_is_not_read(unmask: Unmask, tmp_path: Path) -> None:
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    tracemalloc.start()
    with pytest.raises(errors.BadImage, match="20971520 bytes"):
        unmask.check(tmp_path / "huge.jpg")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_what_is_wrong_with_the_setup_is_said_at_once(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("schema: unmask.policy/1\nname: p\nrules: []\notherwise: forgive\n")
    with pytest.raises(errors.BadConfig, match="gone"):
        Unmask(models=tmp_path / "gone")
    with pytest.raises(errors.BadModel, match=r"release\.json"):
        Unmask(models=tmp_path)
    with pytest.raises(errors.BadPolicy, match="line 4"):
        Unmask(models=repository, policy=tmp_path / "p.yaml")


def test_check_many_keeps_the_order_with_refused_ones_between(unmask: Unmask) -> None:
    pictures = [face_picture(seed=i) if i % 3 else (dark_picture(i) if i % 2 else b"") for i in range(24)]
    answers = list(unmask.check_many(iter(pictures)))
    assert [answer.source for answer in answers] == pictures
    for index, answer in enumerate(answers):
        if index % 3:
            assert answer.verdict is not None
            assert (answer.error, answer.verdict.label) == (None, "manipulated")
        elif index % 2:
            assert answer.verdict is not None
            assert answer.verdict.label == "no_face"
        else:
            assert (answer.verdict, type(answer.error)) == (None, errors.BadImage)


def test_check_many_holds_few_pictures_at_a_time(unmask: Unmask) -> None:
    taken = 0

    def pictures() -> Iterator[bytes]:
        nonlocal taken
        for index in range(200):
            taken += 1
            yield dark_picture(index)

    answers = unmask.check_many(pictures())
    for answered in range(1, 41):
        next(answers)
        assert taken - answered <= 2 * (2 + 1), "two threads and a spare, each with one picture in hand and one waiting"
    answers.close()  # type: ignore[attr-defined]
    assert taken < 50


def test_leaving_check_many_early_leaves_no_thread(unmask: Unmask) -> None:
    before = threading.active_count()
    for _ in unmask.check_many(dark_picture(i) for i in range(50)):
        break
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("check")]


def test_an_error_of_the_callers_iterator_reaches_the_caller(unmask: Unmask) -> None:
    def pictures() -> Iterator[bytes]:
        yield dark_picture()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(unmask.check_many(pictures()))


def test_eight_threads_get_what_one_gets(unmask: Unmask) -> None:
    pictures = [face_picture(red=(40 * i) % 256, blue=(90 * i) % 256, seed=i) for i in range(12)]
    alone = [_timeless(unmask.check(picture)) for picture in pictures]
    start = threading.Barrier(8)

    def work(shift: int) -> list[Verdict]:
        start.wait()
        order = [(index + shift) % len(pictures) for index in range(len(pictures))]
        found = {index: _timeless(unmask.check(pictures[index])) for index in order}
        return [found[index] for index in range(len(pictures))]

    with ThreadPoolExecutor(8) as pool:
        for together in pool.map(work, range(8)):
            assert together == alone


def test_eight_threads_share_one_state(repository: Path, tmp_path: Path) -> None:
    pictures = [face_picture(seed=i % 4) for i in range(32)]
    with Unmask(models=repository, state=tmp_path / "state", threads=2) as keeping, ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(keeping.check, pictures))
    assert len({verdict.id for verdict in verdicts}) == 32
    assert len({verdict.sha256 for verdict in verdicts}) == 4
    for verdict in verdicts:
        assert verdict.label == "manipulated"
    with Unmask(models=repository, state=tmp_path / "state") as later:
        again = later.check(pictures[0])
    assert _timeless(again) == _timeless(verdicts[0])
    assert "align" not in again.timings_ms


def test_nothing_is_written_or_reported_outside_the_state(repository: Path, tmp_path: Path) -> None:
    """ONNX Runtime would keep an identifier of the machine in HOME, and report to its maker."""
    code = f"from unmask import Unmask; Unmask(models={str(repository)!r}).check({str(tmp_path / 'a.png')!r})"
    (tmp_path / "a.png").write_bytes(face_picture())
    (tmp_path / "home").mkdir()
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT / "services"),
    }
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    assert list((tmp_path / "home").iterdir()) == []
