"""What every ModelServer promises: right rows, refusals by name, exact versions; in this process and in a real Triton."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.system.tiny_models import face_picture, make_repository
from tests.system.triton_backend import triton_over, write_configs
from tests.unit.adapters.small_models import CANVAS, SIZE, SUMS, TOTAL, add_version, card_of, summing_model
from tests.unit.classification.tiny_detector import face, knowing_repository
from unmask.adapters.model_repository import ModelRepository
from unmask.adapters.models_local import LocalModels
from unmask.adapters.models_triton import TritonModels
from unmask.bootstrap import Parts, forgetful, inline_world
from unmask.core.cards import Card, ModelRef
from unmask.core.deadlines import within
from unmask.core.domain import BytesSource, Submission, Verdict
from unmask.core.errors import BadModel, DeadlineExceeded
from unmask.core.ports import Tensors
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.settings import Settings


@dataclass
class Host:
    """A model server over a repository to which the test adds models."""

    root: Path
    models: LocalModels | TritonModels

    def __post_init__(self) -> None:
        # One Triton serves all tests.
        self.name = f"summing_{uuid4().hex[:8]}"

    def put(self, model: bytes, **changes: Any) -> ModelRef:
        """Writes a version that nobody has loaded."""
        ref = add_version(self.root, card_of(model, **({"name": self.name} | changes)), model)
        write_configs(self.root)
        return ref

    def add(self, model: bytes | None = None, **changes: Any) -> ModelRef:
        """Writes a version and loads it."""
        ref = self.put(summing_model() if model is None else model, **changes)
        self.models.load(ref)
        return ref


def negated() -> bytes:
    """`summing_model()` with every output's sign turned: another version whose answers cannot be mistaken."""
    model = onnx.load_model_from_string(summing_model())
    cast = model.graph.node[0]
    cast.output[0] = "plain"
    model.graph.node.insert(1, helper.make_node("Neg", ["plain"], ["floats"]))
    return bytes(model.SerializeToString(deterministic=True))


