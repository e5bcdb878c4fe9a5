"""The gangs' world with the real scheduler in it: engine, loop, strategies, and what binds and takes back.

Where `gang_world` has a planner as simple as can be, here each process is all of Wholepod but its
reflectors: it hears of pods from a watch that is late, has gaps and lists again. Pods come over time,
members are lost or finish, others take room by binding pods of their own, and single pods arrive. In the
end there is room for all.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import msgspec

from scheduler.api import Pod
from scheduler.core.engine import Engine
from scheduler.core.queue import SchedulingQueue
from scheduler.kube.client import KubeClient
from scheduler.kube.gangs.committer import GangCommitter
from scheduler.kube.gangs.groups import GroupConditions
from scheduler.kube.gangs.lists import finished_pods
from scheduler.kube.gangs.restarts import Restarts
from scheduler.kube.journal import Journal
from scheduler.kube.journal_format import Fenced
from scheduler.kube.reports import PodReports
from scheduler.kube.volume_binder import VolumeBinder
from scheduler.kube.writer import Writer, WriterLimits
from scheduler.loop import SchedulingLoop
from scheduler.observe.metrics import Metrics
from tests.builders import make_node, make_profile
from tests.property.gang_faults import Client
from tests.property.gang_world import Json, Process, World
from tests.unit.groups import Groups
from tests.unit.virtual_time import VirtualTimeLoop

GI = 2**30
HEALED_S = 110.0
"""From then on the API server refuses nobody, and nodes are added until there is room for all."""
DEADLINE_S = 20.0
_GANGS = {"maxHeldFraction": {"namespace": 1, "cluster": 1}, "compensationDeadline": DEADLINE_S}
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Happening:
    """At `at_s` a member of the gang is `lost`, `failed` or `finished`, or an `outsider` gets a node."""

    at_s: float
    what: str
    gang: str = ""


@dataclass
class ClusterWorld(World):
    strategy: str = "atomic"
    policy: str = "replace"
    nodes_gi: tuple[int, ...] = (4, 4)
    singles: int = 0
    happenings: tuple[Happening, ...] = ()
    node_memory: dict[str, int] = field(default_factory=dict)
    healed: bool = False

    def __post_init__(self) -> None:
        self.node_memory = {f"n{number}": gi for number, gi in enumerate(self.nodes_gi)}
        self.rng = random.Random(self.seed)

    # The API server.

    def add_pod(self, gang: str, *, unbindable: bool = False, orphan: bool = False) -> None:
        super().add_pod(gang, unbindable=unbindable, orphan=orphan)
        pod = self.pods[f"u{self.created}"]
        requests = {"memory": "1Gi"}
        pod["spec"] = {
            "schedulerName": "wholepod",
            "containers": [{"name": "c", "resources": {"requests": requests}}],
        }
        if gang in self.gangs:
            options = {
                "gang": gang,
                "min-count": str(self.gangs[gang].min_count),
                "strategy": self.strategy,
                "hold-timeout": "15s",
                "on-member-loss": self.policy,
            }
            pod["metadata"]["annotations"] |= {f"wholepod.io/{key}": value for key, value in options.items()}
        self.tell(pod)

    def execute(self, process: Process, method: str, path: str, body: bytes | None) -> Json:
        parts = path.strip("/").split("/")
        if (method, parts[4:]) == ("GET", ["pods"]):
            return {"metadata": {}, "items": list(self.pods.values())}
        return super().execute(process, method, path, body)

    def bound(self, gang: str) -> list[Json]:
        """Those that have succeeded count, those that have failed don't. `gang`: also as in the journal."""
        return [pod for pod in super().bound(gang.rpartition("/")[2]) if pod["status"]["phase"] != "Failed"]

    def _changed(self, pod: Json) -> None:
        super()._changed(pod)
        self.tell(pod)
        used = Counter(
            p["spec"]["nodeName"]
            for p in self.pods.values()
            if p["spec"]["schedulerName"] == "wholepod" and "nodeName" in p["spec"] and not is_finished(p)
        )  # whoever else binds pods there could only be found out too late
        over = {node: gi for node, gi in used.items() if gi > self.node_memory[node]}
        assert not over, f"bound beyond the room of a node: {over}"

    def _delete(self, pod: Json) -> None:
        super()._delete(pod)
        self.tell(pod, gone=True)

    def _account(self, gang: str) -> None:
        if gang in self.gangs:
            super()._account(gang)
            if all(is_finished(pod) for pod in self.bound(gang)):
                self.partial.pop(gang, None)  # nothing of it holds room

    def tell(self, pod: Json, *, gone: bool = False) -> None:
        """All watches."""
        seen = msgspec.convert(pod, Pod)
        for process in self.processes:
            if not process.dead:
                cast(Wholepod, process).feed.put_nowait((seen, gone or is_finished(pod)))

    # What happens.

    async def run(self, *, until_s: float) -> None:
        life = asyncio.create_task(self._live())
        try:
            await super().run(until_s=until_s)
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            if not life.cancelled() and (error := life.exception()) is not None:
                raise error

    async def _live(self) -> None:
        arrivals = [(gang, n) for gang, spec in self.gangs.items() for n in range(spec.members)]
        arrivals += [("", 0)] * self.singles
        self.rng.shuffle(arrivals)
        for gang, number in arrivals:
            await asyncio.sleep(self.rng.choice([0.0, 0.0, 0.1, 2.0]))
            self.active_at = self.now()
            spec = self.gangs.get(gang)
            self.add_pod(gang, unbindable=spec is not None and number < spec.unbindable)
        for happening in sorted(self.happenings, key=lambda h: h.at_s):
            await asyncio.sleep(max(0.0, happening.at_s - self.now()))
            self._happen(happening)
        await asyncio.sleep(max(0.0, HEALED_S - self.now()))
        self._heal()

    def _happen(self, happening: Happening) -> None:
        self.active_at = self.now()
        if happening.what == "outsider":
            self._let_outsider_in()
            return
        bound = [pod for pod in self.bound(happening.gang) if not is_finished(pod)]
        if not bound:
            return
        pod = self.rng.choice(bound)
        if happening.what == "lost":
            self._delete(pod)
            self.deletes.pop()
            return
        pod["status"]["phase"] = "Succeeded" if happening.what == "finished" else "Failed"
        self._changed(pod)
        self._account(happening.gang)
        if happening.what == "failed":
            asyncio.get_running_loop().call_later(1.0, self.add_pod, happening.gang)

    def _let_outsider_in(self) -> None:
        """A pod that was created with its node, where there is room."""
        used = Counter(pod["spec"].get("nodeName") for pod in self.pods.values() if not is_finished(pod))
        free = [node for node, gi in self.node_memory.items() if gi > used[node] + 3]
        if free:
            node = self.rng.choice(free)
            super().add_pod("")
            pod = self.pods[f"u{self.created}"]
            pod["spec"] = {"schedulerName": "other", "nodeName": node, "containers": []}
            self.tell(pod)

    def _heal(self) -> None:
        self.healed, self.active_at = True, self.now()
        self.node_memory["big"] = 100
        for process in self.processes:
            if cast(Wholepod, process).has_begun:  # others will see it when they do
                cast(Wholepod, process).see_nodes()
        for pod in self.pods.values():
            if pod["metadata"]["annotations"].pop("unbindable", None):
                self._changed(pod)

    async def _disturb(self) -> None:
        while not self.healed:
            await asyncio.sleep(self.rng.uniform(0.01, 1.0))
            if self.pods:
                pod = self.rng.choice(list(self.pods.values()))
                self.version += 1
                pod["metadata"]["resourceVersion"] = str(self.version)
                self.tell(pod)

    def _start(self) -> None:
        self.processes.append(Wholepod(self, len(self.processes)))


