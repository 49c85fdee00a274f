"""A real Triton at its worst: down, slow, with a dead model process, with other models than the cards say; and its launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import trustme

from tests.system.triton_backend import triton_over, write_configs
from tests.unit.adapters.small_models import SIZE, SUMS, TOTAL, add_version, card_of, summing_model
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_triton import Tls, TritonModels
from unmask.core.cards import ModelRef
from unmask.core.deadlines import within
from unmask.core.errors import BadConfig, BadModel, DeadlineExceeded, Unavailable, UnmaskError
from unmask.rpc.serving import probe_model
from unmask_dev.process import ServerFailed, ServerMissing, wait_until
from unmask_dev.triton import TlsFiles, Triton

IMAGE = {"image": np.ones((2, SIZE, SIZE, 3), dtype=np.uint8)}


def one_model(root: Path, model: bytes, **changes: Any) -> ModelRef:
    ref = add_version(root, card_of(model, **changes), model)
    write_configs(root)
    return ref


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("summing")
    one_model(root, summing_model())
    return root


@pytest.fixture(scope="module")
def own(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A Triton that only this module uses."""
    with triton_over(tmp_path_factory.mktemp("own"), repository) as server:
        yield server


@pytest.fixture
def hurt(own: Triton) -> Iterator[Triton]:
    """The same, to do harm to; as good as new afterwards."""
    yield own
    own.slow(0)
    own.kill()
    own.start()


@pytest.fixture
def ref(repository: Path) -> ModelRef:
    return next(ModelRepository(repository).versions())


def client(server: Triton, **options: Any) -> TritonModels:
    return TritonModels(ModelRepository(server.models), server.url, **options)


def assert_answers(models: TritonModels, ref: ModelRef) -> None:
    assert models.infer(ref, IMAGE)["total"].tolist() == [48.0, 48.0]


def in_time(seconds: float, ask: Callable[[], object], kind: type[UnmaskError], match: str) -> None:
    """It raises exactly that, before `seconds` are over."""
    started = time.monotonic()
    with pytest.raises(kind, match=match) as caught:
        ask()
    assert type(caught.value) is kind
    assert time.monotonic() - started < seconds


def test_down_is_unavailable_at_once_and_up_again_is_soon_noticed(hurt: Triton, ref: ModelRef) -> None:
    models = client(hurt)
    assert_answers(models, ref)
    hurt.kill()
    for ask in (lambda: models.infer(ref, IMAGE), lambda: models.loaded(ref), lambda: client(hurt).load(ref)):
        in_time(3.0, ask, Unavailable, f"Triton at {hurt.url}")
    hurt.start()
    # A new client does not share the old one's pause before it tries again.
    assert_answers(client(hurt), ref)
    wait_until(lambda: assert_answers(models, ref) is None, 5.0, "connecting again")


def test_a_server_that_stands_still_is_given_up_at_the_clients_limit(hurt: Triton, ref: ModelRef) -> None:
    models = client(hurt, seconds=0.4)
    assert_answers(models, ref)
    os.kill(hurt.process.pid, signal.SIGSTOP)
    in_time(1.5, lambda: models.infer(ref, IMAGE), Unavailable, r"model summing/1: .* did not answer within 0\.4 s")
    # Nor does a new channel wait for ever for a server that accepts and says nothing.
    in_time(1.5, lambda: client(hurt, seconds=0.4).loaded(ref), Unavailable, f"{hurt.url}")


def test_a_slow_server_is_given_up_at_the_clients_limit(hurt: Triton, ref: ModelRef) -> None:
    models = client(hurt, seconds=0.4)
    assert_answers(models, ref)
    hurt.slow(3000)
    in_time(1.5, lambda: models.infer(ref, IMAGE), Unavailable, r"model summing/1: .* did not answer within 0\.4 s")


def test_a_nearer_deadline_of_the_caller_is_what_counts(hurt: Triton, ref: ModelRef) -> None:
    models = client(hurt, seconds=20.0)
    assert_answers(models, ref)
    hurt.slow(3000)
    with within(0.3):
        in_time(1.5, lambda: models.infer(ref, IMAGE), DeadlineExceeded, "model summing/1: the call's deadline ran out")


def test_a_deadline_counts_for_all_parts_of_a_large_request(hurt: Triton, ref: ModelRef) -> None:
    models = client(hurt, seconds=20.0)
    assert_answers(models, ref)
    hurt.slow(200)
    many = {"image": np.ones((8 * 20, SIZE, SIZE, 3), dtype=np.uint8)}
    with within(0.7):
        in_time(2.0, lambda: models.infer(ref, many), DeadlineExceeded, "ran out")


