"""Gangs in the engine under whatever may happen, in virtual time.

The machine makes gangs of one strategy grow and shrink, single pods of other priorities come and go,
nodes appear and vanish, and others bind pods of their own. Checked after each step: no node is used
beyond its room by what we decided, what is assumed is decided or held, a gang is never committed with
fewer members than it needs, and every waiting member is where it can go on from. In the end there is
room for all, and so every gang that is complete must get its places.
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

from scheduler.core.engine import Verdict
from scheduler.core.gangs.ref import GANG
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

    @initialize(needs=st.tuples(*[st.integers(1, 4)] * len(GANGS)), one_node=st.booleans())
    def start(self, needs: tuple[int, ...], one_node: bool) -> None:
        self.needs = dict(zip(GANGS, needs, strict=True))
        self.topology = {"wholepod.io/topology-key": "zone"} if one_node else {}
        self.add_node(3, "x")

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
        self.add(make_pod().annotations(annotations).priority(GANGS.index(gang)), memory)

    @rule(memory=st.integers(1, 3), priority=st.integers(0, 3))
    def add_single(self, memory: int, priority: int) -> None:
        self.add(make_pod().priority(priority), memory)

    @precondition(lambda self: self.engine.state.nodes.names)
    @rule(data=st.data())
    def somebody_else_binds(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.engine.state.nodes.names)))
        row = self.engine.state.nodes.row_of[name]
        bound = sum(self.memory(uid) for uid, node in self.node_of.items() if node == name)
        if bound >= self.engine.state.nodes.allocatable[1, row] >> 30:
            return
        self.number += 1
        pod = make_pod().named(f"f{self.number}").req(memory="1Gi").scheduler("another").on(name)
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

    @rule()
    def decide(self) -> None:
        self.decide_all()

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
    def nobody_is_lost(self) -> None:
        for uid in self.pods:
            assert self.engine.knows(uid)

    def teardown(self) -> None:
        """With room for all, all complete gangs are placed."""
        for uid in [uid for uid, pod in self.pods.items() if GANG not in pod.info().annotations]:
            self.delete(uid)
        big = make_node("big").labels({"zone": "z"}).allocatable(memory="400Gi")
        if self.topology:
            for uid in list(self.node_of):
                self.delete(uid)
            for name in list(self.engine.state.nodes.names):
                self.engine.remove_node(name)
        self.engine.upsert_node(big.obj())
        for _ in range(60):
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
        self.engine.remove_pod(uid)

    def memory(self, uid: str) -> int:
        return self.pods[uid].info().requests["memory"] >> 30

    def decide_all(self, at_most: int | None = None) -> None:
        """`at_most`: calls of the engine, unless members of a commit are left to be handed out."""
        commits: dict[int, tuple[Any, set[str]]] = {}
        for calls in count(1):
            decision = self.engine.decide()
            may_stop = at_most is not None and calls >= at_most and not self.engine.gangs.decided
            if decision is None and (may_stop or not self.engine.gangs.planning):
                break
            if decision is None:
                continue
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
