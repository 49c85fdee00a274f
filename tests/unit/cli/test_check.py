"""What `check` does between reading and printing: order, pictures that change under it, the progress bar."""

from __future__ import annotations

import argparse
import errno
import os
import pty
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.command import COMMAND, environment
from tests.system.tiny_models import dark_picture, face_picture, make_repository
from unmask import Unmask
from unmask.cli.check import _answers, _Drawing
from unmask.cli.inputs import Input
from unmask.cli.output import Answer
from unmask.core.errors import BadImage


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("tiny") / "models")


@pytest.fixture(scope="module")
def unmask(repository: Path) -> Iterator[Unmask]:
    with Unmask(models=repository, threads=1) as made:
        yield made


def test_answers_keep_the_order_of_inputs_with_errors_anywhere(unmask: Unmask) -> None:
    wrong = BadImage("no")
    pattern = "xx.x..xxx.x" + "." * 12 + "xx"
    inputs = [Input(f"{i}", None, wrong) if c == "x" else Input(f"{i}", dark_picture(i)) for i, c in enumerate(pattern)]
    found = list(_answers(unmask, iter(inputs)))
    assert [item for item, _ in found] == inputs
    for item, answer in found:
        assert answer.name == item.name
        assert (answer.error is wrong) == (item.source is None)
        assert (answer.verdict is None) == (item.source is None)


def test_only_refused_inputs_need_no_model(unmask: Unmask) -> None:
    assert len(list(_answers(unmask, [Input("a", None, BadImage("no"))] * 3))) == 3


@pytest.mark.parametrize("then", ["gone", "another", "pipe", "folder"])
def test_a_picture_that_changes_after_its_verdict_is_not_drawn_and_ends_nothing(
    unmask: Unmask, tmp_path: Path, capsys: pytest.CaptureFixture[str], then: str
) -> None:
    path, page = tmp_path / "a.png", tmp_path / "page.html"
    path.write_bytes(face_picture())
    answer = Answer(str(path), unmask.check(path), None)
    path.unlink()
    if then == "another":
        path.write_bytes(dark_picture())
    elif then == "pipe":
        os.mkfifo(path)
    elif then == "folder":
        path.mkdir()
    with _Drawing(unmask, argparse.Namespace(overlay=tmp_path / "out", report=page, heat=False)) as drawing:
        drawing.add(Input(str(path), path), answer)
    assert "not drawn" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
    text = page.read_text()
    assert "no picture to show" in text
    assert "1 manipulated" in text, "the verdict stands"


def test_the_page_is_written_when_the_run_breaks(unmask: Unmask, tmp_path: Path) -> None:
    def broken() -> None:
        with _Drawing(unmask, argparse.Namespace(overlay=None, report=tmp_path / "page.html", heat=False)) as drawing:
            drawing.add(Input("a", None, BadImage("no")), Answer("a", None, BadImage("no")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert "1 refused" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("stdout_too", "bar"), [(False, True), (True, False)])
def test_the_bar_is_shown_on_a_terminal_when_results_go_elsewhere(
    repository: Path, tmp_path: Path, stdout_too: bool, bar: bool
) -> None:
    (tmp_path / "a.png").write_bytes(dark_picture())
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [*COMMAND, "check", "--models", str(repository), str(tmp_path)]
    with (
        (tmp_path / "out.txt").open("wb") as out,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=theirs if stdout_too else out, stderr=theirs, env=environment()
        ) as process,
    ):
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError as error:  # how a terminal says that nobody writes any more
                assert error.errno == errno.EIO
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    assert (b"1 pictures [" in shown) == bar
    assert b"no_face" in (shown if stdout_too else (tmp_path / "out.txt").read_bytes())
