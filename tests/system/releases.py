"""Deployments for the tests of releases: a database, a repository with more than one release, real queue threads."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from tests.system.tiny_models import VIEW
from unmask.adapters.catalogue_sql import SqlCatalogue
from unmask.adapters.database import Database
from unmask.bootstrap import Parts, queued_world, read_policy
from unmask.cli.deployment import desk
from unmask.core.domain import BytesSource, Case, Message, State, Submission
from unmask.core.promotion import ReleaseDesk
from unmask.core.submit import accept
from unmask.core.world import World
from unmask.settings import Settings


def copied(tiny: Path, place: Path) -> Path:
    """A repository of this test's own."""
    return shutil.copytree(tiny, place)


def nan_model() -> bytes:
    """A detector that loads, keeps its contract, and gives no number."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", VIEW, VIEW, 3])
    outputs = [
        helper.make_tensor_value_info("synthetic", TensorProto.FLOAT, ["N"]),
        helper.make_tensor_value_info("family", TensorProto.FLOAT, ["N", 2]),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "mean"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["synthetic"]),
        helper.make_node("Unsqueeze", ["zero", "axis"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["family"], axis=1),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "nan", [image], outputs, [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def add_detector(root: Path, version: int, model: bytes | None = None) -> str:
    """Another version of the detector; returns its card's sha256."""
    old, new = root / "detector/1", root / f"detector/{version}"
    data = (old / "model.onnx").read_bytes() if model is None else model
    card = json.loads((old / "card.json").read_bytes()) | {"version": version}
    card["files"] = {"model.onnx": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}}
    new.mkdir()
    (new / "model.onnx").write_bytes(data)
    (new / "card.json").write_text(json.dumps(card))
    return hashlib.sha256((new / "card.json").read_bytes()).hexdigest()


def release_of(root: Path, name: str, detector: tuple[int, str] | None = None, **thresholds: float) -> bytes:
    """The repository's release under another name, with another detector or thresholds."""
    found: dict[str, Any] = json.loads((root / "release.json").read_bytes()) | {"name": name}
    if detector is not None:
        found["models"]["detector"] = {"version": detector[0], "sha256": detector[1]}
    found["thresholds"] |= thresholds
    return json.dumps(found).encode()


@dataclass
class Deployment:
    """A process of a deployment, working; `changed` is told of every message that was worked."""

    world: World
    parts: Parts
    changed: threading.Condition = field(default_factory=threading.Condition)

    def submit(self, picture: bytes, batch: str = "", tenant: str = "default") -> Case:
        """An accepted case."""
        return accept(self.world, Submission(tenant, BytesSource(picture), batch=batch))

    def wait(self, done: Callable[[], bool], seconds: float = 120.0) -> None:
        """Looks again at every change until it is done."""
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, "it did not happen"
            with self.changed:
                self.changed.wait(0.1)

    def ended(self, case: Case) -> Case:
        """The case once nothing more will happen to it."""
        self.wait(lambda: self.world.store.case(case.tenant, case.id).ended)
        return self.world.store.case(case.tenant, case.id)

    def count(self, batch: str, state: State = State.DECIDED, tenant: str = "default") -> int:
        """Cases of a batch in that state."""
        return self.world.store.progress(tenant, batch).get(state, 0)


@contextmanager
def deployed(root: Path, url: str, folder: Path, seconds: float = 0.05) -> Iterator[Deployment]:
    """Real queue threads over the database, with the pointers looked up every `seconds`."""
    parts = Parts(Settings(models=root, state=folder / "state", database=url, threads=2))
    parts.catalogue = SqlCatalogue(parts.database, parts.repository.release_text, lambda: read_policy(None), seconds=seconds)
    told = threading.Condition()

    def on_change(message: Message) -> None:
        with told:
            told.notify_all()

    world, queue = queued_world(parts, on_change)
    with closing(parts.database), closing(queue):
        yield Deployment(world, parts, told)


@contextmanager
def operator(root: Path, url: str) -> Iterator[ReleaseDesk]:
    """Where somebody at another machine puts and moves releases."""
    parts = Parts(Settings(models=root, database=url))
    with closing(parts.database):
        yield desk(parts)


def upgraded(url: str) -> str:
    """The URL of a database with this program's schema."""
    from unmask.adapters.migrate import upgrade

    with closing(Database(url, check=False)) as empty:
        upgrade(empty)
    return url
