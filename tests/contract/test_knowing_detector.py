"""Defence, doubt and unknown generators on their way out: JSON, the calls of a stage, verdicts over gRPC, stored findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.grpc_servers import all_served
from tests.unit.classification.tiny_detector import face, knowing_repository
from unmask.core.contract import from_json, to_json
from unmask.core.domain import Label, Verdict
from unmask.embedded import Unmask
from unmask.rpc.client import AsyncClient

STRIPED = face(red=255, blue=40, striped=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return knowing_repository(tmp_path_factory.mktemp("knowing") / "models")


@pytest.fixture(scope="module")
def verdict(root: Path) -> Verdict:
    return Unmask(models=root).check(STRIPED)


def test_json_holds_them_and_gives_them_back(verdict: Verdict) -> None:
    body = json.loads(json.dumps(to_json(verdict), allow_nan=False))
    (found,) = body["faces"]
    assert found["defence"]["plain"] > 0.6 and found["defence"]["blurred"] < 0.4
    assert list(found["generator"]) == ["family_a", "family_b", "unknown"]
    assert sum(found["generator"].values()) == pytest.approx(1.0, abs=2e-4)
    assert 0.0 < found["doubt"] == body["doubt"] < 1.0
    assert [reason["code"] for reason in body["reasons"]][:1] == ["face_falls_apart"]
    assert from_json(body) == verdict


async def test_grpc_says_what_the_library_says(root: Path, verdict: Verdict) -> None:
    async with all_served(root) as address, AsyncClient(address) as client:
        (stage,) = (await client.classify(STRIPED)).classified
        judged = await client.check(STRIPED)
    (ours,), (theirs,) = verdict.faces, judged.faces
    assert ours == theirs and judged.label is Label.UNSURE and judged.reasons == verdict.reasons
    assert stage.generator == ours.generator and stage.doubt == pytest.approx(ours.doubt, abs=1e-4)
    assert stage.defence is not None and ours.defence is not None
    assert (stage.defence.plain, stage.defence.blurred) == pytest.approx((ours.defence.plain, ours.defence.blurred), abs=1e-4)


def test_what_is_stored_is_what_was_found(root: Path, verdict: Verdict, tmp_path: Path) -> None:
    found = [Unmask(models=root, state=tmp_path).check(STRIPED) for _ in range(2)]  # the second is reused from the store
    assert [one.faces for one in found] == [verdict.faces] * 2 and found[1].doubt == verdict.doubt
