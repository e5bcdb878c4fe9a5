"""Metrics: that they parse, are named and labelled as kube-scheduler's, and count what they say."""

from __future__ import annotations

from typing import get_args

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.preemption import Preemption
from scheduler.kube.binding import BindOutcome
from scheduler.kube.deletion import DeletionOutcome
from scheduler.kube.writer import BIND, DELETE, EVENT, STATUS, VOLUMES
from scheduler.observe.metrics import Metrics
from tests.builders import Clock, make_engine, make_node, make_pod

KUBE_SCHEDULERS: dict[str, tuple[str, set[str]]] = {
    "scheduler_schedule_attempts_total": ("counter", {"result", "profile"}),
    "scheduler_scheduling_attempt_duration_seconds": ("histogram", {"result", "profile"}),
    "scheduler_scheduling_algorithm_duration_seconds": ("histogram", set()),
    "scheduler_pending_pods": ("gauge", {"queue"}),
    "scheduler_queue_incoming_pods_total": ("counter", {"queue", "event"}),
    "scheduler_pod_scheduling_attempts": ("histogram", set()),
    "scheduler_pod_scheduling_sli_duration_seconds": ("histogram", {"attempts"}),
    "scheduler_unschedulable_pods": ("gauge", {"plugin", "profile"}),
    "scheduler_preemption_attempts_total": ("counter", set()),
    "scheduler_preemption_victims": ("histogram", set()),
    "scheduler_cache_size": ("gauge", {"type"}),
    "rest_client_requests_total": ("counter", {"code", "method"}),
    "rest_client_request_duration_seconds": ("histogram", {"verb"}),
    "leader_election_master_status": ("gauge", {"name"}),
}


