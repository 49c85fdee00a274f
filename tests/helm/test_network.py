"""NetworkPolicies, computed: each process reaches what its environment names, and nothing else reaches it or is reached."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.helm.rendering import (
    Document,
    Refused,
    Rendering,
    case,
    containers,
    environment,
    main_of,
    pod_labels,
    render,
    selects,
)

ANYWHERE = "anywhere"
DNS = 53


def egress(rendering: Rendering, workload: Document) -> dict[int, list[Any]]:
    """Ports that a workload's pods may speak to, each with its peers; [ANYWHERE] where no peer is named."""
    policies = rules_of(rendering, workload, "egress")
    found: dict[int, list[Any]] = {}
    for rule in policies:
        for port in rule.get("ports", [{"port": -1}]):
            found.setdefault(port["port"], []).extend(rule.get("to") or [ANYWHERE])
    return found


def rules_of(rendering: Rendering, workload: Document, direction: str) -> list[Document]:
    """The rules of the one policy that selects these pods."""
    chosen = [p for p in rendering.kind("NetworkPolicy") if selects(p["spec"]["podSelector"], pod_labels(workload))]
    assert len(chosen) == 1, (workload["metadata"]["name"], len(chosen))
    assert chosen[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    return list(chosen[0]["spec"].get(direction, []))


def needed(workload: Document) -> Iterator[int]:
    """Ports of what the environment names (those of secret addresses as the values have them)."""
    told = [environment(container) for container in containers(workload)]
    names = {name for env in told for name in env}
    if names & {"UNMASK_DATABASE"}:
        yield 5432
    if names & {"UNMASK_BROKER"}:
        yield 5672
    for env in told:
        if "UNMASK_S3" in env:
            url = urlsplit(env["UNMASK_S3"])
            yield url.port or {"https": 443, "http": 80}[url.scheme]
        if "UNMASK_TRITON" in env:
            yield int(env["UNMASK_TRITON"].rpartition(":")[2])
        if "OTEL_EXPORTER_OTLP_ENDPOINT" in env:
            yield urlsplit(env["OTEL_EXPORTER_OTLP_ENDPOINT"]).port or 4317


def speaks_outside(workload: Document) -> bool:
    """Whether it sends webhooks, or is the one that fetches pictures."""
    container = main_of(workload)
    names = environment(container).keys()
    return "UNMASK_WEBHOOK_KEYS" in names or (container.get("args", [])[:2] == ["work", "ingest"] and "UNMASK_FETCH" in names)


def outside(peers: list[Any]) -> list[str]:
    """Networks among the peers."""
    return [peer["ipBlock"]["cidr"] for peer in peers if isinstance(peer, dict) and "ipBlock" in peer]


@pytest.mark.parametrize("name", ["default", "production", "gpu"])
def test_every_pod_reaches_what_its_environment_names_and_nothing_else(name: str) -> None:
    rendering = case(name)
    for workload in rendering.workloads():
        reached = egress(rendering, workload)
        allowed = {port for port, peers in reached.items() if port not in {DNS, -1} and set(map(str, peers)) - _outside(peers)}
        assert allowed == set(needed(workload)), workload["metadata"]["name"]
        assert (DNS in reached) == bool(allowed)


def _outside(peers: list[Any]) -> set[str]:
    return {str(peer) for peer in peers if isinstance(peer, dict) and "ipBlock" in peer}


@pytest.mark.parametrize("name", ["default", "production", "gpu"])
def test_only_who_delivers_or_fetches_speaks_to_the_world(name: str) -> None:
    rendering = case(name)
    for workload in rendering.workloads():
        networks = {cidr for peers in egress(rendering, workload).values() for cidr in outside(peers)}
        assert bool(networks) == speaks_outside(workload), workload["metadata"]["name"]


def test_the_world_is_no_private_address() -> None:
    delivery = case("default").processes()["delivery-work"]
    rules = [rule for rule in rules_of(case("default"), delivery, "egress") if outside(rule.get("to", []))]
    (rule,) = rules
    assert rule["ports"] == [{"port": 443}]
    excepted = [ipaddress.ip_network(net) for peer in rule["to"] for net in peer["ipBlock"]["except"]]
    for address in (
        "10.1.2.3",
        "172.20.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "127.0.0.1",
        "fd00::1",
        "fe80::1",
    ):
        assert any(ipaddress.ip_address(address) in net for net in excepted), address
    assert not any(ipaddress.ip_address("93.184.216.34") in net for net in excepted)


def test_private_networks_that_are_allowed_are_reached_by_who_is_told_of_them(production: Rendering) -> None:
    for name, deployment in production.processes().items():
        reached = outside(egress(production, deployment).get(-1, []))
        assert reached == environment(main_of(deployment)).get("UNMASK_ALLOW_PRIVATE", "").split(), name
    assert egress(production, production.processes()["delivery-work"])[-1]


def test_named_peers_are_the_only_ones(production: Rendering) -> None:
    for workload in production.workloads():
        peers = [peer for peers in egress(production, workload).values() for peer in peers]
        assert ANYWHERE not in peers, workload["metadata"]["name"]


@pytest.mark.parametrize("name", ["default", "production", "gpu"])
def test_who_asks_triton_and_nobody_else_is_let_in_there(name: str) -> None:
    rendering = case(name)
    triton = rendering.one("Deployment", "unmask-triton")
    (rule,) = [rule for rule in rules_of(rendering, triton, "ingress") if rule["ports"] == [{"port": "grpc"}]]
    let_in = {
        process
        for process, deployment in rendering.processes().items()
        if any(selects(peer["podSelector"], pod_labels(deployment)) for peer in rule["from"])
    }
    asks = {p for p, deployment in rendering.processes().items() if "UNMASK_TRITON" in environment(main_of(deployment))}
    assert let_in == asks != set()


@pytest.mark.parametrize("name", ["default", "production", "gpu"])
def test_only_grpc_and_metrics_are_let_in(name: str) -> None:
    rendering = case(name)
    for workload in rendering.workloads():
        ports = [port["port"] for rule in rules_of(rendering, workload, "ingress") for port in rule["ports"]]
        own = [port["name"] for port in main_of(workload).get("ports", [])]
        assert sorted(ports) == sorted(set(own) - {"http"}), workload["metadata"]["name"]
        assert all(rule["from"] for rule in rules_of(rendering, workload, "ingress"))  # an empty list lets everybody in


def test_a_list_that_would_let_everybody_in_is_refused() -> None:
    for who in ("clients", "monitoring", "dns"):
        with pytest.raises(Refused, match=who):
            render("--set-json", f"networkPolicy.{who}=[]")
