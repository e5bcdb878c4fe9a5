"""The scheduler's promises once more, as slowly and plainly as possible.

Everything is recomputed from scratch out of dictionaries: what each node has left, who fits where
and why not, who waits in which queue and who is next. No caches, no arrays, no cleverness, and no
code shared with the scheduler, so that agreement with the real engine means something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.builders import Manifest, make_node, make_pod
from tests.property.naive_topology import Rules, Seen, Term

GPU = "example.com/gpu"
UNITS = {"cpu": "m", "memory": "Mi", GPU: "", "pods": ""}
PER_UNIT = {"memory": 1 << 20}
FLUSH_AFTER_S = 300.0
MAX_BACKOFF_S = 10.0

Amounts = dict[str, int]


def quantities(amounts: Amounts) -> dict[str, str]:
    return {name: f"{amount}{UNITS[name]}" for name, amount in amounts.items()}


@dataclass
class NaiveNode:
    name: str
    allocatable: Amounts
    zone: str | None = None
    taint: str | None = None
    """Effect of the taint `dedicated`, if it is there."""
    cordoned: bool = False

    @property
    def labels(self) -> dict[str, str]:
        return {"host": self.name, **({"zone": self.zone} if self.zone is not None else {})}

    def manifest(self, heartbeat: int = 0) -> Manifest:
        builder = make_node(self.name).cordoned(self.cordoned).annotations(heartbeat=str(heartbeat))
        builder.labels(self.labels)
        if self.taint is not None:
            builder.taint("dedicated", effect=self.taint)
        manifest = builder.manifest()
        manifest["status"]["allocatable"] = quantities(self.allocatable)
        return manifest


@dataclass
class NaivePod:
    """A pod as the API server has it, and where the scheduler should believe it to be."""

    uid: str
    name: str
    scheduler: str
    born: int
    containers: list[Amounts] = field(default_factory=list)
    ports: frozenset[int] = frozenset()
    zone: str | None = None
    pinned_to: str | None = None
    tolerates: bool = False
    claims: bool = False
    app: str | None = None
    follows: Term | None = None
    avoids: Term | None = None
    spreads: str | None = None
    priority: int = 0
    gated: bool = False
    terminating: bool = False
    api_node: str | None = None
    api_gone: bool = False
    """Deleted, but the watch has not said so yet."""

    place: str | None = None
    """active, backoff, unschedulable, gated, in-flight; None: not in the queue."""
    node: str | None = None
    """Where it takes room in the scheduler's picture."""
    assumed: bool = False
    held: Amounts = field(default_factory=dict)
    held_ports: frozenset[int] = frozenset()
    held_app: str | None = None
    held_terminating: bool = False
    awaits_answer: bool = False
    arrival: int = 0
    attempts: int = 0
    backoff_until: float = 0.0
    asleep_since: float = 0.0
    kind_seen: object = None
    app_seen: str | None = None

    @property
    def requests(self) -> Amounts:
        total: Counter[str] = Counter()
        for container in self.containers:
            total.update(container)
        return dict(total)

    @property
    def rules(self) -> Rules:
        return Rules(self.app, self.follows, self.avoids, self.spreads)

    @property
    def kind(self) -> object:
        rules = (self.ports, self.zone, self.pinned_to, self.tolerates, self.claims)
        topology = (self.follows, self.avoids, self.spreads)
        itself = (
            self.follows is not None and self.follows[0] == self.app,
            self.spreads is not None and self.spreads == self.app,
        )
        return sorted(self.requests.items()), rules, topology, itself

    def manifest(self, node: str | None) -> Manifest:
        builder = make_pod(self.name).uid(self.uid).scheduler(self.scheduler).priority(self.priority)
        builder.created(f"2026-01-01T00:00:00.{self.born:06}Z")
        for container in self.containers:
            builder.req(quantities(container))
        for port in sorted(self.ports):
            builder.host_port(port)
            builder._containers[-1]["resources"] = {"requests": {"cpu": "0", "memory": "0"}}
        if self.zone is not None:
            builder.selector({"zone": self.zone})
        if self.pinned_to is not None:
            builder.pinned_to(self.pinned_to)
        if self.tolerates:
            builder.toleration("dedicated", operator="Exists")
        if self.app is not None:
            builder.labels(app=self.app)
        affinity, constraints = self.rules.manifest()
        builder.spec(
            affinity={**builder._spec.get("affinity", {}), **affinity}, topologySpreadConstraints=constraints
        )
        if self.claims:
            builder.spec(resourceClaims=[{"name": "device"}])
        if self.gated:
            builder.gated()
        if self.terminating:
            builder.terminating()
        if node is not None:
            builder.on(node).phase("Running")
        return builder.manifest()


