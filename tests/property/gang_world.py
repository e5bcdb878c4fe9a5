"""A small cluster in virtual time, where gangs are committed by processes that die, freeze and hear nothing.

The journal, the transactions, the recovery, the committer and the writer are the real ones; what they talk
to is a model of the API server (pods, one ConfigMap, uid and resourceVersion preconditions) that plays a
fault at named points. Each leader is a task; its planner is as simple as can be. The world itself keeps
the record that the invariants are checked against.
"""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from scheduler.api import Pod
from scheduler.kube.binding import BindOutcome
from scheduler.kube.client import KubeClient
from scheduler.kube.errors import ApiError
from scheduler.kube.gangs.actions import TXN_ANNOTATION, Commit, Ended, Member
from scheduler.kube.gangs.committer import GangCommitter, Terms
from scheduler.kube.gangs.recovery import Unfinished, member_of
from scheduler.kube.journal import Journal
from scheduler.kube.journal_format import Fenced
from scheduler.kube.writer import Writer, WriterLimits
from tests.property.gang_faults import Client, Fault
from tests.unit.virtual_time import VirtualTimeLoop

Json = dict[str, Any]

LEASE_S = 15.0
RENEW_DEADLINE_S = 10.0
DEADLINE_S = 20.0
QUIET_S = 130.0
"""Nothing that was sent is still under way after such a time without any change."""
ATTEMPTS = 3
"""How often a leader's planner begins with a gang."""
EPOCH_START = 1_700_000_000.0


@dataclass(frozen=True)
class GangSpec:
    """`unbindable` members are refused by the API server; `orphans` have no controller."""

    members: int
    min_count: int
    unbindable: int = 0
    orphans: int = 0
    delete_uncontrolled: bool = False


@dataclass
class Bound:
    """A bind that was executed."""

    at: float
    uid: str
    gang: str
    txn: str
    process: int


