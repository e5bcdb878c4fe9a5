"""Random preferences, features and arguments of plugins: few words that meet often, as in `random_rules`."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.parity import random_rules
from tests.parity.random_requests import EXTENDED, HUGE_PAGES

Json = dict[str, Any]

MIB = 1024 * 1024
# As a kubelet reports it, and the ways in which a pod may write it.
IMAGES: dict[str, tuple[str, ...]] = {
    "example.com/app:latest": ("example.com/app", "example.com/app:latest"),
    "example.com:5000/team/app:latest": ("example.com:5000/team/app", "example.com:5000/team/app:latest"),
    "example.com:5000/team/app:v1": ("example.com:5000/team/app:v1",),
    "nginx:1.29": ("nginx:1.29", "nginx"),
    "docker.io/library/nginx:latest": ("nginx", "docker.io/library/nginx"),
    f"example.com/big@sha256:{'a' * 64}": (f"example.com/big@sha256:{'a' * 64}", "example.com/big"),
}
SIZES = (0, 5 * MIB, 23 * MIB, 100 * MIB + 7, 500 * MIB + 1, 999 * MIB, 3000 * MIB)
RESTART, HOST_USERS, MOUNT_OPTIONS = (
    "RestartAllContainersOnContainerExits",
    "UserNamespacesHostNetworkSupport",
    "VolumeBindMountOptions",
)
FEATURES = (RESTART, HOST_USERS, MOUNT_OPTIONS, "InPlacePodLevelResourcesVerticalScaling", "Unheard")
RESOURCES = ("cpu", "memory", "ephemeral-storage", *EXTENDED, *HUGE_PAGES)


def node_images(rng: Random, share: float) -> list[Json]:
    """`status.images` of a node that has that share of the images; some have a second name."""
    found = []
    for name in IMAGES:
        if rng.random() < share:
            aliases = [f"mirror.example.com/{rng.randint(1, 9)}/x:v1"] if rng.random() < 0.3 else []
            found.append({"names": [name, *aliases], "sizeBytes": rng.choice(SIZES)})
    return found


def pod_images(rng: Random, spec: Json) -> None:
    """Gives containers images, and now and then mounts one."""
    for container in spec["containers"] + spec.get("initContainers", []):
        container["image"] = rng.choice(rng.choice(list(IMAGES.values())))
    if rng.random() < 0.1:
        reference = rng.choice(rng.choice(list(IMAGES.values())))
        spec.setdefault("volumes", []).append({"name": "model", "image": {"reference": reference}})


def declared_features(rng: Random) -> list[str]:
    return sorted(rng.sample(FEATURES, rng.randint(0, len(FEATURES))))


def required_features(rng: Random, spec: Json) -> None:
    """Gives the pod one or two needs that not every kubelet can meet."""
    containers = spec["containers"] + spec.get("initContainers", [])
    for need in rng.sample((RESTART, HOST_USERS, MOUNT_OPTIONS), rng.choice([1, 1, 2])):
        container = rng.choice(containers)
        if need == RESTART and "restartPolicy" not in container:
            action = rng.choice(["RestartAllContainers", "RestartAllContainers", "Restart"])
            codes = {"operator": "In", "values": [42]}
            container["restartPolicy"] = "Never"
            container["restartPolicyRules"] = [{"action": action, "exitCodes": codes}]
        elif need == HOST_USERS:
            spec["hostUsers"] = rng.random() < 0.2
            if rng.random() < 0.8:
                spec["hostNetwork"] = True
        elif need == MOUNT_OPTIONS:
            spec.setdefault("volumes", []).append({"name": "scratch", "emptyDir": {}})
            options = ["noexec"] if rng.random() < 0.9 else []
            container["volumeMounts"] = [
                {"name": "scratch", "mountPath": "/scratch", "bindMountOptions": options}
            ]


def preferred_terms(rng: Random, names: list[str]) -> list[Json]:
    """Weighted node affinity, small weights and large."""
    return [
        {
            "weight": rng.choice([1, 2, 50, 99, 100]),
            "preference": _valid_term(rng, names, by_name=rng.choice([0.0, 0.0, 0.5])),
        }
        for _ in range(rng.choice([1, 1, 2, 3]))
    ]


def plugin_config(rng: Random, names: list[str]) -> list[Json]:
    """Arguments for some of the plugins that take any."""
    found = []
    if rng.random() < 0.8:
        found.append({"name": "NodeResourcesFit", "args": _fit_args(rng)})
    if rng.random() < 0.4:
        resources = [{"name": name} for name in _some_resources(rng)]
        found.append({"name": "NodeResourcesBalancedAllocation", "args": {"resources": resources}})
    if names and rng.random() < 0.4:
        added: Json = {}
        if rng.random() < 0.6:
            terms = [_valid_term(rng, names) for _ in range(rng.choice([1, 2]))]
            added["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
        if not added or rng.random() < 0.5:
            added["preferredDuringSchedulingIgnoredDuringExecution"] = [
                {"weight": rng.choice([0, 1, 100]), "preference": _valid_term(rng, names)}
            ]
        found.append({"name": "NodeAffinity", "args": {"addedAffinity": added}})
    return found


def _valid_term(rng: Random, names: list[str], *, by_name: float = 0.2) -> Json:
    """A term without a number that Go can't read. With one, kube-scheduler fails to score the pod, or to
    start; see docs/semantics.md."""
    while True:
        term = random_rules.term(rng, names, by_name=by_name)
        numbers = [e["values"][0] for e in term.get("matchExpressions", ()) if e["operator"] in ("Gt", "Lt")]
        if all(number not in random_rules.UNREADABLE for number in numbers):
            return term


def _fit_args(rng: Random) -> Json:
    args: Json = {}
    if rng.random() < 0.3:
        args["ignoredResources"] = rng.sample([*EXTENDED, "cpu"], rng.randint(1, 2))
    if rng.random() < 0.3:
        args["ignoredResourceGroups"] = [rng.choice(["example.com", "vendor.example", "elsewhere.example"])]
    kind = rng.choice(["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"])
    strategy: Json = {"type": kind}
    if rng.random() < 0.8:
        strategy["resources"] = [
            {"name": name, **({"weight": rng.choice([1, 2, 7, 100])} if rng.random() < 0.7 else {})}
            for name in _some_resources(rng)
        ]
    if kind == "RequestedToCapacityRatio":
        at = sorted(rng.sample([0, 10, 33, 50, 75, 90, 100], rng.randint(1, 4)))
        shape = [{"utilization": utilization, "score": rng.randint(0, 10)} for utilization in at]
        strategy["requestedToCapacityRatio"] = {"shape": shape}
    args["scoringStrategy"] = strategy
    return args


def _some_resources(rng: Random) -> list[str]:
    return rng.sample(RESOURCES, rng.choice([1, 2, 2, 3, 4, 5]))
