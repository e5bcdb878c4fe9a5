"""The flags that each program of a control plane is started with, and why.

Paths that are relative are so to the plane's folder, where every program works: the path of a Unix
socket may have no more than 107 bytes, and a temporary folder's alone can be longer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOKEN_FILE = "tokens.csv"
CERTIFICATE_FOLDER = "certificates"  # the API server writes apiserver.crt and apiserver.key into it

# Of the admission plugins that are on by default, these two need a partner to let a pod through:
# ServiceAccount wants the namespace's account, which the controller manager creates;
# TaintNodesByCondition taints every new node until the node lifecycle controller has seen it ready.
NEEDS_CONTROLLER_MANAGER = "ServiceAccount"
NEEDS_NODE_LIFECYCLE = "TaintNodesByCondition"
NODE_LIFECYCLE_CONTROLLERS = ("node-lifecycle-controller", "taint-eviction-controller")
# It refuses the API server's self-signed certificate, and says so for ever.
TRUST_BUNDLE_CONTROLLER = "kube-apiserver-serving-clustertrustbundle-publisher-controller"
KWOK_LEASE_S = 40  # as long as a kubelet's
# What Kubernetes 1.37 takes to serve its own PodGroups, and kube-scheduler to schedule by them.
POD_GROUPS_GATES = {"GenericWorkload": True}
POD_GROUPS_SERVED = {"scheduling.k8s.io/v1beta1": True}


def etcd() -> list[str]:
    """No syncing, no TCP port: the data is the test's, and lives as long."""
    client, peer = "unix://etcd.sock", "unix://etcd-peer.sock"
    return [
        "--name=embedded",
        "--data-dir=etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=embedded={peer}",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    ]


def api_server(
    port: int, *, served: Mapping[str, bool], controller_manager: bool, node_lifecycle: bool
) -> list[str]:
    """Loopback only; it signs its own certificate, and ServiceAccount tokens with the same key."""
    unmet = {NEEDS_CONTROLLER_MANAGER: not controller_manager, NEEDS_NODE_LIFECYCLE: not node_lifecycle}
    key = f"{CERTIFICATE_FOLDER}/apiserver.key"
    return [
        "--etcd-servers=unix://etcd.sock",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={CERTIFICATE_FOLDER}",
        f"--token-auth-file={TOKEN_FILE}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--endpoint-reconciler-type=none",
        f"--disable-admission-plugins={','.join(name for name, off in unmet.items() if off)}",
        *switches("--runtime-config", served),
    ]


def controller_manager(kubeconfig: Path, *, node_lifecycle: bool) -> list[str]:
    """All default controllers but those that would spoil a plane without kubelets."""
    off = [TRUST_BUNDLE_CONTROLLER, *(() if node_lifecycle else NODE_LIFECYCLE_CONTROLLERS)]
    return [
        f"--kubeconfig={kubeconfig}",
        f"--controllers={','.join(['*', *(f'-{name}' for name in off)])}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--pvclaimbinder-sync-period=1s",  # a claim that finds no volume at first is looked at again then
        f"--root-ca-file={CERTIFICATE_FOLDER}/apiserver.crt",
        f"--service-account-private-key-file={CERTIFICATE_FOLDER}/apiserver.key",
    ]


def scheduler(config: Path, port: int) -> list[str]:
    """Anybody on this machine may read its health and metrics."""
    return [
        f"--config={config}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--authentication-skip-lookup",
        "--authorization-always-allow-paths=/healthz,/livez,/readyz,/metrics",
    ]


def scheduler_config(
    kubeconfig: Path, *, qps: float, burst: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A KubeSchedulerConfiguration: without leader election unless `settings` say otherwise."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"kubeconfig": str(kubeconfig), "qps": qps, "burst": burst},
        **settings,
    }


def kwok(
    kubeconfig: Path, port: int, *, stages: Path, node_selector: str | None, node_lifecycle: bool
) -> list[str]:
    """It renews the nodes' leases only if somebody looks at them: 5,000 leases are 500 writes a second."""
    nodes = "--manage-all-nodes=true"
    if node_selector is not None:
        nodes = f"--manage-nodes-with-label-selector={node_selector}"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--config={stages}",
        f"--server-address=127.0.0.1:{port}",
        "--v=WARN",
        nodes,
        *([f"--node-lease-duration-seconds={KWOK_LEASE_S}"] if node_lifecycle else []),
    ]


def switches(flag: str, values: Mapping[str, bool]) -> Sequence[str]:
    """A flag of the form NAME=true,NAME=false; nothing if there are none."""
    text = ",".join(f"{name}={str(on).lower()}" for name, on in values.items())
    return [f"{flag}={text}"] if text else []
