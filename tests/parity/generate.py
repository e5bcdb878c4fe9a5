"""Random documents for the oracle: single pods, and clusters with one pod to place.

A document depends on nothing but its number (`Random(f"{family}:{number}")`), so that a difference
can be named by it and made again. The distributions are skewed towards trouble: every filter decides
often, nothing fits in a good part of the clusters, and several reasons come together.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from tests.parity import (
    random_preferences,
    random_requests,
    random_rules,
    random_spread_defaults,
    random_topology,
    random_volumes,
)
from tests.parity.random_requests import EXTENDED, GIB, HUGE_PAGES, KIB, MIB, MILLI, UNIT, Amounts, write

Json = dict[str, Any]

POD_LARGEST: Amounts = {
    "cpu": 4 * UNIT,
    "memory": 8 * GIB,
    "ephemeral-storage": 20 * GIB,
    **dict.fromkeys(EXTENDED, 4 * UNIT),
    **{name: 3 * page for name, page in HUGE_PAGES.items()},
}
MAX_NODES, MAX_BOUND_PODS = 30, 60


def random_pod(number: int) -> Json:
    """A pod whose requests are worth computing."""
    rng = Random(f"pod:{number}")
    spec = random_requests.pod_spec(rng, POD_LARGEST)
    pod: Json = {"metadata": {"name": f"p{number}", "uid": f"u{number}"}, "spec": spec}
    if rng.random() < 0.6:
        pod["status"] = random_requests.resize_status(rng, spec, POD_LARGEST)
    return pod


def random_cluster(number: int) -> Json:
    """A cluster, the pods in it, and one that wants a place."""
    rng = Random(f"cluster:{number}")
    mood = _mood(rng)
    count = rng.choice([0, *[1, 2, 3] * 3, *[rng.randint(4, MAX_NODES)] * 20])
    nodes = [_node(rng, f"n{i:02}", mood) for i in range(count)]
    names = [node["metadata"]["name"] for node in nodes]
    bound = rng.randint(0, MAX_BOUND_PODS) if nodes else 0
    cluster: Json = {
        "name": f"cluster:{number}",
        "nodes": nodes,
        "pods": [_bound_pod(rng, f"b{i:02}", names, mood) for i in range(bound)],
        "pod": _incoming(rng, names, mood),
        "objects": random_topology.namespaces(rng) if mood.neighbourly else [],
    }
    if rng.random() < 0.45:
        cluster["pluginConfig"] = random_preferences.plugin_config(rng, names)
    if rng.random() < 0.65:
        random_spread_defaults.add(rng, cluster)
    if rng.random() < 0.66:
        random_volumes.add(rng, cluster)
    return cluster


@dataclass(frozen=True)
class _Mood:
    """What a cluster is like; numbers are chances, of a node or a pod, unless they say otherwise."""

    offered: Amounts
    """Resources of a node that is not short of anything."""
    tainted: float
    cordoned: float
    crowded: float
    """Chance that a node takes hardly any pods."""
    ports: float
    avoided: float
    """Chance of a taint that only repels, beside the others."""
    images: float
    """Share of the images that a node has."""
    asked_eighths: int
    """A bound pod asks for at most so many eighths of `offered`."""
    unlabelled: float
    """Chance that a node lacks one of the labels."""
    neighbourly: float
    """Chance that a bound pod has rules about other pods; if not 0, the incoming one mostly has."""


def _mood(rng: Random) -> _Mood:
    offered = {"cpu": rng.choice([2, 4, 8]) * UNIT, "memory": rng.choice([4, 8, 16]) * GIB}
    if rng.random() < 0.5:
        offered["ephemeral-storage"] = 50 * GIB
    for name in EXTENDED:
        if rng.random() < 0.3:
            offered[name] = rng.choice([1, 2, 8]) * UNIT
    for name, page in HUGE_PAGES.items():
        if rng.random() < 0.2:
            offered[name] = 4 * page
    neighbourly = rng.choice([0.0, 0.0, 0.03, 0.1, 0.3, 0.6])
    easy = rng.random() < (0.8 if neighbourly else 0.3)
    return _Mood(
        offered=offered,
        tainted=0.0 if easy else rng.choice([0.0, 0.15, 0.35]),
        cordoned=0.0 if easy else rng.choice([0.0, 0.0, 0.2]),
        crowded=0.0 if easy else rng.choice([0.0, 0.1, 0.5]),
        ports=0.0 if easy and rng.random() < 0.5 else rng.choice([0.0, 0.0, 0.5]),
        avoided=rng.choice([0.0, 0.0, 0.3, 0.6]),
        images=rng.choice([0.0, 0.2, 0.5, 0.9]),
        asked_eighths=1 if easy else rng.choice([1, 2, 4]),
        unlabelled=rng.choice([0.02, 0.25]) if neighbourly else 0.25,
        neighbourly=neighbourly,
    )


def _node(rng: Random, name: str, mood: _Mood) -> Json:
    allocatable = {}
    for resource, amount in mood.offered.items():
        usual = resource in ("cpu", "memory")
        if rng.random() > (0.99 if usual else 0.8):
            continue
        if resource in EXTENDED or resource in HUGE_PAGES:
            allocatable[resource] = write(rng, amount)
        else:
            grain = 10 * MILLI if resource == "cpu" else rng.choice([UNIT, KIB, MIB])
            left = amount * rng.randint(40, 100) // 100
            allocatable[resource] = write(rng, left // grain * grain)
    if rng.random() < 0.98:
        allocatable["pods"] = rng.choice(["4", "2", "0"]) if rng.random() < mood.crowded else "110"
    spec: Json = {}
    if found := random_rules.taints(rng, mood.tainted):
        spec["taints"] = found
    if rng.random() < mood.avoided:
        added = [{"key": f"avoid-{k}", "effect": "PreferNoSchedule"} for k in range(rng.randint(1, 3))]
        spec.setdefault("taints", []).extend(added)
    if rng.random() < mood.cordoned:
        spec["unschedulable"] = True
        if rng.random() < 0.7:  # the node controller adds the taint, sometimes a moment later
            spec.setdefault("taints", []).append({"key": random_rules.UNSCHEDULABLE, "effect": "NoSchedule"})
    return {
        "metadata": {"name": name, "labels": random_rules.labels(rng, name, missing=mood.unlabelled)},
        "spec": spec,
        "status": {
            "allocatable": allocatable,
            "images": random_preferences.node_images(rng, mood.images),
            "declaredFeatures": random_preferences.declared_features(rng),
        },
    }


def _bound_pod(rng: Random, name: str, names: list[str], mood: _Mood) -> Json:
    largest = {resource: amount * mood.asked_eighths // 8 for resource, amount in mood.offered.items()}
    spec = random_requests.pod_spec(rng, largest, simple=rng.random() < 0.7)
    spec["nodeName"] = rng.choice(names)
    if rng.random() < mood.ports:
        random_rules.ports(rng, spec)
    if rng.random() < 0.2:
        spec["priority"] = rng.choice([-10, 0, 100])
    metadata = _metadata(rng, name)
    if mood.neighbourly and rng.random() < 0.1:
        metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    if rng.random() < mood.neighbourly:
        spec["affinity"] = random_topology.affinity(rng, metadata["labels"], often=0.5)
    pod: Json = {"metadata": metadata, "spec": spec}
    if rng.random() < 0.15:
        pod["status"] = random_requests.resize_status(rng, spec, largest)
    return pod


def _incoming(rng: Random, names: list[str], mood: _Mood) -> Json:
    # From a crumb to somewhat more than any node has.
    tenths = rng.choice([1, 1, 1, 1, 2, 8] if mood.neighbourly else [1, 1, 1, 2, 2, 4, 8, 12])
    picky = 0.4 if mood.neighbourly else 1.0
    largest = {resource: amount * tenths // 10 for resource, amount in mood.offered.items()}
    if rng.random() < 0.08 * picky:
        nowhere = [name for name in random_requests.RESOURCES if name not in largest]
        largest |= dict.fromkeys(nowhere, 2 * GIB)
    spec = random_requests.pod_spec(rng, largest, simple=rng.random() < 0.5)
    if rng.random() < 0.16 * picky:
        spec["nodeSelector"] = random_rules.node_selector(rng)
    affinity = random_rules.node_affinity(rng, names) if rng.random() < 0.45 * picky else {}
    if rng.random() < 0.55:
        preferred = random_preferences.preferred_terms(rng, names)
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    if affinity:
        spec["affinity"] = {"nodeAffinity": affinity}
    if mood.tainted and rng.random() < 0.6:
        spec["tolerations"] = [random_rules.toleration(rng) for _ in range(rng.randint(1, 3))]
    elif rng.random() < 0.1:
        spec["tolerations"] = [{"operator": "Exists"}]
    elif mood.avoided and rng.random() < 0.3:
        spec["tolerations"] = [{"key": "avoid-0", "operator": "Exists", "effect": "PreferNoSchedule"}]
    if rng.random() < max(mood.ports, 0.05):
        random_rules.ports(rng, spec)
    if rng.random() < 0.1 * picky:
        spec["nodeName"] = rng.choice([*names, "elsewhere"])
    if rng.random() < 0.1:
        spec["priority"] = rng.choice([0, 1000])
    if rng.random() < 0.6:
        random_preferences.pod_images(rng, spec)
    if rng.random() < 0.15:
        random_preferences.required_features(rng, spec)
    metadata = _metadata(rng, "incoming")
    if mood.neighbourly:
        if rng.random() < 0.3:
            metadata["labels"] |= random_topology.FIRST
        if rng.random() < 0.5:
            between = random_topology.affinity(rng, metadata["labels"], often=rng.choice([0.3, 0.7]))
            spec["affinity"] = {**spec.get("affinity", {}), **between}
        if rng.random() < 0.65:
            spec["topologySpreadConstraints"] = random_topology.spread(rng, metadata["labels"])
    return {"metadata": metadata, "spec": spec}


def _metadata(rng: Random, name: str) -> Json:
    metadata: Json = {"name": name, "labels": random_topology.labels(rng)}
    if rng.random() < 0.35:
        metadata["namespace"] = rng.choice(["other", "other", "third"])
    return metadata