class Busy:
    """Metrics of a scheduler that has seen a bit of everything."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.engine: Engine = make_engine(self.clock)
        self.metrics = Metrics()
        self.metrics.watch_engine(self.engine)
        self.engine.upsert_node(make_node("node-a").allocatable(memory="3Gi").obj())
        self.engine.upsert_node(make_node("node-b").cordoned().obj())
        self.engine.upsert_pod(make_pod("runs").req(memory="1Gi").on("node-a").phase("Running").obj())
        self.engine.upsert_pod(make_pod("unknown").req(memory="2Gi").on("gone").phase("Unknown").obj())
        self.engine.upsert_pod(make_pod("fits").req(memory="1Gi").obj())
        self.engine.upsert_pod(make_pod("too large").req(memory="9Gi").obj())
        self.engine.upsert_pod(make_pod("gated").req(memory="1Gi").gated().obj())
        self.decisions: list[Decision] = []
        while (decision := self.engine.decide()) is not None:
            self.decisions.append(decision)
            self.metrics.decided(decision, 0.0002)
        self.metrics.on_request("POST", "201", 0.004)
        self.metrics.leader.labels("wholepod").set(1)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def families(self) -> dict[str, Metric]:
        text = generate_latest(self.metrics.registry).decode()
        return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture(scope="module")
def busy() -> Busy:
    busy = Busy()
    [placed] = [decision for decision in busy.decisions if decision.node]
    busy.metrics.bound(placed, 0.003, 0.01)
    return busy


@pytest.mark.parametrize("name", KUBE_SCHEDULERS)
def test_names_types_and_labels_are_kube_schedulers(name: str, busy: Busy) -> None:
    kind, labels = KUBE_SCHEDULERS[name]
    family = busy.families()[name.removesuffix("_total")]
    assert family.type == kind
    assert family.documentation
    assert family.samples, "nothing was counted"
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == labels


def test_no_series_is_of_a_pod_or_a_node(busy: Busy) -> None:
    values = {value for f in busy.families().values() for s in f.samples for value in s.labels.values()}
    forbidden = {"fits", "runs", "gated", "node-a", "node-b", "default"}
    assert {value for value in values if any(name in value for name in forbidden)} <= {"gated"}


def test_pods_and_their_memory(busy: Busy) -> None:
    assert {
        phase: busy.value("wholepod_pods", phase=phase) for phase in ("Pending", "Running", "Unknown")
    } == {
        "Pending": 3,
        "Running": 1,
        "Unknown": 1,
    }
    held = {p: busy.value("wholepod_pod_memory_bytes", phase=p) for p in ("Pending", "Running", "Unknown")}
    assert held == {"Pending": 1 << 30, "Running": 1 << 30, "Unknown": 2 << 30}
    assert busy.value("wholepod_node_memory_bytes", state="allocatable") == 11 << 30
    assert busy.value("wholepod_node_memory_bytes", state="requested") == 2 << 30


def test_the_queue(busy: Busy) -> None:
    depths = {
        q: busy.value("scheduler_pending_pods", queue=q)
        for q in ("active", "backoff", "unschedulable", "gated")
    }
    assert depths == {"active": 0, "backoff": 0, "unschedulable": 1, "gated": 1}
    assert busy.value("scheduler_queue_incoming_pods_total", queue="active", event="PodAdd") == 2
    for plugin in ("NodeResourcesFit", "NodeUnschedulable"):
        assert busy.value("scheduler_unschedulable_pods", plugin=plugin, profile="wholepod") == 1


def test_the_cache(busy: Busy) -> None:
    sizes = {
        kind: busy.value("scheduler_cache_size", type=kind) for kind in ("nodes", "pods", "assumed_pods")
    }
    assert sizes == {"nodes": 2, "pods": 3, "assumed_pods": 1}


def test_counters_of_trouble_begin_at_zero() -> None:
    """Or the first trouble would be no increase, and no alert."""
    metrics = Metrics()
    metrics.watch_resource("pods")

    def labels(name: str) -> set[tuple[str, ...]]:
        [family] = [family for family in metrics.registry.collect() if f"{family.name}_total" == name]
        assert {sample.value for sample in family.samples} == {0}
        return {tuple(value for _, value in sorted(sample.labels.items())) for sample in family.samples}

    def names(outcomes: object) -> set[tuple[str, ...]]:
        return {(outcome.__name__,) for outcome in get_args(outcomes)}

    assert labels("wholepod_binds_total") == names(BindOutcome)
    assert labels("wholepod_victims_total") == {*names(DeletionOutcome), ("Unbound",)}
    assert labels("wholepod_write_retries_total") == {
        (kind,) for kind in (BIND, DELETE, EVENT, STATUS, VOLUMES)
    }
    assert labels("wholepod_writes_shed_total") == {
        (kind, why) for kind in (EVENT, STATUS) for why in ("failed", "gone", "queue_full")
    }
    assert labels("wholepod_bind_races_total") == {("left",), ("recalled",), ("undone",)}
    assert labels("wholepod_gang_commits_ended_total") == {("complete",), ("given_up",)}
    assert labels("wholepod_unreadable_objects_total") == {("pods",)}


def test_attempts() -> None:
    busy = Busy()
    attempts = "scheduler_schedule_attempts_total"
    [placed] = [decision for decision in busy.decisions if decision.node]
    assert busy.value(attempts, result="unschedulable", profile="wholepod") == 1
    assert busy.value(attempts, result="scheduled", profile="wholepod") is None, "not before it is bound"
    busy.metrics.bound(placed, 0.003, 0.01)
    busy.metrics.bind_refused(placed, 0.5)
    assert busy.value(attempts, result="scheduled", profile="wholepod") == 1
    assert busy.value(attempts, result="error", profile="wholepod") == 1
    duration = "scheduler_scheduling_attempt_duration_seconds_sum"
    assert busy.value(duration, result="scheduled", profile="wholepod") == pytest.approx(0.003)
    assert busy.value("scheduler_scheduling_algorithm_duration_seconds_count") == 2
    assert busy.value("scheduler_pod_scheduling_attempts_sum") == 1
    assert busy.value("scheduler_pod_scheduling_sli_duration_seconds_count", attempts="1") == 1


@pytest.mark.parametrize(("attempts", "label"), [(1, "1"), (14, "14"), (15, "15+"), (1000, "15+")])
def test_the_label_of_attempts_is_bounded(attempts: int, label: str) -> None:
    busy = Busy()
    first = busy.decisions[0]
    late = Decision(first.pod, first.verdict, first.node, "", attempts=attempts, waited_s=0.0)
    busy.metrics.bound(late, 0.1, 0.1)
    assert busy.value("scheduler_pod_scheduling_sli_duration_seconds_count", attempts=label) == 1


def test_two_schedulers_in_one_process_have_their_own() -> None:
    one, other = Metrics(), Metrics()
    one.unreadable.labels("pods").inc()
    labels = {"resource": "pods"}
    assert one.registry.get_sample_value("wholepod_unreadable_objects_total", labels) == 1
    assert other.registry.get_sample_value("wholepod_unreadable_objects_total", labels) is None


@pytest.mark.parametrize(
    ("message", "victims", "attempts"),
    [
        ("0/1 nodes are available: 1 Insufficient memory.", 0, 0),
        (
            "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: "
            "1 No preemption victims found for incoming pod.",
            0,
            1,
        ),
        ("0/1 nodes are available: 1 Insufficient memory.", 3, 1),
    ],
)
def test_preemption(message: str, victims: int, attempts: int) -> None:
    busy = Busy()
    before = busy.value("scheduler_preemption_attempts_total") or 0.0
    preemption = Preemption("n", tuple(make_pod(f"v{i}").info() for i in range(victims)), 0)
    decision = Decision(
        make_pod().info(),
        Verdict.UNSCHEDULABLE,
        None,
        message,
        attempts=1,
        waited_s=0.0,
        preemption=preemption if victims else None,
    )
    busy.metrics.decided(decision, 0.001)
    assert busy.value("scheduler_preemption_attempts_total") == before + attempts
    assert busy.value("scheduler_preemption_victims_sum") == victims
    buckets = [busy.value("scheduler_preemption_victims_bucket", le=le) for le in ("2.0", "4.0", "64.0")]
    assert buckets == ([0, 1, 1] if victims else [0, 0, 0])
