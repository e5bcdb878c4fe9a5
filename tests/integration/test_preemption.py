"""Pods that make room for others, on a real API server.

No kubelet runs: a victim is terminating until a test removes it, so that a test sees what happens before,
while and after it leaves.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import ApiError, ControlPlane
from tests.integration.forger import Fault, Forger, What
from tests.integration.harness import Json, Scheduler, eventually
from tests.integration.observer import condition
from tests.integration.workbench import Workbench

PRIORITIES = {"low": 0, "middle": 500, "high": 1000}
OWN = "own"
"""The schedulerName of pods in tests that start a scheduler of their own."""
MESSAGE = "wholepod: preempting to accommodate a higher priority pod"


@pytest.fixture(scope="module", autouse=True)
def priority_classes(shared_plane: ControlPlane) -> Iterator[None]:
    """`low`, `middle`, `high`, and `patient`, which is as high but preempts nobody."""
    for name, value in {**PRIORITIES, "patient": PRIORITIES["high"]}.items():
        policy = "Never" if name == "patient" else "PreemptLowerPriority"
        manifest = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "preemptionPolicy": policy,
        }
        shared_plane.api.create(manifest)
    yield
    for name in (*PRIORITIES, "patient"):
        shared_plane.api.delete(f"/apis/scheduling.k8s.io/v1/priorityclasses/{name}")


def low(bench: Workbench, name: str, node: str, memory: str = "3Gi", **more: Any) -> None:
    """A pod of low priority that runs on a node."""
    more = {"priorityClassName": "low", **more}
    bench.pod(name, memory, nodeName=node, **more)
    bench.set_phase(name, "Running")


def urgent(bench: Workbench, name: str = "urgent", memory: str = "2Gi", **more: Any) -> None:
    bench.pod(name, memory, priorityClassName="high", **more)


def wait_condemned(bench: Workbench, pod: str) -> Json:
    """Until the pod is terminating; returns it."""
    return bench.wait_pod(pod, lambda seen: seen if terminating(seen) else None, "being deleted")


def wait_nominated(bench: Workbench, pod: str, node: str) -> None:
    bench.wait_pod(pod, lambda seen: nominated(seen) == node, f"nominated to {node!r}")


def wait_gone(bench: Workbench, pod: str) -> None:
    key = f"{bench.namespace}/{pod}"
    bench.pods.wait(lambda pods: key not in pods, f"{pod} is gone")


def terminating(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def nominated(pod: Json) -> str:
    node: str = pod["status"].get("nominatedNodeName", "")
    return node


def get(bench: Workbench, pod: str) -> Json:
    return bench.api.get(bench.path(pod))


def condemned(bench: Workbench, *pods: str) -> list[str]:
    """Those of the pods that are terminating or gone."""

    def is_condemned(pod: str) -> bool:
        try:
            return terminating(get(bench, pod))
        except ApiError as error:
            if error.status != 404:
                raise
            return True

    return [pod for pod in pods if is_condemned(pod)]


def preemptions(bench: Workbench, *pods: str) -> int:
    """How many `Preempted` events there are about these pods."""
    events = [event for pod in pods for event in bench.events_of(pod)]
    return sum(1 for event in events if event["reason"] == "Preempted")


def budget(bench: Workbench, name: str, allowed: int, **labels: str) -> None:
    """A PodDisruptionBudget, and what its controller would have said of it."""
    bench.api.create(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name, "namespace": bench.namespace},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
        }
    )
    status = {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    path = f"/apis/policy/v1/namespaces/{bench.namespace}/poddisruptionbudgets/{name}/status"
    bench.api.patch(path, {"status": {**status, "observedGeneration": 1}})


@pytest.mark.usefixtures("true_picture")
class TestInGoodWeather:
    def test_a_victim_leaves_and_the_preemptor_takes_its_place(
        self, bench: Workbench, scheduler: Scheduler
    ) -> None:
        before = scheduler.metric("scheduler_preemption_victims_sum")
        bench.node("node")
        low(bench, "victim", "node")
        urgent(bench)
        victim = wait_condemned(bench, "victim")
        why = condition(victim, "DisruptionTarget")
        assert (why["status"], why["reason"], why["message"]) == ("True", "PreemptionByScheduler", MESSAGE)
        assert victim["metadata"]["deletionGracePeriodSeconds"] == 30

        preemptor = get(bench, "urgent")
        assert nominated(preemptor) == "node"
        scheduled = condition(preemptor, "PodScheduled")
        assert (scheduled["status"], scheduled["reason"]) == ("False", "Unschedulable")
        assert scheduled["message"].startswith("0/1 nodes are available: 1 Insufficient memory.")

        event = bench.wait_event("victim", "Preempted")
        uid = preemptor["metadata"]["uid"]
        assert (event["type"], event["action"]) == ("Normal", "Preempting")
        assert event["note"] == f"Preempted by pod {uid} on node node"
        assert event["reportingController"] == "wholepod"
        assert (event["related"]["kind"], event["related"]["uid"]) == ("Pod", uid)

        bench.barrier()
        assert bench.node_of("urgent") == ""  # the victim's containers still run
        bench.remove("victim")
        assert bench.wait_bound("urgent") == ["node"]
        assert nominated(get(bench, "urgent")) == ""
        assert scheduler.metric("scheduler_preemption_victims_sum") == before + 1
        assert scheduler.metric("scheduler_preemption_attempts_total") >= 1

    def test_victims_without_a_grace_period(self, bench: Workbench) -> None:
        bench.node("node")
        for name in ("one", "two"):
            low(bench, name, "node", "2Gi", terminationGracePeriodSeconds=0)
        urgent(bench, memory="4Gi")
        assert bench.wait_bound("urgent") == ["node"]
        assert condemned(bench, "one", "two") == ["one", "two"]
        for name in ("one", "two"):
            bench.wait_event(name, "Preempted")

    def test_no_more_victims_than_it_takes(self, bench: Workbench) -> None:
        bench.node("node")
        for name in ("one", "two", "three", "four"):
            low(bench, name, "node", "1Gi", terminationGracePeriodSeconds=0)
        urgent(bench, memory="2Gi")
        bench.wait_bound("urgent")
        assert len(condemned(bench, "one", "two", "three", "four")) == 2

    def test_equal_priority_is_no_victim(self, bench: Workbench) -> None:
        bench.node("node")
        low(bench, "peer", "node", priorityClassName="high")
        urgent(bench)
        message = bench.wait_unschedulable("urgent")
        assert message == (
            "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: "
            "1 No preemption victims found for incoming pod."
        )
        bench.barrier()
        assert condemned(bench, "peer") == []

    def test_a_pod_that_may_not_preempt(self, bench: Workbench) -> None:
        bench.node("node")
        low(bench, "there", "node")
        bench.pod("patient", "2Gi", priorityClassName="patient")
        message = bench.wait_unschedulable("patient")
        assert message == (
            "0/1 nodes are available: 1 Insufficient memory. "
            "preemption: not eligible due to preemptionPolicy=Never."
        )
        bench.barrier()
        assert condemned(bench, "there") == []
        assert nominated(get(bench, "patient")) == ""
        bench.remove("there")
        bench.wait_bound("patient")

    def test_a_preemptor_waits_for_its_victim_and_takes_no_other(
        self, bench: Workbench, scheduler: Scheduler
    ) -> None:
        for name in "abc":
            bench.node(name)
            low(bench, f"on-{name}", name)
            bench.api.patch(bench.path(f"on-{name}"), {"metadata": {"finalizers": ["example.com/hold"]}})
        urgent(bench)
        node: str = bench.wait_pod("urgent", nominated, "nominated")
        victim, others = f"on-{node}", [f"on-{other}" for other in "abc" if other != node]
        wait_condemned(bench, victim)
        bench.remove(victim)  # its containers have ended, but somebody else has to finish first
        # Each of these may make it think again.
        for other in "abc":
            bench.change_node(other, metadata={"labels": {"seen": "yes"}})
            bench.set_allocatable(other, memory="4100Mi", cpu="8", pods="100")
        low(bench, "passing", others[0].removeprefix("on-"), "1Mi")
        bench.remove("passing")
        bench.barrier()
        attempts = scheduler.metric("scheduler_preemption_attempts_total")
        bench.api.patch(bench.path("urgent"), {"metadata": {"annotations": {"try": "again"}}})
        bench.barrier()
        assert condemned(bench, *others) == []
        assert nominated(get(bench, "urgent")) == node
        assert scheduler.metric("scheduler_preemption_attempts_total") >= attempts
        bench.api.patch(bench.path(victim), {"metadata": {"finalizers": None}})
        assert bench.wait_bound("urgent") == [node]
        assert condemned(bench, *others) == []
        for other in others:
            bench.api.patch(bench.path(other), {"metadata": {"finalizers": None}})

    def test_one_that_is_more_urgent_takes_the_place(self, bench: Workbench) -> None:
        bench.node("node")
        low(bench, "victim", "node")
        bench.pod("middle", "2Gi", priorityClassName="middle")
        wait_condemned(bench, "victim")
        wait_nominated(bench, "middle", "node")
        urgent(bench, memory="3Gi")
        wait_nominated(bench, "urgent", "node")
        wait_nominated(bench, "middle", "")
        bench.remove("victim")
        assert bench.wait_bound("urgent") == ["node"]
        bench.barrier()
        assert bench.node_of("middle") == ""
        assert preemptions(bench, "victim") == 1

    def test_what_is_nominated_is_kept_from_others(self, bench: Workbench) -> None:
        bench.node("node")
        low(bench, "victim", "node")
        urgent(bench, memory="3Gi")
        wait_condemned(bench, "victim")
        bench.pod("late", "3Gi", priorityClassName="middle")
        bench.wait_unschedulable("late")
        bench.remove("victim")
        assert bench.wait_bound("urgent") == ["node"]
        bench.barrier()
        assert bench.node_of("late") == ""

    def test_a_better_place_comes_first(self, bench: Workbench) -> None:
        bench.node("node")
        low(bench, "victim", "node")
        urgent(bench)
        wait_condemned(bench, "victim")
        bench.node("new")
        assert bench.wait_bound("urgent") == ["new"]
        assert nominated(get(bench, "urgent")) == ""
        bench.remove("victim")

    def test_the_preemptor_is_deleted(self, bench: Workbench) -> None:
        bench.node("node")
        low(bench, "victim", "node")
        urgent(bench)
        wait_condemned(bench, "victim")
        bench.remove("urgent")
        bench.pod("next", "4Gi")
        bench.wait_unschedulable("next")
        bench.remove("victim")
        assert bench.wait_bound("next") == ["node"]  # nothing is kept for a pod that is gone


class TestBudgets:
    """The scheduler starts when the budgets exist, so that it knows them all before its first decision."""

    @pytest.mark.parametrize("protected", ["a", "b"])
    def test_a_budget_is_respected(self, bench: Workbench, log: Path, protected: str) -> None:
        for node in ("a", "b"):
            bench.node(node)
            low(bench, f"on-{node}", node, labels={"app": node}, terminationGracePeriodSeconds=0)
        budget(bench, "keep", 0, app=protected)
        with own_scheduler(bench.plane.kubeconfig, log):
            urgent(bench, scheduler_name=OWN)
            [node] = bench.wait_bound("urgent")
        assert node != protected
        assert condemned(bench, f"on-{protected}") == []

    def test_what_a_budget_allows_may_go(self, bench: Workbench, log: Path) -> None:
        bench.node("node")
        for name in ("one", "two", "three"):
            labels = {"app": "some"}
            low(bench, name, "node", "1Gi", labels=labels, terminationGracePeriodSeconds=0)
        budget(bench, "keep", 2, app="some")
        with own_scheduler(bench.plane.kubeconfig, log):
            urgent(bench, memory="3Gi", scheduler_name=OWN)
            bench.wait_bound("urgent")
        assert len(condemned(bench, "one", "two", "three")) == 2

    def test_budgets_do_not_protect_at_any_price(self, bench: Workbench, log: Path) -> None:
        bench.node("node")
        low(bench, "only", "node", labels={"app": "only"}, terminationGracePeriodSeconds=0)
        budget(bench, "keep", 0, app="only")
        with own_scheduler(bench.plane.kubeconfig, log):
            urgent(bench, scheduler_name=OWN)
            assert bench.wait_bound("urgent") == ["node"]


class TestInBadWeather:
    """Between the scheduler and the API server there is a forger that stops single requests and answers."""

    @pytest.mark.parametrize("what", ["lose request", "lose answer", "refuse"])
    @pytest.mark.parametrize(
        "pattern", ["PATCH .*/urgent/status", "PATCH .*/victim/status", "DELETE .*/victim"]
    )
    @pytest.mark.parametrize("grace_s", [0, 30])
    def test_one_request_fails(
        self, bench: Workbench, log: Path, pattern: str, what: What, grace_s: int
    ) -> None:
        bench.node("node")
        low(bench, "victim", "node", terminationGracePeriodSeconds=grace_s)
        with Forger(bench.plane) as forger, own_scheduler(forger.kubeconfig(), log) as scheduler:
            fault = Fault(pattern, what)
            forger.faults.append(fault)
            urgent(bench, scheduler_name=OWN)
            fault.wait()
            if grace_s:
                victim = wait_condemned(bench, "victim")
                assert condition(victim, "DisruptionTarget")["message"].startswith(OWN)
                wait_nominated(bench, "urgent", "node")
                bench.remove("victim")
            assert bench.wait_bound("urgent") == ["node"]
            bench.wait_event("victim", "Preempted")
            bench.barrier(OWN)
            assert preemptions(bench, "victim") == 1
            scheduler.check_cache()

    def test_a_victim_that_cannot_be_deleted(self, bench: Workbench, log: Path) -> None:
        """The one is refused for ever, and the preemptor is not stuck behind it."""
        bench.node("a")
        low(bench, "rock", "a", terminationGracePeriodSeconds=0)
        with Forger(bench.plane) as forger, own_scheduler(forger.kubeconfig(), log) as scheduler:
            fault = Fault("DELETE .*/rock", "refuse", times=1000)
            forger.faults.append(fault)
            urgent(bench, scheduler_name=OWN)
            eventually(lambda: scheduler.said("victim can't be deleted"), "the deletion is given up")
            bench.node("b")
            assert bench.wait_bound("urgent") == ["b"]
            assert condemned(bench, "rock") == []
            assert scheduler.metric("wholepod_victims_total", outcome="Refused") >= 1

    def test_a_pod_that_took_the_victims_name_is_left_alone(self, bench: Workbench, log: Path) -> None:
        bench.node("node")
        low(bench, "victim", "node")
        with Forger(bench.plane) as forger, own_scheduler(forger.kubeconfig(), log) as scheduler:
            fault = Fault("DELETE .*/victim", "hold")
            forger.faults.append(fault)
            urgent(bench, scheduler_name=OWN)
            fault.wait()
            bench.remove("victim")
            bench.pod("victim", "1Gi", nodeName="node", priorityClassName="low")
            fault.release()
            assert bench.wait_bound("urgent") == ["node"]
            assert condemned(bench, "victim") == []
            scheduler.check_cache()

    def test_the_bind_of_a_victim_ends_first(self, bench: Workbench, log: Path) -> None:
        bench.node("node")
        with Forger(bench.plane) as forger, own_scheduler(forger.kubeconfig(), log) as scheduler:
            bind = Fault("POST .*/victim/binding", "hold")
            forger.faults.append(bind)
            bench.pod("victim", "3Gi", scheduler_name=OWN, priorityClassName="low")
            bind.wait()
            urgent(bench, scheduler_name=OWN)
            wait_nominated(bench, "urgent", "node")
            bench.barrier(OWN)
            assert condemned(bench, "victim") == []  # it has no node yet, and may get one any moment
            bind.release()
            bench.wait_bound("victim")
            wait_condemned(bench, "victim")
            bench.remove("victim")
            assert bench.wait_bound("urgent") == ["node"]
            scheduler.check_cache()

    @pytest.mark.parametrize("grace_s", [0, 30])
    def test_the_scheduler_dies_between_two_victims(self, bench: Workbench, log: Path, grace_s: int) -> None:
        everybody = [f"{name}{i}" for name in "abcd" for i in (1, 2)]
        for name in "abcd":
            bench.node(name)
            for i in (1, 2):
                low(bench, f"{name}{i}", name, "2Gi", terminationGracePeriodSeconds=grace_s)
        with Forger(bench.plane) as forger, own_scheduler(forger.kubeconfig(), log) as scheduler:
            let_through, hold = Fault("DELETE .*/pods/", "hold"), Fault("DELETE .*/pods/", "hold", times=99)
            let_through.release()
            forger.faults += [let_through, hold]
            urgent(bench, memory="4Gi", scheduler_name=OWN)
            hold.wait()
            node: str = bench.wait_pod("urgent", nominated, "nominated")
            [first] = eventually(lambda: condemned(bench, *everybody), "the first victim is deleted")
            assert first[0] == node
            scheduler.kill()
        with own_scheduler(bench.plane.kubeconfig, log) as scheduler:
            if grace_s:
                bench.barrier(OWN)
                assert condemned(bench, *everybody) == [first]  # it waits, and takes no other meanwhile
                bench.remove(first)
                [second] = [name for name in (f"{node}1", f"{node}2") if name != first]
                wait_condemned(bench, second)
                bench.remove(second)
            assert bench.wait_bound("urgent") == [node]
            assert condemned(bench, *everybody) == [f"{node}1", f"{node}2"]
            scheduler.check_cache()


def own_scheduler(kubeconfig: Path, log: Path) -> Scheduler:
    """One that serves the name `own`."""
    flags = ("--leader-elect=false", f"--scheduler-name={OWN}", "--kube-api-qps=500", "--kube-api-burst=1000")
    return Scheduler(*flags, kubeconfig=kubeconfig, log=log)
