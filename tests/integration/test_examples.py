"""The files of deploy/examples, applied as they are, with the real controllers that make pods of them.

Each is first applied where there is no room for it, so that all its pods say what autoscalers look for, and
none is bound; then room comes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.cluster import ControlPlane
from tests.cluster.assets import asked_minor
from tests.cluster.flags import POD_GROUPS_GATES, POD_GROUPS_SERVED
from tests.integration.harness import REPOSITORY, WHOLEPOD, Json, Scheduler
from tests.integration.observer import Observer, condition, node_of
from tests.integration.workbench import Workbench

EXAMPLES = REPOSITORY / "deploy" / "examples"
ZONE = "topology.kubernetes.io/zone"
NATIVE = asked_minor() is None
"""Whether PodGroups are served, which they are since Kubernetes 1.37."""


@dataclass(frozen=True)
class Example:
    """`too_small`: memory of a node that does not take the whole gang."""

    file: str
    gang: str
    pods: int
    too_small: str


ALL = [
    Example("job.yaml", "train", 3, too_small="2Gi"),
    Example("indexed-job.yaml", "render", 4, too_small="1Gi"),
    Example("driver-and-workers.yaml", "simulation", 4, too_small="3Gi"),
    Example("statefulset.yaml", "store", 3, too_small="1Mi"),
]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(
        feature_gates=POD_GROUPS_GATES if NATIVE else None,
        runtime_config=POD_GROUPS_SERVED if NATIVE else None,
    ) as plane:
        yield plane


@pytest.fixture(scope="module")
def scheduler(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    log = tmp_path_factory.mktemp("examples") / "scheduler.log"
    with Scheduler("--leader-elect=false", kubeconfig=plane.kubeconfig, log=log) as scheduler:
        yield scheduler


@pytest.fixture
def bench(plane: ControlPlane, scheduler: Scheduler) -> Iterator[Workbench]:
    with (
        Observer(plane, "/api/v1/pods") as pods,
        Observer(plane, "/apis/events.k8s.io/v1/events") as events,
    ):
        bench = Workbench(plane, pods, events)
        yield bench
        scheduler.show_log()
        plane.kubectl("delete", "--wait=false", "jobs,statefulsets", "--all", "-n", bench.namespace)
        bench.clear()


def test_all_examples_are_run() -> None:
    assert sorted(file.name for file in EXAMPLES.iterdir()) == sorted(example.file for example in ALL)


@pytest.mark.parametrize("example", ALL, ids=lambda example: example.file)
def test_an_example(bench: Workbench, scheduler: Scheduler, example: Example) -> None:
    if "PodGroup" in (EXAMPLES / example.file).read_text() and not NATIVE:
        pytest.skip("v1beta1 is served since Kubernetes 1.37")
    bench.node("too-small", memory=example.too_small, labels={ZONE: "a"})
    bench.plane.kubectl("apply", f"--filename={EXAMPLES / example.file}", f"--namespace={bench.namespace}")

    def said(pods: Mapping[str, Json]) -> bool:
        reasons = [condition(pod, "PodScheduled").get("reason") for pod in ours(bench, pods)]
        return len(reasons) == example.pods and set(reasons) == {"Unschedulable"}

    bench.pods.wait(said, "all members ask for nodes")
    assert not any(map(node_of, bench.pods.ask(lambda pods: ours(bench, pods))))
    for name, zone in (("large", "b"), ("other", "c")):
        bench.node(name, memory="5Gi", labels={ZONE: zone})
    bound = bench.pods.wait(
        lambda pods: (
            [node_of(pod) for pod in ours(bench, pods) if node_of(pod)][example.pods - 1 :]
            and [node_of(pod) for pod in ours(bench, pods)]
        ),
        "all members are bound",
    )
    assert len(bound) == example.pods
    if example.gang == "simulation":
        assert len(set(bound)) == 1, "its members share a zone"
    assert shown(scheduler, bench, example.gang)["existing"] == example.pods


def test_an_ordered_stateful_set_is_told_why_it_never_starts(bench: Workbench, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all((EXAMPLES / "statefulset.yaml").read_text()))
    [stateful_set] = [document for document in documents if document["kind"] == "StatefulSet"]
    del stateful_set["spec"]["podManagementPolicy"]
    annotations = stateful_set["spec"]["template"]["metadata"]["annotations"]
    del annotations["wholepod.io/strategy"]
    file = tmp_path / "ordered.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    bench.node("node", memory="8Gi")
    bench.plane.kubectl("apply", f"--filename={file}", f"--namespace={bench.namespace}")
    bench.pods.wait(lambda pods: len(ours(bench, pods)) == 1, "the first pod exists")
    event = bench.wait_event("store-0", "WaitingForGang")
    assert event["note"] == (
        f"gang {bench.namespace}/store has 1 of the 3 members that it needs "
        "(a StatefulSet creates its pods one by one unless its podManagementPolicy is Parallel)"
    )
    assert len(bench.pods.ask(lambda pods: ours(bench, pods))) == 1


def ours(bench: Workbench, pods: Mapping[str, Json]) -> list[Json]:
    return [pod for pod in pods.values() if pod["metadata"]["namespace"] == bench.namespace]


def shown(scheduler: Scheduler, bench: Workbench, gang: str) -> Json:
    command = [str(WHOLEPOD), "gangs", f"--url={scheduler.url}", f"{bench.namespace}/{gang}", "-o", "json"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    [found] = answer["gangs"]
    view: Json = found
    return view
