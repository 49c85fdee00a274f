"""Processes are switched, sized and scaled each by itself."""

from __future__ import annotations

import pytest

from tests.helm.rendering import Refused, Rendering, case, environment, main_of, render

PIPELINE = {"ingestion", "alignment", "classification", "localization"}


def scalers(rendering: Rendering) -> dict[str, str]:
    """Kind of what scales each Deployment."""
    found: dict[str, str] = {}
    for kind in ("ScaledObject", "HorizontalPodAutoscaler"):
        for scaler in rendering.kind(kind):
            name = scaler["spec"]["scaleTargetRef"]["name"]
            assert name not in found and rendering.one("Deployment", name)
            found[name.removeprefix("unmask-")] = kind
    return found


@pytest.mark.parametrize("side", ["serve", "work"])
@pytest.mark.parametrize("component", sorted(PIPELINE))
def test_each_side_of_a_component_is_switched_by_itself(component: str, side: str) -> None:
    other = {"serve": "work", "work": "serve"}[side]
    found = render(
        "--set", f"components.{component}.{side}.enabled=false,components.{component}.{other}.enabled=true"
    ).processes()
    assert f"{component}-{side}" not in found and f"{component}-{other}" in found


@pytest.mark.parametrize("process", ["classification.work", "ingestion.serve", "sweeper.work"])
def test_replicas_are_those_of_the_process_else_the_defaults(process: str) -> None:
    name = process.replace(".", "-")
    found = render("--set", f"defaults.replicas=4,components.{process}.replicas=7").processes()
    assert found[name]["spec"]["replicas"] == 7
    assert found["submission-work"]["spec"]["replicas"] == 4


def test_nothing_scales_what_is_given_replicas() -> None:
    assert scalers(case("default")) == {}
    assert all("replicas" in deployment["spec"] for deployment in case("default").processes().values())


@pytest.mark.parametrize("name", ["production", "gpu"])
def test_what_is_scaled_has_no_replicas_of_its_own(name: str) -> None:
    """Else each upgrade would set them back."""
    scaled = scalers(case(name))
    for process, deployment in case(name).processes().items():
        assert ("replicas" in deployment["spec"]) == (process not in scaled), process
        assert (process in scaled) == (process not in {"delivery-work", "sweeper-work"})


def test_workers_go_by_their_queues_and_servers_by_the_processor() -> None:
    for process, kind in scalers(case("production")).items():
        assert kind == ("HorizontalPodAutoscaler" if process.endswith("-serve") else "ScaledObject")
    assert set(scalers(case("gpu")).values()) == {"HorizontalPodAutoscaler"}


def test_keda_finds_the_broker_in_its_secret(production: Rendering) -> None:
    (login,) = production.kind("TriggerAuthentication")
    told = environment(main_of(production.processes()["sweeper-work"]))["UNMASK_BROKER"]["secretKeyRef"]
    assert login["spec"]["secretTargetRef"] == [{"parameter": "host", **told}]
    for scaled in production.kind("ScaledObject"):
        triggers = scaled["spec"]["triggers"]
        assert {t["authenticationRef"]["name"] for t in triggers} == {login["metadata"]["name"]}
        assert {t["metadata"]["mode"] for t in triggers} == {"QueueLength"}


@pytest.mark.parametrize(
    ("lane", "queues"),
    [
        ("all", ["unmask.classify", "unmask.classify.batch"]),
        ("live", ["unmask.classify"]),
        ("batch", ["unmask.classify.batch"]),
    ],
)
def test_a_worker_of_one_lane_goes_by_that_lane(lane: str, queues: list[str]) -> None:
    found = render("--set", f"autoscaling.mode=keda,components.classification.work.lane={lane}")
    scaled = found.one("ScaledObject", "unmask-classification-work")
    assert [trigger["metadata"]["queueName"] for trigger in scaled["spec"]["triggers"]] == queues
    arguments = main_of(found.processes()["classification-work"])["args"]
    assert arguments[arguments.index("--lane") + 1] == lane


def test_bounds_and_targets_are_those_of_the_process() -> None:
    told = (
        "autoscaling.mode=keda,components.localization.work.autoscaling.min=0,components.localization.work.autoscaling.max=99"
    )
    spec = render("--set", told + ",components.localization.work.autoscaling.queueLength=1000000").one(
        "ScaledObject", "unmask-localization-work"
    )["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 99)
    assert {trigger["metadata"]["value"] for trigger in spec["triggers"]} == {"1000000"}
    hpa = render("--set", told.replace("keda", "hpa")).one("HorizontalPodAutoscaler", "unmask-localization-work")["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (1, 99)  # Kubernetes itself scales nothing to nothing


def test_triton_is_ours_or_somebody_elses_or_none() -> None:
    own = environment(main_of(case("default").processes()["classification-work"]))
    assert own["UNMASK_TRITON"] == "unmask-triton:8001"
    other = render("--set", "triton.enabled=false,triton.url=triton.models:9001")
    assert environment(main_of(other.processes()["classification-work"]))["UNMASK_TRITON"] == "triton.models:9001"
    assert not [d for d in other.documents if d["metadata"]["name"] == "unmask-triton"]
    none = render("--set", "triton.enabled=false")
    assert "UNMASK_TRITON" not in environment(main_of(none.processes()["classification-work"]))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("UNMASK_MAX_PIXELS", "50000000", "50000000"),
        ("UNMASK_RETRY_SECONDS", "0.5", "0.5"),
        ("UNMASK_LOG", '"text"', "text"),
    ],
)
def test_settings_are_written_as_the_program_reads_them(name: str, value: str, text: str) -> None:
    found = render("--set-json", f"settings.{name}={value}").processes()["ingestion-work"]
    assert environment(main_of(found))[name] == text


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("components.classification.work.replica=2", "replica"),
        ("components.ingestion.serve.lane=live", "lane"),
        ("components.sweeper.serve.enabled=true", "serve"),
        ("components.ingestion.work.concurrency=0", "concurrency"),
        ("components.ingestion.work.lane=slow", "lane"),
        ("image.digest=sha256:abc", "digest"),
        ("s3.endpoint=s3.example.net", "endpoint"),
        ("settings.UNMASK_DATABASE=x", "UNMASK_DATABASE"),
        ("settings.UNMASK_MAX_FACES=0", "UNMASK_MAX_FACES"),
        ("triton.image.tag=26.06-py3", "tag"),
        ("models.source=pvc", "existingClaim"),
        ("tls.certManager.enabled=true", "issuer"),
        ("externalSecrets.enabled=true", "store"),
        ("autoscaling.mode=maybe", "mode"),
        ("database.password=x", "password"),
        ("allowPrivate[0]=inside", "allowPrivate"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(wrong: str, named: str, major: int) -> None:
    with pytest.raises(Refused, match=named):
        render("--set", wrong, major=major)