def is_finished(pod: Json) -> bool:
    return pod["status"]["phase"] in _FINISHED


class Wholepod(Process):
    """A leader with all that it has, from its election to its end."""

    world: ClusterWorld

    def __init__(self, world: ClusterWorld, number: int) -> None:
        self.feed: asyncio.Queue[tuple[Pod, bool]] = asyncio.Queue()
        self.has_begun = False
        super().__init__(world, number)

    async def _main(self) -> None:
        world = self.world
        rng = random.Random(world.seed + self.number)
        client = cast(KubeClient, Client(self))
        clock = asyncio.get_running_loop().time
        self.has_begun, self.took_over = True, False
        queue = SchedulingQueue(clock, initial_backoff_s=0.5, max_backoff_s=5.0)
        self.engine = Engine([make_profile(gangs=_GANGS)], clock=clock, queue=queue)
        self.loop = SchedulingLoop(self.engine, Metrics(), may_decide=self._may_decide, clock=clock)
        self.writer = Writer(
            client,
            on_bound=self.loop.on_bound,
            on_deleted=self.loop.on_deleted,
            leads=self.may_write,
            limits=WriterLimits(qps=1000.0, burst=1000, in_flight=4),
            rng=rng,
            clock=clock,
        )
        volumes = VolumeBinder(
            self.engine.state.nodes,
            self.writer,
            on_bound=self.loop.on_volumes_bound,
            on_failed=self.loop.on_volumes_failed,
        )
        groups: GroupConditions = Groups()
        self.loop.connect(self.writer, PodReports(self.writer, clock=clock), volumes, groups)
        owner, gangs = f"process-{self.number}", self.loop.gangs
        self.journal = Journal(
            client, namespace="kube-system", owner=owner, may_write=self.may_write, rng=rng, wall=world.wall
        )
        self.committer = GangCommitter(
            client,
            self.journal,
            self.writer,
            gangs,
            scheduler_name="wholepod",
            rng=rng,
            clock=clock,
            wall=world.wall,
        )
        restarts = Restarts(
            client,
            self.writer,
            gangs.losses,
            scheduler_name="wholepod",
            gang_of=gangs.key_of,
            leads=self.may_write,
            rng=rng,
            clock=clock,
        )
        self.see_nodes()
        try:
            left = await self.journal.open()
            async with asyncio.TaskGroup() as group:
                works = (self.journal.run, self.committer.run, restarts.run, self.writer.run, self.loop.run)
                for work in works:
                    group.create_task(work())
                await self.while_frozen()
                self._list_anew()
                group.create_task(self._watch(rng))
                known = self.engine.known_pods()
                finished = await finished_pods(client, left.entries, rng)
                uids = {pod.metadata.uid for pod in finished}
                pods = [*(pod for pod in known if pod.metadata.uid not in uids), *finished]
                await self.committer.recover(
                    left, pods, gang_of=gangs.key_of, terms=gangs.terms, is_there=gangs.is_there
                )
                self.recovered_at = world.now()
                gangs.serve(self.committer, restarts)
                self.took_over = True
                self.loop.wake()
        except* Fenced:
            self._fenced()

    def see_nodes(self) -> None:
        for name, gi in self.world.node_memory.items():
            self.loop.upsert_node(make_node(name).allocatable(memory=f"{gi}Gi").obj())

    def _may_decide(self) -> bool:
        return self.took_over and self.may_write() and self.world.now() >= self.thaw_at

    async def _watch(self, rng: random.Random) -> None:
        while True:
            pod, gone = await self.feed.get()
            await asyncio.sleep(rng.choice([0.0, 0.0, 0.01, 0.3]))
            await self.while_frozen()
            if self.world.disturbed and rng.random() < 0.05:  # a gap, and another list
                await asyncio.sleep(rng.uniform(0.1, 3.0))
                self._list_anew()
                continue
            if gone:
                self.loop.delete_pod(pod)
            else:
                self.loop.upsert_pod(pod)

    def _list_anew(self) -> None:
        while not self.feed.empty():
            self.feed.get_nowait()
        pods = [pod for pod in self.world.pods.values() if not is_finished(pod)]
        self.loop.replace_pods([msgspec.convert(pod, Pod) for pod in pods])


