"""A cluster with two Wholepods and one lease, and what a controller does for gangs: create what is missing.

No kubelet runs, and pods have no grace period, so a deleted pod is gone at once. Members have an owner that
is not there, which makes them deletable. A member called `refused…` is refused by the API server itself
(a ValidatingAdmissionPolicy), so its gang can't be completed.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster import ApiError, ControlPlane, node_manifest, pod_manifest
from tests.cluster.control_plane import API_SERVER
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.faults.door import Doors
from tests.faults.eyes import VICTIM
from tests.integration.harness import Json, Scheduler, eventually

CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
leaderElection: {leaseDuration: 3s, renewDeadline: 2s, retryPeriod: 400ms}
clientConnection: {qps: 500, burst: 1000}
podInitialBackoffSeconds: 0.2
podMaxBackoffSeconds: 2
profiles:
- schedulerName: wholepod
  gangs: {compensationDeadline: 20s}
- schedulerName: impatient
  gangs: {compensationDeadline: 1s}
"""
IMPATIENT = "impatient"
"""The schedulerName of gangs that can't be completed."""
GROUPS = "/apis/scheduling.k8s.io/v1beta1"
NAMESPACE = "faults"
JOURNAL = "/api/v1/namespaces/kube-system/configmaps/wholepod-journal"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
NODES, NODE_GI = 4, 4
MEMBERS = 4
SETTLE_S = 180.0
"""Far beyond what it takes; a gang that is bound in part after that stays so."""
_OWNER = [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": True}]
_POLICY = {
    "failurePolicy": "Fail",
    "matchConstraints": {
        "resourceRules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods/binding"],
            }
        ]
    },
    "validations": [{"expression": "!object.metadata.name.startsWith('refused')", "message": "refused"}],
}


class Broken(AssertionError):
    """Something that must hold does not."""


@dataclass(frozen=True)
class Gang:
    """`short`: one of its members is refused, so it ends with none bound."""

    name: str
    short: bool = False


