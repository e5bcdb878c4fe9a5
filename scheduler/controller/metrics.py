"""Metrics of the controller; no label's values grow with the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric

# A second series for each counter, that nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "rest_client_requests_total",
            "Number of HTTP requests, by status code and method.",
            ["code", "method"],
            registry=self.registry,
        )
        self.status_writes = Counter(
            "wholepod_controller_status_writes_total",
            "Statuses of PodGroups, by outcome: written, conflict (somebody else was quicker), gone, error.",
            ["outcome"],
            registry=self.registry,
        )
        self.created = Counter(
            "wholepod_controller_pod_groups_created_total",
            "PodGroups created for workloads, by the workload's kind.",
            ["kind"],
            registry=self.registry,
        )
        self.reviews = Counter(
            "wholepod_controller_admission_reviews_total",
            "Objects that the webhook was asked about, by kind and answer: allowed, warned, refused.",
            ["kind", "answer"],
            registry=self.registry,
        )
        self.failures = Counter(
            "wholepod_controller_reconcile_failures_total",
            "Attempts that failed and are made again, by what they were for: status, create, ports.",
            ["what"],
            registry=self.registry,
        )
        # There from the start, as a rate needs a sample before the first event.
        for outcome in ("written", "conflict", "gone", "error"):
            self.status_writes.labels(outcome)
        for what in ("status", "create", "ports"):
            self.failures.labels(what)

    def watch(
        self,
        *,
        phases: Callable[[], Mapping[str, int]],
        queues: Mapping[str, Sized],
        restarts: Callable[[], int],
    ) -> None:
        """What is asked for when metrics are."""
        self.registry.register(_State(phases, queues, restarts))

    def on_request(self, verb: str, code: str, seconds: float) -> None:
        """For `KubeClient`."""
        self._requests.labels(code, verb).inc()


class _State:
    def __init__(
        self,
        phases: Callable[[], Mapping[str, int]],
        queues: Mapping[str, Sized],
        restarts: Callable[[], int],
    ) -> None:
        self._phases, self._queues, self._restarts = phases, queues, restarts

    def collect(self) -> Iterator[Metric]:
        groups = GaugeMetricFamily(
            "wholepod_controller_pod_groups", "PodGroups of scheduling.x-k8s.io, by phase.", labels=["phase"]
        )
        for phase, number in sorted(self._phases().items()):
            groups.add_metric([phase], number)
        yield groups
        queued = GaugeMetricFamily(
            "wholepod_controller_queue_length", "What is to be looked at, now or later.", labels=["what"]
        )
        for what, queue in self._queues.items():
            queued.add_metric([what], len(queue))
        yield queued
        yield GaugeMetricFamily(
            "wholepod_controller_following_restarts",
            "How often the watches of groups and workloads had to be started anew as a whole.",
            value=self._restarts(),
        )