def rows(count: int, seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def assert_right(outputs: Tensors, image: np.ndarray) -> None:
    np.testing.assert_allclose(outputs["sums"], image.sum(axis=(1, 2), dtype=np.float64))
    np.testing.assert_allclose(outputs["total"], image.sum(axis=(1, 2, 3), dtype=np.float64))


def in_threads(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


class TestModelServer:
    """Over every adapter."""

    @pytest.fixture(params=["local", "triton"])
    def host(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
        if request.param == "local":
            yield Host(tmp_path, LocalModels(ModelRepository(tmp_path)))
            return
        server = request.getfixturevalue("triton")
        models = TritonModels(ModelRepository(server.models), server.url)
        host = Host(server.models, models)
        yield host
        with server.connect() as client:
            client.unload_model(host.name)
        models.close()

    def test_gives_every_output_of_the_card(self, host: Host) -> None:
        ref, image = host.add(), rows(3, 0)
        outputs = host.models.infer(ref, {"image": image})
        assert {name: (tensor.shape, tensor.dtype.name) for name, tensor in outputs.items()} == {
            "sums": ((3, 3), "float32"),
            "total": ((3,), "float32"),
        }
        assert_right(outputs, image)

    def test_gives_only_the_outputs_asked_for(self, host: Host) -> None:
        ref, image = host.add(), rows(9, 0)  # more than a batch
        whole = host.models.infer(ref, {"image": image})
        for names in (["total"], ["total", "sums"], ["sums", "sums"]):
            some = host.models.infer(ref, {"image": image}, names)
            assert set(some) == set(names)
            for name, tensor in some.items():
                np.testing.assert_array_equal(tensor, whole[name])
        with pytest.raises(BadModel, match=f"{host.name}/1: output summe: the card names sums, total"):
            host.models.infer(ref, {"image": image}, ["total", "summe"])
        with pytest.raises(BadModel, match=f"{host.name}/1: the request asks for no output; the card names sums, total"):
            host.models.infer(ref, {"image": image}, [])

    def test_the_card_is_the_repositorys(self, host: Host) -> None:
        ref = host.put(summing_model())
        assert host.models.card(ref).ref == ref

    @pytest.mark.parametrize("count", [1, 8, 9, 21])
    def test_any_number_of_rows_comes_back_in_order(self, host: Host, count: int) -> None:
        image = rows(count, count)
        assert_right(host.models.infer(host.add(), {"image": image}), image)

    def test_a_view_into_a_larger_array_is_read_as_it_looks(self, host: Host) -> None:
        image = rows(6, 3)[::2, ::-1]
        assert_right(host.models.infer(host.add(), {"image": image}), image)

    def test_many_threads_get_their_own_rows(self, host: Host) -> None:
        ref = host.add()

        def work(worker: int) -> None:
            for i in range(10):
                image = rows(1 + (worker + i) % 3, 1000 * worker + i)
                assert_right(host.models.infer(ref, {"image": image}), image)

        in_threads(16, work)

    def test_rows_of_different_sizes_are_never_mixed(self, host: Host) -> None:
        ref = host.add(summing_model(size="S"), input=CANVAS)

        def work(worker: int) -> None:
            for i in range(10):
                image = rows(1, 100 * worker + i, size=(4, 6, 8)[(worker + i) % 3])
                assert_right(host.models.infer(ref, {"image": image}), image)

        in_threads(8, work)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"picture": rows(1, 0)}, r"model summing_\w+/1: expected the input image, the request has picture"),
            ({"image": rows(1, 0), "more": rows(1, 0)}, r"expected the input image, the request has image, more"),
            ({}, r"expected the input image, the request has none"),
            ({"image": rows(1, 0).astype(np.float32)}, r"input image: expected uint8, the request has float32"),
            ({"image": rows(1, 0, size=5)}, r"expected shape \(-1, 4, 4, 3\), the request has \(1, 5, 5, 3\)"),
            ({"image": rows(1, 0)[0]}, r"the request has \(4, 4, 3\)"),
            ({"image": rows(0, 0)}, r"the request has \(0, 4, 4, 3\)"),
        ],
    )
    def test_a_wrong_request_is_refused_by_name(self, host: Host, inputs: Tensors, message: str) -> None:
        with pytest.raises(BadModel, match=message):
            host.models.infer(host.add(), inputs)

    def test_an_unknown_model_or_version_is_refused_by_name(self, host: Host) -> None:
        host.add()
        for ref in (ModelRef(host.name, 2), ModelRef(f"{host.name}_not", 1)):
            for ask in (host.models.card, host.models.load, lambda ref: host.models.infer(ref, {"image": rows(1, 0)})):
                with pytest.raises(BadModel, match=f"{ref.name}/{ref.version}"):
                    ask(ref)
            assert not host.models.loaded(ref)

    def test_a_release_that_names_another_card_is_refused_though_the_version_is_loaded(self, host: Host) -> None:
        ref = replace(host.add(), sha256="0" * 64)
        for ask in (host.models.card, host.models.load, lambda ref: host.models.infer(ref, {"image": rows(1, 0)})):
            with pytest.raises(BadModel, match="the release names 000000000000…"):
                ask(ref)

    @pytest.mark.parametrize(
        ("model", "changes"),
        [
            (summing_model(dtype=TensorProto.FLOAT), {}),
            (summing_model(size=6), {}),
            (summing_model(output="summe"), {}),
            (summing_model(), {"outputs": [SUMS | {"shape": [-1, 4]}, TOTAL]}),
            (b"no graph at all", {}),
        ],
        ids=["dtype", "shape", "name", "output-shape", "broken"],
    )
    def test_a_graph_that_is_not_its_card_is_refused_and_stays_out(
        self, host: Host, model: bytes, changes: dict[str, Any]
    ) -> None:
        ref = host.put(model, **changes)
        with pytest.raises(BadModel, match=host.name):
            host.models.load(ref)
        assert not host.models.loaded(ref)

    def test_a_version_is_loaded_and_unloaded_by_itself(self, host: Host) -> None:
        one, two, three = (host.put(summing_model(), version=version) for version in (1, 2, 3))
        host.models.load(one)
        host.models.load(one)
        assert host.models.loaded(one)
        for ref in (two, three):
            host.models.load(ref)
        host.models.unload(two)
        assert [host.models.loaded(ref) for ref in (one, two, three)] == [True, False, True]
        host.models.unload(two)
        host.models.load(two)
        assert [host.models.loaded(ref) for ref in (one, two, three)] == [True, True, True]
        for ref in (one, two, three):
            assert_right(host.models.infer(ref, {"image": rows(2, ref.version)}), rows(2, ref.version))
            host.models.unload(ref)
        assert [host.models.loaded(ref) for ref in (one, two, three)] == [False, False, False]

    def test_the_version_that_is_named_answers(self, host: Host) -> None:
        one, two, image = host.add(), host.add(negated(), version=2), rows(2, 0)
        for _ in range(3):
            assert_right(host.models.infer(one, {"image": image}), image)
            assert_right({name: -tensor for name, tensor in host.models.infer(two, {"image": image}).items()}, image)

    def test_a_version_that_came_later_is_loaded_beside_those_in_use(self, host: Host) -> None:
        one = host.add()
        two = host.add(version=2, max_batch_size=4)
        for ref in (one, two, one):
            assert_right(host.models.infer(ref, {"image": rows(9, 5)}), rows(9, 5))

    def test_a_broken_version_does_not_keep_a_good_one_out(self, host: Host) -> None:
        one = host.add()
        broken = host.put(b"no graph at all", version=2)
        good = host.put(summing_model(), version=3)
        with pytest.raises(BadModel, match=host.name):
            host.models.load(broken)
        host.models.load(good)
        for ref in (one, good):
            assert_right(host.models.infer(ref, {"image": rows(1, 1)}), rows(1, 1))

    def test_calls_go_on_while_another_version_comes_and_goes(self, host: Host) -> None:
        one, two = host.add(), host.put(summing_model(), version=2)
        stop = threading.Event()

        def ask(worker: int) -> int:
            asked = 0
            while not stop.is_set():
                assert_right(host.models.infer(one, {"image": rows(2, worker)}), rows(2, worker))
                asked += 1
            return asked

        with ThreadPoolExecutor(3) as pool:
            askers = [pool.submit(ask, worker) for worker in range(3)]
            try:
                for _ in range(2):
                    host.models.load(two)
                    host.models.unload(two)
                    assert not host.models.loaded(two)
            finally:
                stop.set()
            assert all(asker.result(30) > 0 for asker in askers)

    def test_nothing_is_begun_after_the_deadline(self, host: Host) -> None:
        ref = host.add()
        with within(0.0), pytest.raises(DeadlineExceeded):
            host.models.infer(ref, {"image": rows(1, 0)})
        with within(30.0):
            assert_right(host.models.infer(ref, {"image": rows(1, 0)}), rows(1, 0))


