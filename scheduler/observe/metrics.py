"""Prometheus metrics: kube-scheduler's names for what it has too, `wholepod_…` for the rest.

Dashboards and alerts written for kube-scheduler work with a changed job selector. Names, labels and
buckets: pkg/scheduler/metrics/metrics.go; client-go's rest_client_… and leader election metrics.
No label is ever a pod, a node or a namespace, so the number of series does not grow with the cluster.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from scheduler.core.engine import Decision, Engine, Verdict
from scheduler.core.nodes import MEMORY
from scheduler.core.queue import Place
from scheduler.observe.gang_metrics import GangCollector
from scheduler.observe.room import room

# kube-scheduler has no `_created` series, and they double the number.
disable_created_metrics()  # type: ignore[no-untyped-call]


def _exponential(start: float, factor: float, count: int) -> list[float]:
    return [start * factor**i for i in range(count)]


_MAX_ATTEMPTS_LABEL = 15
_PREEMPTION_IN_VAIN = " preemption: "
"""The message says why, if preemption was tried."""
_RESULTS = {Verdict.PLACED: "scheduled", Verdict.UNSCHEDULABLE: "unschedulable", Verdict.ERROR: "error"}


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        labels = ["result", "profile"]
        self._attempts = Counter(
            "scheduler_schedule_attempts_total",
            "Attempts to schedule pods by result; 'unschedulable': no node fits; 'error': the bind failed.",
            labels,
            registry=self.registry,
        )
        self._attempt_duration = Histogram(
            "scheduler_scheduling_attempt_duration_seconds",
            "Scheduling attempt latency (decision and bind).",
            labels,
            buckets=_exponential(0.001, 2, 15),
            registry=self.registry,
        )
        self._algorithm_duration = Histogram(
            "scheduler_scheduling_algorithm_duration_seconds",
            "Time to decide for one pod.",
            buckets=_exponential(0.00001, 2, 15),
            registry=self.registry,
        )
        self._pod_attempts = Histogram(
            "scheduler_pod_scheduling_attempts",
            "Number of attempts to schedule a pod successfully.",
            buckets=_exponential(1, 2, 5),
            registry=self.registry,
        )
        self._sli_duration = Histogram(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "From the pod's first appearance, ungated, to its bind; may span several attempts.",
            ["attempts"],
            buckets=_exponential(0.01, 2, 20),
            registry=self.registry,
        )
        self._requests = Counter(
            "rest_client_requests_total",
            "Number of HTTP requests, by status code and method.",
            ["code", "method"],
            registry=self.registry,
        )
        self._request_duration = Histogram(
            "rest_client_request_duration_seconds",
            "Request latency by verb.",
            ["verb"],
            buckets=[0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60],
            registry=self.registry,
        )
        self._preemption_attempts = Counter(
            "scheduler_preemption_attempts_total",
            "Pods that found no node and for which victims were looked for.",
            registry=self.registry,
        )
        self._preemption_victims = Histogram(
            "scheduler_preemption_victims",
            "Number of victims that were chosen for one pod.",
            buckets=_exponential(1, 2, 7),
            registry=self.registry,
        )
        self._gang_preemption_victims = Histogram(
            "scheduler_workload_preemption_victims",
            "Number of victims that were chosen for one gang.",
            buckets=_exponential(1, 2, 11),
            registry=self.registry,
        )
        self.leader = Gauge(
            "leader_election_master_status",
            "1 while this process holds the lease, 0 while it waits for it.",
            ["name"],
            registry=self.registry,
        )
        self.binds = Counter(
            "wholepod_binds_total", "Binds by what became of them.", ["outcome"], registry=self.registry
        )
        self.victims = Counter(
            "wholepod_victims_total", "Victims by what became of them.", ["outcome"], registry=self.registry
        )
        self.races = Counter(
            "wholepod_bind_races_total",
            "Pods on nodes that others' binds and ours overfilled, by what became of them.",
            ["outcome"],
            registry=self.registry,
        )
        self.volume_errors = Counter(
            "scheduler_volume_scheduling_stage_error_total",
            "Pods whose volumes could not be bound, by stage.",
            ["operation"],
            registry=self.registry,
        )
        self.waiting_for_volumes = Gauge(
            "wholepod_pods_waiting_for_volumes",
            "Pods that have a node and can't be bound until their volumes are.",
            registry=self.registry,
        )
        self.gang_commits = Counter(
            "wholepod_gang_commits_ended_total",
            "Commits of gangs by what became of them: 'complete', or 'given_up'.",
            ["outcome"],
            registry=self.registry,
        )
        self.gang_restarts = Counter(
            "wholepod_gang_restarts_total",
            "Gangs of which all members were deleted after some were lost, to start anew.",
            registry=self.registry,
        )
        self.journal_entries = Gauge(
            "wholepod_journal_entries", "Gangs that are being bound, by the journal.", registry=self.registry
        )
        self.journal_trouble = Gauge(
            "wholepod_journal_trouble",
            "1 while the journal can't be written, so that no gang is bound.",
            registry=self.registry,
        )
        self.shed = Counter(
            "wholepod_writes_shed_total",
            "Status patches and events that were given up, by kind and why.",
            ["kind", "why"],
            registry=self.registry,
        )
        self.retries = Counter(
            "wholepod_write_retries_total",
            "Writes that were sent again, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.unreadable = Counter(
            "wholepod_unreadable_objects_total",
            "Objects that could not be read and were skipped, by resource.",
            ["resource"],
            registry=self.registry,
        )
        self._begin_at_zero()
        # A label look-up costs more than the count itself, so children are kept.
        self._by_request: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._by_result: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def _begin_at_zero(self) -> None:
        """A counter that begins at 1 shows no increase: the first trouble would go unseen."""
        for counter, values in (
            (self.binds, ("Bound", "BoundElsewhere", "Gone", "Refused")),
            (self.victims, ("Deleted", "Gone", "Refused", "Unbound")),
            (self.races, ("left", "recalled", "undone")),
            (self.gang_commits, ("complete", "given_up")),
            (self.volume_errors, ("bind",)),
            (self.retries, ("bind", "delete", "event", "status", "volumes")),
        ):
            for value in values:
                counter.labels(value)
        for kind in ("event", "status"):
            for why in ("failed", "gone", "queue_full"):
                self.shed.labels(kind, why)

    def watch_resource(self, name: str) -> None:
        """Objects of it are read from now on."""
        self.unreadable.labels(name)

    def watch_engine(self, engine: Engine) -> None:
        """Adds the gauges that are computed from the engine when scraped."""
        self.registry.register(_EngineCollector(engine))
        self.registry.register(GangCollector(engine))

    def on_request(self, verb: str, code: str, seconds: float) -> None:
        """For `KubeClient`."""
        bound = self._by_request.get((verb, code))
        if bound is None:
            children = self._requests.labels(code, verb), self._request_duration.labels(verb)
            bound = self._by_request[verb, code] = children
        bound[0].inc()
        bound[1].observe(seconds)

    def decided(self, decision: Decision, seconds: float) -> None:
        """A decision was made in `seconds`. A placed pod's attempt counts when its bind ends."""
        self._algorithm_duration.observe(seconds)
        if decision.verdict in (Verdict.UNSCHEDULABLE, Verdict.ERROR):
            self._attempt(_RESULTS[decision.verdict], decision, seconds)
        preemption = decision.preemption
        if preemption is not None and preemption.gang is not None:
            if decision.pod.uid == next(iter(preemption.gang.nodes)):  # all its members have it
                self._gang_preemption_victims.observe(len(preemption.victims))
        elif preemption is not None:
            self._preemption_attempts.inc()
            self._preemption_victims.observe(len(preemption.victims))
        elif decision.verdict is Verdict.UNSCHEDULABLE and _PREEMPTION_IN_VAIN in decision.message:
            self._preemption_attempts.inc()

    def bound(self, decision: Decision, seconds: float, since_seen_s: float) -> None:
        """A pod's bind was confirmed, `seconds` after its decision began."""
        self._attempt(_RESULTS[Verdict.PLACED], decision, seconds)
        self._pod_attempts.observe(decision.attempts)
        attempts = decision.attempts
        label = str(attempts) if attempts < _MAX_ATTEMPTS_LABEL else f"{_MAX_ATTEMPTS_LABEL}+"
        self._sli_duration.labels(label).observe(since_seen_s)

    def bind_refused(self, decision: Decision, seconds: float) -> None:
        self._attempt("error", decision, seconds)

    def _attempt(self, result: str, decision: Decision, seconds: float) -> None:
        key = (result, decision.pod.pod.spec.scheduler_name or "")
        bound = self._by_result.get(key)
        if bound is None:
            bound = self._by_result[key] = (self._attempts.labels(*key), self._attempt_duration.labels(*key))
        bound[0].inc()
        bound[1].observe(seconds)


