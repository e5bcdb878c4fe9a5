"""Random clusters that are full: priorities, start times, disruption budgets, nominated pods.

Nearly always nothing fits and evicting pods would help somewhere, so that it is decided who has to go.
Pods of one node never start at the same time and a pod never has two budgets, since kube-scheduler
then goes by the order in which it happens to list things.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.parity import random_rules, random_topology

Json = dict[str, Any]

PRIORITIES = (-10, 0, 0, 5, 5, 100)
MAX_NODES = 8
_CONDITION = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}


def random_preemption(number: int) -> Json:
    """A cluster in which a pod wants a place, as in `tests.parity.generate`."""
    rng = Random(f"preemption:{number}")
    ruled = rng.choice([0.0, 0.0, 0.3, 0.7])  # how often pods have rules about others
    ports = rng.choice([0.0, 0.0, 0.5])
    nodes = [_node(rng, f"n{i}") for i in range(rng.randint(1, MAX_NODES))]
    names = [node["metadata"]["name"] for node in nodes]
    starts = rng.sample(range(3600), 64)  # all different
    pods: list[Json] = []
    for name in names:
        taken: set[tuple[str, ...]] = set()
        for _ in range(rng.choice([1, 2, 3, 4, 5, 6])):
            bound = _bound_pod(rng, f"b{len(pods):02}", name, starts[len(pods)], ruled, ports)
            _take_each_port_once(bound, taken)
            pods.append(bound)
    pod = _incoming(rng, ruled, ports, names)
    if any(
        c["whenUnsatisfiable"] == "DoNotSchedule" for c in pod["spec"].get("topologySpreadConstraints", ())
    ):
        # Spreading does not count pods that are being deleted, but kube-scheduler counts those that it
        # thinks away.
        for bound in pods:
            bound["metadata"].pop("deletionTimestamp", None)
    nominated = [
        {"pod": _nominated(rng, f"w{i}", ruled, ports), "node": rng.choice(names)}
        for i in range(rng.choice([0, 0, 1, 2, 4]))
    ]
    for each in nominated:
        each["pod"]["status"] = {"nominatedNodeName": each["node"]}
    return {
        "name": f"preemption:{number}",
        "nodes": nodes,
        "pods": pods,
        "pod": pod,
        "nominated": nominated,
        "objects": [*random_topology.namespaces(rng), *_budgets(rng, pods)],
    }


def _node(rng: Random, name: str) -> Json:
    spec: Json = {}
    if rng.random() < 0.08:
        spec["unschedulable"] = True
    if found := random_rules.taints(rng, 0.06):
        spec["taints"] = found
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": rng.choice(["3", "6", "110", "110"])}
    if rng.random() < 0.3:
        allocatable["example.com/gpu"] = rng.choice(["1", "2"])
    labels = {"zone": rng.choice("ab"), "kubernetes.io/hostname": name}
    if rng.random() < 0.1:
        del labels["zone"]
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable},
    }


def _spec(rng: Random, most_cpu: int, ports: float, *, least_cpu: int = 0) -> Json:
    """cpu in tenths."""
    requests = {"cpu": f"{rng.randint(least_cpu, most_cpu)}00m", "memory": f"{rng.choice([0, 1, 1, 2, 3])}Gi"}
    resources: Json = {"requests": requests}
    if rng.random() < 0.15:
        resources["limits"] = {"example.com/gpu": "1"}
    spec: Json = {"containers": [{"name": "c", "image": "i", "resources": resources}]}
    if rng.random() < ports:
        random_rules.ports(rng, spec)
    if rng.random() < 0.85:
        spec["priority"] = rng.choice(PRIORITIES)
    return spec


def _metadata(rng: Random, name: str) -> Json:
    metadata: Json = {"name": name, "labels": random_topology.labels(rng)}
    if rng.random() < 0.2:
        metadata["namespace"] = "other"
    return metadata


def _bound_pod(rng: Random, name: str, node: str, start: int, ruled: float, ports: float) -> Json:
    metadata, spec = _metadata(rng, name), _spec(rng, 20, ports)
    spec["nodeName"] = node
    if rng.random() < ruled / 3:
        spec["affinity"] = random_topology.affinity(rng, metadata["labels"], often=0.5)
    status: Json = {"startTime": f"2026-01-01T{start // 60 % 24:02}:{start % 60:02}:{start // 1440:02}Z"}
    if rng.random() < 0.1:
        metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
        if rng.random() < 0.7:
            status["conditions"] = [{**_CONDITION, "reason": rng.choice([_CONDITION["reason"]] * 3 + ["x"])}]
    return {"metadata": metadata, "spec": spec, "status": status}


def _take_each_port_once(pod: Json, taken: set[tuple[str, ...]]) -> None:
    """As on a real node; where two pods had a port, kube-scheduler would free it with either of them."""
    for container in pod["spec"]["containers"]:
        for port in [*container.get("ports", ())]:
            number = str(port.get("hostPort", port["containerPort"]))
            holds = (port.get("protocol", "TCP"), port.get("hostIP") or "0.0.0.0", number)
            if holds in taken:
                container["ports"].remove(port)
            taken.add(holds)


def _nominated(rng: Random, name: str, ruled: float, ports: float) -> Json:
    metadata, spec = _metadata(rng, name), _spec(rng, 20, ports)
    if rng.random() < 0.4:
        spec["priority"] = 1000
    if rng.random() < ruled:
        spec["affinity"] = random_topology.affinity(rng, metadata["labels"], often=0.4)
    return {"metadata": metadata, "spec": spec}


def _incoming(rng: Random, ruled: float, ports: float, names: list[str]) -> Json:
    metadata, spec = _metadata(rng, "incoming"), _spec(rng, 40, ports, least_cpu=12)
    spec["priority"] = rng.choice([0, 5, 10, 100, 1000, 1000, 1000])
    if rng.random() < 0.06:
        spec["preemptionPolicy"] = "Never"
    if rng.random() < 0.1:
        spec["nodeSelector"] = {"zone": rng.choice("ab")}
    if rng.random() < 0.04:
        spec["affinity"] = {"nodeAffinity": random_rules.node_affinity(rng, names)}
    if rng.random() < 0.1:
        spec["tolerations"] = [{"operator": "Exists"}]
    if rng.random() < ruled:
        between = random_topology.affinity(rng, metadata["labels"], often=0.5)
        spec["affinity"] = {**spec.get("affinity", {}), **between}
    if rng.random() < ruled:
        constraints = random_topology.spread(rng, metadata["labels"])
        for constraint in constraints:
            if constraint.get("labelSelector") == {}:
                # An empty selector counts no pods, but kube-scheduler counts those that it thinks away.
                del constraint["labelSelector"]
        spec["topologySpreadConstraints"] = constraints
    pod: Json = {"metadata": metadata, "spec": spec}
    if rng.random() < 0.2:
        pod["status"] = {"nominatedNodeName": rng.choice([*names, "elsewhere"])}
    return pod


def _budgets(rng: Random, pods: list[Json]) -> list[Json]:
    if rng.random() < 0.4:
        return []
    found = []
    for namespace in ("default", "other"):
        for app in ("x", "y"):
            if rng.random() < 0.35:
                continue
            status: Json = {"disruptionsAllowed": rng.choice([0, 0, 1, 1, 2, 3])}
            if pods and rng.random() < 0.2:
                status["disruptedPods"] = {rng.choice(pods)["metadata"]["name"]: "2026-01-01T00:00:00Z"}
            metadata = {"name": f"keep-{app}", "namespace": namespace}
            selector = rng.choice([{"matchLabels": {"app": app}}] * 6 + [{}])
            found.append(
                {
                    "apiVersion": "policy/v1",
                    "kind": "PodDisruptionBudget",
                    "metadata": metadata,
                    "spec": {"selector": selector},
                    "status": status,
                }
            )
    return found
