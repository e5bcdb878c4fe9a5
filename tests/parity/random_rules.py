"""Random placement rules: what a pod says about nodes, and what nodes say about pods.

The vocabularies are tiny on purpose, so that rules meet and each of them decides often. Values that
Go and Python read differently as numbers ("1_0", "007", beyond 64 bits) are among the labels.
Only what validation lets through is made (pkg/apis/core/validation/validation.go).
"""

from __future__ import annotations

from random import Random
from typing import Any

Json = dict[str, Any]

ZONES = ("a", "b", "c")
RANKS = ("0", "1", "2", "3", "10", "007", "1_0", "9223372036854775807", "9223372036854775808", "abc", "")
"""Values of the label `rank`; some are no 64-bit integers."""
BOUNDS = ("0", "1", "2", "3", "7", "010", "1_0", "9223372036854775807", "99999999999999999999", "two")
UNREADABLE = ("1_0", "99999999999999999999", "two")
LABELS: dict[str, tuple[str, ...]] = {
    "zone": ZONES,
    "example.com/disk": ("ssd", "hdd", ""),
    "rank": RANKS,
    "pool": ("x", "y"),
}
TAINTS = (("dedicated", ("db", "web", "")), ("node.kubernetes.io/not-ready", ("",)), ("k", ("1", "2", "5")))
EFFECTS = ("NoSchedule", "NoExecute", "PreferNoSchedule", "PreferNoSchedule")
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
PORTS = (80, 443, 8080)
ADDRESSES = (None, "", "0.0.0.0", "127.0.0.1", "10.0.0.1", "::", "::1")
PROTOCOLS = (None, "TCP", "UDP", "SCTP")


def labels(rng: Random, name: str, *, missing: float) -> dict[str, str]:
    """A node's labels, each of which is missing with that chance (the host name's less often)."""
    found = {key: rng.choice(values) for key, values in LABELS.items() if rng.random() >= missing}
    if rng.random() >= missing / 2:
        found["kubernetes.io/hostname"] = name
    return found


def taints(rng: Random, chance: float) -> list[Json]:
    """A node's taints, unique by key and effect."""
    found: dict[tuple[str, str], Json] = {}
    while rng.random() < chance:
        key, values = rng.choice(TAINTS)
        effect, value = rng.choice(EFFECTS), rng.choice(values)
        found[key, effect] = {"key": key, "effect": effect, **({"value": value} if value else {})}
    return list(found.values())


def toleration(rng: Random) -> Json:
    """One toleration; without a key it must be Exists, and Exists has no value."""
    key, values = rng.choice([*TAINTS, (UNSCHEDULABLE, ("",)), ("", ())])
    tolerated: Json = {"key": key} if key or rng.random() < 0.5 else {}
    if not key or rng.random() < 0.5:
        tolerated["operator"] = "Exists"
    else:
        if rng.random() < 0.5:
            tolerated["operator"] = "Equal"
        if value := rng.choice(values):
            tolerated["value"] = value
    effect = rng.choice([None, "", *EFFECTS])
    if effect is not None:
        tolerated["effect"] = effect
    if effect == "NoExecute" and rng.random() < 0.5:
        tolerated["tolerationSeconds"] = 30
    return tolerated


def expression(rng: Random) -> Json:
    """A requirement on a label."""
    key = rng.choice([*LABELS, "missing"])
    values = LABELS.get(key, ("x",))
    operator = rng.choice(["In", "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"])
    if operator in ("Gt", "Lt"):
        return {
            "key": rng.choice(["rank", "rank", key]),
            "operator": operator,
            "values": [rng.choice(BOUNDS)],
        }
    if operator in ("Exists", "DoesNotExist"):
        return {"key": key, "operator": operator}
    return {
        "key": key,
        "operator": operator,
        "values": rng.sample(values, rng.randint(1, min(2, len(values)))),
    }


def name_field(rng: Random, names: list[str]) -> Json:
    """A requirement on the node's name; it takes exactly one value."""
    operator = rng.choice(["In", "In", "NotIn"])
    return {"key": "metadata.name", "operator": operator, "values": [rng.choice([*names, "elsewhere"])]}


def term(rng: Random, names: list[str], *, by_name: float) -> Json:
    """Requirements that must all hold; an empty term matches no node."""
    found: Json = {}
    if rng.random() < 0.05:
        return found
    if rng.random() < by_name:
        found["matchFields"] = [name_field(rng, names) for _ in range(1 if rng.random() < 0.6 else 2)]
    if not found or rng.random() < 0.4:
        found["matchExpressions"] = [expression(rng) for _ in range(rng.choice([1, 1, 2]))]
    return found


def node_affinity(rng: Random, names: list[str]) -> Json:
    """Required terms."""
    by_name = rng.choice([0.0, 0.0, 0.0, 0.2, 1.0, 1.0])
    terms = [term(rng, names, by_name=by_name) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def node_selector(rng: Random) -> dict[str, str]:
    """Labels that a node must have."""
    keys = rng.sample([*LABELS, "missing"], 1 if rng.random() < 0.8 else 2)
    return {key: rng.choice(LABELS.get(key, ("x",))) for key in keys}


def ports(rng: Random, spec: Json) -> None:
    """Gives containers host ports, unique in (protocol, address, port) within the pod."""
    host_network = rng.random() < 0.1
    if host_network:
        spec["hostNetwork"] = True
    seen = set()
    for container in spec["containers"] + spec.get("initContainers", []):
        for _ in range(rng.choice([0, 1, 1, 2])):
            port = rng.choice(PORTS)
            protocol, address = rng.choice(PROTOCOLS), rng.choice(ADDRESSES)
            identity = (protocol or "TCP", address or "", port)
            if identity in seen:
                continue
            seen.add(identity)
            wanted: Json = {"containerPort": port}
            if rng.random() < 0.9:
                wanted["hostPort"] = port
            if protocol is not None:
                wanted["protocol"] = protocol
            if address is not None:
                wanted["hostIP"] = address
            container.setdefault("ports", []).append(wanted)