def test_a_dead_model_process_is_found_by_the_probe_though_triton_says_ready(hurt: Triton, ref: ModelRef) -> None:
    models = client(hurt)
    probe_model(models, ref)
    assert hurt.kill_stubs("summing") == 2
    in_time(5.0, lambda: probe_model(models, ref), Unavailable, "is not healthy")
    assert models.loaded(ref)
    models.unload(ref)
    models.load(ref)
    probe_model(models, ref)


def test_a_version_that_is_not_loaded_is_refused_by_name(hurt: Triton, ref: ModelRef) -> None:
    models = client(hurt)
    models.unload(ref)
    in_time(2.0, lambda: models.infer(ref, IMAGE), Unavailable, "model summing/1: .* not at ready state")


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (
            summing_model(size=6),
            {"input": card_of(b"")["input"] | {"size": 6}},
            r"input image: the card says shape \(-1, 4, 4, 3\), Triton's configuration has \(-1, 6, 6, 3\)",
        ),
        (
            summing_model(output="summe"),
            {"outputs": [SUMS | {"name": "summe"}, TOTAL]},
            "model summing/1: outputs: the card names sums, total; Triton's configuration has summe, total",
        ),
        (summing_model(), {"outputs": [TOTAL]}, "the card names sums, total; Triton's configuration has total"),
    ],
    ids=["shape", "name", "missing"],
)
def test_another_model_than_the_cards_is_refused_by_name(
    tmp_path: Path, model: bytes, changes: dict[str, Any], message: str
) -> None:
    ref = one_model(tmp_path / "ours", summing_model())
    one_model(tmp_path / "theirs", model, **changes)
    with triton_over(tmp_path / "server", tmp_path / "theirs") as server:
        models = TritonModels(ModelRepository(tmp_path / "ours"), server.url)
        for ask in (lambda: models.infer(ref, IMAGE), lambda: models.load(ref)):
            in_time(5.0, ask, BadModel, message)


def test_an_answer_that_is_not_the_cards_is_refused_by_name(tmp_path: Path) -> None:
    """Where Triton's configuration leaves a length open, only the answer shows it."""
    ref = one_model(tmp_path / "ours", summing_model(), outputs=[SUMS | {"shape": [-1, 4]}, TOTAL])
    one_model(tmp_path / "theirs", summing_model(), outputs=[SUMS | {"shape": [-1, -1]}, TOTAL])
    with triton_over(tmp_path / "server", tmp_path / "theirs") as server:
        models = TritonModels(ModelRepository(tmp_path / "ours"), server.url)
        message = r"model summing/1: output sums: the card says shape \(2, 4\), Triton gave \(2, 3\)"
        in_time(5.0, lambda: models.infer(ref, IMAGE), BadModel, message)


def test_triton_batches_requests_of_many_threads(hurt: Triton, ref: ModelRef) -> None:
    models = client(hurt)
    hurt.slow(5)  # what a real model takes; nothing could gather behind one that takes none

    def ask(worker: int) -> None:
        for i in range(20):
            image = np.full((1, SIZE, SIZE, 3), (worker * 20 + i) % 256, dtype=np.uint8)
            assert models.infer(ref, {"image": image})["total"].tolist() == [image.sum()]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))
    with hurt.connect() as asked:
        (counts,) = asked.get_inference_statistics("summing", "1").model_stats
    assert counts.inference_count >= 320
    assert counts.execution_count < counts.inference_count / 2, "requests of 16 threads went one by one"
    assert max(batch.batch_size for batch in counts.batch_stats) > 1


def test_a_client_made_before_a_fork_serves_after_it(own: Triton) -> None:
    """In a program of its own: what forks here would take pytest along."""
    program = """
import os, sys
import numpy as np
from pathlib import Path
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_triton import TritonModels
from unmask.core.cards import ModelRef
models = TritonModels(ModelRepository(Path(sys.argv[1])), sys.argv[2])
ask = lambda: models.infer(ModelRef("summing", 1), {"image": np.ones((2, 4, 4, 3), dtype=np.uint8)})["total"].tolist()
if sys.argv[3] == "used":
    ask()
if (child := os.fork()) == 0:
    os._exit(0 if ask() == [48.0, 48.0] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert ask() == [48.0, 48.0]
"""
    for before in ("fresh", "used"):
        argv = [sys.executable, "-c", program, str(own.models), own.url, before]
        assert subprocess.run(argv, timeout=30, check=False, capture_output=True).returncode == 0, before


