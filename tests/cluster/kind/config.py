"""What `kind create cluster` is told: one control plane, three workers of unequal size, quick to miss a node.

All nodes share the machine's memory, and each reports all of it; what a worker may give to pods is made small
by reserving the rest for its system, so there is something to fit into. The kubelet holds pods to it, as it
would on a real machine of that size.
"""

import json
from typing import Any

from tests.cluster.kind.node_image import REPOSITORY
from tests.cluster.kind.ways import Way

NAME = "wholepod"
POD_SUBNET = "10.244.0.0/16"  # also in node/kind/pod-subnet
WORKERS_MIB = (1536, 2560, 3584)  # allocatable memory
MIB = 1 << 20
# After so long a silent node is NotReady, and its pods leave it. Kubernetes' defaults (50 s, five minutes)
# would make tests of a lost node slow.
NODE_SILENT_S, EVICTION_S = 10, 5

Json = dict[str, Any]


def cluster(way: Way, *, memory_bytes: int) -> Json:
    """kind's configuration; `memory_bytes` is what the engine's machine has."""
    workers = [_worker(memory_bytes // MIB - allocatable) for allocatable in WORKERS_MIB]
    kubelet: Json = {
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 8,
    }
    networking = {"podSubnet": POD_SUBNET}
    patches: list[Json] = [kubelet]
    if way is Way.BUILT:
        # cgroup v1 without systemd's driver; scores and settings that can't be lowered or written there.
        kubelet |= {
            "cgroupDriver": "cgroupfs",
            "oomScoreAdj": 0,
            "featureGates": {"KubeletInUserNamespace": True},
        }
        patches.append({"kind": "ClusterConfiguration", "imageRepository": REPOSITORY})
        networking["kubeProxyMode"] = "nftables"  # kube-proxy's image has nft and nothing else
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": NAME,
        "networking": networking,
        "nodes": [{"role": "control-plane"}, *workers],
        "kubeadmConfigPatches": [_text(patch) for patch in patches],
        "kubeadmConfigPatchesJSON6902": [_quick_to_miss_a_node()],
    }


def _worker(reserved_mib: int) -> Json:
    argument = {"name": "system-reserved", "value": f"memory={max(reserved_mib, 0)}Mi"}
    return {
        "role": "worker",
        "kubeadmConfigPatchesJSON6902": [
            _patch("JoinConfiguration", {"/nodeRegistration/kubeletExtraArgs/-": argument})
        ],
    }


def _quick_to_miss_a_node() -> Json:
    toleration = {"value": str(EVICTION_S)}
    return _patch(
        "ClusterConfiguration",
        {
            "/controllerManager/extraArgs/-": {
                "name": "node-monitor-grace-period",
                "value": f"{NODE_SILENT_S}s",
            },
            "/controllerManager/extraArgs/0": {"name": "node-monitor-period", "value": "1s"},
            "/apiServer/extraArgs/-": {"name": "default-not-ready-toleration-seconds", **toleration},
            "/apiServer/extraArgs/0": {"name": "default-unreachable-toleration-seconds", **toleration},
        },
    )


def _patch(kind: str, additions: Json) -> Json:
    steps = [{"op": "add", "path": path, "value": value} for path, value in additions.items()]
    return {"group": "kubeadm.k8s.io", "version": "v1beta4", "kind": kind, "patch": _text(steps)}


def _text(value: Any) -> str:
    return json.dumps(value)  # JSON is YAML
