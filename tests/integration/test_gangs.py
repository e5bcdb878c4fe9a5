"""The A + B problem on a real API server: two pods that must share a node, of which A comes first.

By the profile's objective A alone goes to the smaller node, where B can't join it. Each strategy ends with
both on the larger one, and each pays for it in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import ControlPlane
from tests.cluster.api import pod_manifest
from tests.integration.harness import Json, Scheduler, eventually
from tests.integration.observer import condition
from tests.integration.workbench import Workbench

pytestmark = pytest.mark.usefixtures("true_picture")

CONFIGURATION = """\
apiVersion: wholepod.io/v1alpha1
kind: SchedulerConfiguration
profiles:
- schedulerName: wholepod
  pluginConfig:
  - name: MemoryFit
    args: {objective: tight}
"""
STRATEGIES = ("atomic", "hoarding", "optimistic")
JOURNAL = "/api/v1/namespaces/kube-system/configmaps/wholepod-journal"


@pytest.fixture(scope="module")
def scheduler(shared_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """With objective `tight`."""
    folder = tmp_path_factory.mktemp("gangs")
    configuration = folder / "wholepod.yaml"
    configuration.write_text(CONFIGURATION)
    flags = (f"--config={configuration}", "--leader-elect=false")
    with Scheduler(*flags, kubeconfig=shared_plane.kubeconfig, log=folder / "scheduler.log") as scheduler:
        yield scheduler


def member(bench: Workbench, name: str, strategy: str) -> None:
    options = {
        "gang": strategy,
        "min-count": "2",
        "strategy": strategy,
        "topology-key": "kubernetes.io/hostname",
    }
    manifest = pod_manifest(name, {"memory": "1Gi"}, namespace=bench.namespace)
    manifest["metadata"]["annotations"] = {f"wholepod.io/{key}": value for key, value in options.items()}
    bench.api.create(manifest)


def costs(scheduler: Scheduler) -> tuple[float, float]:
    """(plans given up after members had places in them, memory held in vain, in byte-seconds)."""
    wasted = scheduler.metric("wholepod_gang_held_memory_byte_seconds_total", outcome="wasted")
    return scheduler.metric("wholepod_gang_rollbacks_total"), wasted


def said(pod: Json) -> str:
    """Why the pod waits, if it says that it waits for others."""
    scheduled = condition(pod, "PodScheduled")
    return scheduled["message"] if scheduled.get("reason") == "WaitingForGang" else ""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_both_end_on_the_node_that_takes_both(bench: Workbench, scheduler: Scheduler, strategy: str) -> None:
    for name, memory in (("small", "1280Mi"), ("large", "2Gi")):
        bench.node(name, memory=memory, labels={"kubernetes.io/hostname": name})
    rollbacks, wasted = costs(scheduler)
    complete = scheduler.metric("wholepod_gang_commits_ended_total", outcome="complete")
    member(bench, "a", strategy)
    why = bench.wait_pod("a", said, "waiting for its gang")
    if strategy == "atomic":
        assert why.endswith("has 1 of the 2 members that it needs")
    else:
        assert why == "has a place on node small until the rest of its gang has"
    assert bench.node_of("a") == ""
    member(bench, "b", strategy)
    assert bench.wait_bound("a", "b") == ["large", "large"]
    eventually(
        lambda: scheduler.metric("wholepod_gang_commits_ended_total", outcome="complete") > complete,
        "the commit has ended",
    )
    more_rollbacks, more_wasted = costs(scheduler)
    assert more_rollbacks - rollbacks == (0 if strategy == "atomic" else 1)
    assert (more_wasted > wasted) is (strategy == "hoarding")
    data = bench.api.get(JOURNAL)["data"]
    assert [key for key in data if key.startswith("gang.")] == []
    transactions = {
        bench.api.get(bench.path(pod))["metadata"]["annotations"]["wholepod.io/txn"] for pod in ("a", "b")
    }
    assert len(transactions) == 1