class Stage:
    """A context manager that starts all of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._numbers = count(1)
        self.gangs: list[Gang] = []
        self._preemptors: list[str] = []

    def __enter__(self) -> Self:
        with self._stack:
            self.plane = self._stack.enter_context(
                ControlPlane(
                    controller_manager=False,
                    feature_gates=POD_GROUPS_GATES,
                    runtime_config=POD_GROUPS_SERVED,
                )
            )
            self.schedulers: list[Scheduler] = []
            self.doors = self._stack.enter_context(
                Doors(self.plane, 2, pid_of=lambda number: self.schedulers[number].pid)
            )
            self._prepare()
            configuration = self._folder / "wholepod.yaml"
            configuration.write_text(CONFIGURATION)
            for number, port in enumerate(self.doors.ports):
                scheduler = Scheduler(
                    f"--config={configuration}",
                    kubeconfig=self._kubeconfig(number, port),
                    log=self._folder / f"wholepod-{number}.log",
                )
                self.schedulers.append(scheduler)
                scheduler.launch()
                self._stack.callback(self._end, scheduler)
            self.leader()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for scheduler in self.schedulers:
                scheduler.show_log()
        self._stack.close()

    # Processes.

    def keep_running(self) -> None:
        """As a Deployment does: what has ended starts again."""
        for scheduler in self.schedulers:
            if not scheduler.running:
                scheduler.wait()
                scheduler.launch()

    def leader(self) -> int:
        """The number of the process that leads and decides; waits for one."""

        def found() -> list[int]:
            self.keep_running()
            return [number for number in (0, 1) if self._leads(number)]

        return eventually(found, "one of them leads", timeout_s=SETTLE_S)[0]

    def wait_leads(self, number: int) -> None:
        """Until this process leads."""

        def leads() -> bool:
            self.keep_running()
            return self._leads(number)

        eventually(leads, "the other one leads", timeout_s=SETTLE_S)

    def mend(self) -> None:
        """What a fault has stopped goes on."""
        self.mend_api_server()
        for scheduler in self.schedulers:
            if scheduler.running:
                scheduler.resume()

    def mend_api_server(self) -> None:
        if API_SERVER not in self.plane.pids():
            self.plane.start_apiserver()

    def _leads(self, number: int) -> bool:
        scheduler = self.schedulers[number]
        if not scheduler.said("started"):
            return False
        try:
            with urllib.request.urlopen(f"{scheduler.url}/debug/gangs", timeout=2.0) as answer:
                return bool(json.load(answer)["leading"])
        except OSError:  # dead, or stopped
            return False

    def _end(self, scheduler: Scheduler) -> None:
        if scheduler.running:
            scheduler.resume()
            scheduler.kill()

    def _kubeconfig(self, number: int, port: int) -> Path:
        path = self._folder / f"door-{number}.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                    "users": [{"name": "u", "user": {"token": self.plane.token}}],
                }
            )
        )
        return path

    # What there is.

    def _prepare(self) -> None:
        api = self.plane.api
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for number in range(NODES):
            api.create(node_manifest(f"node-{number}", memory=f"{NODE_GI}Gi", cpu="32"))
        admission = "/apis/admissionregistration.k8s.io/v1"
        policy = {"metadata": {"name": "refused"}, "spec": _POLICY}
        api.post(f"{admission}/validatingadmissionpolicies", policy)
        binding = {
            "metadata": {"name": "refused"},
            "spec": {"policyName": "refused", "validationActions": ["Deny"]},
        }
        api.post(f"{admission}/validatingadmissionpolicybindings", binding)
        api.create(
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "high"},
                "value": 1000,
            }
        )
        self._wait_for_policy()

    def _wait_for_policy(self) -> None:
        """It counts a moment after it was created."""
        node = {"apiVersion": "v1", "kind": "Node", "name": "node-0"}

        def refused() -> bool:
            name = f"refused-{next(self._numbers)}"
            self.plane.api.create(pod_manifest(name, {}, namespace=NAMESPACE, scheduler_name="nobody"))
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": node}
            try:
                self.plane.api.post(f"{PODS}/{name}/binding", binding)
            except ApiError as error:
                return error.status in (403, 422)
            return False

        eventually(refused, "the policy counts")
        self.plane.api.delete(PODS, gracePeriodSeconds="0")

    def add_gang(self, strategy: str, *, short: bool = False, high: bool = False) -> None:
        """A PodGroup and its members."""
        gang = Gang(f"g{next(self._numbers)}", short)
        self.gangs.append(gang)
        group: Json = {
            "apiVersion": "scheduling.k8s.io/v1beta1",
            "kind": "PodGroup",
            "metadata": {
                "name": gang.name,
                "namespace": NAMESPACE,
                "annotations": {"wholepod.io/strategy": strategy, "wholepod.io/hold-timeout": "5s"},
            },
            "spec": {"schedulingPolicy": {"gang": {"minCount": MEMBERS}}},
        }
        if high:
            group["spec"]["priorityClassName"] = "high"
        self._create(group)
        for number in range(MEMBERS):
            self._add_member(gang, refused=short and number == 0, high=high)

    def add_victims(self) -> None:
        """Pods of low priority fill what is free of all nodes."""
        pods = self.plane.api.get(PODS)["items"]
        used = Counter(pod["spec"].get("nodeName") for pod in pods)
        for node in (f"node-{number}" for number in range(NODES)):
            for _ in range(NODE_GI - used[node]):
                name = f"{VICTIM}-{next(self._numbers)}"
                self._create(self._pod(name, scheduler="nobody", nodeName=node))

    def add_preemptor(self) -> None:
        """A single pod of high priority that takes two victims' room."""
        name = f"urgent-{next(self._numbers)}"
        self._preemptors.append(name)
        self._create(self._pod(name, scheduler="wholepod", memory="2Gi", priorityClassName="high"))

    def _add_member(self, gang: Gang, *, refused: bool = False, high: bool = False) -> None:
        name = f"{'refused-' if refused else ''}{gang.name}-{next(self._numbers)}"
        scheduler = IMPATIENT if gang.short else "wholepod"
        more: Json = {"priorityClassName": "high"} if high else {}
        pod = self._pod(name, scheduler=scheduler, schedulingGroup={"podGroupName": gang.name}, **more)
        self._create(pod)

    def _create(self, manifest: Json) -> None:
        """Also when the API server is killed meanwhile."""
        while True:
            try:
                self.plane.api.create(manifest)
                return
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
                self.mend_api_server()
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    return
                if error.status < 500:
                    raise
                time.sleep(0.1)

    def _pod(self, name: str, *, scheduler: str, memory: str = "1Gi", **more: Any) -> Json:
        requests = {"memory": memory, "cpu": "100m"}
        pod: Json = pod_manifest(
            name,
            requests,
            namespace=NAMESPACE,
            scheduler_name=scheduler,
            terminationGracePeriodSeconds=0,
            **more,
        )
        pod["metadata"]["ownerReferences"] = _OWNER
        return pod

    # What must hold.

    def settle(self) -> None:
        """Wait until every gang is bound or gone, and nothing of a commit is left; raises Broken if that does
        not come about, or a node is given more than it has."""
        deadline = time.monotonic() + SETTLE_S
        while left := list(self._left_to_do()):
            if time.monotonic() > deadline:
                raise Broken("; ".join(left))
            time.sleep(0.1)

    def _left_to_do(self) -> Iterator[str]:
        self.keep_running()
        pods = self.plane.api.get(PODS)["items"]
        used: Counter[str] = Counter()
        for pod in pods:
            if "nodeName" in pod["spec"]:
                used[pod["spec"]["nodeName"]] += 2 if pod["metadata"]["name"] in self._preemptors else 1
        if any(amount > NODE_GI for amount in used.values()):
            raise Broken(f"nodes of {NODE_GI} GiB are given {dict(used)} GiB")
        bound_pods = {pod["metadata"]["name"] for pod in pods if "nodeName" in pod["spec"]}
        yield from (f"{name} is not bound" for name in self._preemptors if name not in bound_pods)
        for gang in self.gangs:
            members = [
                p for p in pods if p["spec"].get("schedulingGroup", {}).get("podGroupName") == gang.name
            ]
            bound = sum(1 for pod in members if "nodeName" in pod["spec"])
            if gang.short:
                if bound:
                    yield f"gang {gang.name}, which can't be completed, has {bound} bound members"
                continue
            for _ in range(MEMBERS - len(members)):
                self._add_member(gang, high=bool(members) and "priorityClassName" in members[0]["spec"])
            if bound < MEMBERS:
                yield f"gang {gang.name} has {bound} bound members of {MEMBERS}"
        with suppress(ApiError):
            left = [key for key in self.plane.api.get(JOURNAL)["data"] if key.startswith("gang.")]
            if left:
                yield f"the journal holds {len(left)} entries"

    def clear(self) -> None:
        """Delete all gangs; whoever leads must know of no pod, no place and no hold then, else Broken."""
        self.plane.api.delete(PODS, gracePeriodSeconds="0")
        self.plane.api.delete(f"{GROUPS}/namespaces/{NAMESPACE}/podgroups")
        self.gangs.clear()
        self._preemptors.clear()
        deadline = time.monotonic() + SETTLE_S
        while left := self._left_behind():
            if time.monotonic() > deadline:
                raise Broken(left)
            time.sleep(0.1)

    def _left_behind(self) -> str:
        with suppress(OSError, AssertionError):
            scheduler = self.schedulers[self.leader()]
            requested = scheduler.metric("wholepod_node_memory_bytes", state="requested")
            gangs = json.loads(scheduler.text("/debug/gangs"))["gangs"]
            entries = scheduler.metric("wholepod_journal_entries")
            if requested or gangs or entries:
                return f"left: {requested:g} bytes on nodes, {len(gangs)} gangs, {entries:g} entries"
            return ""
        return "nobody leads"
