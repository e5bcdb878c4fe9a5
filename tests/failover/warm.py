"""How soon a standby binds on a large cluster once it has the lease, and what it costs to be ready for that.

No kubelet and no kwok: pods are created on their nodes, so that 30,000 of them take a minute.
"""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.cluster import ControlPlane, node_manifest, pod_manifest
from tests.failover.audit import Audit
from tests.integration.harness import Json, Scheduler, eventually

NODES, PODS = 5_000, 30_000
_USERS = ("first", "second")
_CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
"""


@dataclass(frozen=True)
class Warm:
    """`start_s`: from the standby's start until its caches are in sync; `behind_s`: from the leader's SIGTERM
    to the lease; `takeover_s`: from the lease to the first bind, all pods being listed anew meanwhile;
    `cache`: what /debug/cache-check of the standby said before."""

    nodes: int
    pods: int
    start_s: float
    behind_s: float
    takeover_s: float
    leader_memory_bytes: int
    standby_memory_bytes: int
    consistent: bool
    lists: tuple[str, ...]


def measure(folder: Path, *, nodes: int = NODES, pods: int = PODS) -> Warm:
    audit = Audit(folder, _USERS)
    with ExitStack() as stack:
        plane = stack.enter_context(
            ControlPlane(
                controller_manager=False,
                apiserver_flags=audit.flags,
                users=dict.fromkeys(_USERS, ("system:masters",)),
            )
        )
        plane.api.create_many(node_manifest(f"node-{n:04}", cpu="16") for n in range(nodes))
        plane.api.create_many(_pod(f"old-{n:05}", nodeName=f"node-{n % nodes:04}") for n in range(pods))
        configuration = folder / "wholepod.yaml"
        configuration.write_text(_CONFIGURATION)
        schedulers: list[Scheduler] = []
        start_s = 0.0
        for user in _USERS:
            started = time.monotonic()
            scheduler = Scheduler(
                f"--config={configuration}", kubeconfig=plane.kubeconfig_for(user), log=folder / f"{user}.log"
            )
            schedulers.append(stack.enter_context(scheduler))
            start_s = time.monotonic() - started
            plane.api.create(_pod(f"to-{user}"))
            eventually(lambda: audit.first_bind_by_another("", 0.0), "the first one leads")
        leader, standby = schedulers
        _, answer = standby.request("/debug/cache-check")
        memory = [psutil.Process(scheduler.pid).memory_info().rss for scheduler in schedulers]
        at = time.time()
        leader.signal(signal.SIGTERM)
        plane.api.create(_pod("new"))
        eventually(lambda: audit.first_bind_by_another(_USERS[0], at), "the second one binds")
        first = audit.first_bind_by_another(_USERS[0], at)
        assert first is not None
        led_since = audit.led_since(first.user)
        return Warm(
            nodes,
            pods,
            start_s=start_s,
            behind_s=led_since - at,
            takeover_s=first.answered - led_since,
            leader_memory_bytes=memory[0],
            standby_memory_bytes=memory[1],
            consistent=json.loads(answer)["consistent"],
            lists=audit.listed_by(first.user, at, first.received),
        )


def _pod(name: str, **spec: Any) -> Json:
    pod: Json = pod_manifest(name, {"cpu": "500m", "memory": "1Gi"}, **spec)
    return pod
