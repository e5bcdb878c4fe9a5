"""The leader is taken away, again and again, while pods keep coming: none is lost, and another takes over."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.chart.helm import NAMESPACE
from tests.cluster import ApiError
from tests.e2e.kind.manifests import Json, container, pod, spec
from tests.e2e.kind.stage import Stage, expect, until
from tests.integration.observer import node_of

RATE_PER_S = 1.5
KEPT = 30
"""Pods that are placed and may stay; the oldest leave."""
BEFORE_S = 3.0
API_SERVER_PORT = "6443"


class Way(enum.StrEnum):
    """How the leader is lost."""

    KILLED = "killed (SIGKILL)"
    CUT = "cut off from the API server"


WAYS: Sequence[Way] = (Way.KILLED, Way.CUT, Way.KILLED)


class Stream:
    """Creates pods at a steady rate from entering to leaving, and lets the oldest go once they are placed."""

    def __init__(self, stage: Stage, namespace: str) -> None:
        self._stage, self._namespace = stage, namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._placed: list[str] = []
        self.created: list[str] = []
        """Their uids."""
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raises NotSoError if no more pods come."""
        expect(self.error is None, f"the stream broke off: {self.error!r}")

    def _run(self) -> None:
        try:
            while not self._stop.wait(1 / RATE_PER_S):
                name = f"p-{len(self.created)}"
                made = self._stage.api.create(
                    pod(self._namespace, name, spec(container("main", "hold", "1", memory="8Mi")))
                )
                self.created.append(made["metadata"]["uid"])
                self._make_room()
        except BaseException as error:
            self.error = error

    def _make_room(self) -> None:
        placed = [
            each
            for each in self._stage.pods(self._namespace)
            if node_of(each) and "deletionTimestamp" not in each["metadata"]
        ]
        placed.sort(key=lambda each: int(each["metadata"]["name"].removeprefix("p-")))
        for each in placed[:-KEPT]:
            path = f"/api/v1/namespaces/{self._namespace}/pods/{each['metadata']['name']}"
            try:
                self._stage.api.delete(path)
            except ApiError as error:
                if error.status != 404:  # gone already, and not yet seen to be
                    raise


def failovers(stage: Stage) -> str:
    """Each way in turn; all pods of the stream have to be placed, each once."""
    with stage.namespace("stream") as namespace:
        with Stream(stage, namespace) as stream:
            times = [f"{way} {_take_away(stage, stream, way):.1f} s" for way in WAYS]
        stream.check()
        until(lambda: all(uid in stage.witness.bound_at for uid in stream.created), "all pods are placed")
        return f"{len(stream.created)} pods, none lost; the next bind after the leader was " + ", ".join(
            times
        )


def _take_away(stage: Stage, stream: Stream, way: Way) -> float:
    """Seconds until another leader binds a pod."""
    until(lambda: len(stage.replicas()) == 2, "both replicas are ready")
    leader = stage.leader()
    former = stage.holder()
    time.sleep(BEFORE_S)
    expect(stage.holder() == former, f"{former} lost the lease by itself")
    node, address = node_of(leader), leader["status"]["podIP"]
    rules = [
        ("-s", address, "-p", "tcp", "--dport", API_SERVER_PORT, "-j", "DROP"),
        ("-d", address, "-p", "tcp", "--sport", API_SERVER_PORT, "-j", "DROP"),
    ]
    started = time.monotonic()
    if way is Way.KILLED:
        kill(stage, leader)
    else:
        for rule in rules:
            stage.in_node(node, "iptables", "-I", "FORWARD", *rule)
    try:
        until(lambda: stage.holder() not in ("", former), "another one leads")
        leads = time.monotonic()
        first = until(lambda: _first_bind_after(stage, stream, leads), "another one binds")
    finally:
        if way is Way.CUT:
            for rule in rules:
                stage.in_node(node, "iptables", "-D", "FORWARD", *rule)
    return first - started


def _first_bind_after(stage: Stage, stream: Stream, moment: float) -> float:
    """0 if there is none yet."""
    stream.check()
    return min((at for at in list(stage.witness.bound_at.values()) if at >= moment), default=0.0)


def kill(stage: Stage, of: Json) -> None:
    """SIGKILL for the first process of a pod's container."""
    container_id = of["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    stage.in_node(
        node_of(of), "ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", container_id
    )
    name = of["metadata"]["name"]

    def restarted() -> bool:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
        known = stage.api.get(path)["status"]["containerStatuses"][0]
        return bool(known["containerID"] != f"containerd://{container_id}" or "running" not in known["state"])

    until(restarted, f"the kubelet sees that {name} has died")
