"""Metrics of the extender; no label's values grow with the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

# A second series for each counter, that nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

VERBS = ("filter", "prioritize", "preempt", "bind")
OUTCOMES = ("answered", "refused", "malformed", "unavailable")
BINDS = ("Bound", "BoundElsewhere", "Gone", "Refused", "Unfit")


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._api_requests = Counter(
            "rest_client_requests_total",
            "Number of HTTP requests, by status code and method.",
            ["code", "method"],
            registry=self.registry,
        )
        self.requests = Counter(
            "wholepod_extender_requests_total",
            "Requests by verb and outcome: answered, refused (the answer's Error says why), malformed (a "
            "status of 400 to 499), unavailable (not in sync).",
            ["verb", "outcome"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "wholepod_extender_request_duration_seconds",
            "From a request's header to its answer.",
            ["verb"],
            buckets=[0.0005 * 2**i for i in range(15)],
            registry=self.registry,
        )
        self.nodes = Histogram(
            "wholepod_extender_request_nodes",
            "Nodes that a request is about.",
            ["verb"],
            buckets=[4**i for i in range(8)],
            registry=self.registry,
        )
        self.binds = Counter(
            "wholepod_extender_binds_total",
            "Binds by what became of them; Unfit: not sent, since the pod did not fit any more.",
            ["outcome"],
            registry=self.registry,
        )
        self.behind = Counter(
            "wholepod_extender_behind_total",
            "Requests that were refused since the watch of pods had not come as far as kube-scheduler's.",
            registry=self.registry,
        )
        self.unreadable = Counter(
            "wholepod_unreadable_objects_total",
            "Objects that could not be read and were skipped, by resource.",
            ["resource"],
            registry=self.registry,
        )
        for verb in VERBS:
            for outcome in OUTCOMES:
                self.requests.labels(verb, outcome)
        for outcome in BINDS:
            self.binds.labels(outcome)

    def watch(self, *, under_way: Callable[[], int], plans: Callable[[], Mapping[str, int]]) -> None:
        """What is asked for when metrics are."""
        self.registry.register(_Plans(plans))
        gauge = Gauge(
            "wholepod_extender_binds_under_way", "Binds without an outcome yet.", registry=self.registry
        )
        gauge.set_function(under_way)

    def on_request(self, verb: str, code: str, seconds: float) -> None:
        """For `KubeClient`."""
        self._api_requests.labels(code, verb).inc()


class _Plans(Collector):
    def __init__(self, outcomes: Callable[[], Mapping[str, int]]) -> None:
        self._outcomes = outcomes

    def collect(self) -> Iterator[Metric]:
        plans = CounterMetricFamily(
            "wholepod_extender_gang_plans_total",
            "Plans for gangs: made, infeasible; and of those made: complete (all that it had places for was "
            "bound), lapsed.",
            labels=["outcome"],
        )
        for outcome, number in self._outcomes().items():
            plans.add_metric([outcome], number)
        yield plans
