"""The A + B problem on a real API server: two pods that must share a node, of which A comes first.

By the profile's objective A alone goes to the smaller node, where B can't join it. Each strategy ends with
both on the larger one, and each pays for it in its own way.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster import ControlPlane
from tests.cluster.api import pod_manifest
from tests.integration.harness import WHOLEPOD, Json, Scheduler, eventually
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
PLACE = "has a place on node small until the rest of its gang has"
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


@pytest.fixture
def problem(bench: Workbench) -> Workbench:
    """Nodes of 1.25 and 2 GiB."""
    for name, memory in (("small", "1280Mi"), ("large", "2Gi")):
        bench.node(name, memory=memory, labels={"kubernetes.io/hostname": name})
    return bench


def member(
    bench: Workbench, name: str, memory: str, strategy: str, *, topology_key: str = "kubernetes.io/hostname"
) -> None:
    options = {"gang": strategy, "min-count": "2", "strategy": strategy, "topology-key": topology_key}
    manifest = pod_manifest(name, {"memory": memory}, namespace=bench.namespace)
    manifest["metadata"]["annotations"] = {f"wholepod.io/{key}": value for key, value in options.items()}
    bench.api.create(manifest)


def cost(scheduler: Scheduler, strategy: str) -> dict[str, float]:
    """Plans given up after members had places in them, conflicts, and memory held (byte-seconds)."""
    held = "wholepod_gang_held_memory_byte_seconds_total"
    return {
        "rollbacks": scheduler.metric("wholepod_gang_rollbacks_total", strategy=strategy),
        "conflicts": scheduler.metric("wholepod_gang_conflicts_total", strategy=strategy),
        "used": scheduler.metric(held, outcome="used"),
        "wasted": scheduler.metric(held, outcome="wasted"),
        "committed": scheduler.metric("wholepod_gang_commits_ended_total", outcome="complete"),
    }


def shown(scheduler: Scheduler, bench: Workbench) -> tuple[str, dict[str, str]]:
    """(state, member → node) of the test's gang, by `wholepod gangs`."""
    command = [str(WHOLEPOD), "gangs", f"--url={scheduler.url}", "-n", bench.namespace, "-o", "json"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    [gang] = answer["gangs"]
    assert answer["leading"]
    return gang["state"], {member["name"]: member["node"] for member in gang["members"]}


def said(pod: Json) -> str:
    """Why the pod waits, if it says that it waits for others."""
    scheduled = condition(pod, "PodScheduled")
    return scheduled["message"] if scheduled.get("reason") == "WaitingForGang" else ""


def settled(
    bench: Workbench, scheduler: Scheduler, strategy: str, before: dict[str, float]
) -> dict[str, float]:
    """What it has cost, once both are on the larger node, by one transaction, and nothing is left behind."""
    assert bench.wait_bound("a", "b") == ["large", "large"]
    eventually(
        lambda: cost(scheduler, strategy)["committed"] == before["committed"] + 1, "the commit has ended"
    )
    data = bench.api.get(JOURNAL)["data"]
    assert [key for key in data if key.startswith("gang.")] == []
    pods = [bench.api.get(bench.path(pod)) for pod in ("a", "b")]
    assert len({pod["metadata"]["annotations"]["wholepod.io/txn"] for pod in pods}) == 1
    eventually(lambda: shown(scheduler, bench) == ("bound", {"a": "large", "b": "large"}), "it is shown so")
    return {what: value - before[what] for what, value in cost(scheduler, strategy).items()}


def test_atomic_waits_and_holds_nothing(problem: Workbench, scheduler: Scheduler) -> None:
    before = cost(scheduler, "atomic")
    member(problem, "a", "1Gi", "atomic")
    why = problem.wait_pod("a", said, "waiting for its gang")
    assert why.endswith("has 1 of the 2 members that it needs")
    assert shown(scheduler, problem) == ("incomplete", {"a": ""})
    member(problem, "b", "512Mi", "atomic")
    spent = settled(problem, scheduler, "atomic", before)
    assert spent == {"rollbacks": 0, "conflicts": 0, "used": 0, "wasted": 0, "committed": 1}


def test_hoarding_holds_and_lets_go(problem: Workbench, scheduler: Scheduler) -> None:
    before = cost(scheduler, "hoarding")
    member(problem, "a", "1Gi", "hoarding")
    assert problem.wait_pod("a", said, "waiting for its gang") == PLACE
    assert shown(scheduler, problem) == ("holding", {"a": "small"})
    # Others can't have what is held.
    problem.pod("other", "1Gi", nodeSelector={"kubernetes.io/hostname": "small"})
    assert "1 Insufficient memory" in problem.wait_unschedulable("other")
    assert problem.node_of("a") == ""
    member(problem, "b", "512Mi", "hoarding")
    spent = settled(problem, scheduler, "hoarding", before)
    assert (spent["rollbacks"], spent["conflicts"]) == (1, 0)
    assert spent["wasted"] > spent["used"]  # the plan that was good was held for no time at all
    assert problem.wait_bound("other") == ["small"]


def test_a_hold_that_was_good_is_used(problem: Workbench, scheduler: Scheduler) -> None:
    problem.remove_node("small")
    before = cost(scheduler, "hoarding")
    member(problem, "a", "1Gi", "hoarding")
    problem.wait_pod("a", said, "waiting for its gang")
    member(problem, "b", "512Mi", "hoarding")
    spent = settled(problem, scheduler, "hoarding", before)
    assert (spent["rollbacks"], spent["wasted"]) == (0, 0)
    assert spent["used"] > 0


def test_optimistic_claims_and_rolls_back(problem: Workbench, scheduler: Scheduler) -> None:
    before = cost(scheduler, "optimistic")
    member(problem, "a", "1Gi", "optimistic")
    assert problem.wait_pod("a", said, "waiting for its gang") == PLACE
    assert shown(scheduler, problem) == ("claimed", {"a": "small"})
    assert problem.node_of("a") == ""
    member(problem, "b", "512Mi", "optimistic")
    spent = settled(problem, scheduler, "optimistic", before)
    assert spent == {"rollbacks": 1, "conflicts": 0, "used": 0, "wasted": 0, "committed": 1}


def test_a_claim_keeps_nobody_out(problem: Workbench, scheduler: Scheduler) -> None:
    before = cost(scheduler, "optimistic")
    member(problem, "a", "1Gi", "optimistic")
    problem.wait_pod("a", said, "waiting for its gang")
    problem.pod("other", "1Gi", nodeSelector={"kubernetes.io/hostname": "small"})
    assert problem.wait_bound("other") == ["small"]
    member(problem, "b", "512Mi", "optimistic")
    spent = settled(problem, scheduler, "optimistic", before)
    assert (spent["conflicts"], spent["wasted"]) == (1, 0)


@pytest.mark.parametrize("strategy", ["hoarding", "optimistic"])
def test_only_members_without_a_place_ask_for_nodes(
    bench: Workbench, scheduler: Scheduler, strategy: str
) -> None:
    """Cluster autoscalers add nodes for pods that are `Unschedulable`."""
    bench.node("first", memory="1Gi")
    # Not for them, but what may be held is a share of all there is.
    bench.node("tainted", memory="4Gi", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    for name in ("a", "b"):
        member(bench, name, "1Gi", strategy, topology_key="")
    placed: list[str] = []
    lacking: list[str] = []
    for name in ("a", "b"):
        reason = bench.wait_pod(name, lambda pod: condition(pod, "PodScheduled").get("reason"), "told")
        (placed if reason == "WaitingForGang" else lacking).append(name)
    assert len(placed) == 1
    [name] = lacking
    assert "1 Insufficient memory" in bench.wait_unschedulable(name)
    assert [bench.node_of(name) for name in ("a", "b")] == ["", ""]
    bench.node("second", memory="1Gi")
    assert sorted(bench.wait_bound("a", "b")) == ["first", "second"]


@pytest.mark.parametrize("strategy", ["atomic", "hoarding", "optimistic"])
def test_a_gang_that_fits_nowhere_asks_for_nodes(
    bench: Workbench, scheduler: Scheduler, strategy: str
) -> None:
    bench.node("small", memory="1Gi")
    for name in ("a", "b"):
        member(bench, name, "2Gi", strategy, topology_key="")
    for name in ("a", "b"):
        assert "1 Insufficient memory" in bench.wait_unschedulable(name)