def test_tls_is_checked_against_the_authority_named(repository: Path, ref: ModelRef, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    mine = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key", "ca", "other")}
    files["certificate"].write_bytes(b"".join(blob.bytes() for blob in mine.cert_chain_pems))
    mine.private_key_pem.write_to_path(str(files["key"]))
    authority.cert_pem.write_to_path(str(files["ca"]))
    stranger.cert_pem.write_to_path(str(files["other"]))
    with triton_over(tmp_path / "server", repository, tls=TlsFiles(files["certificate"], files["key"], files["ca"])) as server:
        assert_answers(client(server, tls=Tls(ca=files["ca"])), ref)
        for tls in (None, Tls(ca=files["other"])):
            in_time(5.0, lambda tls=tls: client(server, seconds=2.0, tls=tls).infer(ref, IMAGE), Unavailable, server.url)
        nowhere = client(server, tls=Tls(ca=tmp_path / "none.pem"))
        in_time(1.0, lambda: nowhere.infer(ref, IMAGE), BadConfig, r"none\.pem: No such file")


def test_a_closed_client_opens_another_channel(own: Triton, ref: ModelRef) -> None:
    models = client(own)
    assert_answers(models, ref)
    models.close()
    assert_answers(models, ref)
    models.close()
    models.close()


# --- the launcher


def test_the_launcher_serves_metrics_and_listens_on_loopback_only(own: Triton) -> None:
    assert b"nv_inference_count" in urlopen(own.metrics_url, timeout=5).read()
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=False)
    if listening.returncode != 0:
        pytest.skip("no ss on this machine")
    addresses = [
        line.split()[3].replace("[::ffff:127.0.0.1]", "127.0.0.1")
        for line in listening.stdout.splitlines()
        if f"pid={own.process.pid}," in line
    ]
    assert sorted(addresses) == sorted(f"127.0.0.1:{port}" for port in (own.port, own.metrics_port))


def test_the_launcher_leaves_nothing_behind(repository: Path, tmp_path: Path) -> None:
    with triton_over(tmp_path, repository) as server:
        url, stubs = server.url, server.stubs()
        assert len(stubs) == 2
        server.stop()
        wait_until(lambda: all(map(dead, stubs)), 5.0, "the processes' end")
        server.start()
        assert server.url == url
        again = server.stubs()
        # What the end of this process would do; Triton itself, killed at the wrong moment, leaves one in six behind.
        os.close(server._life)
        wait_until(lambda: all(map(dead, again)), 5.0, "the processes' end")
    assert not list(Path("/dev/shm").glob(f"{server._prefix}*"))


def dead(pid: int) -> bool:
    """Gone, or a zombie that whoever adopted it has not looked after."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_servers_processes_die_with_the_one_that_started_it(repository: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from unmask_dev.triton import Triton
server = Triton(Path({str(tmp_path / "server")!r}), Path({str(repository)!r}))
server.start()
print(server.process.pid, *server.stubs(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    pids = [int(pid) for pid in ended.stdout.split()]
    assert ended.returncode == -signal.SIGKILL and len(pids) == 3, ended.stderr
    wait_until(lambda: all(map(dead, pids)), 20.0, "the processes' end")


def test_a_model_that_cannot_be_loaded_fails_the_start_with_its_reason(tmp_path: Path) -> None:
    one_model(tmp_path / "models", b"no graph at all")
    with pytest.raises(ServerFailed, match="INVALID_PROTOBUF"):
        Triton(tmp_path / "server", tmp_path / "models").start()


def test_an_environment_that_is_not_there_is_missing_and_says_what_to_run(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerMissing, match="make setup-triton"):
        Triton(tmp_path / "server", repository, environment=tmp_path / ".venv-none").start()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv-bare"], check=True)
    with pytest.raises(ServerMissing, match=r"\.venv-bare has no nvidia-pytriton; run make setup-triton"):
        Triton(tmp_path / "server", repository, environment=tmp_path / ".venv-bare").start()
    stubs = next((tmp_path / ".venv-bare/lib").glob("python3.*/site-packages")) / "pytriton/tritonserver/python_backend_stubs"
    (stubs / "3.9").mkdir(parents=True)
    (stubs / "3.10").mkdir()
    with pytest.raises(ServerMissing, match=r"no Triton for CPython 3\.\d+: nvidia-pytriton has stubs for 3\.9, 3\.10"):
        Triton(tmp_path / "server", repository, environment=tmp_path / ".venv-bare").start()
