"""Gangs: whose room is kept, for how long, and what is bound when."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from scheduler.api import Pod
from scheduler.core.engine import Engine
from scheduler.extender import wire
from scheduler.extender.binds import Binds
from scheduler.extender.plans import LONGEST_LIVES, GangPlans
from scheduler.extender.verbs import Refused, Verbs
from scheduler.extender.wire import BindingArgs
from scheduler.kube.binding import Bound
from scheduler.kube.payloads import BindRequest
from tests.builders import decode_node, make_engine, make_profile
from tests.unit.extender.replay import Json, encoded
from tests.unit.extender.test_verbs import node, pod

LIVES_S = 10.0


def member(gang: str, name: str, memory: str = "4Gi", *, count: int = 2, **spec: Any) -> Json:
    found = pod(name, memory, **spec)
    found["metadata"]["annotations"] = {"wholepod.io/gang": gang, "wholepod.io/min-count": str(count)}
    return found


class Sent:
    """What would be sent to the API server."""

    def __init__(self) -> None:
        self.binds: list[BindRequest] = []
        self.then: Callable[[], None] | None = None
        """What the loop does soon after the first of them."""

    def bind(self, request: BindRequest) -> None:
        if self.then is not None and not self.binds:
            asyncio.get_running_loop().call_soon(self.then)
        self.binds.append(request)


class Cluster:
    """Nodes `a` and `b` with 4Gi each, unless told otherwise; `now` is the clock of plans."""

    def __init__(self, *nodes: Json, tick_s: float = 0.0, planning_s: float = 1.0) -> None:
        self.now, self.tick_s, self.why_not = 0.0, tick_s, ""
        self.engine: Engine = make_engine(None, make_profile("default-scheduler", preset="memory-fit"))
        self.engine.replace_nodes([decode_node(each) for each in nodes or (node("a"), node("b"))])
        self.plans = GangPlans(self.engine, self.clock, lives_s=LIVES_S, planning_s=planning_s)
        self.read_pod: Callable[[str, str], Any] = self.no_pod
        self.binds = Binds(
            self.engine,
            read_pod=lambda namespace, name: self.read_pod(namespace, name),
            why_not=lambda: self.why_not or None,
        )
        self.verbs = Verbs(self.engine, held=self.binds.held, plans=self.plans)
        self.sent = Sent()
        self.binds.connect(self.sent, self.verbs, self.plans)  # type: ignore[arg-type]

    def clock(self) -> float:
        self.now += self.tick_s
        return self.now

    async def no_pod(self, namespace: str, name: str) -> Pod | None:
        return None

    def see(self, *pods: Json, node: str = "") -> None:
        for each in pods:
            found = msgspec.json.decode(encoded(each), type=Pod)
            if node:
                spec = msgspec.structs.replace(found.spec, node_name=node)
                found = msgspec.structs.replace(found, spec=spec)
            self.engine.upsert_pod(found)

    def ask(self, who: Json, *names: str) -> Any:
        body = encoded({"Pod": who, "NodeNames": list(names or ("a", "b"))})
        return json.loads(wire.encode(self.verbs.filter(wire.decode_args(body))))

    def node_of(self, who: Json) -> str:
        [name] = self.ask(who)["NodeNames"]
        return str(name)

    async def bind(self, who: Json, node: str, timeout_s: float = 5.0) -> str:
        """Returns why not."""
        meta = who["metadata"]
        args = BindingArgs(meta["name"], meta["namespace"], meta["uid"], node)
        try:
            await self.binds.bind(args, timeout_s)
        except Refused as error:
            return str(error)
        return ""

    def confirm_all(self) -> None:
        for request in self.sent.binds:
            self.binds.on_bound(request.uid, Bound(request.node))


async def until_still() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_gang_that_never_comes_together_gives_its_room_back() -> None:
    cluster, gang, single = Cluster(), [member("h", f"h{i}") for i in range(2)], pod("x", "1Gi")
    cluster.see(*gang, single)
    cluster.ask(gang[0])
    refused = 0
    while cluster.now < LIVES_S * (LONGEST_LIVES + 1):
        cluster.now += LIVES_S * 0.3
        for each in (gang[0], single):
            try:
                answer = cluster.ask(each)
            except Refused:
                refused += 1
            else:
                if each is single:
                    assert answer["NodeNames"] == ["a", "b"]
                    assert refused > 0
                    assert cluster.now >= LIVES_S * LONGEST_LIVES
                    return
    pytest.fail("the room is still kept")


def test_a_gated_member_gets_no_room() -> None:
    cluster = Cluster(node("a"), node("b"), node("c"))
    gang = [member("h", "h0"), member("h", "h1"), member("h", "h2", schedulingGates=[{"name": "q"}])]
    cluster.see(*gang)
    cluster.ask(gang[0], "a", "b", "c")
    assert set(cluster.engine.state.pods) == {"uid-of-h0", "uid-of-h1"}


def test_a_plan_that_has_ended_is_no_one_elses_trouble() -> None:
    cluster, gang, single = Cluster(), [member("g", f"g{i}") for i in range(2)], pod("x", "1Gi")
    cluster.see(*gang, single)
    cluster.ask(gang[0])
    cluster.now += LIVES_S * 100
    assert cluster.ask(single)["NodeNames"] == ["a", "b"]


def test_a_pod_waits_for_a_plans_room_without_preempting() -> None:
    cluster, gang = Cluster(), [member("g", f"g{i}") for i in range(2)]
    cluster.see(*gang)
    cluster.ask(gang[0])
    with pytest.raises(Refused, match="kept for a gang"):
        cluster.ask(pod("x", "1Gi"))
    before = cluster.engine.state.nodes.requested.copy()
    assert set(cluster.ask(pod("y", "5Gi"))["FailedAndUnresolvableNodes"]) == {"a", "b"}
    assert (cluster.engine.state.nodes.requested == before).all()


async def test_nothing_comes_between_two_binds_of_a_gang() -> None:
    cluster, gang = Cluster(), [member("g", f"g{i}") for i in range(2)]
    cluster.see(*gang)
    nodes = [cluster.node_of(each) for each in gang]
    cluster.sent.then = lambda: cluster.see(pod("daemon", "4Gi"), node=nodes[0])
    waiting = [asyncio.create_task(cluster.bind(each, node)) for each, node in zip(gang, nodes, strict=True)]
    await until_still()
    assert [bind.uid for bind in cluster.sent.binds] == ["uid-of-g0", "uid-of-g1"]
    cluster.confirm_all()
    assert await asyncio.gather(*waiting) == ["", ""]
    assert cluster.plans.outcomes["complete"] == 1
    assert len(cluster.binds) == 0


async def test_a_member_that_is_deleted_meanwhile_ends_the_wait_for_all() -> None:
    cluster, gang = Cluster(), [member("g", f"g{i}", "2Gi", count=3) for i in range(3)]
    cluster.see(*gang)
    nodes = [cluster.node_of(each) for each in gang]
    first = asyncio.create_task(cluster.bind(gang[0], nodes[0]))
    await until_still()
    cluster.engine.remove_pod("uid-of-g2")
    assert "lost a member" in await cluster.bind(gang[1], nodes[1])
    assert "lost a member" in await first
    assert cluster.sent.binds == []
    assert not cluster.engine.state.pods


async def test_a_member_that_does_not_fit_any_more_ends_the_plan() -> None:
    cluster, gang = Cluster(), [member("g", f"g{i}") for i in range(2)]
    cluster.see(*gang)
    nodes = [cluster.node_of(each) for each in gang]
    first = asyncio.create_task(cluster.bind(gang[0], nodes[0]))
    await until_still()
    cluster.engine.upsert_node(decode_node(node(nodes[1], "1Gi")))
    assert "does not fit any more" in await cluster.bind(gang[1], nodes[1])
    assert "does not fit any more" in await first
    assert len(cluster.plans) == 0
    assert cluster.sent.binds == []
    assert not cluster.engine.state.pods


async def test_members_that_do_not_come_in_time_are_refused() -> None:
    cluster, gang = Cluster(), [member("g", f"g{i}") for i in range(2)]
    cluster.see(*gang)
    assert "only 1 of 2 members" in await cluster.bind(gang[0], cluster.node_of(gang[0]), 0.01)
    assert "only 1 of 2 members" in await cluster.bind(gang[1], cluster.node_of(gang[1]), 0.01)
    assert cluster.sent.binds == []


async def test_nothing_is_sent_when_the_process_has_begun_to_stop() -> None:
    cluster, gang, single = Cluster(), [member("g", f"g{i}", "2Gi") for i in range(2)], pod("x", "1Gi")
    cluster.see(*gang, single)
    nodes = [cluster.node_of(each) for each in gang]
    first = asyncio.create_task(cluster.bind(gang[0], nodes[0]))
    await until_still()
    cluster.why_not = "the extender is stopping"
    whys = [await cluster.bind(gang[1], nodes[1]), await first, await cluster.bind(single, "a")]
    assert whys == [cluster.why_not] * 3
    assert cluster.sent.binds == []


async def test_a_pod_that_is_looked_up_for_too_long_is_not_bound() -> None:
    cluster = Cluster()

    async def slow(namespace: str, name: str) -> Pod | None:
        await asyncio.Event().wait()
        return None

    cluster.read_pod = slow
    assert "in time" in await cluster.bind(pod("x"), "a", 0.01)
    assert cluster.sent.binds == []


def test_a_gang_that_is_planned_in_vain_rests() -> None:
    cluster = Cluster(tick_s=0.001)
    gang = [member("g", f"g{i}", count=3) for i in range(3)]
    cluster.see(*gang)
    assert set(cluster.ask(gang[0])["FailedAndUnresolvableNodes"]) == {"a", "b"}
    for each in gang[1:]:
        with pytest.raises(Refused):
            cluster.ask(each)
    assert cluster.plans.outcomes["infeasible"] == 1
    cluster.now += 1000
    cluster.ask(gang[1])
    assert cluster.plans.outcomes["infeasible"] == 2


def test_a_gang_that_takes_too_long_to_plan_is_tried_later() -> None:
    cluster = Cluster(tick_s=0.1, planning_s=0.01)
    gang = [member("g", f"g{i}") for i in range(2)]
    cluster.see(*gang)
    for each in gang:
        with pytest.raises(Refused, match="takes longer"):
            cluster.ask(each)
    assert not cluster.engine.state.pods


def test_what_passes_by_itself_is_a_failure_and_what_stays_is_not() -> None:
    cluster, alone = Cluster(), member("g", "g0")
    cluster.see(alone)
    with pytest.raises(Refused, match="1 of at least 2 members exist"):
        cluster.ask(alone)
    other = member("h", "h0", count=1)
    other["metadata"]["annotations"]["wholepod.io/strategy"] = "hoarding"
    cluster.see(other)
    assert "hoarding" in cluster.ask(other)["FailedAndUnresolvableNodes"]["a"]