class _EngineCollector(Collector):
    """Reads the engine at scrape time, so that counting costs the cycles nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        yield from self._queue(engine)
        yield from self._pods(engine)
        nodes = engine.state.nodes.view()
        memory = GaugeMetricFamily(
            "wholepod_node_memory_bytes", "Memory of all nodes together.", labels=["state"]
        )
        allocatable = int(nodes.allocatable[MEMORY].sum())
        requested = int(nodes.requested[MEMORY].sum())
        memory.add_metric(["allocatable"], allocatable)
        memory.add_metric(["requested"], requested)
        yield memory
        yield from room(nodes.allocatable[MEMORY] - nodes.requested[MEMORY])

    def _queue(self, engine: Engine) -> Iterator[Metric]:
        pending = GaugeMetricFamily(
            "scheduler_pending_pods", "Number of pending pods, by queue.", labels=["queue"]
        )
        for place, count in engine.queue.depths().items():
            if place is not Place.IN_FLIGHT:
                pending.add_metric([place.value], count)
        yield pending
        incoming = CounterMetricFamily(
            "scheduler_queue_incoming_pods", "Pods moved to a queue, by event.", labels=["queue", "event"]
        )
        for (queue, event), count in engine.queue.incoming.items():
            incoming.add_metric([queue, event], count)
        yield incoming
        unschedulable = GaugeMetricFamily(
            "scheduler_unschedulable_pods",
            "Unschedulable pods by the plugins that rejected them.",
            labels=["plugin", "profile"],
        )
        rejections: Tally[tuple[str, str]] = Tally()
        for queued in engine.queue:
            if queued.place is Place.UNSCHEDULABLE:
                rejections.update((plugin, queued.kind[0]) for plugin in queued.rejected_by)
        for labels, count in rejections.items():
            unschedulable.add_metric(labels, count)
        yield unschedulable

    def _pods(self, engine: Engine) -> Iterator[Metric]:
        cache = GaugeMetricFamily(
            "scheduler_cache_size", "Number of nodes, pods and assumed pods known.", labels=["type"]
        )
        cache.add_metric(["nodes"], len(engine.state.nodes))
        cache.add_metric(["pods"], len(engine.state.pods))
        cache.add_metric(["assumed_pods"], engine.state.assumed_count)
        yield cache
        counts: Tally[str] = Tally()
        held: Tally[str] = Tally()
        for placed in engine.state.pods.values():
            phase = placed.info.pod.status.phase or "Pending"
            counts[phase] += 1
            held[phase] += placed.info.usage.get("memory", 0)
        counts["Pending"] += sum(1 for queued in engine.queue if queued.place is not Place.IN_FLIGHT)
        pods = GaugeMetricFamily("wholepod_pods", "Pods by phase, finished ones excepted.", labels=["phase"])
        memory = GaugeMetricFamily(
            "wholepod_pod_memory_bytes", "Memory that pods hold on nodes, by phase.", labels=["phase"]
        )
        for phase in sorted({"Pending", "Running", "Unknown", *counts}):
            pods.add_metric([phase], counts[phase])
            memory.add_metric([phase], held[phase])
        yield pods
        yield memory
