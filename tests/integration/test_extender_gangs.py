"""Gangs on a stock kube-scheduler: nothing is bound before all members that are needed have come together."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import pod_manifest
from tests.integration.extending import Extender, asking, start_kube_scheduler
from tests.integration.observer import condition
from tests.integration.workbench import Workbench

NAME = "default-scheduler"


@pytest.fixture
def extender(bench: Workbench, log: Path) -> Iterator[Extender]:
    """That a kube-scheduler asks, with time for members to come together."""
    flags = ("--http-timeout=15s",)
    with Extender(*flags, kubeconfig=bench.plane.kubeconfig, log=log) as extender:
        start_kube_scheduler(bench.plane, asking(extender.extender_url, httpTimeout="15s"))
        yield extender
        bench.plane.programs["kube-scheduler"].stop()
        extender.show_log()
        extender.check_cache()


def member(bench: Workbench, gang: str, name: str, memory: str, *, count: int, **spec: Any) -> None:
    pod = pod_manifest(name, {"memory": memory}, namespace=bench.namespace, scheduler_name=NAME, **spec)
    pod["metadata"]["annotations"] = {"wholepod.io/gang": gang, "wholepod.io/min-count": str(count)}
    bench.api.create(pod)


def told(why: str) -> Callable[[dict[str, Any]], bool]:
    return lambda pod: why in condition(pod, "PodScheduled").get("message", "")


def test_members_are_bound_together_or_not_at_all(bench: Workbench, extender: Extender) -> None:
    bench.node("a", memory="5Gi")
    bench.node("b", memory="5Gi")
    for i in range(2):
        member(bench, "trio", f"trio-{i}", "3Gi", count=3)
    bench.wait_pod("trio-0", told("2 of at least 3 members exist"), "refused for want of members")
    member(bench, "trio", "trio-2", "3Gi", count=3)  # two nodes, and room for one of them on each

    bench.wait_pod("trio-2", told("2 of at least 3 waiting members fit"), "refused for want of room")
    bench.pod("single", "1Gi", scheduler_name=NAME)
    bench.wait_bound("single")  # nothing is held meanwhile
    assert [bench.node_of(f"trio-{i}") for i in range(3)] == ["", "", ""]
    bench.node("c", memory="5Gi")
    assert sorted(bench.wait_bound("trio-0", "trio-1", "trio-2")) == ["a", "b", "c"]
    assert extender.metric("wholepod_extender_gang_plans_total", outcome="made") >= 1


def test_a_and_b(bench: Workbench, extender: Extender) -> None:
    """One by one, A may take the room on the small node, and B finds none beside it."""
    bench.node("small", memory="1280Mi", labels={"zone": "small"})
    bench.node("large", memory="2Gi", labels={"zone": "large"})
    in_one_zone = {
        "wholepod.io/gang": "pair",
        "wholepod.io/min-count": "2",
        "wholepod.io/topology-key": "zone",
    }
    for name, memory in (("a", "1Gi"), ("b", "512Mi")):
        pod = pod_manifest(name, {"memory": memory}, namespace=bench.namespace, scheduler_name=NAME)
        pod["metadata"]["annotations"] = in_one_zone
        bench.api.create(pod)
    assert bench.wait_bound("a", "b") == ["large", "large"]