def sample(card: Card, count: int) -> np.ndarray:
    sides = tuple(96 if side < 0 else side for side in card.input.shape[1:])
    return np.random.default_rng(count).integers(0, 256, (count, *sides), dtype=np.uint8)


def assert_alike(one: LocalModels, other: TritonModels, ref: ModelRef, tolerance: float) -> None:
    image = sample(one.card(ref), 3)
    expected, found = one.infer(ref, {"image": image}), other.infer(ref, {"image": image})
    assert found.keys() == expected.keys() and found
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=tolerance, atol=tolerance, err_msg=f"{ref.name} {name}")


@pytest.mark.parametrize("release", ["release.json", "release-2026.11.json"])
def test_the_shipped_releases_are_served_as_they_stand(models: Path, tmp_path: Path, release: str) -> None:
    root = models
    if release != "release.json":  # as README says to take the small one
        root = shutil.copytree(models, tmp_path / "models")
        shutil.copyfile(root / release, root / "release.json")
        write_configs(root)
    repository = ModelRepository(root)
    with triton_over(tmp_path / "server", root) as server:
        for ref in repository.release().models.values():
            assert_alike(LocalModels(repository), TritonModels(repository, server.url), ref, 1e-3)


@contextmanager
def both_worlds(root: Path, folder: Path) -> Iterator[tuple[World, World]]:
    """One of models in this process and one of models in a Triton, after each model was asked by both."""
    write_configs(root)
    parts = Parts(Settings(models=root))
    local = inline_world(parts)
    with triton_over(folder, root) as server:
        for ref in parts.repository.release().models.values():
            assert_alike(LocalModels(parts.repository), TritonModels(parts.repository, server.url), ref, 1e-4)
        handlers = replace(parts.handlers, models=TritonModels(parts.repository, server.url))
        yield forgetful(local), forgetful(replace(local, handlers=handlers))


def verdict_on(world: World, picture: bytes) -> Verdict:
    case = accept(world, Submission("default", BytesSource(picture)))
    verdict = world.store.verdict_of("default", case.id)
    assert verdict is not None
    return verdict


def test_the_whole_pipeline_gives_the_same_verdict_over_both(tmp_path: Path) -> None:
    with both_worlds(make_repository(tmp_path / "models"), tmp_path / "server") as worlds:
        one, other = (verdict_on(world, face_picture(red=255)) for world in worlds)
    assert one.label == other.label == "synthetic"
    assert other.score == pytest.approx(one.score, abs=1e-4)
    assert other.faces[0].box == one.faces[0].box


def test_what_a_detector_says_beside_its_score_is_the_same_over_both(tmp_path: Path) -> None:
    pictures = {
        "synthetic": face(red=255),
        "real": face(red=0, blue=20),
        "face_falls_apart": face(red=255, striped=True),
        "face_unlike_known": face(red=0, blue=60),
    }
    with both_worlds(knowing_repository(tmp_path / "models"), tmp_path / "server") as worlds:
        for told, picture in pictures.items():
            one, other = (verdict_on(world, picture) for world in worlds)
            assert told in {one.label, one.reasons[0].code} and one.label is other.label and one.reasons == other.reasons
            ours, theirs = one.faces[0], other.faces[0]
            assert ours.defence is not None and theirs.defence is not None and ours.generator is not None
            assert set(ours.generator) == {"family_a", "family_b", "unknown"}
            assert theirs.generator == pytest.approx(ours.generator, abs=2e-4)
            values = ((f.score, f.doubt, f.defence.plain, f.defence.blurred) for f in (ours, theirs) if f.defence)
            first, second = values
            assert second == pytest.approx(first, abs=2e-4)
