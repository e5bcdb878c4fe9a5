"""Services and controllers for pods that have no spread constraints, and a profile's default constraints.

What selects a pod is mostly right, so that there is something to spread, and wrong in each way that
kube-scheduler has a rule for: selectors that are empty or missing, owners of other kinds and groups,
owners that do not control, that are gone or whose selector means other pods.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.parity.random_topology import NAMESPACES, POD_LABELS

Json = dict[str, Any]

ZONE = "topology.kubernetes.io/zone"
CONTROLLERS = (
    ("v1", "ReplicationController"),
    *[("apps/v1", "ReplicaSet")] * 4,
    *[("apps/v1", "StatefulSet")] * 2,
)
OTHERS = (
    ("apps/v1", "Deployment"),
    ("batch/v1", "Job"),
    ("v1", "ReplicaSet"),
    ("apps/v1beta1", "StatefulSet"),
)


def add(rng: Random, cluster: Json) -> None:
    """Zones for the nodes, Services, and an owner for the pod to place; in part of the clusters."""
    missing = rng.choice([0.0, 0.0, 0.1, 0.4])
    for node in cluster["nodes"]:
        if rng.random() >= missing:
            # An empty label is a domain of its own, and all but the same as none.
            node["metadata"]["labels"][ZONE] = rng.choice(["a", "a", "b", "c", ""] if missing else "abc")
    pod = cluster["pod"]
    if rng.random() < 0.3:
        pod["spec"].pop("topologySpreadConstraints", None)
    services, controller = rng.choice([(True, False), (False, True), (True, True)])
    if services:
        cluster["objects"] += [_service(rng, f"s{i}", pod) for i in range(rng.choice([1, 1, 2, 4]))]
    if controller:
        _own(rng, cluster, pod)
    if rng.random() < 0.3:
        config = {"name": "PodTopologySpread", "args": _arguments(rng)}
        cluster.setdefault("pluginConfig", []).append(config)


def _service(rng: Random, name: str, pod: Json) -> Json:
    namespace = pod["metadata"].get("namespace", "default")
    if rng.random() < 0.15:
        namespace = rng.choice(list(NAMESPACES))
    spec: Json = {"selector": _map_selector(rng, pod)}
    if rng.random() < 0.1:
        spec = rng.choice([{}, {"selector": {}}])
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def _own(rng: Random, cluster: Json, pod: Json) -> None:
    api_version, kind = rng.choice(CONTROLLERS)
    metadata = {"name": "owner", "namespace": pod["metadata"].get("namespace", "default")}
    if rng.random() < 0.95:
        selector: Json = _map_selector(rng, pod)
        if kind != "ReplicationController":
            selector = _label_selector(rng, selector)
        spec = {"selector": selector} if rng.random() < 0.95 else {}
        owner = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
        cluster["objects"].append(owner)
    reference: Json = {"apiVersion": api_version, "kind": kind, "name": "owner", "uid": "owner-1"}
    if rng.random() < 0.9:
        reference["controller"] = True
    references = [reference]
    if rng.random() < 0.1:
        other_version, other = rng.choice(OTHERS)
        reference = {"apiVersion": other_version, "kind": other, "name": "owner", "uid": "owner-2"}
        references.insert(rng.randrange(2), reference)
        if not any("controller" in each for each in references):
            reference["controller"] = True
    pod["metadata"]["ownerReferences"] = references


def _map_selector(rng: Random, pod: Json) -> dict[str, str]:
    """Mostly some of the pod's labels."""
    own = pod["metadata"]["labels"]
    if own and rng.random() < 0.85:
        return dict(rng.sample(sorted(own.items()), rng.randint(1, len(own))))
    key = rng.choice(list(POD_LABELS))
    return {key: rng.choice(POD_LABELS[key])}


def _label_selector(rng: Random, labels: dict[str, str]) -> Json:
    kind = rng.random()
    if kind < 0.05:
        return {}
    if kind < 0.7:
        return {"matchLabels": labels}
    expressions: list[Json] = [{"key": k, "operator": "In", "values": [v, "z"]} for k, v in labels.items()]
    if rng.random() < 0.3:
        expressions.append({"key": "absent", "operator": "DoesNotExist"})
    return {"matchExpressions": expressions}


def _arguments(rng: Random) -> Json:
    if rng.random() < 0.2:
        return {"defaultingType": rng.choice(["System", "List"])}
    found: dict[tuple[str, str], Json] = {}
    for _ in range(rng.choice([1, 2, 3])):
        key = rng.choice([ZONE, ZONE, "zone", "kubernetes.io/hostname", "pool"])
        action = rng.choice(["ScheduleAnyway", "DoNotSchedule"])
        constraint: Json = {
            "maxSkew": rng.choice([1, 1, 2, 5]),
            "topologyKey": key,
            "whenUnsatisfiable": action,
        }
        if action == "DoNotSchedule" and rng.random() < 0.3:
            constraint["minDomains"] = rng.choice([1, 2, 4])
        for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if rng.random() < 0.3:
                constraint[policy] = rng.choice(["Honor", "Ignore"])
        if rng.random() < 0.1:
            constraint["matchLabelKeys"] = ["app"]
        found[key, action] = constraint
    return {"defaultingType": "List", "defaultConstraints": list(found.values())}
