"""What is wrong around the pictures: models, policies, settings, pipes, permissions; codes and one line on stderr."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.command import COMMAND, environment, run
from tests.system.tiny_models import face_picture


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    path.write_bytes(face_picture(red=210, blue=10))
    return path


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


MODEL_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "corrupt model": (lambda root: _flip(root / "localizer/1/model.onnx"), "localizer/1/model.onnx: sha256"),
    "missing model": (lambda root: (root / "detector/1/model.onnx").unlink(), "detector/1/model.onnx: missing"),
    "missing version": (lambda root: shutil.rmtree(root / "face_detector"), "face_detector/1/card.json: missing"),
    "card of another": (lambda root: shutil.copy(root / "localizer/1/card.json", root / "detector/1/card.json"), "detector/1"),
    "card is no JSON": (lambda root: (root / "detector/1/card.json").write_text("{"), "detector/1/card.json"),
    "no release": (lambda root: (root / "release.json").unlink(), "release.json: missing"),
}


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_a_fault_of_the_models_is_3_names_the_file_and_every_picture_has_its_line(
    tiny: Path, tmp_path: Path, picture: Path, fault: str
) -> None:
    root = Path(shutil.copytree(tiny, tmp_path / "models"))
    change, said = MODEL_FAULTS[fault]
    change(root)
    ran = run("check", "--json", "--models", root, picture)
    assert ran.code == 3
    text = ran.lines[0]["detail"] if ran.out else ran.complaint
    assert said in text
    assert (ran.err == "") == bool(ran.out)


@pytest.mark.parametrize(("text", "said"), [("{", "release.json"), ('{"schema": "other/1"}', "schema"), ("[]", "release.json")])
def test_a_broken_release_is_3_before_any_picture(tiny: Path, tmp_path: Path, picture: Path, text: str, said: str) -> None:
    root = Path(shutil.copytree(tiny, tmp_path / "models"))
    (root / "release.json").write_text(text)
    ran = run("check", "--json", "--models", root, picture)
    assert (ran.code, ran.out) == (3, b"")
    assert said in ran.complaint


def test_a_release_that_names_an_unknown_threshold_or_lacks_one_is_3(tiny: Path, tmp_path: Path, picture: Path) -> None:
    root = Path(shutil.copytree(tiny, tmp_path / "models"))
    _edit(root / "release.json", thresholds={"synthetic": 0.5})
    assert run("check", "--models", root, picture).code == 3


def test_no_model_repository_is_wrong_configuration(tmp_path: Path, picture: Path) -> None:
    for ran in (
        run("check", "--json", "--models", tmp_path / "gone", picture),
        run("check", "--json", picture, UNMASK_MODELS=str(tmp_path / "gone")),
    ):
        assert (ran.code, ran.out) == (2, b"")
        assert "gone" in ran.complaint


_START = "schema: unmask.policy/1\nname: p\nrules:\n"
POLICIES = {
    "yaml": (_START + "\t- when: {label: real}\n", "line 4"),
    "action": (_START + "  - when: {label: real}\n    then: forgive\notherwise: review\n", "line 5"),
    "key": (_START + "  - when: {label: real}\n    than: allow\notherwise: review\n", "line 5"),
}


@pytest.mark.parametrize("fault", POLICIES)
def test_a_bad_policy_is_2_and_its_line_is_named(tiny: Path, tmp_path: Path, picture: Path, fault: str) -> None:
    text, said = POLICIES[fault]
    (tmp_path / "p.yaml").write_text(text)
    ran = run("check", "--json", "--models", tiny, "--policy", tmp_path / "p.yaml", picture)
    assert (ran.code, ran.out) == (2, b"")
    assert said in ran.complaint


def test_a_missing_or_binary_policy_is_2(tiny: Path, tmp_path: Path, picture: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("p.yaml", "gone.yaml", "hostile\x1b[31m.yaml"):
        ran = run("check", "--models", tiny, "--policy", tmp_path / name, picture)
        assert (ran.code, ran.out) == (2, b"")
        assert "\x1b" not in ran.complaint


def test_a_bad_setting_is_2_and_named(tiny: Path, picture: Path) -> None:
    ran = run("check", "--models", tiny, picture, UNMASK_MAX_PIXELS="many")
    assert ran.code == 2
    assert "UNMASK_MAX_PIXELS" in ran.complaint


@pytest.mark.parametrize("option", ["--state", "--overlay", "--report"])
def test_a_place_that_cannot_be_written_is_2_before_any_picture(tiny: Path, tmp_path: Path, picture: Path, option: str) -> None:
    (tmp_path / "file").write_text("in the way")
    ran = run("check", "--json", "--models", tiny, option, tmp_path / "file/below", picture)
    assert (ran.code, ran.out) == (2, b"")
    assert "file/below" in ran.complaint


def test_a_report_that_is_a_folder_is_2_before_any_picture(tiny: Path, tmp_path: Path, picture: Path) -> None:
    ran = run("check", "--json", "--models", tiny, "--report", tmp_path, picture)
    assert (ran.code, ran.out) == (2, b"")


def test_a_state_that_is_no_database_is_not_the_pictures_fault(tiny: Path, tmp_path: Path, picture: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/unmask.sqlite3").write_bytes(b"this is no database at all" * 100)
    ran = run("check", "--json", "--models", tiny, "--state", tmp_path / "state", picture)
    assert ran.code in {2, 3}
    assert "unmask.sqlite3" in ran.complaint or "case store" in ran.complaint


@pytest.mark.parametrize("words", [(), ("check",), ("chekc", "a"), ("check", "--bogus", "a"), ("policy",)])
def test_wrong_usage_is_2_with_the_usage_shown(words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.startswith("usage: unmask")


def test_control_characters_on_the_command_line_are_not_echoed() -> None:
    ran = run("check", "a.png", "--\x1b[31mred")
    assert ran.code == 2
    assert "\x1b" not in ran.err


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="unmask-"))
    folder.chmod(0o755)
    yield folder
    for place in folder.glob("*/*"):
        place.chmod(0o700)
    shutil.rmtree(folder)


def test_unreadable_files_and_folders_are_refused(tiny: Path, open_folder: Path, picture: Path) -> None:
    inputs = open_folder / "in"
    (inputs / "locked").mkdir(parents=True)
    models = shutil.copytree(tiny, open_folder / "models")
    for name in ("open.png", "secret.png"):
        shutil.copy(picture, inputs / name)
    for locked in (inputs / "secret.png", inputs / "locked"):
        locked.chmod(0)
    user: list[str] = []
    if os.geteuid() == 0:  # root reads everything
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        try:
            subprocess.run([*user, COMMAND[0], "-c", "import numpy"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("as root this needs setpriv, and an interpreter that another user can run")
    command = [*user, *COMMAND, "check", "--json", "--models", str(models), str(inputs)]
    done = subprocess.run(command, capture_output=True, env=environment(HOME="/tmp"), check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1, done.stderr
    assert [line.get("label") or line["detail"] for line in lines] == [
        "synthetic", "cannot be read: Permission denied", "the folder cannot be listed: Permission denied"
    ]  # fmt: skip


def test_a_reader_that_leaves_is_no_error_and_not_spoken_of(tiny: Path, picture: Path) -> None:
    for option in ("--json", "--models"):
        command = [*COMMAND, "check", "--models", str(tiny), option, *([str(tiny)] if option == "--models" else [])]
        with subprocess.Popen(
            [*command, *[str(picture)] * 60], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(30) == 0


def test_a_full_disk_behind_stdout_is_said_in_one_line(tiny: Path, picture: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "check", "--models", str(tiny), str(picture)],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.decode().splitlines() == ["unmask: [Errno 28] No space left on device"]


def test_closed_stdin_is_a_refused_input(tiny: Path) -> None:
    command = " ".join([*COMMAND, "check", "--json", "--models", str(tiny), "-", "<&-"])
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads(done.stdout)["error"] == "bad_image"


def test_ctrl_c_ends_with_130_quietly_and_leaves_the_page(tiny: Path, tmp_path: Path, picture: Path) -> None:
    page = tmp_path / "page.html"
    with subprocess.Popen(
        [*COMMAND, "check", "--json", "--models", str(tiny), "--report", str(page), *[str(picture)] * 400],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == b""
    assert time.monotonic() - started < 10
    assert page.read_text().endswith("</html>\n")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
