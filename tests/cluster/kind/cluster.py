"""The cluster: plan, create, load images into it, delete, and put the host back.

What `down` needs to know is one file, written before anything is changed.
"""

import contextlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.cluster import sources
from tests.cluster.assets import MINOR_VARIABLE, Report, asked_minor
from tests.cluster.errors import ClusterError
from tests.cluster.kind import config, engine, host, node_image, ways
from tests.cluster.kind.engine import Daemon, Engine
from tests.cluster.kind.shell import run
from tests.cluster.kind.ways import Facts, Way

KIND_NODE_IMAGE = "kindest/node:v1.37.0"
# What kind asks for by itself, too. An image that was brought by `docker load` has no digest.
KIND_NODE_DIGEST = "sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
READY_TIMEOUT_S = 240

Command = list[str | Path]
Step = Callable[[str], AbstractContextManager[Report]]


def folder() -> Path:
    """Where the record and the kubeconfig are."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "wholepod" / "kind"


def kubeconfig() -> Path:
    """The administrator's."""
    return folder() / "kubeconfig"


def record() -> host.Record | None:
    """What an earlier `up` has done, or None."""
    with contextlib.suppress(FileNotFoundError):
        return msgspec.json.decode((folder() / "record.json").read_bytes(), type=host.Record)
    return None


@dataclass(frozen=True)
class Preparation:
    """How to go about it."""

    way: Way
    plan: host.Plan
    node_image: str | None
    """The one to use; None if it has to be made."""


def prepare(found: Engine | None) -> Preparation:
    """Decide how to go about it. Tries to pull kind's image, and changes nothing else.

    Raises ClusterError if there is no way.
    """
    if asked_minor() is not None:
        raise ClusterError(f"the kind cluster runs one version of Kubernetes only: unset {MINOR_VARIABLE}")
    image = None if found is None else _kinds_image(found)
    facts = Facts(
        engine=found is not None,
        node_image=image is not None,
        cgroup_version=engine.host_cgroup_version() if found is None else found.cgroup_version,
        root=os.geteuid() == 0,
        apt=Path("/usr/bin/apt-get").exists(),
    )
    way = ways.choose(facts, KIND_NODE_IMAGE)
    return Preparation(way, host.plan(way, engine=found is not None), image)


def up(found: Engine | None, prepared: Preparation, step: Step) -> None:
    """Change the host as planned, and create the cluster. Raises ClusterError."""
    way, plan = prepared.way, prepared.plan
    with step("Programs") as report:
        kind = _kind(report)
        tools = node_image.programs(report) if way is Way.BUILT else {}
    name = prepared.node_image or node_image.name_of(tools)
    done = record() or host.Record(way=way, node_image=name)
    done.way, done.node_image = way, name
    for setting in {**plan.sysctls, **plan.watched}:
        done.sysctls.setdefault(setting, host.read(setting))
    _write(done)
    if plan.packages:
        with step(f"Packages: {', '.join(plan.packages)}"):
            host.install(plan.packages)
            done.packages += plan.packages
            _write(done)
    _set(plan.sysctls)
    # The engine's package starts it where there is an init system to do so.
    found = found or engine.find()
    if found is None:
        with step("Docker engine"):
            done.engine = Daemon.ours().start()
            _write(done)
            found = engine.find()
            assert found is not None
    if way is Way.BUILT:
        with step("Node image") as report:
            node_image.build(name, found, tools, report)
    with step("Cluster") as report:
        report(f"Creating {len(config.WORKERS_MIB) + 1} nodes")
        _create(kind, found, name, config.cluster(way, memory_bytes=found.memory_bytes))


def refresh(found: Engine) -> None:
    """Make a cluster that is there as good as new. Raises ClusterError.

    kube-proxy 1.37 in its nftables mode, which a node image that is made here is bound to, has been seen to
    take all Services out of a table that has them already, at its hourly full synchronisation and when it is
    started anew. So its table is removed first; it writes a new one, which is good for the next hour.
    """
    done = record()
    if done is None or done.way is not Way.BUILT:
        return
    for node in found.docker("ps", "--format={{.Names}}", *_OF_CLUSTER, doing="Listing nodes").split():
        # Added first, so that there is one to remove.
        script = "nft add table ip kube-proxy && nft delete table ip kube-proxy"
        found.docker("exec", node, "sh", "-c", script, doing=f"Removing kube-proxy's table of {node}")
    proxy = ("daemonset/kube-proxy", "--namespace=kube-system")
    kubectl("rollout", "restart", *proxy)
    kubectl("rollout", "status", *proxy, f"--timeout={READY_TIMEOUT_S}s")