def check_cluster(world: ClusterWorld) -> None:
    """Invariants 1 to 4, when all has come to rest."""
    assert world.healed
    assert not world.entries(), "journal entries are left behind"
    slack_s = 5.0 + 110.0 * len(world.hit)
    assert world.longest_partial_s <= DEADLINE_S + slack_s
    assert not world.partial, f"bound in part: {world.partial}"
    incomplete: list[str] = []
    for gang, spec in world.gangs.items():
        there = [pod for pod in world.pods.values() if pod["metadata"]["labels"]["gang"] == gang]
        live = [pod for pod in there if not is_finished(pod)]
        bound = [pod for pod in live if "nodeName" in pod["spec"]]
        if len(live) >= spec.min_count:
            assert len(bound) == len(live), f"{gang}: {len(bound)} of {len(live)} members are bound"
        else:
            incomplete += [pod["metadata"]["uid"] for pod in live]
    state = cast(Wholepod, world.processes[-1]).engine.state
    left = {uid for uid, placed in state.pods.items() if placed.assumed}
    assert left <= set(incomplete), "a hold or an assumed pod is left behind"
    if world.policy != "restart":
        for uid, txn in world.deletes:
            assert txn, f"{uid} was deleted, and not bound for a gang"
            assert txn in world.condemned, f"{uid} was deleted, and its gang had not been given up"


def play_cluster(world: ClusterWorld, *, until_s: float = 1500.0) -> None:
    """Let it happen, then check."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(world.run(until_s=until_s))
    check_cluster(world)
