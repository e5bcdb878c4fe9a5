"""What pods of every kind come to when Wholepod places them: containers that really run, one check each.

A check gets the stage, raises NotSoError (or any error) when something is not so, and returns a line for
people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from scheduler.quantity import value
from tests.cluster.kind import cluster
from tests.cluster.kind.config import NODE_SILENT_S
from tests.e2e.kind.manifests import (
    PORT,
    WORKLOAD,
    container,
    daemon_set,
    deployment,
    gang,
    holding,
    job,
    pod,
    pod_group,
    spec,
    web_and_sidecar,
)
from tests.e2e.kind.stage import Stage, expect, until, where
from tests.e2e.kind.witness import memory_of
from tests.integration.observer import condition, node_of

Check = Callable[[Stage], str]
GANG_SIZE = 3
STRATEGIES = ("atomic", "hoarding", "optimistic")
UNPLACED_FOR_S = 3.0
TOO_LARGE = "100Gi"


def a_and_b(stage: Stage) -> str:
    """The A + B problem: apart, A and B could end up on nodes that have no room for the other one's data.
    As one pod they go where both fit, and there they really hold what they ask for."""
    with stage.namespace("a-and-b") as namespace:
        room = _rooms(stage)
        # Either one fits on every worker, both together do not fit on the smallest.
        each = min(room.values()) * 6 // 10 >> 20
        containers = [holding(name, each // 2, of=f"{each}Mi") for name in ("a", "b")]
        stage.apply(pod(namespace, "a-and-b", spec(*containers)))
        placed = stage.running(namespace, 1, "A + B")
        stage.placed_by(placed)
        node = node_of(placed[0])
        expect(memory_of(placed[0]) <= room[node], f"{node} has no room for both")
        return f"both hold {each // 2} MiB of {each} on {node}, which had {room[node] >> 20} MiB free"


def web_with_sidecar(stage: Stage) -> str:
    """A web container and a sidecar that refreshes an emptyDir; new content is read over localhost."""
    with stage.namespace("web") as namespace:
        stage.apply(web_and_sidecar(namespace, "web"))
        placed = stage.running(namespace, 1, "the web server")
        stage.placed_by(placed)

        def read() -> str:
            address = f"http://127.0.0.1:{PORT}/page"
            return stage.exec(placed[0], "refresher", WORKLOAD, "get", address).strip()

        first = read()
        second = until(lambda: (now := read()) != first and now, "the page changes")
        return f"over localhost: “{first}”, then “{second}”"


def a_deployment(stage: Stage) -> str:
    """A Deployment, scaled up while it runs."""
    with stage.namespace("deployment") as namespace:
        stage.apply(deployment(namespace, "web", 2, spec(container("main", "hold", "8", memory="100Mi"))))
        stage.running(namespace, 2, "the Deployment")
        cluster.kubectl("scale", "deployment/web", "--replicas=6", f"--namespace={namespace}")
        placed = stage.running(namespace, 6, "the Deployment")
        stage.placed_by(placed)
        return f"6 replicas run: {where(placed)}"


def jobs(stage: Stage) -> str:
    """A Job that succeeds, and one that fails."""
    with stage.namespace("jobs") as namespace:
        stage.apply(job(namespace, "good", spec(container("main", "exit", "0", "1"))))
        stage.placed_by([stage.ended(namespace, "Succeeded")])
    with stage.namespace("failing-jobs") as namespace:
        stage.apply(job(namespace, "bad", spec(container("main", "exit", "3", "1"))))
        failed = stage.ended(namespace, "Failed")
        stage.placed_by([failed])
        code = failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
        expect(code == 3, f"its exit code is {code}")
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/bad"
        until(lambda: condition(stage.api.get(path), "Failed").get("status") == "True", "the Job has failed")
    return "one Succeeded, one Failed with exit code 3"


def a_daemon_set(stage: Stage) -> str:
    """A DaemonSet that is left to the default scheduler, beside us."""
    with stage.namespace("daemons") as namespace:
        stage.apply(daemon_set(namespace, "agent", spec(container("main", "hold", "1"), scheduler=None)))
        workers = len(_rooms(stage))
        placed = stage.running(namespace, workers, "the DaemonSet")
        stage.placed_by(placed, "default-scheduler")
        expect(len({node_of(each) for each in placed}) == workers, where(placed))
        return f"default-scheduler has put one on each of {workers} workers"


def a_gang(strategy: str) -> Check:
    """A gang under that strategy: nothing runs before all are there, then all do."""

    def check(stage: Stage) -> str:
        with stage.namespace(f"gang-{strategy}") as namespace:
            members = gang(namespace, "g", GANG_SIZE, strategy, spec(holding("main", 100, of="300Mi")))
            stage.apply(*members[:-1])
            time.sleep(UNPLACED_FOR_S)
            early = [each for each in stage.pods(namespace) if node_of(each)]
            expect(not early, f"{len(early)} members have places though one is missing")
            started = time.monotonic()
            stage.apply(members[-1])
            until(lambda: all(node_of(each) for each in stage.pods(namespace)), "all have places")
            took_s = time.monotonic() - started
            placed = stage.running(namespace, GANG_SIZE, "the gang")
            stage.placed_by(placed)
            return f"{GANG_SIZE} members placed {took_s:.1f} s after the last came: {where(placed)}"

    return check


def a_pod_group(stage: Stage) -> str:
    """A PodGroup of scheduling.x-k8s.io: the controller, in its own pod, follows it."""
    with stage.namespace("pod-group") as namespace:
        stage.apply(*pod_group(namespace, "g", GANG_SIZE, spec(container("main", "hold", "1"))))
        stage.placed_by(stage.running(namespace, GANG_SIZE, "the group"))
        path = f"/apis/scheduling.x-k8s.io/v1alpha1/namespaces/{namespace}/podgroups/g"

        def phase() -> str:
            return str(stage.api.get(path).get("status", {}).get("phase", ""))

        stage.until(lambda: phase() == "Running", "the PodGroup's phase is Running", namespace)
        return f"{GANG_SIZE} members run, and the controller says so in its status"


def too_large(stage: Stage) -> str:
    """A pod that no node could hold waits, and says why, word for word as kube-scheduler does."""
    with stage.namespace("too-large") as namespace:
        large = container("main", "hold", "1", memory=TOO_LARGE)
        stage.apply(
            pod(namespace, "ours", spec(large)), pod(namespace, "theirs", spec(large, scheduler=None))
        )

        def reasons() -> dict[str, str]:
            found = {p["metadata"]["name"]: condition(p, "PodScheduled") for p in stage.pods(namespace)}
            return {name: why["message"] for name, why in found.items() if why.get("message")}

        said = stage.until(lambda: reasons() if len(reasons()) == 2 else {}, "both say why", namespace)
        expect(said["ours"] == said["theirs"], f"{said['ours']}\nkube-scheduler: {said['theirs']}")
        expect("Insufficient memory" in said["ours"], said["ours"])
        phases = {each["status"]["phase"] for each in stage.pods(namespace)}
        expect(phases == {"Pending"}, f"the pods are {', '.join(phases)}")
        return said["ours"]


def a_lost_worker(stage: Stage) -> str:
    """A worker dies: it is NotReady, its pods are evicted, and others run in their place elsewhere."""
    with stage.namespace("lost-worker") as namespace:
        stage.apply(deployment(namespace, "web", 3, spec(container("main", "hold", "8", memory="100Mi"))))
        before = stage.running(namespace, 3, "the Deployment")
        node = node_of(before[0])
        there = {each["metadata"]["uid"] for each in before if node_of(each) == node}
        started = time.monotonic()
        stage.engine.docker("kill", node, doing=f"Killing {node}")
        try:
            until(lambda: not _ready(stage, node), f"{node} is not ready any more")
            silent_s = time.monotonic() - started

            def unready() -> bool:
                pods = [each for each in stage.pods(namespace) if each["metadata"]["uid"] in there]
                return all(condition(each, "Ready").get("status") != "True" for each in pods)

            stage.until(unready, "its pods are not ready", namespace)

            def evicted() -> bool:
                pods = [each for each in stage.pods(namespace) if each["metadata"]["uid"] in there]
                return all("deletionTimestamp" in each["metadata"] for each in pods)

            stage.until(evicted, "its pods are evicted", namespace)
            after = stage.running(namespace, 3, "the Deployment, elsewhere")
            replaced_s = time.monotonic() - started
            stage.placed_by(after)
            expect(node not in {node_of(each) for each in after}, f"one was put on {node}, which is dead")
        finally:
            stage.engine.docker("start", node, doing=f"Starting {node}")
        until(lambda: _ready(stage, node), f"{node} is ready again")
    until(lambda: len(stage.replicas()) == 2, "both replicas of Wholepod are ready")
    return (
        f"{node} NotReady after {silent_s:.0f} s (it may be silent for {NODE_SILENT_S} s), its {len(there)} "
        f"pods evicted, all 3 running after {replaced_s:.0f} s: {where(after)}"
    )


def _ready(stage: Stage, node: str) -> bool:
    return condition(stage.api.get(f"/api/v1/nodes/{node}"), "Ready").get("status") == "True"


def _rooms(stage: Stage) -> dict[str, int]:
    """Free memory of each worker in bytes, by requests."""
    nodes = stage.api.get("/api/v1/nodes")["items"]
    workers = [node for node in nodes if "taints" not in node["spec"]]
    free = {w["metadata"]["name"]: value(w["status"]["allocatable"]["memory"]) for w in workers}
    for each in stage.witness.ask(lambda pods: list(pods.values())):
        if node_of(each) in free and each["status"]["phase"] in ("Pending", "Running"):
            free[node_of(each)] -= memory_of(each)
    return free


CHECKS: Sequence[tuple[str, Check]] = (
    ("A + B as one pod", a_and_b),
    ("A web container and its sidecar", web_with_sidecar),
    ("A Deployment", a_deployment),
    ("Jobs", jobs),
    ("A DaemonSet of the default scheduler", a_daemon_set),
    *((f"A gang, {strategy}", a_gang(strategy)) for strategy in STRATEGIES),
    ("A PodGroup and the controller", a_pod_group),
    ("A pod that is too large", too_large),
    ("A lost worker", a_lost_worker),
)