@dataclass
class World:
    gangs: Mapping[str, GangSpec]
    faults: list[Fault]
    seed: int
    disturbed: bool = False
    """Somebody changes pods all the time."""
    heirs_give_up: bool = False
    """There is no room any more: later leaders begin with no gang and give up those that are left."""
    pods: dict[str, Json] = field(default_factory=dict)
    journal: Json | None = None
    binds: list[Bound] = field(default_factory=list)
    deletes: list[tuple[str, str]] = field(default_factory=list)
    """(uid, transaction that it was bound for)."""
    condemned: set[str] = field(default_factory=set)
    """Transactions whose compensation has been durable."""
    never_to_delete: set[str] = field(default_factory=set)
    completed_gangs: set[str] = field(default_factory=set)
    partial: dict[str, float] = field(default_factory=dict)
    longest_partial_s: float = 0.0
    reached: list[str] = field(default_factory=list)
    hit: list[Fault] = field(default_factory=list)
    down_until: float = 0.0
    processes: list["Process"] = field(default_factory=list)
    version: int = 100
    active_at: float = 0.0
    created: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        for gang, spec in self.gangs.items():
            for number in range(spec.members):
                self.add_pod(
                    gang, unbindable=number < spec.unbindable, orphan=number >= spec.members - spec.orphans
                )

    # Time.

    @staticmethod
    def now() -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return EPOCH_START + self.now()

    # The API server.

    def add_pod(self, gang: str, *, unbindable: bool = False, orphan: bool = False) -> None:
        self.created += 1
        self.version += 1
        uid = f"u{self.created}"
        if orphan and not self.gangs[gang].delete_uncontrolled:
            self.never_to_delete.add(uid)
        owner = [] if orphan else [{"kind": "Job", "name": gang, "uid": gang, "controller": True}]
        self.pods[uid] = {
            "metadata": {
                "name": uid,
                "namespace": "ns",
                "uid": uid,
                "resourceVersion": str(self.version),
                "labels": {"gang": gang},
                "annotations": {"unbindable": "yes"} if unbindable else {},
                "ownerReferences": owner,
            },
            "spec": {},
            "status": {"phase": "Pending", "conditions": []},
        }

    def bound(self, gang: str) -> list[Json]:
        return [
            pod
            for pod in self.pods.values()
            if pod["metadata"]["labels"]["gang"] == gang and "nodeName" in pod["spec"]
        ]

    def is_kept(self, pod: Json) -> bool:
        """Whether it may stay, though its gang can't be completed."""
        metadata = pod["metadata"]
        condemned = metadata["annotations"].get(TXN_ANNOTATION) in self.condemned
        return condemned and metadata["uid"] in self.never_to_delete

    def entries(self) -> list[Json]:
        data = self.journal["data"] if self.journal else {}
        return [json.loads(text) for key, text in data.items() if key.startswith("gang.")]

    def execute(self, process: "Process", method: str, path: str, body: bytes | None) -> Json:
        """Carry a request out at once. Raises ApiError."""
        sent = json.loads(body) if body else {}
        parts = path.strip("/").split("/")
        match method, parts[4:]:
            case "GET", ["configmaps", _]:
                return self._found(self.journal)
            case "POST", ["configmaps"]:
                if self.journal is not None:
                    raise self._error(409, "AlreadyExists")
                return self._store(sent)
            case "PUT", ["configmaps", _]:
                stored = self._found(self.journal)
                if sent["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
                    raise self._error(409, "Conflict")
                return stored if sent["data"] == stored["data"] else self._store(sent)
            case "GET", ["pods", uid]:
                return self._found(self.pods.get(uid))
            case "POST", ["pods", uid, "binding"]:
                return self._bind(process, uid, sent)
            case "PATCH", ["pods", uid, "status"]:
                return self._patch(uid, sent)
            case "DELETE", ["pods", uid]:
                pod = self._found(self.pods.get(uid))
                assert sent["preconditions"]["uid"] == uid
                self._delete(pod)
                return pod
            case "POST", [_, "events"]:
                return {}
        raise AssertionError(f"{method} {path}")

    def _bind(self, process: "Process", uid: str, binding: Json) -> Json:
        pod = self._found(self.pods.get(uid))
        metadata = pod["metadata"]
        version = binding["metadata"].get("resourceVersion", metadata["resourceVersion"])
        if version != metadata["resourceVersion"] or "nodeName" in pod["spec"]:
            raise self._error(409, "Conflict")
        if "unbindable" in metadata["annotations"]:
            raise self._error(403, "Forbidden")
        metadata["annotations"] |= binding["metadata"].get("annotations", {})
        pod["spec"]["nodeName"] = binding["target"]["name"]
        at = datetime.fromtimestamp(int(self.wall()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        others = [c for c in pod["status"]["conditions"] if c["type"] != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at}
        pod["status"]["conditions"] = [*others, scheduled]
        self._changed(pod)
        gang = metadata["labels"]["gang"]
        self.binds.append(
            Bound(self.now(), uid, gang, metadata["annotations"].get(TXN_ANNOTATION, ""), process.number)
        )
        self._account(gang)
        return {}

    def _patch(self, uid: str, patch: Json) -> Json:
        pod = self._found(self.pods.get(uid))
        assert patch["metadata"]["uid"] == uid
        if patch["metadata"].get("resourceVersion", "") not in ("", pod["metadata"]["resourceVersion"]):
            raise self._error(409, "Conflict")
        for condition in patch["status"].get("conditions", ()):
            old = [c for c in pod["status"]["conditions"] if c["type"] == condition["type"]]
            if old != [condition]:
                pod["status"]["conditions"] = [c for c in pod["status"]["conditions"] if c not in old] + [
                    condition
                ]
                self._changed(pod)
        return pod

    def _delete(self, pod: Json) -> None:
        metadata = pod["metadata"]
        gang = metadata["labels"]["gang"]
        del self.pods[metadata["uid"]]
        self.active_at = self.now()
        self.deletes.append((metadata["uid"], metadata["annotations"].get(TXN_ANNOTATION, "")))
        self._account(gang)
        if metadata["ownerReferences"]:
            asyncio.get_running_loop().call_later(1.0, self.add_pod, gang)

    def _changed(self, pod: Json) -> None:
        self.active_at = self.now()
        self.version += 1
        pod["metadata"]["resourceVersion"] = str(self.version)

    def _store(self, sent: Json) -> Json:
        self.active_at = self.now()
        self.version += 1
        sent["metadata"]["resourceVersion"] = str(self.version)
        self.journal = sent
        self.condemned |= {entry["txn"] for entry in self.entries() if entry["state"] == "compensating"}
        return sent

    def _found(self, found: Json | None) -> Json:
        if found is None:
            raise self._error(404, "NotFound")
        return found

    @staticmethod
    def _error(status: int, reason: str) -> ApiError:
        return ApiError(status, reason=reason, message=reason)

    def _account(self, gang: str) -> None:
        """Keep the time that a gang has been partly bound; over once it was complete."""
        bound = len(self.bound(gang))
        if bound >= self.gangs[gang].min_count:
            self.completed_gangs.add(gang)
        if bound > 0 and gang not in self.completed_gangs:
            self.partial.setdefault(gang, self.now())
        elif gang in self.partial:
            self.longest_partial_s = max(self.longest_partial_s, self.now() - self.partial.pop(gang))

    # Faults.

    def fault_at(self, *points: str) -> str:
        for point in points:
            self.reached.append(point)
            for fault in self.faults:
                if fault.point == point and fault.nth == self.reached.count(point):
                    self.faults.remove(fault)
                    self.hit.append(fault)
                    self.active_at = self.now()
                    return fault.way
        return ""

    # Life.

    async def run(self, *, until_s: float) -> None:
        """Leaders come as the lease allows; the last one is left in peace."""
        tasks = [asyncio.create_task(self._disturb())] if self.disturbed else []
        self._start()
        while self.now() < until_s and self.now() < self.active_at + QUIET_S:
            await asyncio.sleep(1.0)
            leader = self.processes[-1]
            silent_s = self.now() - leader.silent_since if leader.silent_since is not None else 0.0
            if silent_s >= LEASE_S:
                self._start()
        for process in self.processes:
            process.kill()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(process.task for process in self.processes), return_exceptions=True)
        for process in self.processes:
            if not process.task.cancelled() and (error := process.task.exception()) is not None:
                raise error

    def _start(self) -> None:
        self.processes.append(Process(self, len(self.processes)))

    async def _disturb(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(0.001, 0.4))
            pod = self.rng.choice(list(self.pods.values()))
            self.version += 1
            pod["metadata"]["resourceVersion"] = str(self.version)


class Process:
    """A leader, from its election to its end."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.silent_since: float | None = None
        self.thaw_at = 0.0
        self.dead = False
        self.recovered_at: float | None = None
        self.fenced = False
        self.announced: set[str] = set()
        self.ended: dict[str, Ended] = {}
        self.attempts: dict[str, int] = {}
        self.txns: dict[str, str] = {}
        """Gang by transaction."""
        self.task = asyncio.create_task(self._main())

    @property
    def _gives_up(self) -> bool:
        return self.world.heirs_give_up and self.number > 0

    # What can happen to it.

    def may_write(self) -> bool:
        return self.silent_since is None or self.world.now() - self.silent_since < RENEW_DEADLINE_S

    def kill(self) -> None:
        self.dead = True
        self.silent_since = self.world.now()
        self.task.cancel()

    def freeze(self, seconds: float) -> None:
        if self.silent_since is None:
            self.silent_since = self.world.now()
        self.thaw_at = self.world.now() + seconds
        if seconds < RENEW_DEADLINE_S:
            asyncio.get_running_loop().call_later(seconds, self._renew)

    def _renew(self) -> None:
        if not self.dead:
            self.silent_since = None

    async def while_frozen(self) -> None:
        while self.world.now() < self.thaw_at:  # noqa: ASYNC110  (it may be frozen again)
            await asyncio.sleep(self.thaw_at - self.world.now())

    # What it does.

    async def _main(self) -> None:
        world = self.world
        rng = random.Random(world.seed + self.number)
        client = cast(KubeClient, Client(self))
        clock = asyncio.get_running_loop().time
        owner = f"process-{self.number}"
        self.journal = Journal(
            client, namespace="kube-system", owner=owner, may_write=self.may_write, rng=rng, wall=world.wall
        )
        self.writer = Writer(
            client,
            on_bound=lambda uid, outcome: self._on_bound(uid, outcome),
            leads=self.may_write,
            limits=WriterLimits(qps=1000.0, burst=1000, in_flight=4),
            rng=rng,
            clock=clock,
        )
        self.committer = GangCommitter(
            client,
            self.journal,
            self.writer,
            self,
            scheduler_name="wholepod",
            rng=rng,
            clock=clock,
            wall=world.wall,
        )
        try:
            left = await self.journal.open()
            async with asyncio.TaskGroup() as group:
                for work in (self.journal.run, self.committer.run, self.writer.run):
                    group.create_task(work())
                await asyncio.sleep(0.01)
                pods = await self._list()
                await self.committer.recover(left, pods, gang_of=gang_of, terms=self._terms)
                self.recovered_at = world.now()
                group.create_task(self._plan())
        except* Fenced:
            self._fenced()

    def _fenced(self) -> None:
        self.fenced = True
        self.dead = True
        if self.silent_since is None:
            self.silent_since = self.world.now()
        if self.world.fault_at("FENCED") == "kill":
            self.kill()

    def _terms(self, gang: str) -> Terms:
        return Terms(DEADLINE_S, self.world.gangs[gang].delete_uncontrolled, announced=False)

    async def _list(self) -> list[Pod]:
        await self.while_frozen()
        return [msgspec.convert(pod, Pod) for pod in self.world.pods.values()]

    async def _plan(self) -> None:
        """Begins with each gang that is not bound, a few times."""
        while True:
            pods = await self._list()
            for gang, spec in self.world.gangs.items():
                members = [pod for pod in pods if gang_of(pod) == gang]
                placed = tuple(member_of(pod) for pod in members if pod.spec.node_name)
                bound = len(placed)
                waiting = tuple(member_of(pod, "n1") for pod in members if not pod.spec.node_name)
                attempts = self.attempts.get(gang, 0)
                enough = bound + len(waiting) >= spec.min_count and not self._gives_up
                if bound < spec.min_count and enough and gang not in self.committer and attempts < ATTEMPTS:
                    self.attempts[gang] = attempts + 1
                    txn = f"{self.number}.{gang}.{attempts}"
                    self.txns[txn] = gang
                    self.committer.start(
                        Commit(
                            txn=txn,
                            gang=gang,
                            min_count=spec.min_count,
                            already_bound=placed,
                            members=waiting,
                            deadline_s=DEADLINE_S,
                            delete_uncontrolled=spec.delete_uncontrolled,
                        )
                    )
            await asyncio.sleep(1.0)

    def _on_bound(self, uid: str, outcome: BindOutcome) -> None:
        assert self.committer.on_bound(uid, outcome)

    # As the owner.

    def on_member(self, txn: str, member: Member, outcome: BindOutcome) -> None:
        pass

    def on_short(self, txn: str, missing: int) -> None:
        assert missing > 0
        gang = self.txns[txn]
        spare = [
            member_of(msgspec.convert(pod, Pod), "n2")
            for pod in self.world.pods.values()
            if pod["metadata"]["labels"]["gang"] == gang and "nodeName" not in pod["spec"]
        ]
        match 0 if self._gives_up else self.world.rng.randrange(4):
            case 0:
                self.committer.compensate(txn, "there are too few")
            case 1:
                pass  # and so the deadline does it
            case _ if len(spare) < missing:
                self.committer.compensate(txn, "there are too few")
            case _:
                self.committer.extend(txn, spare)

    async def announce(self, txn: str) -> None:
        await self.while_frozen()
        self.announced.add(txn)

    def on_ended(self, txn: str, ended: Ended) -> None:
        assert txn not in self.ended
        self.ended[txn] = ended

    def on_unfinished(self, unfinished: Unfinished) -> None:
        self.txns[unfinished.entry.txn] = unfinished.entry.gang


def gang_of(pod: Pod) -> str | None:
    return (pod.metadata.labels or {}).get("gang")


def play(world: World, *, until_s: float = 900.0) -> None:
    """Let it happen, then check that nothing is left half done."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(world.run(until_s=until_s))
    check(world)


def check(world: World) -> None:
    slack_s = 5.0 + 110.0 * len(world.hit)  # an election, and every repetition that a lost answer can cost
    kept = {uid for uid, pod in world.pods.items() if world.is_kept(pod)}
    assert not world.entries(), "journal entries are left behind"
    for gang, spec in world.gangs.items():
        bound = {pod["metadata"]["uid"] for pod in world.bound(gang)}
        assert len(bound) >= spec.min_count or bound <= kept, f"{gang} is partly bound: {bound}"
    if not kept:
        assert world.longest_partial_s <= DEADLINE_S + slack_s
    for uid, txn in world.deletes:
        assert txn, f"{uid} was deleted, and not bound by us"
        assert not any(txn in process.announced for process in world.processes), "a complete gang was deleted"
        assert uid not in world.never_to_delete, f"{uid} was deleted, and nothing creates it again"
    completed = {txn for process in world.processes for txn in process.announced}
    assert not completed & world.condemned, "a gang that had been given up was completed all the same"
    for bound_ in world.binds:
        heirs = [p.recovered_at for p in world.processes[bound_.process + 1 :] if p.recovered_at is not None]
        if heirs and bound_.at > min(heirs):
            assert bound_.txn in completed, f"a late bind came through: {bound_}"