def load(archive: Path) -> None:
    """Put an image (a file as `docker save` writes it) into all nodes. Raises ClusterError."""
    if record() is None or (found := engine.find()) is None:
        raise ClusterError("there is no kind cluster: make kind-up")
    command: Command = [_kind(lambda line: None), "load", "image-archive", archive, "--name", config.NAME]
    run(command, doing="Loading an image into the nodes", env=found.environment())


def exists(found: Engine) -> bool:
    """Whether containers of the cluster are there, running or not."""
    return bool(found.docker("ps", "--all", "--quiet", *_OF_CLUSTER, doing="Looking for nodes").split())


def down(step: Step) -> list[str]:
    """Delete the cluster and put the host back; returns what stays, for people. Raises ClusterError."""
    done = record()
    found = engine.find()
    if found is not None and exists(found):
        with step("Deleting the nodes") as report:
            command: Command = [
                _kind(report),
                "delete",
                "cluster",
                "--name",
                config.NAME,
                "--kubeconfig",
                kubeconfig(),
            ]
            run(command, doing="Deleting the cluster", env=found.environment())
    if done is None:
        return []
    if done.engine is not None:
        with step("Stopping the engine"):
            if found is not None:
                with contextlib.suppress(ClusterError):  # somebody else's containers are in it
                    found.docker("network", "rm", "kind", doing="Removing kind's network")
            Daemon.ours().stop(*done.engine)
    _set(done.sysctls)
    kubeconfig().unlink(missing_ok=True)
    (folder() / "record.json").unlink()
    if not done.packages:
        return []
    return [f"the packages {', '.join(done.packages)} (apt-get remove {' '.join(done.packages)})"]


_OF_CLUSTER = ("--filter", f"label=io.x-k8s.kind.cluster={config.NAME}")


def _create(kind: Path, found: Engine, image: str, wanted: config.Json) -> None:
    command: Command = [
        kind,
        "create",
        "cluster",
        "--config",
        "-",
        "--image",
        image,
        "--kubeconfig",
        kubeconfig(),
    ]
    options = ["--wait", f"{READY_TIMEOUT_S}s", "--retain"]
    text = json.dumps(wanted).encode()
    run([*command, *options], doing="Creating the cluster", env=found.environment(), stdin=text)
    for what in (("nodes", "--all"), ("deployments", "--all", "--namespace=kube-system")):
        condition = "Ready" if what[0] == "nodes" else "Available"
        kubectl(
            "wait",
            f"--for=condition={condition}",
            f"--timeout={READY_TIMEOUT_S}s",
            *what,
        )


def kubectl(*arguments: str, stdin: bytes | None = None) -> str:
    """kubectl as the administrator. Raises ClusterError with its own words."""
    command: Command = [sources.kubectl(), f"--kubeconfig={kubeconfig()}", *arguments]
    return run(command, doing=f"kubectl {' '.join(arguments[:3])}", stdin=stdin)


def _kind(report: Report) -> Path:
    return sources.find(["kind"], report=report)["kind"].path


def _kinds_image(found: Engine) -> str | None:
    """kind's node image, if the engine has it or can pull it."""
    pinned = f"{KIND_NODE_IMAGE}@{KIND_NODE_DIGEST}"
    there = next((name for name in (pinned, KIND_NODE_IMAGE) if found.has_image(name)), None)
    return there or (pinned if found.pull(pinned) else None)


def _set(sysctls: dict[str, str]) -> None:
    refused = []
    for name, value in sysctls.items():
        try:
            host.write(name, value)
        except PermissionError:
            refused.append(f"{name}={value}")
    if refused:
        raise ClusterError(f"kernel settings are root's to change: sudo sysctl -w {' '.join(refused)}")


def _write(done: host.Record) -> None:
    folder().mkdir(parents=True, exist_ok=True)
    draft = folder() / "record.json.new"
    draft.write_bytes(msgspec.json.encode(done))
    draft.replace(folder() / "record.json")
