"""The engine against a naive model, through random histories in virtual time.

Pods and nodes come, change and go, binds succeed, fail, get lost or come too late, lists replace
watches. After every step the two must agree on everything there is to see: totals of each node, the
place of each pod, who is next, where it may go, and the very text of its event when it may not.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler.core.engine import Verdict
from tests.builders import Clock, decode_node, decode_pod, make_engine, make_profile
from tests.property.naive import GPU, PER_UNIT, Amounts, NaiveNode, NaivePod, NaiveScheduler

SCHEDULERS = frozenset({"wholepod", "default-scheduler"})
NOBODY_IS_EVICTED = {"postFilter": {"disabled": [{"name": "*"}]}}
NODE_NAMES = ("n1", "n2", "n3", "n4")
MOST_PODS = 14

SIZES: list[list[Amounts]] = [
    [],
    [{"cpu": 500, "memory": 512}],
    [{"cpu": 1000, "memory": 1024}],
    [{"cpu": 2000, "memory": 512}],
    [{"cpu": 500, "memory": 2048}],
    [{"cpu": 1000, GPU: 1, "memory": 1024}],
    # The same again, but the names of resources come up in another order.
    [{"cpu": 500, "memory": 512}, {"cpu": 500, GPU: 1, "memory": 512}],
]

pick = st.integers(0, 99)
"""Stands for one of the pods or nodes that there happen to be."""
TERMS = [("x", "zone"), ("x", "host"), ("y", "zone")]
apps = st.sampled_from(["x", "x", "y", None])
zones = st.sampled_from(["a", "b", None])
nodes = st.builds(
    NaiveNode,
    name=st.sampled_from(NODE_NAMES),
    allocatable=st.fixed_dictionaries(
        {
            "cpu": st.sampled_from([1000, 2000, 4000]),
            "memory": st.sampled_from([1024, 4096, 4096]),
            "pods": st.sampled_from([2, 5, 5]),
        },
        optional={GPU: st.integers(0, 2)},
    ),
    zone=zones,
    taint=st.sampled_from([None] * 6 + ["NoSchedule", "NoExecute", "PreferNoSchedule"]),
    cordoned=st.sampled_from([False] * 5 + [True]),
)
rules_of_pods = st.fixed_dictionaries(
    {"containers": st.sampled_from(SIZES)},
    optional={
        "ports": st.frozensets(st.sampled_from([80, 443]), max_size=2),
        "zone": st.sampled_from(["a", "b", None, None]),
        "pinned_to": st.sampled_from([None] * 6 + ["n1", "n2"]),
        "tolerates": st.booleans(),
        "claims": st.sampled_from([False] * 9 + [True]),
        "app": apps,
        "follows": st.sampled_from([None, None, None, *TERMS]),
        "avoids": st.sampled_from([None, None, *TERMS]),
        "spreads": st.sampled_from([None, None, None, "x"]),
        "priority": st.integers(0, 2),
        "gated": st.sampled_from([False] * 4 + [True]),
        "scheduler": st.sampled_from(sorted(SCHEDULERS)),
    },
)


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.engine = make_engine(
            self.clock, *(make_profile(n, plugins=NOBODY_IS_EVICTED) for n in sorted(SCHEDULERS))
        )
        self.model = NaiveScheduler(SCHEDULERS)
        self.born = 0
        self.heartbeats = 0
        self.eager = False

    # ---- helpers

    def _pods(self, **wanted: Any) -> list[NaivePod]:
        return [p for p in self.model.pods.values() if all(getattr(p, k) == v for k, v in wanted.items())]

    def _pod(self, which: int) -> NaivePod:
        return self._pods()[which % len(self.model.pods)]

    def _watch(self, pod: NaivePod, node: str | None) -> None:
        """The watch shows the pod, on this node."""
        self.engine.upsert_pod(decode_pod(pod.manifest(node)))
        self.model.seen(pod, node, self.clock())

    def _upsert_node(self, node: NaiveNode) -> None:
        self.model.nodes[node.name] = node
        self.engine.upsert_node(decode_node(node.manifest()))

    def _new_pod(self, name: str, fields: dict[str, Any]) -> NaivePod:
        self.born += 1
        pod = NaivePod(uid=f"u{self.born}", name=name, born=self.born, **{"scheduler": "wholepod", **fields})
        self.model.pods[pod.uid] = pod
        return pod

    def _decide(self) -> bool:
        expected = self.model.next(self.clock())
        decision = self.engine.decide()
        if decision is None:
            assert expected is None, f"{expected} was not tried"
            return False
        assert expected is not None, f"{decision} was tried too early"
        assert decision.pod.uid == expected.uid
        expected.attempts += 1
        assert decision.attempts == expected.attempts
        fitting = self.model.fitting(expected)
        if expected.terminating:
            assert decision.verdict is Verdict.TERMINATING
            expected.place = None
        elif fitting:
            assert decision.verdict is Verdict.PLACED, decision.message
            assert not expected.awaits_answer, "its bind is under way already"
            assert decision.node in fitting
            self.model.assume(expected, decision.node)
        else:
            assert decision.verdict is Verdict.UNSCHEDULABLE
            assert decision.message == self.model.text(expected)
            self.model.back_off(expected, "unschedulable", self.clock())
        return True

    @initialize(
        some_nodes=st.lists(nodes, min_size=2, max_size=4),
        some_pods=st.lists(rules_of_pods, min_size=2, max_size=4),
        eager=st.sampled_from([True, True, False]),
    )
    def begin(self, some_nodes: list[NaiveNode], some_pods: list[dict[str, Any]], eager: bool) -> None:
        """eager: decides after every step, as the loop does; else when told to, so that events pile up."""
        self.eager = eager
        for node in some_nodes:
            self._upsert_node(node)
        for fields in some_pods:
            self.pods_created(fields, 2)

    # ---- pods

    @precondition(lambda self: len(self.model.pods) < MOST_PODS)
    @rule(fields=rules_of_pods, count=st.integers(1, 3))
    def pods_created(self, fields: dict[str, Any], count: int) -> None:
        """Pods are seldom alone of their kind, and kinds share cached answers."""
        for _ in range(count):
            self._watch(self._new_pod(f"p{self.born}", fields), None)

    @precondition(lambda self: 0 < len(self.model.pods) < MOST_PODS)
    @rule(which=pick, relabel=st.booleans(), app=apps)
    def pod_replicated(self, which: int, relabel: bool, app: str | None) -> None:
        """Labels alone don't make another kind."""
        like = self._pod(which)
        fields = "containers ports zone pinned_to tolerates claims app follows avoids spreads priority"
        new = {field: getattr(like, field) for field in fields.split()}
        self._watch(self._new_pod(f"p{self.born}", {**new, "app": app} if relabel else new), None)

    @precondition(lambda self: len(self.model.pods) < MOST_PODS)
    @rule(fields=rules_of_pods, node=st.sampled_from([*NODE_NAMES, "unknown"]))
    def pod_of_somebody_else(self, fields: dict[str, Any], node: str) -> None:
        pod = self._new_pod(f"p{self.born}", {**fields, "gated": False, "scheduler": "somebody-else"})
        self._watch(pod, None)
        pod.api_node = node
        self._watch(pod, node)

    @precondition(lambda self: self.model.pods)
    @rule(which=pick, phase=st.sampled_from([None, "Succeeded", "Failed"]), again=st.booleans())
    def pod_ended(self, which: int, phase: str | None, again: bool) -> None:
        """Deleted or finished; perhaps another one takes its name."""
        pod = self._pod(which)
        del self.model.pods[pod.uid]
        if phase is None:
            self.engine.remove_pod(pod.uid)
        else:
            manifest = pod.manifest(pod.api_node)
            manifest["status"]["phase"] = phase
            self.engine.upsert_pod(decode_pod(manifest))
        if again:
            self._watch(self._new_pod(pod.name, {"containers": pod.containers}), None)

    @precondition(lambda self: self.model.pods)
    @rule(which=pick, what=st.sampled_from(["gated", "terminating", "tolerates"]))
    def pod_switched(self, which: int, what: str) -> None:
        """What can change in one direction only."""
        pod = self._pod(which)
        setattr(pod, what, what != "gated")
        self._watch(pod, pod.api_node)

    @precondition(lambda self: self.model.pods)
    @rule(which=pick, size=st.sampled_from(SIZES))
    def pod_resized(self, which: int, size: list[Amounts]) -> None:
        pod = self._pod(which)
        pod.containers = size
        self._watch(pod, pod.api_node)

    @precondition(lambda self: self.model.pods)
    @rule(which=pick, app=apps)
    def pod_relabelled(self, which: int, app: str | None) -> None:
        pod = self._pod(which)
        pod.app = app
        self._watch(pod, pod.api_node)

    @precondition(lambda self: self.model.pods)
    @rule(which=pick)
    def stale_update(self, which: int) -> None:
        """An update from before the bind; also: one that changes nothing."""
        pod = self._pod(which)
        if pod.node is None or pod.assumed:
            self._watch(pod, None)

    @precondition(lambda self: self._pods(api_node=None, gated=False))
    @rule(which=pick, node=st.sampled_from([*NODE_NAMES, "unknown"]), seen=st.booleans())
    def bound_by_somebody_else(self, which: int, node: str, seen: bool) -> None:
        pods = self._pods(api_node=None, gated=False)
        pod = pods[which % len(pods)]
        pod.api_node = node
        if seen:
            self._watch(pod, node)

    # ---- binds

    @precondition(lambda self: self._pods(awaits_answer=True))
    @rule(
        outcomes=st.lists(st.sampled_from(["bound", "bound", "refused", "vanished", "lost"]), min_size=1),
        seen_first=st.booleans(),
    )
    def binds_answered(self, outcomes: list[str], seen_first: bool) -> None:
        for pod, outcome in zip(self._pods(awaits_answer=True), outcomes, strict=False):
            if outcome != "lost":
                self._bind_answered(pod, outcome, seen_first)

    def _bind_answered(self, pod: NaivePod, outcome: str, seen_first: bool) -> None:
        pod.awaits_answer = False
        target = pod.node if pod.assumed else None
        if pod.api_gone or (outcome == "vanished" and pod.api_node is None):
            pod.api_gone = True
            self._void(pod)
        elif pod.api_node is not None and pod.api_node != pod.node:
            self._void(pod)
        elif outcome == "refused" and pod.api_node is None:
            self.engine.bind_failed(pod.uid)
            self.model.forget(pod)
            self.model.back_off(pod, "backoff", self.clock())
        else:
            if target is not None:
                pod.api_node = target
            if seen_first:
                self._watch(pod, pod.api_node)
            self.engine.bind_confirmed(pod.uid)
            pod.place = None

    def _void(self, pod: NaivePod) -> None:
        self.engine.bind_void(pod.uid)
        self.model.forget(pod)
        pod.place = None

    @precondition(lambda self: any(p.api_node for p in self.model.pods.values()))
    @rule(which=pick)
    def watch_catches_up(self, which: int) -> None:
        pods = [p for p in self.model.pods.values() if p.api_node]
        pod = pods[which % len(pods)]
        self._watch(pod, pod.api_node)

    # ---- nodes

    @rule(node=nodes)
    def node_added_or_changed(self, node: NaiveNode) -> None:
        self._upsert_node(node)

    @precondition(lambda self: self.model.nodes)
    @rule(which=pick, field=st.sampled_from(["cordoned", "taint", "zone", "allocatable"]), like=nodes)
    def node_changed_a_little(self, which: int, field: str, like: NaiveNode) -> None:
        old = list(self.model.nodes.values())[which % len(self.model.nodes)]
        node = NaiveNode(old.name, old.allocatable, old.zone, old.taint, old.cordoned)
        setattr(node, field, getattr(like, field))
        self._upsert_node(node)

    @precondition(lambda self: self.model.nodes)
    @rule(which=pick, gone=st.booleans())
    def node_heartbeat_or_end(self, which: int, gone: bool) -> None:
        node = list(self.model.nodes.values())[which % len(self.model.nodes)]
        if gone:
            del self.model.nodes[node.name]
            self.engine.remove_node(node.name)
            return
        generation = self.engine.state.nodes.generation
        self.heartbeats += 1
        self.engine.upsert_node(decode_node(node.manifest(self.heartbeats)))
        assert self.engine.state.nodes.generation == generation

    # ---- lists

    @rule(missed=st.sets(pick, max_size=3), fields=st.lists(rules_of_pods, max_size=2))
    def pods_listed_anew(self, missed: set[int], fields: list[dict[str, Any]]) -> None:
        """After a gap, in which some pods went, some came, and all binds were seen through."""
        for pod in [p for i, p in enumerate(self._pods()) if i in missed or p.api_gone]:
            del self.model.pods[pod.uid]
        for new in fields:
            self._new_pod(f"p{self.born}", new)
        listed = [p for p in self._pods() if p.scheduler in SCHEDULERS or p.api_node is not None]
        pods = [decode_pod(pod.manifest(pod.api_node)) for pod in reversed(listed)]
        assert self.engine.replace_pods(pods) == []
        for pod in listed:
            self.model.seen(pod, pod.api_node, self.clock())

    @rule(missed=st.sets(st.sampled_from(NODE_NAMES), max_size=1), changed=st.lists(nodes, max_size=2))
    def nodes_listed_anew(self, missed: set[str], changed: list[NaiveNode]) -> None:
        for name in missed:
            self.model.nodes.pop(name, None)
        self.model.nodes.update({node.name: node for node in changed})
        listed = [decode_node(node.manifest()) for node in self.model.nodes.values()]
        assert self.engine.replace_nodes(listed) == []

    # ---- time and decisions

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 10.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: not self.eager)
    @rule(until_idle=st.booleans())
    def decides(self, until_idle: bool) -> None:
        if until_idle:
            self._decide_until_idle()
        else:
            self._decide()

    def _decide_until_idle(self) -> None:
        while self._decide():
            pass
        for pod in self._pods(place="unschedulable"):
            assert not self.model.fitting(pod), f"{pod} sleeps though it fits"
        due, expected = self.engine.next_due(), self.model.next_due()
        if expected is None:
            assert due is None
        else:
            assert due is not None
            assert self.clock() < due <= expected

    # ---- what must always hold

    @invariant()
    def decided_at_once(self) -> None:
        if self.eager:
            self._decide_until_idle()

    @invariant()
    def table_holds_the_same_totals(self) -> None:
        table = self.engine.state.nodes
        assert sorted(table.names) == sorted(self.model.nodes)
        for name, node in self.model.nodes.items():
            row = table.row_of[name]
            used = self.model.requested(name)
            for resource, index in table.resources.items():
                unit = PER_UNIT.get(resource, 1)
                assert table.requested[index, row] == used.get(resource, 0) * unit
                assert table.allocatable[index, row] == node.allocatable.get(resource, 0) * unit
            here = list(self.model.on_node(name))
            assert (table.pod_count[row], table.pod_limit[row]) == (len(here), node.allocatable["pods"])
            ports = [port for pod in here for port in pod.held_ports]
            assert sorted(port for _, port, _ in table.ports[row].elements()) == sorted(ports)

    @invariant()
    def every_pod_is_where_it_belongs(self) -> None:
        queued = {queued.info.uid: queued.place.value for queued in self.engine.queue}
        assert queued == {p.uid: p.place for p in self.model.pods.values() if p.place is not None}
        placed = {uid: (pod.node, pod.assumed) for uid, pod in self.engine.state.pods.items()}
        assert placed == {p.uid: (p.node, p.assumed) for p in self.model.pods.values() if p.node}
        assert self.engine.state.assumed_count == len(self._pods(assumed=True))


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(stateful_step_count=50)
