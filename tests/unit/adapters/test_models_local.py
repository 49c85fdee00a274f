"""Models in this process beyond what every ModelServer promises: batches, loading once, graphs held against their cards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.unit.adapters.small_models import SIZE, SUMS, TOTAL, add_version, card_of, summing_model
from unmask.adapters import models_local
from unmask.adapters.gather import Gatherer
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_local import LocalModels
from unmask.core.cards import ModelRef
from unmask.core.errors import BadModel, Unavailable
from unmask.core.ports import Tensors


@pytest.fixture
def ref(tmp_path: Path) -> ModelRef:
    model = summing_model()
    return add_version(tmp_path, card_of(model), model)


@pytest.fixture
def models(tmp_path: Path) -> LocalModels:
    return LocalModels(ModelRepository(tmp_path), threads=1)


def rows(count: int, seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def assert_right(outputs: Tensors, image: np.ndarray) -> None:
    np.testing.assert_allclose(outputs["sums"], image.sum(axis=(1, 2), dtype=np.float64))
    np.testing.assert_allclose(outputs["total"], image.sum(axis=(1, 2, 3), dtype=np.float64))


def test_a_request_larger_than_the_batch_is_split_and_put_together(
    models: LocalModels, ref: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = spy_on_batches(monkeypatch)
    image = rows(21, 1)
    assert_right(models.infer(ref, {"image": image}), image)
    assert sizes == [8, 8, 5]


def spy_on_batches(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> list[int]:
    """The rows of every run of a session, which then takes `seconds` longer; the session itself is the real one."""
    sizes: list[int] = []
    real = models_local._Loaded._run

    def run(self: models_local._Loaded, inputs: Tensors) -> Tensors:
        sizes.append(len(inputs["image"]))
        time.sleep(seconds)
        return real(self, inputs)

    monkeypatch.setattr(models_local._Loaded, "_run", run)
    return sizes


def test_many_threads_get_their_own_rows_and_form_batches(
    models: LocalModels, ref: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = spy_on_batches(monkeypatch, seconds=0.001)

    def work(worker: int) -> None:
        for i in range(40):
            image = rows(1 + (worker + i) % 3, 1000 * worker + i)
            assert_right(models.infer(ref, {"image": image}), image)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert max(sizes) <= 8
    assert len(sizes) < 16 * 40 / 2, "requests of 16 threads went one by one"


def test_a_version_is_loaded_once_by_many_threads(models: LocalModels, ref: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = models_local.open_session

    def counting(data: bytes, threads: int, name: str) -> object:
        opened.append(name)
        time.sleep(0.05)
        return real(data, threads, name)

    monkeypatch.setattr(models_local, "open_session", counting)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: models.infer(ref, {"image": rows(1, i)}), range(8)))
    assert opened == ["model summing/1"]


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (summing_model(dtype=TensorProto.FLOAT), {}, "summing/1: input image: the card says uint8, model.onnx has float32"),
        (summing_model(size=6), {}, r"input image: the card says shape \(-1, 4, 4, 3\), model.onnx has \(-1, 6, 6, 3\)"),
        (summing_model(batch=1), {}, r"input image: the card says shape \(-1, 4, 4, 3\), model.onnx has \(1, 4, 4, 3\)"),
        (summing_model(output="summe"), {}, "outputs: the card names sums, total; model.onnx has summe, total"),
        (summing_model(), {"outputs": [SUMS]}, "the card names sums; model"),
        (
            summing_model(),
            {"outputs": [SUMS | {"shape": [-1, 3, 1]}, TOTAL]},
            r"output sums: the card says shape \(-1, 3, 1\), model.onnx has \(-1, 3\)",
        ),
        (b"no graph at all", {}, "model summing/1: model.onnx cannot be loaded"),
    ],
)
def test_a_graph_that_is_not_its_card_is_refused_by_name(
    tmp_path: Path, models: LocalModels, model: bytes, changes: dict[str, object], message: str
) -> None:
    ref = add_version(tmp_path, card_of(model, **changes), model)
    with pytest.raises(BadModel, match=message):
        models.load(ref)


def test_a_corrupt_or_missing_file_is_refused_before_it_is_loaded(tmp_path: Path, models: LocalModels) -> None:
    model = summing_model()
    ref = add_version(tmp_path, card_of(model), model)
    path = tmp_path / "summing/1/model.onnx"
    path.write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    with pytest.raises(BadModel, match=r"model\.onnx: sha256 is .* the card says .*unmask models fetch"):
        models.infer(ref, {"image": rows(1, 0)})
    path.unlink()
    with pytest.raises(BadModel, match=r"model\.onnx: missing; run `unmask models fetch`"):
        models.infer(ref, {"image": rows(1, 0)})
    path.write_bytes(model)
    assert_right(models.infer(ref, {"image": rows(1, 0)}), rows(1, 0))


class Gate:
    """A run that stops until it is let go, so that a test decides what has gathered."""

    def __init__(self, then: Callable[[Tensors], Tensors]) -> None:
        self.then, self.open, self.sizes = then, threading.Event(), list[int]()

    def __call__(self, inputs: Tensors) -> Tensors:
        self.sizes.append(len(inputs["image"]))
        assert self.open.wait(10)
        return self.then(inputs)


def doubled(inputs: Tensors) -> Tensors:
    return {"twice": inputs["image"].astype(np.int64) * 2}


def gathered(gate: Gate, values: list[int], limit: int) -> list[int]:
    """Submits one row a value from a thread each, lets the gate go once the first runs and all others wait."""
    gatherer = Gatherer(gate, limit)

    def submit(value: int) -> int:
        return int(gatherer.submit({"image": np.array([[value]], dtype=np.uint8)})["twice"][0, 0])

    with ThreadPoolExecutor(len(values)) as pool:
        futures = [pool.submit(submit, value) for value in values]
        until = time.monotonic() + 10
        while not gate.sizes or len(gatherer._waiting) < len(values) - 1:
            assert time.monotonic() < until
            time.sleep(0.001)
        gate.open.set()
        return [future.result(10) for future in futures]


def test_what_waits_becomes_one_batch_up_to_the_limit() -> None:
    gate = Gate(doubled)
    assert gathered(gate, list(range(20)), 8) == [2 * value for value in range(20)]
    assert gate.sizes == [1, 8, 8, 3]


def test_an_error_reaches_every_waiter_and_the_next_batch_runs() -> None:
    def first_fails(inputs: Tensors) -> Tensors:
        if gate.sizes == [1, 5]:
            raise BadModel("model x/1: no")
        return doubled(inputs)

    gate = Gate(first_fails)
    gatherer = Gatherer(gate, 5)
    errors: list[Exception] = []
    answers: list[int] = []

    def submit() -> None:
        try:
            answers.append(int(gatherer.submit({"image": np.array([[4]], dtype=np.uint8)})["twice"][0, 0]))
        except BadModel as error:
            errors.append(error)

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 10
    while not gate.sizes or len(gatherer._waiting) < 5:
        assert time.monotonic() < until
        time.sleep(0.001)
    gate.open.set()
    for thread in threads:
        thread.join(10)
    assert answers == [8]
    assert [str(error) for error in errors] == ["model x/1: no"] * 5
    assert len({id(error) for error in errors}) == 5
    submit()
    assert answers == [8, 8]


def test_a_leader_that_is_interrupted_fails_the_others_and_leaves_the_gatherer_working() -> None:
    def interrupted(inputs: Tensors) -> Tensors:
        if len(inputs["image"]) > 1:
            raise KeyboardInterrupt
        return doubled(inputs)

    gate = Gate(interrupted)
    gatherer = Gatherer(gate, 4)
    ends: list[str] = []

    def submit() -> None:
        try:
            gatherer.submit({"image": np.array([[4]], dtype=np.uint8)})
            ends.append("answer")
        except (KeyboardInterrupt, Unavailable) as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 10
    while not gate.sizes or len(gatherer._waiting) < 3:
        assert time.monotonic() < until
        time.sleep(0.001)
    gate.open.set()
    for thread in threads:
        thread.join(10)
    assert sorted(ends) == ["KeyboardInterrupt", "Unavailable", "Unavailable", "answer"]
    submit()
    assert ends[-1] == "answer"


def test_a_model_that_gives_other_rows_than_it_got_is_refused() -> None:
    gatherer = Gatherer(lambda inputs: {"out": np.zeros((5, 2), dtype=np.float32)}, 8)
    with pytest.raises(BadModel, match=r"output out: 2 rows went in, a tensor of shape \(5, 2\) came out"):
        gatherer.submit({"image": np.zeros((2, 1), dtype=np.uint8)})
