"""The command's start: instant, light, and its codes by kind of error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.command import COMMAND, environment, run
from unmask.cli.main import NOT_JUDGED, REFUSED, USAGE, exit_code, main, parser
from unmask.core import errors

HEAVY = "numpy cv2 onnxruntime PIL onnx sqlalchemy yaml jinja2 grpc tqdm skimage openvino"


_START = """
from unmask.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.parametrize("words", ["--help", "check --help", "--version", "policy test --help"])
def test_help_and_version_load_nothing_heavy(words: str) -> None:
    """What is not imported takes no time; a bound on seconds would fail on a busy machine."""
    code = f"import sys; sys.argv[1:] = {words.split()}" + _START + f"print(sorted(set(sys.modules) & set({HEAVY.split()})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    *said, loaded = done.stdout.splitlines()
    assert said
    assert loaded == "[]"


def test_the_help_names_every_verb_and_the_codes() -> None:
    text = parser().format_help()
    for verb in ("check", "demo", "serve", "models", "policy"):
        assert f"    {verb} " in text
    assert b"exit codes: 0 every picture got a verdict" in run("check", "--help", COLUMNS="200").out


def test_the_code_of_every_error_there_is() -> None:
    def kinds(kind: type[errors.UnmaskError]) -> set[type[errors.UnmaskError]]:
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    codes = {kind.__name__: exit_code(kind("x")) for kind in kinds(errors.UnmaskError)}
    assert {name for name, code in codes.items() if code == USAGE} == {"BadConfig", "BadPolicy"}
    assert codes["BadImage"] == REFUSED
    assert {codes[name] for name in ("UnmaskError", "BadModel", "StoreCorrupt", "Unavailable", "DeadlineExceeded")} == {
        NOT_JUDGED
    }


def test_main_is_called_by_the_console_script_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", "--models", str(tmp_path / "gone\x1b"), "a.png"]) == USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("unmask: ")
    assert "\x1b" not in said.err


def test_the_version_is_printed_alone() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split()[0] == "unmask"
    assert len(done.stdout.splitlines()) == 1