class NaiveScheduler:
    """What the engine should be doing."""

    def __init__(self, schedulers: frozenset[str]) -> None:
        self.schedulers = schedulers
        self.nodes: dict[str, NaiveNode] = {}
        self.pods: dict[str, NaivePod] = {}
        self._arrivals = 0

    # ---- room and fit

    def requested(self, node: str) -> Amounts:
        total: Counter[str] = Counter()
        for pod in self.on_node(node):
            total.update(pod.held)
        return dict(total)

    def on_node(self, node: str) -> Iterator[NaivePod]:
        return (pod for pod in self.pods.values() if pod.node == node)

    def rejections(self, pod: NaivePod, node: NaiveNode) -> list[str]:
        """Reasons of the first filter that says no."""
        if node.cordoned:
            return ["node(s) were unschedulable"]
        if node.taint in ("NoSchedule", "NoExecute") and not pod.tolerates:
            return ["node(s) had untolerated taint(s)"]
        if (pod.zone or node.zone) != node.zone or (pod.pinned_to or node.name) != node.name:
            return ["node(s) didn't match Pod's node affinity/selector"]
        here = list(self.on_node(node.name))
        if any(pod.ports & other.held_ports for other in here):
            return ["node(s) didn't have free ports for the requested pod ports"]
        used = self.requested(node.name)
        reasons = ["Too many pods"] if len(here) >= node.allocatable.get("pods", 0) else []
        for name, amount in pod.requests.items():
            if amount > node.allocatable.get(name, 0) - used.get(name, 0):
                reasons.append(f"Insufficient {name}")
        if reasons:
            return reasons
        counted = [n.labels for n in self.nodes.values() if (pod.zone or n.zone) == n.zone]
        if pod.pinned_to is not None:
            counted = [labels for labels in counted if labels["host"] == pod.pinned_to]
        rejection = pod.rules.rejection(node.labels, counted, self.seen_pods())
        return [rejection] if rejection is not None else []

    def seen_pods(self) -> list[Seen]:
        """The pods on nodes that there are."""
        return [
            Seen(self.nodes[pod.node].labels, pod.held_app, pod.held_terminating, pod.avoids, pod.follows)
            for pod in self.pods.values()
            if pod.node in self.nodes
        ]

    def fitting(self, pod: NaivePod) -> list[str]:
        if pod.claims:
            return []
        return [name for name, node in self.nodes.items() if not self.rejections(pod, node)]

    def text(self, pod: NaivePod) -> str:
        if not self.nodes:
            return "no nodes available to schedule pods"
        start = f"0/{len(self.nodes)} nodes are available: "
        if pod.claims:
            return start + "Wholepod does not support resource claims yet."
        counts: Counter[str] = Counter()
        for node in self.nodes.values():
            if pod.pinned_to is not None and node.name != pod.pinned_to:
                counts["node(s) didn't satisfy plugin(s) [NodeAffinity]"] += 1
            else:
                counts.update(self.rejections(pod, node))
        return start + ", ".join(sorted(f"{count} {text}" for text, count in counts.items())) + "."

    # ---- the queue

    def next(self, now: float) -> NaivePod | None:
        """Who is to be tried now; wakes whom it has to wake."""
        for pod in self.pods.values():
            if pod.place == "unschedulable" and self.fitting(pod):
                self._wake(pod, now)
        for pod in self.pods.values():
            if pod.place == "backoff" and pod.backoff_until <= now:
                pod.place = "active"
            if pod.place == "unschedulable" and pod.asleep_since + FLUSH_AFTER_S <= now:
                pod.place = "active"
        active = [pod for pod in self.pods.values() if pod.place == "active"]
        return min(active, key=lambda pod: (-pod.priority, pod.arrival), default=None)

    def next_due(self) -> float | None:
        times = [pod.backoff_until for pod in self.pods.values() if pod.place == "backoff"]
        times += [p.asleep_since + FLUSH_AFTER_S for p in self.pods.values() if p.place == "unschedulable"]
        return min(times, default=None)

    def back_off(self, pod: NaivePod, place: str, now: float) -> None:
        pod.place, pod.asleep_since = place, now
        pod.backoff_until = now + min(2.0 ** (pod.attempts - 1), MAX_BACKOFF_S)

    def _wake(self, pod: NaivePod, now: float) -> None:
        pod.place = "backoff" if pod.backoff_until > now else "active"

    # ---- what happens

    def assume(self, pod: NaivePod, node: str) -> None:
        pod.place, pod.awaits_answer = "in-flight", True
        self._occupy(pod, node, assumed=True)

    def forget(self, pod: NaivePod) -> None:
        if pod.assumed:
            pod.node, pod.assumed = None, False

    def seen(self, pod: NaivePod, node: str | None, now: float) -> None:
        """The watch shows the pod, on this node."""
        if node is not None:
            pod.place = None
            self._occupy(pod, node, assumed=False)
        elif pod.scheduler not in self.schedulers:
            return
        elif pod.place is not None:
            self._updated(pod, now)
        elif pod.node is None and not pod.terminating:
            self._arrivals += 1
            pod.arrival, pod.attempts, pod.kind_seen = self._arrivals, 0, pod.kind
            pod.app_seen = pod.app
            pod.place = "gated" if pod.gated else "active"

    def _updated(self, pod: NaivePod, now: float) -> None:
        before = Rules(pod.app_seen, None, None, None)
        concerned = before.concerns(self.seen_pods()) != pod.rules.concerns(self.seen_pods())
        changed = pod.kind != pod.kind_seen or concerned
        pod.kind_seen, pod.app_seen = pod.kind, pod.app
        if pod.place == "gated" and not pod.gated:
            pod.place = "active"
        elif pod.place == "unschedulable" and changed:
            self._wake(pod, now)

    def _occupy(self, pod: NaivePod, node: str, *, assumed: bool) -> None:
        pod.node, pod.assumed = node, assumed
        pod.held, pod.held_ports = pod.requests, pod.ports
        pod.held_app, pod.held_terminating = pod.app, pod.terminating
