"""What every pod of the chart may do: nothing that it need not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.rendering import Rendering, case, containers, environment, main_of, pod_labels, pod_of, render, selects

# A child may take UNMASK_CHILD_MEMORY; the parent, its status process and shared libraries come on top.
DECODING = {"ingestion-work", "alignment-work", "shadow-work"}
PARENT_MIB = 256


def mebibytes(quantity: str) -> float:
    """A Kubernetes quantity of memory."""
    for unit, factor in (("Gi", 1024.0), ("Mi", 1.0)):
        if quantity.endswith(unit):
            return float(quantity.removesuffix(unit)) * factor
    raise AssertionError(quantity)


def test_no_container_can_gain_anything(rendering: Rendering) -> None:
    for workload in rendering.workloads():
        for container in containers(workload):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert not security.keys() & {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile"}  # the pod's hold


def test_every_pod_is_nobody_in_particular(rendering: Rendering) -> None:
    for workload in rendering.workloads():
        pod = pod_of(workload)
        security = pod["securityContext"]
        user = 1000 if workload["metadata"]["name"].endswith("-triton") else 10001
        assert security["runAsNonRoot"] is True and security["runAsUser"] == security["runAsGroup"] == user
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_what_is_mounted_is_there_and_what_is_written_can_be(rendering: Rendering) -> None:
    for workload in rendering.workloads():
        volumes = {volume["name"]: volume for volume in pod_of(workload)["volumes"]}
        used = set()
        for container in containers(workload):
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            used |= {mount["name"] for mount in mounts.values()}
            assert "emptyDir" in volumes[mounts["/tmp"]["name"]]
            for path, mount in mounts.items():
                assert mount["name"] in volumes, path
                assert mount.get("readOnly") or "emptyDir" in volumes[mount["name"]], path
        assert used == volumes.keys(), workload["metadata"]["name"]


def test_files_that_the_environment_names_are_mounted(rendering: Rendering) -> None:
    for deployment in rendering.processes().values():
        container = main_of(deployment)
        mounted = tuple(mount["mountPath"] for mount in container["volumeMounts"])
        named = [value for value in environment(container).values() if isinstance(value, str) and value.startswith("/")]
        assert all(value.startswith(mounted) for value in named), named


def test_every_container_asks_for_what_it_needs_and_is_bounded(rendering: Rendering) -> None:
    for workload in rendering.workloads():
        for container in containers(workload):
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_memory_holds_every_child_that_decodes(rendering: Rendering) -> None:
    """Else the kernel ends the whole worker, where the program would have ended the one picture."""
    for name in DECODING & rendering.processes().keys():
        container = main_of(rendering.processes()[name])
        arguments = container["args"]
        children = int(arguments[arguments.index("--concurrency") + 1])
        child = int(environment(container).get("UNMASK_CHILD_MEMORY", 2048))
        assert mebibytes(container["resources"]["limits"]["memory"]) >= children * child + PARENT_MIB, name


def test_how_much_at_once_is_always_said(rendering: Rendering) -> None:
    """A container sees all processors of its node, whatever it may use of them."""
    for name, deployment in rendering.processes().items():
        container = main_of(deployment)
        assert int(environment(container)["UNMASK_THREADS"]) >= 1
        assert name.endswith("-serve") or "--concurrency" in container["args"]


def test_probes_ask_the_status_page(rendering: Rendering) -> None:
    for deployment in rendering.processes().values():
        container = main_of(deployment)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        pages = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {kind: page["path"] for kind, page in pages.items()} == {
            "startup": "/livez",
            "liveness": "/livez",
            "readiness": "/readyz",
        }
        assert {page["port"] for page in pages.values()} == {"metrics"}
        assert environment(container)["UNMASK_METRICS"] == f"0.0.0.0:{ports['metrics']}"


def test_a_deployment_selects_its_own_pods_and_no_others(rendering: Rendering) -> None:
    workloads = rendering.workloads()
    for deployment in rendering.kind("Deployment"):
        taken = [w["metadata"]["name"] for w in workloads if selects(deployment["spec"]["selector"], pod_labels(w))]
        assert taken == [deployment["metadata"]["name"]]


def test_a_service_leads_to_pods_of_its_own(rendering: Rendering) -> None:
    for service in rendering.kind("Service"):
        (pods,) = [w for w in rendering.workloads() if selects({"matchLabels": service["spec"]["selector"]}, pod_labels(w))]
        ports = {port["name"] for port in main_of(pods)["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_every_budget_selects_pods_and_every_workload_has_one(rendering: Rendering) -> None:
    deployments, budgets = rendering.kind("Deployment"), rendering.kind("PodDisruptionBudget")
    for budget in budgets:
        taken = [d["metadata"]["name"] for d in deployments if selects(budget["spec"]["selector"], pod_labels(d))]
        assert taken == [budget["metadata"]["name"]]
    assert not budgets or len(budgets) == len(deployments)


def test_pods_are_spread_over_zones_and_nodes(rendering: Rendering) -> None:
    for deployment in rendering.kind("Deployment"):
        rules = pod_of(deployment)["topologySpreadConstraints"]
        assert [rule["topologyKey"] for rule in rules] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert all(selects(rule["labelSelector"], pod_labels(deployment)) for rule in rules)


def test_images_are_pinned_by_digest_where_one_is_told(production: Rendering) -> None:
    for deployment in production.processes().values():
        assert all("@sha256:" in container["image"] for container in containers(deployment))


@pytest.mark.parametrize("options", [{"gpus": 0}, {"gpus": 2}])
def test_a_gpu_is_asked_for(options: dict[str, Any]) -> None:
    triton = render("--set", f"triton.gpus={options['gpus']}").one("Deployment", "unmask-triton")
    assert main_of(triton)["resources"]["limits"].get("nvidia.com/gpu", 0) == options["gpus"]
    # Nobody has a second GPU to spare for an update.
    assert triton["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == (0 if options["gpus"] else 1)


def test_triton_loads_by_name_and_is_called_at_each_address() -> None:
    triton = case("gpu").one("Deployment", "unmask-triton")
    arguments = main_of(triton)["args"]
    assert "--model-control-mode=explicit" in arguments
    assert [word for word in arguments if word.startswith("--load-model=")] == [
        "--load-model=face_detector",
        "--load-model=detector",
        "--load-model=localizer",
    ]
    assert case("gpu").one("Service", "unmask-triton")["spec"]["clusterIP"] == "None"
