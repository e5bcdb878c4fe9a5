"""Gangs in the engine under whatever may happen, in virtual time.

The machine makes gangs of one strategy grow and shrink, single pods of other priorities come and go,
nodes appear and vanish, and others bind pods of their own. Pods and gangs of higher priority have others
evicted, who take their time to leave. Checked after each step: no node is used beyond its room by what we
decided, what is assumed is decided or held, a gang is never committed with fewer members than it needs, and
every waiting member is where it can go on from. Nobody is evicted for a gang that would not fit then, nor
anybody who could have stayed, and a group with disruption mode `all` goes whole or not at all. In the end
there is room for all, and so every gang that is complete must get its places.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from scheduler.api import ObjectMeta
from scheduler.api_objects import AllDisruptionMode, DisruptionMode, PodGroup
from scheduler.core.engine import Verdict
from scheduler.core.gangs.ref import GANG
from scheduler.core.preemption import Preemption
from scheduler.core.queue import Place
from tests.builders import Clock, PodBuilder, make_engine, make_node, make_pod

GANGS = ("g", "h", "k")


class GangMachine(RuleBasedStateMachine):
    strategy = "atomic"
    transaction = "all-or-nothing"

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.engine = make_engine(self.clock)
        self.number = 0
        self.pods: dict[str, PodBuilder] = {}
        self.node_of: dict[str, str] = {}
        """Of pods that are bound, by us or by others."""
        self.needs: dict[str, int] = {}
        self.foreign: set[str] = set()
        self.topology: dict[str, str] = {}
        self.leaving: set[str] = set()
        self.pending: dict[int, tuple[Preemption, set[str]]] = {}
        """Preemptions, and their preemptors that are known."""

    @initialize(needs=st.tuples(*[st.integers(1, 4)] * len(GANGS)), one_node=st.booleans())
    def start(self, needs: tuple[int, ...], one_node: bool) -> None:
        self.needs = dict(zip(GANGS, needs, strict=True))
        self.topology = {"wholepod.io/topology-key": "zone"} if one_node else {}
        self.add_node(3, "x")
        whole = DisruptionMode(all=AllDisruptionMode())
        group = PodGroup(metadata=ObjectMeta(name="whole", namespace="default"))
        self.engine.upsert_object(replace(group, spec=replace(group.spec, disruption_mode=whole)))

    # ---- what happens

    @rule(memory=st.integers(1, 4), zone=st.sampled_from("xy"))
    def add_node(self, memory: int, zone: str) -> None:
        self.number += 1
        node = make_node(f"n{self.number}").labels({"zone": zone}).allocatable(memory=f"{memory}Gi")
        self.engine.upsert_node(node.obj())

    @precondition(lambda self: self.engine.state.nodes.names)
    @rule(data=st.data())
    def remove_node(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.engine.state.nodes.names)))
        for uid in [uid for uid, node in self.node_of.items() if node == name]:
            self.delete(uid)
        self.engine.remove_node(name)

    @rule(gang=st.sampled_from(GANGS), memory=st.integers(1, 2))
    def add_member(self, gang: str, memory: int) -> None:
        annotations = {
            GANG: gang,
            "wholepod.io/min-count": str(self.needs[gang]),
            "wholepod.io/strategy": self.strategy,
            "wholepod.io/transaction": self.transaction,
            **self.topology,
        }
        self.add(make_pod().annotations(annotations).priority(2 * GANGS.index(gang)), memory)

    @rule(gang=st.sampled_from(GANGS), memory=st.integers(1, 2))
    def add_members(self, gang: str, memory: int) -> None:
        for _ in range(self.needs[gang]):
            self.add_member(gang, memory)

    @rule(memory=st.integers(1, 3), priority=st.integers(0, 3))
    def add_single(self, memory: int, priority: int) -> None:
        self.add(make_pod().priority(priority), memory)

    @precondition(lambda self: self.engine.state.nodes.names)
    @rule(data=st.data(), in_group=st.booleans())
    def somebody_else_binds(self, data: st.DataObject, in_group: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.engine.state.nodes.names)))
        row = self.engine.state.nodes.row_of[name]
        bound = sum(self.memory(uid) for uid, node in self.node_of.items() if node == name)
        if bound >= self.engine.state.nodes.allocatable[1, row] >> 30:
            return
        self.number += 1
        pod = make_pod().named(f"f{self.number}").req(memory="1Gi").scheduler("another").on(name)
        if in_group:
            pod.spec(schedulingGroup={"podGroupName": "whole"})
        self.foreign.add(pod.info().uid)
        self.pods[pod.info().uid] = pod
        self.node_of[pod.info().uid] = name
        self.engine.upsert_pod(pod.obj())

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def delete_some(self, data: st.DataObject) -> None:
        self.delete(data.draw(st.sampled_from(sorted(self.pods))))

    @rule(seconds=st.sampled_from([0.5, 2.0, 30.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(fails=st.booleans())
    def decide(self, fails: bool) -> None:
        self.decide_all(fails=fails)

    @precondition(lambda self: self.leaving)
    @rule(data=st.data())
    def victim_leaves(self, data: st.DataObject) -> None:
        self.delete(data.draw(st.sampled_from(sorted(self.leaving))))

    # ---- what must hold

    @invariant()
    def no_node_is_used_beyond_its_room(self) -> None:
        nodes = self.engine.state.nodes
        for name, row in nodes.row_of.items():
            ours = [p for p in self.engine.state.pods_on(name) if p.info.uid not in self.foreign]
            if len(ours) == len(self.engine.state.pods_on(name)):
                assert nodes.requested[1, row] <= nodes.allocatable[1, row]

    @invariant()
    def everybody_is_where_he_can_go_on_from(self) -> None:
        if self.engine.gangs.decided:
            return
        held = {uid for h in self.engine.gangs.hoarding.holdings for uid in h.holds}
        claimed = {uid for claims in self.engine.gangs.optimistic.claims.values() for uid in claims}
        for queued in self.engine.queue:
            uid = queued.info.uid
            assert (queued.place is Place.TENTATIVE) == (uid in held | claimed)
            if uid in held:
                assert self.engine.state.pods[uid].assumed
        for uid, placed in self.engine.state.pods.items():
            assert not placed.assumed or uid in held

    @invariant()
    def nobody_is_thought_away(self) -> None:
        assert not any(placed.lifted for placed in self.engine.state.pods.values())
        nodes = self.engine.state.nodes
        for name, row in nodes.row_of.items():
            there = [placed.info.requests["memory"] for placed in self.engine.state.pods_on(name)]
            assert nodes.requested[1, row] == sum(there)

    @invariant()
    def nobody_is_lost(self) -> None:
        for uid in self.pods:
            assert self.engine.knows(uid)

    def teardown(self) -> None:
        """With room for all, all complete gangs are placed."""
        for uid in [uid for uid, pod in self.pods.items() if GANG not in pod.info().annotations]:
            self.delete(uid)
        big = make_node("big").labels({"zone": "z"}).allocatable(memory="400Gi", pods="1000")
        if self.topology:
            for uid in list(self.node_of):
                self.delete(uid)
            for name in list(self.engine.state.nodes.names):
                self.engine.remove_node(name)
        self.engine.upsert_node(big.obj())
        for _ in range(60):
            for uid in list(self.leaving):
                self.delete(uid)
            self.clock.advance(11.0)
            self.decide_all()
        for gang in GANGS:
            members = [uid for uid, pod in self.pods.items() if pod.info().annotations.get(GANG) == gang]
            if members and len(members) >= self.needs[gang]:
                assert all(uid in self.node_of for uid in members), (gang, members)
        super().teardown()

    # ---- helpers

    def add(self, pod: PodBuilder, memory: int) -> None:
        self.number += 1
        pod.named(f"p{self.number}").req(memory=f"{memory}Gi").created(f"2026-01-01T00:{self.number:04}Z")
        self.pods[pod.info().uid] = pod
        self.engine.upsert_pod(pod.obj())

    def delete(self, uid: str) -> None:
        del self.pods[uid]
        self.node_of.pop(uid, None)
        self.foreign.discard(uid)
        self.leaving.discard(uid)
        self.engine.remove_pod(uid)

    def memory(self, uid: str) -> int:
        return self.pods[uid].info().requests["memory"] >> 30

    def decide_all(self, at_most: int | None = None, *, fails: bool = False) -> None:
        """`at_most`: calls of the engine, unless members of a commit are left to be handed out."""
        while True:
            self.decide_until_idle(at_most)
            if not self.pending:
                return
            for preemption, preemptors in self.pending.values():
                if preemption.gang is None or preemptors == preemption.gang.nodes.keys():
                    self.carry_out(preemption, min(preemptors), fails=fails)
            self.pending.clear()
            fails = False

    def carry_out(self, preemption: Preemption, preemptor: str, *, fails: bool) -> None:
        for victim in preemption.victims:
            if victim.uid in self.node_of and victim.uid not in self.leaving:
                self.leaving.add(victim.uid)
                why = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
                self.pods[victim.uid].terminating().status(conditions=[why])
                self.engine.upsert_pod(self.pods[victim.uid].obj())
            elif victim.uid not in self.node_of:
                self.engine.gangs.give_up(victim.uid, "others need its place")
            if fails:
                self.engine.preemption_failed(preemptor)
                return
        self.engine.preemption_done(preemptor)

    def check_preemption(self, preemption: Preemption) -> None:
        """Of a gang, at the moment of the decision."""
        assert preemption.gang is not None
        state, nodes = self.engine.state, preemption.gang.nodes
        priority = min(self.pods[uid].info().priority for uid in nodes)
        going = {victim.uid for victim in preemption.victims}
        assert all(victim.priority < priority for victim in preemption.victims)
        gang = self.pods[next(iter(nodes))].info().annotations[GANG]
        bound = [u for u in self.node_of if self.pods[u].info().annotations.get(GANG) == gang]
        assert len(bound) + len(nodes) >= self.needs[gang]
        group = {placed.info.uid for placed in state.pods_in_group("default", "whole")}
        assert not going & group or group <= going
        others = (other for other, _ in self.pending.values() if other is not preemption)
        leaving = self.leaving | {victim.uid for other in others for victim in other.victims}
        left: dict[str, int] = {}
        for name in set(nodes.values()):
            row = state.nodes.row_of[name]
            stay = [p.info for p in state.pods_on(name) if p.info.uid not in going]
            come = [info for info in state.nominations.on(name) if info.priority >= priority]
            assert {uid for uid, node in nodes.items() if node == name} <= {info.uid for info in come}
            taken = sum(info.requests["memory"] for info in (*stay, *come))
            left[name] = int(state.nodes.allocatable[1, row]) - taken
            assert left[name] >= 0
        units = [group] if group & going else []
        units += [{victim.uid} for victim in preemption.victims if victim.uid not in group]
        for unit in units:
            pods = [state.pods[uid] for uid in unit]
            if not any(state.pods[uid].assumed or uid in leaving for uid in unit):
                assert any(
                    sum(p.info.requests["memory"] for p in pods if p.node == name) > room
                    for name, room in left.items()
                )

    def decide_until_idle(self, at_most: int | None) -> None:
        commits: dict[int, tuple[Any, set[str]]] = {}
        for calls in count(1):
            decision = self.engine.decide()
            may_stop = at_most is not None and calls >= at_most and not self.engine.gangs.decided
            if decision is None and (may_stop or not self.engine.gangs.planning):
                break
            if decision is None:
                continue
            preemption = decision.preemption
            if preemption is not None:
                if preemption.gang is not None and id(preemption) not in self.pending:
                    self.check_preemption(preemption)
                self.pending.setdefault(id(preemption), (preemption, set()))[1].add(decision.pod.uid)
            uid = decision.pod.uid
            if decision.verdict is Verdict.PLACED:
                assert decision.node is not None
                gang = decision.pod.annotations.get(GANG)
                if decision.commit is not None:
                    commits.setdefault(id(decision.commit), (decision.commit, set()))[1].add(uid)
                elif gang is not None:
                    others = [o for o in self.node_of if self.pods[o].info().annotations.get(GANG) == gang]
                    assert len(others) >= self.needs[gang]
                self.engine.bind_confirmed(uid)
                self.pods[uid].on(decision.node)
                self.node_of[uid] = decision.node
                self.engine.upsert_pod(self.pods[uid].obj())
        for commit, uids in commits.values():
            assert commit.nodes.keys() == uids
            assert commit.placed_before + len(uids) >= commit.min_count
            assert commit.placed_before < commit.min_count


@pytest.mark.parametrize(
    ("strategy", "transaction"),
    [
        ("atomic", "all-or-nothing"),
        ("hoarding", "all-or-nothing"),
        ("optimistic", "all-or-nothing"),
        ("optimistic", "incremental"),
    ],
)
def test_gangs(strategy: str, transaction: str) -> None:
    machine = type("GangMachine", (GangMachine,), {"strategy": strategy, "transaction": transaction})
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=40))
